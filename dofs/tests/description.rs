//! What describes the system to other programs is what the code says, and works without internet.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::api::Api;
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap());
    let file = |it: std::fs::DirEntry| {
        (it.file_name().into_string().unwrap(), std::fs::read_to_string(it.path()).unwrap())
    };
    entries.map(file).collect()
}

#[test]
fn committed_description_is_the_code_s() {
    let printed = Command::new(BINARY).arg("openapi").output().unwrap();
    let committed = std::fs::read_to_string(root().join("openapi.json")).unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed, committed, "write it anew: cargo run -- openapi > openapi.json");
}

#[test]
fn committed_event_schemas_are_the_code_s() {
    let written = tempfile::tempdir().unwrap();
    let ended = Command::new(BINARY).args(["openapi", "--events"]).arg(written.path()).status();
    assert!(ended.unwrap().success());
    let committed = files(&root().join("docs/schemas"));
    assert_eq!(
        files(written.path()),
        committed,
        "write them anew: cargo run -- openapi --events docs/schemas"
    );
    // Each describes the golden event of its type.
    for (name, schema) in committed {
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let golden = std::fs::read_to_string(root().join("domain/tests/golden").join(&name));
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

#[test]
fn description_and_its_pages_are_served_without_internet() {
    let system = System::start(BINARY, &[("DOFS__AUTH__MODE", "api_key")]);
    let described = system.api.get("/openapi.json").json();
    let committed = std::fs::read_to_string(root().join("openapi.json")).unwrap();
    assert!(described == serde_json::from_str::<Value>(&committed).unwrap(), "it is another");
    assert_eq!(described["openapi"], "3.1.0");

    let page = system.api.get("/docs/");
    assert_eq!(page.status, 200);
    // A browser loads what its own policy allows, and what the page needs is all served here.
    let policy = page.header("content-security-policy").unwrap();
    for needed in ["script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
        assert!(policy.contains(needed), "{policy}");
    }
    assert!(!page.text.contains("<script>"), "inline scripts do not run: {}", page.text);
    assert!(!page.text.contains("//unpkg") && !page.text.contains("https://"), "{}", page.text);
    let quoted: Vec<&str> = page.text.split('"').collect();
    let is_asset = |it: &&&str| {
        let extension = Path::new(it).extension().and_then(|it| it.to_str());
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
fn where_nobody_needs_a_key_the_description_asks_for_none() {
    let system = System::start(BINARY, &[]);
    let described = system.api.get("/openapi.json").json();
    let text = described.to_string();
    assert!(!text.contains("\"security\"") && !text.contains("\"securitySchemes\""));
    let committed = std::fs::read_to_string(root().join("openapi.json")).unwrap();
    let committed: Value = serde_json::from_str(&committed).unwrap();
    assert_eq!(described["components"]["schemas"], committed["components"]["schemas"]);
}

#[test]
fn every_described_route_is_served() {
    let system = System::start(BINARY, &[]);
    let id = system.api.accepted();
    let described = system.api.get("/openapi.json").json();
    for (path, item) in described["paths"].as_object().unwrap() {
        let path = path.replace("{id}", &id);
        for (method, operation) in item.as_object().unwrap() {
            // Only the head is read: the feed does not end.
            let request = system.api.request(&method.to_uppercase(), &path);
            let response = request.send().unwrap();
            let status = response.status().as_u16().to_string();
            assert!(operation["responses"].get(&status).is_some(), "{method} {path}: {status}");
            assert!(response.headers().contains_key("x-request-id"), "{method} {path}");
        }
    }
    assert_eq!(Api::send(system.api.request("DELETE", "/v1/stats")).status, 405);
}
