//! The system.

use std::path::Path;

use axum::http::StatusCode;
use serde_json::json;

use super::fake_api::{FakeApi, KEY, keys, problem};
use super::visitor::Visitor;

#[tokio::test]
async fn system_page_shows_process_settings_keys_and_permissions() {
    let mut visitor = Visitor::of(&FakeApi::with_key(&["ops:read"], None));
    visitor.sign_in(KEY).await;
    let page = visitor.get("/console/system").await;
    page.assert_contains(&["386d98f", "api, worker, projector", "event_store", "ops:read"]);
    page.assert_contains(&["api.rate_limit", "<code>100</code>", "postgres://***@db/dofs"]);
    page.assert_contains(&["DOFS__READ_MODEL__URL", "3f0d1a522d7e", "href=\"/docs/\"", "in 8 h"]);
}

#[tokio::test]
async fn process_that_is_not_ready_shows_its_checks() {
    let report = json!({
        "status": "unavailable", "checks": {"event_store": "unavailable", "read_model": "ok"},
        "reasons": {"event_store": "connection <refused>"}
    });
    let api = FakeApi::open().with_answer("/readyz", 503, report);
    let page = Visitor::of(&api).get("/console/system").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["unavailable", "connection &lt;refused&gt;"]);
    let overloaded = problem(503, "overloaded", "Too many requests in progress");
    let api = FakeApi::open().with_answer("/readyz", 503, overloaded);
    Visitor::of(&api)
        .get("/console/system")
        .await
        .assert_contains(&["Too many requests in progress"]);
}

#[tokio::test]
async fn keys_are_valid_expired_or_revoked() {
    let mut list = keys();
    let key = list["items"][0].clone();
    for (name, time) in
        [("expires_at", "2026-01-02T03:04:30Z"), ("revoked_at", "2026-01-02T00:00:00Z")]
    {
        let mut other = key.clone();
        other[name] = json!(time);
        other["name"] = json!("<script>🦀");
        list["items"].as_array_mut().unwrap().push(other);
    }
    let api = FakeApi::open().with_answer("/v1/ops/keys", 200, list);
    let page = Visitor::of(&api).get("/console/system").await;
    page.assert_contains(&["valid", "expired", "revoked", "&lt;script&gt;🦀"]);
    let none = json!({"items": []});
    let api = FakeApi::open().with_answer("/v1/ops/keys", 200, none);
    Visitor::of(&api).get("/console/system").await.assert_contains(&["No API keys."]);
}

#[tokio::test]
async fn failed_part_leaves_the_others() {
    let away = problem(503, "event_store_unavailable", "Event store unavailable");
    let api = FakeApi::open().with_answer("/v1/ops/keys", 503, away);
    let page = Visitor::of(&api).get("/console/system").await;
    page.assert_contains(&["Event store unavailable", "386d98f"]);
    let denied = problem(403, "forbidden", "The key lacks the scope ops:read");
    let api = FakeApi::open().with_answer("/v1/ops/system", 403, denied);
    assert_eq!(Visitor::of(&api).get("/console/system").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn named_documents_exist() {
    let page = Visitor::of(&FakeApi::open()).get("/console/system").await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let names = page.html.split("<code>").skip(1).filter_map(|part| part.split("</code>").next());
    let files: Vec<_> = names.filter(|name| is_document(name)).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        assert!(root.join(file).is_file(), "{file} does not exist");
    }
}

fn is_document(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "md")
}
