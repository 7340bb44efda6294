//! The actions of operators.

use axum::http::StatusCode;
use serde_json::json;

use super::fake_api::{FakeApi, KEY, ORDER, TASK, actions, keys, problem};
use super::visitor::Visitor;

const PATH: &str = "/v1/ops/actions";

#[tokio::test]
async fn actions_have_actor_reason_and_subject() {
    let page = Visitor::of(&FakeApi::open()).get("/console/actions").await;
    page.assert_contains(&[
        "Order redriven",
        "Redrive started",
        "Workers paused",
        "Gateway is back",
    ]);
    page.assert_contains(&[&format!("/console/orders/{ORDER}"), "attempt 2"]);
    page.assert_contains(&[&format!("/console/dead-letters/tasks/{TASK}"), "cursor=next"]);
}

#[tokio::test]
async fn api_keys_have_their_names_if_the_list_can_be_read() {
    let list = keys();
    let key = &list["items"][0];
    let actor = format!("api-key:{}", key["key_id"].as_str().unwrap());
    let mut recorded = actions();
    recorded["items"][0]["actor"] = json!(actor);
    let api = FakeApi::with_key(&["ops:read"], None).with_answer(PATH, 200, recorded);
    let mut visitor = Visitor::of(&api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", "/console/actions")]).await;
    let name = key["name"].as_str().unwrap();
    visitor.get("/console/actions").await.assert_contains(&[&format!("{name}<br>{actor}"), "ann"]);
    let away = problem(503, "unavailable", "Event store unavailable");
    let api = api.with_answer("/v1/ops/keys", 503, away);
    let mut visitor = Visitor::of(&api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", "/console/actions")]).await;
    visitor.get("/console/actions").await.assert_contains(&[&format!("<td>{actor}</td>")]);
}

#[tokio::test]
async fn filters_are_in_the_address_and_reach_the_api() {
    let api = FakeApi::open();
    let address = "/console/actions?kind=workers_paused&actor=ann&from=2026-01-02T03%3A04&to=";
    let page = Visitor::of(&api).get(address).await;
    page.assert_contains(&["value=\"workers_paused\" selected", "value=\"ann\""]);
    page.assert_contains(&["value=\"2026-01-02T03:04:00\"", "kind=workers_paused&amp;actor=ann"]);
    let read = api.reads().into_iter().find(|read| read.starts_with(PATH)).unwrap();
    assert_eq!(read, "/v1/ops/actions?kind=workers_paused&actor=ann&from=2026-01-02T03%3A04%3A00Z");
}

#[tokio::test]
async fn empty_lists_say_why() {
    let none = json!({"items": [], "next_cursor": null});
    let api = FakeApi::open().with_answer(PATH, 200, none);
    let mut visitor = Visitor::of(&api);
    visitor.get("/console/actions").await.assert_contains(&["No operator has acted yet."]);
    let page = visitor.get("/console/actions?actor=bob").await;
    page.assert_contains(&["No action matches these filters.", "Clear"]);
}

#[tokio::test]
async fn invalid_filter_leaves_the_form() {
    let invalid = problem(400, "invalid_parameters", "from must be a time");
    let api = FakeApi::open().with_answer(PATH, 400, invalid);
    let page = Visitor::of(&api).get("/console/actions?from=yesterday").await;
    page.assert_contains(&["from must be a time", "value=\"yesterday\""]);
}

#[tokio::test]
async fn hostile_texts_are_inert() {
    let mut list = actions();
    list["items"][0]["actor"] = json!("<script>");
    list["items"][0]["reason"] = json!("\u{202e}<b>🦀".repeat(60));
    list["items"][0]["detail"] = json!("\" onclick=\"alert(1)");
    let api = FakeApi::open().with_answer(PATH, 200, list);
    let page = Visitor::of(&api).get("/console/actions?actor=%22%3E%3Cscript%3E").await;
    page.assert_contains(&["&lt;script&gt;", "&lt;b&gt;🦀", "&quot; onclick="]);
    assert!(!page.html.contains("<script>"), "{}", page.html);
}

#[tokio::test]
async fn key_without_the_scope_is_refused() {
    let denied = problem(403, "forbidden", "The key lacks the scope ops:read");
    let page =
        Visitor::of(&FakeApi::open().with_answer(PATH, 403, denied)).get("/console/actions").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
}
