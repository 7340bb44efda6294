//! Orders as they were, over a real event store.

use axum::Router;
use axum::http::StatusCode;
use domain::order::Stage;
use serde_json::json;

use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{EventStore, get, queries};

/// An order that was placed at second 1,000, failed at 2,000, was redriven at 3,000 and fulfilled at
/// 4,000; nothing of it is in the tables.
async fn redriven(events: &EventStore, database: &Database) -> Router {
    let failed = History::of(1).placed().second(2_000).failed(Stage::DeadLetter, "poison");
    let history = failed.second(3_000).queued().second(4_000).fulfilled().events();
    for event in history.chunks(1) {
        events.append(event).await;
    }
    queries(database.read_model().await, events.log.clone())
}

#[tokio::test]
async fn order_is_shown_as_it_was_at_a_revision_or_a_time() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = redriven(&events, &database).await;
    let order = format!("/v1/orders/{}", id(1));
    for (point, revision, status) in [
        ("at_revision=0", 0, "PROCESSING"),
        ("at_revision=4", 4, "FAILED"),
        ("at_revision=6", 6, "FULFILLED"),
        ("at=1970-01-01T00:16:40Z", 3, "PROCESSING"),
        ("at=1970-01-01T00:33:19.999Z", 3, "PROCESSING"),
        ("at=1970-01-01T00:33:20Z", 4, "FAILED"),
        ("at=1970-01-01T01:50:00%2B01:00", 5, "PROCESSING"),
        ("at=2970-01-01T00:00:00Z", 6, "FULFILLED"),
    ] {
        let answer = get(&api, &format!("{order}?{point}")).await;
        let shown = (&answer.body["revision"], &answer.body["status"], &answer.body["source"]);
        assert_eq!(shown, (&json!(revision), &json!(status), &json!("stream")), "{point}");
        assert_eq!(answer.header("etag"), Some(format!("\"{revision}\"").as_str()));
    }
    let before = get(&api, &format!("{order}?at=1970-01-01T00:16:39Z")).await;
    assert_eq!(before.status, StatusCode::NOT_FOUND);
    let words = format!("Order {} was not placed by 1970-01-01T00:16:39Z", id(1));
    assert_eq!(before.body, json!({ "error": words }));
    let beyond = get(&api, &format!("{order}?at_revision=7")).await;
    assert_eq!(beyond.status, StatusCode::NOT_FOUND);
    assert_eq!(beyond.body, json!({"error": format!("Order {} has no revision 7", id(1))}));
    let unknown = get(&api, &format!("/v1/orders/{}?at_revision=0", id(2))).await;
    assert_eq!(unknown.body, json!({"error": format!("Order {} not found", id(2))}));
}

#[tokio::test]
async fn two_points_are_compared_field_by_field() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = redriven(&events, &database).await;
    let compare = format!("/v1/orders/{}/history/compare", id(1));
    let answer = get(&api, &format!("{compare}?from=4&to=1970-01-01T01:06:40Z")).await;
    assert_eq!(
        (&answer.body["from"]["revision"], &answer.body["to"]["revision"]),
        (&json!(4), &json!(6))
    );
    let changes = answer.body["changes"].as_array().unwrap();
    let status = json!({"field": "status", "before": "FAILED", "after": "FULFILLED"});
    assert!(changes.contains(&status), "{changes:?}");
    let fields: Vec<_> = changes.iter().map(|change| change["field"].as_str().unwrap()).collect();
    assert!(fields.contains(&"failure_code") && !fields.contains(&"customer_id"), "{fields:?}");

    let newest = get(&api, &format!("{compare}?from=4")).await;
    assert_eq!(newest.body, answer.body);
    let from_the_first = get(&api, &compare).await;
    let revisions =
        (&from_the_first.body["from"]["revision"], &from_the_first.body["to"]["revision"]);
    assert_eq!(revisions, (&json!(0), &json!(6)));
    let backwards = get(&api, &format!("{compare}?from=6&to=4")).await;
    let status = json!({"field": "status", "before": "FULFILLED", "after": "FAILED"});
    assert!(backwards.body["changes"].as_array().unwrap().contains(&status));
    let same = get(&api, &format!("{compare}?from=4&to=1970-01-01T00:33:20Z")).await;
    assert_eq!(same.body["changes"], json!([]));
}

#[tokio::test]
async fn point_that_is_none_is_refused() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = redriven(&events, &database).await;
    for uri in [
        "?at=yesterday",
        "?at_revision=-1",
        "?at_revision=1&at=1970-01-01T00:16:40Z",
        "?at=",
        "/history/compare?from=x",
        "/history/compare?from=",
        "/history/compare?from=1&to=",
    ] {
        let answer = get(&api, &format!("/v1/orders/{}{uri}", id(1))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
        assert_eq!(answer.body, json!({"message": "Invalid request parameters"}), "{uri}");
    }
}
