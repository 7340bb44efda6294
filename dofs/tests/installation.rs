//! Routes about the installation: the client's permissions, the process and its settings, API keys.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use jiff::Timestamp;
use serde_json::{Value, json};
use testkit::api::{Answer, Api};
use testkit::command::{self, CommandOutput};
use testkit::system::{System, start_api_without_event_store};
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// A secret in the settings.
const SECRET: &str = "s3cr3t";

fn start_with_keys() -> System {
    let url = format!("https://dofs:{SECRET}@warehouse.example/orders?key={SECRET}");
    let environment = [("DOFS__AUTH__MODE", "api_key"), ("DOFS__FULFILLMENT__URL", &url)];
    System::start(BINARY, &environment)
}

fn dofs(system: &System, arguments: &[&str]) -> CommandOutput {
    command::run(BINARY, arguments, &[("DOFS__EVENT_STORE__URL", system.event_store())])
}

fn get_as(system: &System, path: &str, token: &str) -> Answer {
    Api::send(system.api.request("GET", path).bearer_auth(token))
}

/// Creates a key, waits until the API accepts it, and returns its id and token.
fn create_key(system: &System, name: &str, owner: &[&str], scopes: &str) -> (String, String) {
    let create = ["keys", "create", "--name", name, "--json", "--scope", scopes];
    let created = dofs(system, &[&create, owner].concat()).json();
    let text = |member: &str| created[member].as_str().unwrap().to_owned();
    let (id, token) = (text("id"), text("token"));
    wait::until("the key is valid", || {
        (get_as(system, "/v1/principal", &token).status == 200).then_some(())
    });
    (id, token)
}

#[test]
fn any_valid_key_may_ask_for_its_permissions_and_no_other_client() {
    let system = start_with_keys();
    let (shop_id, shop) = create_key(&system, "shop", &["--tenant", "acme"], "orders:read");
    let principal = get_as(&system, "/v1/principal", &shop);
    assert_eq!(
        principal.json(),
        json!({
            "actor": format!("api-key:{shop_id}"),
            "tenant": "acme",
            "scopes": ["orders:read"],
            "requires_key": true,
            "environment": "dev",
            "version": env!("CARGO_PKG_VERSION"),
        })
    );
    assert_eq!(system.api.get("/v1/principal").status, 401);
    let wrong = format!("{shop}0");
    assert_eq!(get_as(&system, "/v1/principal", &wrong).status, 401);
    for path in ["/v1/ops/system", "/v1/ops/keys", "/v1/ops/actions"] {
        assert_eq!(system.api.get(path).status, 401, "{path}");
        assert_eq!(get_as(&system, path, &shop).status, 403, "{path}");
    }
}

#[test]
fn system_shows_settings_with_sources_and_without_secrets() {
    let system = start_with_keys();
    let (_, token) = create_key(&system, "ops", &["--all-tenants"], "ops:read");
    let answer = get_as(&system, "/v1/ops/system", &token);
    assert!(!answer.text.contains(SECRET), "{answer:?}");
    let info = answer.json();
    let version = command::run(BINARY, &["version", "--json"], &[]).json();
    assert_eq!((&info["version"], &info["commit"]), (&version["version"], &version["commit"]));
    assert_eq!(info["environment"], "dev");
    assert_eq!(info["roles"], json!(["api", "worker", "projector"]));
    info["started_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let settings = info["settings"].as_array().unwrap();
    let setting = |key: &str| {
        let setting = settings.iter().find(|setting| setting["key"] == key);
        setting.map(|setting| (setting["value"].clone(), setting["source"].clone()))
    };
    let masked = json!("https://***@warehouse.example/orders?***");
    assert_eq!(setting("fulfillment.url"), Some((masked, json!("DOFS__FULFILLMENT__URL"))));
    assert_eq!(setting("auth.mode"), Some((json!("api_key"), json!("DOFS__AUTH__MODE"))));
    let listen = setting("api.listen").unwrap();
    assert_eq!(listen.1, "--listen");
    let files: Vec<_> = settings.iter().filter(|it| it["source"] == "default.toml").collect();
    assert!(files.len() > 20, "{files:?}");
}

#[test]
fn keys_are_listed_without_secrets_newest_first() {
    let system = start_with_keys();
    let (first, _) = create_key(&system, "shop", &["--tenant", "acme"], "orders:read");
    let (second, token) = create_key(&system, "ops", &["--all-tenants"], "ops:read");
    dofs(&system, &["keys", "revoke", &first, "--yes"]).success();
    let answer = get_as(&system, "/v1/ops/keys", &token);
    assert!(!answer.text.contains("sha256"), "{answer:?}");
    let keys = answer.json();
    let summary = |key: &Value| {
        let is_revoked = !key["revoked_at"].is_null();
        (key["key_id"].clone(), key["name"].clone(), key["tenant"].clone(), is_revoked)
    };
    let keys: Vec<_> = keys["items"].as_array().unwrap().iter().map(summary).collect();
    assert_eq!(
        keys,
        [
            (json!(second), json!("ops"), Value::Null, false),
            (json!(first), json!("shop"), json!("acme"), true),
        ]
    );
}

#[test]
fn without_keys_every_client_has_every_permission() {
    let system = System::start(BINARY, &[]);
    let principal = system.api.get("/v1/principal").json();
    assert_eq!(
        (&principal["actor"], &principal["requires_key"]),
        (&json!("customer"), &json!(false))
    );
    let scopes = ["orders:write", "orders:read", "audit:read", "ops:read", "ops:write"];
    assert_eq!(principal["scopes"], json!(scopes));
    assert_eq!(system.api.get("/v1/ops/keys").json(), json!({"items": []}));
    assert_eq!(system.api.get("/v1/ops/system?x=1").status, 400);
}

#[test]
fn system_answers_without_an_event_store() {
    let data = tempfile::tempdir().unwrap();
    let (_process, api) = start_api_without_event_store(BINARY, data.path());
    assert_eq!(api.get("/v1/ops/system").json()["roles"], json!(["api"]));
    assert_eq!(api.get("/v1/principal").status, 200);
    for path in ["/v1/ops/keys", "/v1/ops/actions"] {
        assert_eq!(api.get(path).status, 503, "{path}");
    }
}
