//! The projections.

use axum::http::StatusCode;
use serde_json::json;

use super::fake_api::{FakeApi, problem, projections};
use super::visitor::Visitor;

const PATH: &str = "/v1/ops/projections";

#[tokio::test]
async fn projections_page_shows_state_sets_and_rebuild() {
    let page = Visitor::of(&FakeApi::open()).get("/console/projections").await;
    page.assert_contains(&["up to date", "41.5", "dofs-018f2d6e", "no differences", "1,231"]);
    page.assert_contains(&[
        "1,048,576",
        "building",
        "<progress max=\"1\" value=\"0.500\"",
        "50.0\u{a0}%",
    ]);
    page.assert_contains(&[
        "dofs projections rebuild --projection orders",
        "data-copy=\"command-orders-1\"",
    ]);
    page.assert_contains(&["the HTTP API has no route for these"]);
    assert!(!page.html.contains("no write for"), "{}", page.html);
}

#[tokio::test]
async fn projection_that_needs_a_person_says_so() {
    let mut list = projections();
    let projection = &mut list["items"][0];
    projection["lag_events"] = json!(1200);
    projection["lag_seconds"] = json!(95.0);
    projection["holder"] = json!(null);
    projection["verification"]["findings"] = json!(2);
    projection["sets"][1]["progress"]["updated_at"] = json!("2026-01-02T03:00:00Z");
    let api = FakeApi::open().with_answer(PATH, 200, list.clone());
    let page = Visitor::of(&api).get("/console/projections").await;
    page.assert_contains(&[": 1,200 events, 1 min", "2 differences", "no write for 2 min", "none"]);
    list["items"][0]["stuck"] = json!(true);
    let api = FakeApi::open().with_answer(PATH, 200, list);
    let page = Visitor::of(&api).get("/console/projections").await;
    page.assert_contains(&["stuck</span>: 1,200 events, 1 min behind"]);
}

#[tokio::test]
async fn missing_figures_are_drawn_with_their_reason() {
    let mut list = projections();
    let projection = &mut list["items"][0];
    for member in ["lag_events", "lag_seconds", "stuck", "events_per_second", "verification"] {
        projection[member] = json!(null);
    }
    list["unavailable"] = json!({"event_store": "it did not answer in time"});
    let api = FakeApi::open().with_answer(PATH, 200, list);
    let page = Visitor::of(&api).get("/console/projections").await;
    page.assert_contains(&["Event store: it did not answer in time.", "unknown", "never"]);
    let away = problem(503, "read_model_unavailable", "Read model unavailable");
    let page = Visitor::of(&FakeApi::open().with_answer(PATH, 503, away))
        .get("/console/projections")
        .await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["Read model unavailable", "data-live"]);
}

#[tokio::test]
async fn advice_for_a_read_model_that_is_ahead_is_shown() {
    let mut statistics = super::fake_api::statistics();
    statistics["projection"]["advice"] = json!("Rebuild the read model: <events> are missing");
    let api = FakeApi::open().with_answer("/v1/stats", 200, statistics);
    let page = Visitor::of(&api).get("/console/projections").await;
    page.assert_contains(&["Rebuild the read model: &lt;events&gt; are missing"]);
}

#[tokio::test]
async fn key_without_the_scope_is_refused() {
    let denied = problem(403, "forbidden", "The key lacks the scope ops:read");
    let api = FakeApi::open().with_answer(PATH, 403, denied);
    let page = Visitor::of(&api).get("/console/projections").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn overview_and_projections_page_agree_on_the_lag_that_is_behind() {
    for (seconds, state, is_finding) in [(30.0, "catching up", false), (31.0, "behind", true)] {
        let mut list = projections();
        list["items"][0]["lag_events"] = json!(1);
        list["items"][0]["lag_seconds"] = json!(seconds);
        let mut visitor = Visitor::of(&FakeApi::open().with_answer(PATH, 200, list));
        let state = format!("{state}</span>: 1 event, {seconds} s");
        visitor.get("/console/projections").await.assert_contains(&[&state]);
        let overview = visitor.get("/console").await;
        overview.assert_contains(&[&state]);
        let finding = format!("Projection orders is {seconds} s behind.");
        assert_eq!(overview.html.contains(&finding), is_finding, "{}", overview.html);
    }
}
