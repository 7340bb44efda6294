//! The access log and the log lines of security events.

use serde_json::{Value, json};
use testkit::api::{Api, valid_order};
use testkit::command;
use testkit::process::Start;
use testkit::system::System;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

fn find_lines(system: &System, message: &str) -> Vec<Value> {
    let mut log = system.process.log_lines();
    log.retain(|line| line["message"] == message);
    log
}

/// Waits for a line with this message that `matches`.
fn wait_for_line(system: &System, message: &str, matches: impl Fn(&Value) -> bool) -> Value {
    wait::until(message, || find_lines(system, message).into_iter().find(&matches))
}

/// Runs `dofs keys` on the system's event store, and returns its result.
fn run_keys(system: &System, arguments: &[&str]) -> Value {
    let arguments = [&["keys"], arguments, &["--json"]].concat();
    let environment = [("DOFS__EVENT_STORE__URL", system.event_store())];
    command::run(BINARY, &arguments, &environment).json()
}

#[test]
fn every_response_is_logged_with_client_and_duration() {
    let environment = [("DOFS__API__ACCESS_LOG", "true"), ("DOFS__AUTH__MODE", "api_key")];
    let system = System::start(BINARY, &environment);
    let scopes = "orders:write,orders:read";
    let created =
        run_keys(&system, &["create", "--name", "shop", "--tenant", "a", "--scope", scopes]);
    let token = created["token"].as_str().unwrap();
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let place = || {
        let request = system.api.request("POST", "/v1/orders").bearer_auth(token);
        let request = request.header("traceparent", format!("00-{trace_id}-b7ad6b7169203331-01"));
        Api::send(request.header("x-request-id", "checkout-7").json(&valid_order()))
    };
    let placed =
        wait::until("the key is valid", || Some(place()).filter(|answer| answer.status == 202));

    let line = wait_for_line(&system, "Request answered", |line| line["status"] == 202);
    let expected = [
        ("level", json!("INFO")),
        ("method", json!("POST")),
        ("route", json!("/v1/orders")),
        ("bytes", json!(placed.text.len())),
        ("request.id", json!("checkout-7")),
        ("trace_id", json!(trace_id)),
        ("key.id", created["id"].clone()),
        ("tenant", json!("a")),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["duration_ms"].as_f64().is_some_and(|millis| millis > 0.0), "{line}");
    assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");

    system.api.get("/livez");
    system.api.get("/nothing?x=s3cret");
    let unknown = wait_for_line(&system, "Request answered", |line| line["status"] == 404);
    assert_eq!((&unknown["route"], &unknown["tenant"]), (&json!("-"), &Value::Null));
    let health = find_lines(&system, "Request answered")
        .into_iter()
        .filter(|line| line["route"] == "/livez");
    assert_eq!(health.count(), 0, "health checks are not logged");
    let log = format!("{:?}", system.process.log_lines());
    assert!(!log.contains("s3cret") && !log.contains(token), "{log}");
}

#[test]
fn security_events_are_logged_even_without_access_log() {
    let environment = [
        ("DOFS__API__ACCESS_LOG", "false"),
        ("DOFS__AUTH__MODE", "api_key"),
        ("DOFS__API__RATE_PER_SECOND", "1"),
        ("DOFS__API__RATE_BURST", "20"),
    ];
    let system = System::start(BINARY, &environment);
    wait_for_line(&system, "API keys loaded", |_| true);
    let created =
        run_keys(&system, &["create", "--name", "shop", "--tenant", "a", "--scope", "orders:read"]);
    let made = wait_for_line(&system, "API key created", |_| true);
    assert_eq!((&made["key.id"], &made["name"]), (&created["id"], &json!("shop")));
    let token = created["token"].as_str().unwrap();

    let forbidden =
        system.api.request("POST", "/v1/orders").bearer_auth(token).json(&valid_order());
    assert_eq!(Api::send(forbidden).status, 403);
    let refused = wait_for_line(&system, "Request refused", |line| line["status"] == 403);
    assert_eq!((&refused["key.id"], &refused["code"]), (&created["id"], &json!("forbidden")));
    assert_eq!(refused["level"], "WARN");

    let id = created["id"].as_str().unwrap();
    assert_eq!(run_keys(&system, &["revoke", id, "--yes"])["revoked"], true);
    wait_for_line(&system, "API key revoked", |line| line["key.id"] == id);
    let request = system.api.request("GET", "/v1/orders").bearer_auth(token);
    assert_eq!(Api::send(request).status, 401);
    let refused = wait_for_line(&system, "Request refused", |line| line["status"] == 401);
    assert_eq!(refused["key.id"], id, "the id of the rejected key");
    wait::until("too many requests", || (system.api.get("/v1/orders").status == 429).then_some(()));
    wait_for_line(&system, "Request refused", |line| line["status"] == 429);
    assert_eq!(find_lines(&system, "Request answered"), Vec::<Value>::new());
    let log = format!("{:?}", system.process.log_lines());
    assert!(!log.contains(token), "{log}");
}

#[test]
fn refused_configuration_is_logged() {
    let start = Start::new(BINARY, &["serve"]).env("DOFS_ENV", "production");
    let refused = start.env("DOFS__AUTH__MODE", "none").into_command().output().unwrap();
    let line: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!(
        (&line["level"], &line["message"]),
        (&json!("ERROR"), &json!("Configuration refused"))
    );
}
