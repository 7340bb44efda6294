//! The overview.

use axum::http::StatusCode;
use serde_json::json;

use super::fake_api::{FakeApi, problem, projections, statistics, with, workers};
use super::visitor::{ALIVE, Visitor};

/// Calls of the page whose failure leaves the other parts: path, and name of the part.
const CALLS: [(&str, &str); 4] = [
    ("/v1/stats", "Statistics"),
    ("/v1/ops/worker", "Workers"),
    ("/v1/dead-letters", "Dead letters"),
    ("/v1/ops/projections", "Projections"),
];

/// An API of a system that needs no attention.
fn quiet_api() -> FakeApi {
    FakeApi::open().with_answer("/v1/dead-letters", 200, json!({"total": 0, "groups": []}))
}

#[tokio::test]
async fn overview_shows_figures_charts_and_health() {
    let page = Visitor::of(&FakeApi::open()).get("/console").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&[
        "1,245",
        "Success rate",
        "99.0\u{a0}%",
        "configured 70.0\u{a0}%",
        "<svg",
        "closed",
    ]);
    page.assert_contains(&["3 dead letters with code <bdi>retries_exhausted</bdi>"]);
}

/// The statistics count discarded dead letters, too.
#[tokio::test]
async fn discarded_dead_letters_are_not_counted() {
    let mut figures = statistics();
    figures["failed_by_stage"]["dead_letter"] = json!(5);
    let api = quiet_api().with_answer("/v1/stats", 200, figures);
    let page = Visitor::of(&api).get("/console").await;
    page.assert_contains(&["<dt>Dead letters</dt><dd>0</dd>", "Nothing needs attention."]);
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
    let page = Visitor::of(&quiet_api()).get("/console").await;
    page.assert_contains(&["Nothing needs attention."]);
}

#[tokio::test]
async fn each_call_that_fails_needs_attention() {
    for (path, part) in CALLS {
        let away = problem(503, "read_model_unavailable", "Read model unavailable");
        let page = Visitor::of(&quiet_api().with_answer(path, 503, away)).get("/console").await;
        page.assert_lacks(&["Nothing needs attention."]);
        let finding = format!("{part} cannot be read: Read model unavailable.");
        assert_eq!(page.html.matches("cannot be read").count(), 1, "{part}: {}", page.html);
        page.assert_contains(&[&finding]);
    }
}

#[tokio::test]
async fn store_that_an_answer_misses_needs_attention_once() {
    let unavailable = json!({"unavailable": {"event_store": "it did not answer in time"}});
    let answers = [
        ("/v1/ops/worker", workers()),
        ("/v1/ops/projections", projections()),
        ("/v1/stats", statistics()),
    ];
    let mut api = quiet_api();
    for (path, answer) in answers {
        api = api.with_answer(path, 200, with(answer, &unavailable));
        let page = Visitor::of(&api).get("/console").await;
        let finding = "Event store: it did not answer in time.";
        assert_eq!(page.html.matches(finding).count(), 1, "{path}: {}", page.html);
        page.assert_contains(&["Event store</th><td><span class=\"badge\" data-tone=\"bad\">"]);
    }
}

#[tokio::test]
async fn received_orders_are_those_of_the_last_full_minute() {
    let of_minute = |minute: &str| {
        let mut figures = statistics();
        figures["per_minute"][0]["minute"] = json!(minute);
        figures
    };
    // The clock shows 03:04:30.
    for (figures, value) in [
        (of_minute("2026-01-02T03:03:00Z"), "12"),
        (of_minute("2026-01-02T03:04:00Z"), "0"),
        (of_minute("2026-01-02T03:02:00Z"), "0"),
        (with(statistics(), &json!({"per_minute": []})), "0"),
        (with(statistics(), &json!({"per_minute": null})), "<span class=\"absent\">–</span>"),
    ] {
        let page = Visitor::of(&FakeApi::open().with_answer("/v1/stats", 200, figures))
            .get("/console")
            .await;
        page.assert_contains(&[&format!("<dt>Per minute</dt><dd>{value}</dd>")]);
    }
}

#[tokio::test(start_paused = true)]
async fn age_of_a_finding_sends_no_region() {
    let group = json!({
        "stage": "dead_letter", "code": "poison", "count": 1,
        "oldest_failed_at": "2026-01-02T03:04:25Z", "oldest_age_seconds": 5,
        "newest_failed_at": "2026-01-02T03:04:25Z", "failed_last_hour": 1, "failed_previous_hour": 0
    });
    let summary = json!({"total": 1, "groups": [group]});
    let api = FakeApi::open().with_answer("/v1/dead-letters", 200, summary);
    let visitor = Visitor::with_moving_clock(&api);
    let mut stream = visitor.open_stream("/console/live?page=/console", None).await;
    let regions = stream.next_regions().await;
    assert!(regions["attention"].contains("data-relative>5 s ago</time>."), "{regions:?}");
    assert_eq!(stream.next().await.as_deref(), Some(ALIVE));
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
