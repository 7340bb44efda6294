//! The workers: status, pause, resume.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::fake_api::{FakeApi, KEY, problem, with, workers};
use super::visitor::Visitor;

const PATH: &str = "/v1/ops/worker";

fn paused() -> Value {
    with(
        workers(),
        &json!({
            "paused": true, "since": "2026-01-02T03:00:00Z", "actor": "ann", "reason": "Gateway maintenance",
            "breaker": "open", "unconfirmed": ["dofs-2-worker"]
        }),
    )
}

#[tokio::test]
async fn workers_page_shows_queue_and_each_worker() {
    let page = Visitor::of(&FakeApi::open()).get("/console/workers").await;
    page.assert_contains(&["Taking orders", "closed", "<dd>14</dd>", "Pause workers…"]);
    page.assert_contains(&["Last seen", "ready for delivery; more may wait"]);
    page.assert_contains(&["dofs-018f2d6e-0000-7d34-9e2a-0b5d6a1f2c33-worker", "1,200"]);
    page.assert_contains(&["22.5 / 40.0 / 61.0 ms", "connected", "data-region=\"workers\""]);
    assert!(!page.html.contains("Resume workers…"), "{}", page.html);
}

#[tokio::test]
async fn paused_workers_name_operator_reason_and_unconfirmed_workers() {
    let api = FakeApi::open().with_answer(PATH, 200, paused());
    let page = Visitor::of(&api).get("/console/workers").await;
    page.assert_contains(&[
        "Paused</span> by <bdi>ann</bdi>, ",
        "4 min ago",
        "Gateway maintenance",
    ]);
    page.assert_contains(&["</span> open", "dofs-2-worker", "Resume workers…"]);
    assert!(!page.html.contains("Pause workers…"), "{}", page.html);
}

#[tokio::test]
async fn sources_without_an_answer_are_named() {
    let half = json!({
        "paused": null, "breaker": null, "workers": null, "unconfirmed": null, "watchdog_reconnects": null,
        "queue": {"waiting": null, "in_flight": null, "parked": null, "retrying": null},
        "unavailable": {"event_store": "it does not answer"}
    });
    let api = FakeApi::open().with_answer(PATH, 200, with(workers(), &half));
    let page = Visitor::of(&api).get("/console/workers").await;
    page.assert_contains(&[
        "Event store: it does not answer.",
        "Unknown",
        "The event store does not answer: the workers are unknown.",
    ]);
    page.assert_contains(&["<dd>14</dd>"]);
    let away = problem(503, "event_store_unavailable", "Event store unavailable");
    let page =
        Visitor::of(&FakeApi::open().with_answer(PATH, 503, away)).get("/console/workers").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["Event store unavailable", "data-live"]);
}

#[tokio::test]
async fn system_without_workers_says_that_orders_wait() {
    let none = with(workers(), &json!({"workers": []}));
    let page =
        Visitor::of(&FakeApi::open().with_answer(PATH, 200, none)).get("/console/workers").await;
    page.assert_contains(&["No worker is known. The API accepts orders, and the orders wait."]);
}

#[tokio::test]
async fn pause_says_what_will_happen_and_sends_the_reason() {
    let api = FakeApi::open();
    let mut visitor = Visitor::of(&api);
    let page = visitor.get("/console/workers/pause").await;
    page.assert_contains(&[
        "The API still accepts orders.",
        "Workers finish the deliveries in flight",
    ]);
    let fields = [("reason", " Gateway maintenance "), ("actor", "ann")];
    let page = "/console/workers/pause";
    let answer = visitor.submit(page, page, &fields).await;
    assert_eq!(answer.location.as_deref(), Some("/console/workers"));
    let commands = api.commands();
    let [command] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(command.uri, "/v1/ops/worker/pause");
    assert_eq!(command.body, json!({"actor": "ann", "reason": "Gateway maintenance"}));
    visitor.get("/console/workers").await.assert_contains(&["Workers paused."]);
}

#[tokio::test]
async fn unconfirmed_pause_is_reported_as_such() {
    let api = FakeApi::open().with_answer("/v1/ops/worker/pause", 200, paused());
    let mut visitor = Visitor::of(&api);
    let page = "/console/workers/pause";
    visitor.submit(page, page, &[("reason", "x"), ("actor", "")]).await;
    let page = visitor.get("/console/workers").await;
    page.assert_contains(&["1 of them have not confirmed", "data-kind=\"error\""]);
}

#[tokio::test]
async fn resume_sends_the_reason() {
    let api = FakeApi::open().with_answer(PATH, 200, paused());
    let mut visitor = Visitor::of(&api);
    let page = "/console/workers/resume";
    visitor.get(page).await.assert_contains(&["by <bdi>ann</bdi>, ", "Gateway maintenance"]);
    let answer = visitor.submit(page, page, &[("reason", "Gateway is back")]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let commands = api.commands();
    assert_eq!(commands[0].uri, "/v1/ops/worker/resume");
    assert_eq!(commands[0].body, json!({"reason": "Gateway is back"}));
}

#[tokio::test]
async fn refused_pause_keeps_what_was_typed() {
    let conflict = problem(409, "conflict", "Another operator pauses the workers");
    let api = FakeApi::open().with_answer("/v1/ops/worker/pause", 409, conflict);
    let mut visitor = Visitor::of(&api);
    let page = "/console/workers/pause";
    let answer = visitor.submit(page, page, &[("reason", "<script>alert(1)</script>")]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    answer.assert_contains(&["Another operator pauses", "value=\"&lt;script&gt;alert(1)"]);
    let answer = visitor.submit(page, page, &[("reason", "  ")]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    answer.assert_contains(&["Enter a reason."]);
    assert_eq!(api.commands().len(), 1, "a pause without a reason is not sent");
}

#[tokio::test]
async fn read_only_key_sees_why_it_may_not_pause() {
    let mut visitor = Visitor::of(&FakeApi::with_key(&["ops:read"], None));
    visitor.sign_in(KEY).await;
    let page = visitor.get("/console/workers").await;
    page.assert_contains(&["This key may not pause or resume workers: it lacks"]);
    assert!(!page.html.contains("href=\"/console/workers/pause\""), "{}", page.html);
    let page = visitor.get("/console/workers/pause").await;
    page.assert_contains(&["This key may not pause workers"]);
    assert!(!page.html.contains("name=\"reason\""), "{}", page.html);
}

#[tokio::test]
async fn key_names_the_operator_and_the_form_does_not_ask() {
    let api = FakeApi::with_key(&["ops:read", "ops:write"], None);
    let mut visitor = Visitor::of(&api);
    visitor.sign_in(KEY).await;
    let page = "/console/workers/pause";
    assert!(!visitor.get(page).await.html.contains("name=\"actor\""));
    visitor.submit(page, page, &[("reason", "x"), ("actor", "mallory")]).await;
    assert_eq!(api.commands()[0].body, json!({"reason": "x"}));
}

#[tokio::test]
async fn key_without_the_scope_is_refused() {
    let denied = problem(403, "forbidden", "The key lacks the scope ops:read");
    let api = FakeApi::open().with_answer(PATH, 403, denied);
    let page = Visitor::of(&api).get("/console/workers").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    page.assert_contains(&["The key lacks the scope ops:read", "has no permission for this page"]);
}

#[tokio::test]
async fn hostile_texts_of_workers_are_inert() {
    let mut status = paused();
    status["reason"] = json!("<script>alert('\u{202e}🦀')</script>");
    status["workers"][0]["error"] = json!("<img src=x onerror=alert(1)>");
    status["workers"][0]["worker"] = json!("\"><script>".repeat(25));
    status["unconfirmed"] = json!(["<b>"]);
    let page =
        Visitor::of(&FakeApi::open().with_answer(PATH, 200, status)).get("/console/workers").await;
    page.assert_contains(&["&lt;script&gt;alert('\u{202e}🦀')", "&lt;img src=x", "&lt;b&gt;"]);
    assert!(!page.html.contains("<img src=x") && !page.html.contains("<script>"), "{}", page.html);
}
