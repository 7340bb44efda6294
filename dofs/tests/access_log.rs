//! The access log, and the events that concern security, as an operator's tools read them.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::process::Command;

use serde_json::{Value, json};
use testkit::api::{Api, order};
use testkit::process::Start;
use testkit::system::System;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

fn lines(system: &System, message: &str) -> Vec<Value> {
    let mut log = system.process.log();
    log.retain(|line| line["message"] == message);
    log
}

/// Waits for the first line with this message for which the test holds.
fn line(system: &System, message: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    wait::until(message, || lines(system, message).into_iter().find(&is_it))
}

/// Runs a command on the system's event store, and returns what it printed.
fn keys(system: &System, arguments: &[&str]) -> Value {
    let start = Start::new(BINARY, &[&["keys"], arguments, &["--json"]].concat());
    let mut command: Command =
        start.env("DOFS__EVENT_STORE__URL", system.event_store()).into_command();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_answer_has_a_line_with_who_asked_and_how_long_it_took() {
    let environment = [("DOFS__API__ACCESS_LOG", "true"), ("DOFS__AUTH__MODE", "api_key")];
    let system = System::start(BINARY, &environment);
    let scopes = "orders:write,orders:read";
    let created = keys(&system, &["create", "--name", "shop", "--tenant", "a", "--scope", scopes]);
    let token = created["token"].as_str().unwrap();
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let place = || {
        let request = system.api.request("POST", "/v1/orders").bearer_auth(token);
        let request = request.header("traceparent", format!("00-{trace_id}-b7ad6b7169203331-01"));
        Api::send(request.header("x-request-id", "checkout-7").json(&order()))
    };
    let placed = wait::until("the key is known", || Some(place()).filter(|it| it.status == 202));

    let line = line(&system, "Request answered", |it| it["status"] == 202);
    let expected = [
        ("level", json!("INFO")),
        ("method", json!("POST")),
        ("route", json!("/v1/orders")),
        ("bytes", json!(placed.text.len())),
        ("request.id", json!("checkout-7")),
        ("trace.id", json!(trace_id)),
        ("key.id", created["id"].clone()),
        ("tenant", json!("a")),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["duration_ms"].as_f64().is_some_and(|it| it > 0.0), "{line}");
    assert!(line["peer"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")), "{line}");

    system.api.get("/livez");
    system.api.get("/nothing?x=s3cret");
    let unknown = self::line(&system, "Request answered", |it| it["status"] == 404);
    assert_eq!((&unknown["route"], &unknown["tenant"]), (&json!("-"), &Value::Null));
    let health =
        lines(&system, "Request answered").into_iter().filter(|it| it["route"] == "/livez");
    assert_eq!(health.count(), 0, "health checks are not logged");
    let log = format!("{:?}", system.process.log());
    assert!(!log.contains("s3cret") && !log.contains(token), "{log}");
}

#[test]
fn security_events_are_logged_without_the_access_log() {
    let environment = [
        ("DOFS__API__ACCESS_LOG", "false"),
        ("DOFS__AUTH__MODE", "api_key"),
        ("DOFS__API__RATE_PER_SECOND", "1"),
        ("DOFS__API__RATE_BURST", "20"),
    ];
    let system = System::start(BINARY, &environment);
    line(&system, "API keys are known", |_| true);
    let created =
        keys(&system, &["create", "--name", "shop", "--tenant", "a", "--scope", "orders:read"]);
    let made = line(&system, "API key created", |_| true);
    assert_eq!((&made["key.id"], &made["name"]), (&created["id"], &json!("shop")));
    let token = created["token"].as_str().unwrap();

    let forbidden = system.api.request("POST", "/v1/orders").bearer_auth(token).json(&order());
    assert_eq!(Api::send(forbidden).status, 403);
    let refused = line(&system, "Request refused", |it| it["status"] == 403);
    assert_eq!((&refused["key.id"], &refused["code"]), (&created["id"], &json!("forbidden")));
    assert_eq!(refused["level"], "WARN");

    let id = created["id"].as_str().unwrap();
    assert_eq!(keys(&system, &["revoke", id, "--yes"])["revoked"], true);
    line(&system, "API key revoked", |it| it["key.id"] == id);
    let request = system.api.request("GET", "/v1/orders").bearer_auth(token);
    assert_eq!(Api::send(request).status, 401);
    let refused = line(&system, "Request refused", |it| it["status"] == 401);
    assert_eq!(refused["key.id"], id, "of the key that was tried");
    wait::until("too many requests", || (system.api.get("/v1/orders").status == 429).then_some(()));
    line(&system, "Request refused", |it| it["status"] == 429);
    assert_eq!(lines(&system, "Request answered"), Vec::<Value>::new());
    let log = format!("{:?}", system.process.log());
    assert!(!log.contains(token), "{log}");
}

#[test]
fn configuration_that_is_refused_is_logged() {
    let start = Start::new(BINARY, &["serve"]).env("DOFS_ENV", "production");
    let refused = start.env("DOFS__AUTH__MODE", "none").into_command().output().unwrap();
    let line: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!(
        (&line["level"], &line["message"]),
        (&json!("ERROR"), &json!("Configuration refused"))
    );
}
