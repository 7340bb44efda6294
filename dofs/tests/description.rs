//! The committed API description and event schemas are current, and the documentation works without
//! internet access.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::api::Api;
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

fn repository_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read_files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let file = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

#[test]
fn committed_api_description_is_current() {
    let printed = Command::new(BINARY).arg("openapi").output().unwrap();
    let committed = std::fs::read_to_string(repository_root().join("openapi.json")).unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed, committed, "regenerate it: cargo run -- openapi > openapi.json");
}

#[test]
fn committed_event_schemas_are_current() {
    let written = tempfile::tempdir().unwrap();
    let ended = Command::new(BINARY).args(["openapi", "--events"]).arg(written.path()).status();
    assert!(ended.unwrap().success());
    let committed = read_files(&repository_root().join("docs/schemas"));
    assert_eq!(
        read_files(written.path()),
        committed,
        "regenerate them: cargo run -- openapi --events docs/schemas"
    );
    // Every golden event conforms to the schema of its type.
    for (name, schema) in committed {
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let golden =
            std::fs::read_to_string(repository_root().join("domain/tests/golden").join(&name));
        let golden: Value = serde_json::from_str(&golden.unwrap()).unwrap();
        let known = schema["properties"].as_object().unwrap();
        for member in golden.as_object().unwrap().keys() {
            assert!(known.contains_key(member), "{name}: {member}");
        }
        for member in schema["required"].as_array().unwrap() {
            assert!(golden.get(member.as_str().unwrap()).is_some(), "{name}: {member}");
        }
    }
}

/// Operations that need no key.
const PUBLIC: [&str; 4] = ["getDocs", "getLiveness", "getOpenApi", "getReadiness"];

/// Returns the operations of the committed description.
fn operations(document: &Value) -> Vec<&Value> {
    let paths = document["paths"].as_object().unwrap().values();
    paths.flat_map(|item| item.as_object().unwrap().values()).collect()
}

fn committed() -> Value {
    let text = std::fs::read_to_string(repository_root().join("openapi.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Operations that need a key and no scope.
const ANY_KEY: [&str; 1] = ["getPrincipal"];

#[test]
fn every_operation_declares_its_scope() {
    let document = committed();
    let scopes = ["orders:write", "orders:read", "audit:read", "ops:read", "ops:write"];
    let has_scope = |operation: &&Value| {
        let security = &operation["security"];
        let scope = security[0]["api_key"][0].as_str().unwrap_or_default();
        scopes.contains(&scope) && security[1]["bearer"][0] == scope
    };
    let any_key = serde_json::json!([{"api_key": []}, {"bearer": []}]);
    let (of_any_key, with_scope_or_public): (Vec<_>, Vec<_>) =
        operations(&document).into_iter().partition(|operation| operation["security"] == any_key);
    assert!(of_any_key.iter().map(|operation| &operation["operationId"]).eq(&ANY_KEY));
    let (guarded, others): (Vec<_>, Vec<_>) = with_scope_or_public.into_iter().partition(has_scope);
    let mut public: Vec<_> =
        others.iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
    public.sort_unstable();
    assert_eq!(public, PUBLIC, "an operation declares no scope");
    assert!(others.iter().all(|operation| operation["security"] == serde_json::json!([{}])));
    let n_others = PUBLIC.len() + ANY_KEY.len();
    assert_eq!(guarded.len() + n_others, operations(&document).len());
}

#[test]
fn operation_ids_are_unique_and_in_camel_case() {
    let document = committed();
    let ids: Vec<_> = operations(&document)
        .iter()
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    assert!(ids.iter().all(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric())), "{ids:?}");
}

#[test]
fn every_body_has_a_valid_example() {
    let document = committed();
    let example_of = |content: &Value| {
        let schema = &content["schema"];
        // An optional body is a union of its type and null.
        let name = schema["$ref"].as_str().or_else(|| schema["oneOf"][0]["$ref"].as_str());
        let named =
            name.map(|name| &document["components"]["schemas"][name.rsplit('/').next().unwrap()]);
        let places = [Some(&content["example"]), named.map(|named| &named["example"])];
        let example = places.into_iter().flatten().find(|example| !example.is_null()).cloned();
        // A union of types is described by the examples of its members.
        example.or_else(|| named.filter(|named| named["oneOf"].is_array()).map(|_| Value::Null))
    };
    for operation in operations(&document) {
        let id = &operation["operationId"];
        let responses = operation["responses"].as_object().unwrap().iter();
        let successes = responses.filter(|(status, _)| status.starts_with('2')).map(|(_, it)| it);
        for body in successes.chain([&operation["requestBody"]]) {
            for (media_type, content) in body["content"].as_object().into_iter().flatten() {
                let example = example_of(content);
                let example = example.unwrap_or_else(|| panic!("{id}: no example: {media_type}"));
                if !example.is_null() && media_type.ends_with("json") {
                    let fits = testkit::contract::check_schema(&content["schema"], &example);
                    assert_eq!(fits, Ok(()), "{id}");
                }
            }
        }
    }
}

#[test]
fn api_documentation_works_without_internet() {
    let system = System::start(BINARY, &[("DOFS__AUTH__MODE", "api_key")]);
    let described = system.api.get("/openapi.json").json();
    let committed = std::fs::read_to_string(repository_root().join("openapi.json")).unwrap();
    assert!(
        described == serde_json::from_str::<Value>(&committed).unwrap(),
        "served and committed descriptions differ"
    );
    assert_eq!(described["openapi"], "3.1.0");

    let page = system.api.get("/docs/");
    assert_eq!(page.status, 200);
    // The content security policy allows the assets, and the server serves all of them.
    let policy = page.header("content-security-policy").unwrap();
    for needed in ["script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
        assert!(policy.contains(needed), "{policy}");
    }
    assert!(!page.text.contains("<script>"), "the policy blocks inline scripts: {}", page.text);
    assert!(!page.text.contains("//unpkg") && !page.text.contains("https://"), "{}", page.text);
    let quoted: Vec<&str> = page.text.split('"').collect();
    let is_asset = |path: &&&str| {
        let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("js" | "css"))
    };
    let assets: Vec<_> = quoted.iter().filter(is_asset).collect();
    assert!(assets.len() >= 3, "{assets:?}");
    for asset in assets {
        let path = format!("/docs/{}", asset.trim_start_matches("./"));
        assert_eq!(system.api.get(&path).status, 200, "{asset}");
    }
}

#[test]
fn description_without_authentication_requires_no_key() {
    let system = System::start(BINARY, &[]);
    let described = system.api.get("/openapi.json").json();
    let text = described.to_string();
    assert!(!text.contains("\"security\"") && !text.contains("\"securitySchemes\""));
    let committed = std::fs::read_to_string(repository_root().join("openapi.json")).unwrap();
    let committed: Value = serde_json::from_str(&committed).unwrap();
    assert_eq!(described["components"]["schemas"], committed["components"]["schemas"]);
}

#[test]
fn every_described_route_responds_with_a_described_status() {
    let system = System::start(BINARY, &[]);
    let id = system.api.place_valid_order();
    let described = system.api.get("/openapi.json").json();
    for (path, item) in described["paths"].as_object().unwrap() {
        let path = path.replace("{id}", &id);
        for (method, operation) in item.as_object().unwrap() {
            // The body is not read, because the event feed does not end.
            let request = system.api.request(&method.to_uppercase(), &path);
            let response = request.send().unwrap();
            let status = response.status().as_u16().to_string();
            assert!(operation["responses"].get(&status).is_some(), "{method} {path}: {status}");
            assert!(response.headers().contains_key("x-request-id"), "{method} {path}");
        }
    }
    assert_eq!(Api::send(system.api.request("DELETE", "/v1/stats")).status, 405);
}
