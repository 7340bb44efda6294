//! The overview.

use axum::http::StatusCode;
use serde_json::json;

use super::fake_api::{FakeApi, problem, with, workers};
use super::visitor::Visitor;

#[tokio::test]
async fn overview_shows_figures_charts_and_health() {
    let page = Visitor::of(&FakeApi::open()).get("/console").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&[
        "1,245",
        "Success rate",
        "99.0 %",
        "configured 70.0 %",
        "<svg",
        "closed",
    ]);
    page.assert_contains(&["3 dead letters with code <bdi>retries_exhausted</bdi>"]);
}

#[tokio::test]
async fn failed_source_leaves_the_other_figures() {
    let away = problem(503, "event_store_unavailable", "Event store unavailable");
    let api = FakeApi::open().with_answer("/v1/ops/worker", 503, away.clone());
    let page = Visitor::of(&api).get("/console").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["1,245"]);
    let api = FakeApi::open().with_answer("/v1/stats", 503, away);
    let page = Visitor::of(&api).get("/console").await;
    page.assert_contains(&["Event store unavailable", "3 dead letters"]);
}

#[tokio::test]
async fn quiet_system_needs_no_attention() {
    let none = json!({"total": 0, "groups": []});
    let page = Visitor::of(&FakeApi::open().with_answer("/v1/dead-letters", 200, none))
        .get("/console")
        .await;
    page.assert_contains(&["Nothing needs attention."]);
}

#[tokio::test]
async fn texts_of_others_do_not_turn_the_sentence_around_them() {
    let paused = json!({"paused": true, "actor": "\u{202e}ann", "reason": "<b>\u{202e}"});
    let api = FakeApi::open().with_answer("/v1/ops/worker", 200, with(workers(), &paused));
    let page = Visitor::of(&api).get("/console").await;
    page.assert_contains(&[
        "<bdi>\u{202e}ann</bdi> has paused the workers: <bdi>&lt;b&gt;\u{202e}</bdi>.",
    ]);
}
