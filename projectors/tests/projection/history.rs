//! Histories, page by page.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{EventStore, PATIENCE, get, queries};

/// More events than are kept between two states.
const N_EVENTS: u64 = 2_504;

/// An order of that many events.
async fn long_history(events: &EventStore, database: &Database) -> Router {
    let mut history = History::of(1).placed();
    for _ in 4..N_EVENTS {
        history = history.delivery_failed();
    }
    for part in history.events().chunks(500) {
        events.append(part).await;
    }
    queries(database.read_model().await, events.log.clone())
}

/// All revisions of a history, in the sequence in which pages of `limit` bring them.
async fn paged(api: &Router, query: &str, limit: u64) -> Vec<u64> {
    let history = format!("/v1/orders/{}/history", id(1));
    let mut revisions = Vec::new();
    let mut uri = format!("{history}?limit={limit}&{query}");
    loop {
        let page = get(api, &uri).await;
        assert_eq!(page.status, StatusCode::OK, "{:?}", page.body);
        let events = page.body["events"].as_array().unwrap();
        assert!(events.len() as u64 <= limit && !events.is_empty(), "{}", events.len());
        for event in events {
            let revision = event["revision"].as_u64().unwrap();
            // The state is folded from the first event on, wherever the page begins.
            assert_eq!(event["state_after"]["revision"], revision);
            assert_eq!(event["state_after"]["customer_id"], "cust-retail-001");
            let changes = event["changes"].as_array().unwrap();
            let fields: Vec<_> =
                changes.iter().map(|change| change["field"].as_str().unwrap()).collect();
            assert!(revision < 6 || fields == ["revision"], "{fields:?}");
            revisions.push(revision);
        }
        match page.body["next_cursor"].as_str() {
            Some(cursor) => uri = format!("{history}?limit={limit}&cursor={cursor}"),
            None => return revisions,
        }
    }
}

#[tokio::test]
async fn pages_bring_every_event_once_in_either_direction() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = long_history(&events, &database).await;
    let forwards: Vec<u64> = (0..N_EVENTS).collect();
    let backwards: Vec<u64> = forwards.iter().rev().copied().collect();
    for limit in [1_000, 999, 313] {
        assert_eq!(paged(&api, "", limit).await, forwards, "{limit}");
        assert_eq!(paged(&api, "sort=newest", limit).await, backwards, "{limit}");
    }
    let whole = get(&api, &format!("/v1/orders/{}/history", id(1))).await;
    assert_eq!(whole.body["events"].as_array().unwrap().len(), 1_000, "no more than a page");

    let order = format!("/v1/orders/{}", id(1));
    for revision in [0, 999, 1_000, 2_503] {
        let answer = get(&api, &format!("{order}?at_revision={revision}")).await;
        assert_eq!((&answer.body["revision"], answer.status), (&json!(revision), StatusCode::OK));
    }
    let compared = get(&api, &format!("{order}/history/compare?from=1500")).await;
    assert_eq!(
        compared.body["changes"],
        json!([{"field": "revision", "before": 1500, "after": 2503}])
    );
}

#[tokio::test]
async fn readers_share_a_bounded_number_of_places() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = long_history(&events, &database).await;
    let uri = format!("/v1/orders/{}/history?sort=newest", id(1));
    // On a busy machine a reader may wait for a place longer than the API lets it, and tries again.
    let get_when_free = async || loop {
        let answer = get(&api, &uri).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
    };
    let all = timeout(2 * PATIENCE, join_all((0..8).map(|_| get_when_free()))).await.unwrap();
    for answer in &all {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert!(answer.body == all[0].body, "the answers differ");
    }

    // An unread answer keeps its permit until its client disconnects.
    let mut unread = Vec::new();
    for _ in 0..16 {
        let request = Request::get(&uri).body(Body::empty()).unwrap();
        let answer = api.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        unread.push(answer);
    }
    let refused = get(&api, &uri).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some());
    drop(unread);
    assert_eq!(get(&api, &uri).await.status, StatusCode::OK);
}

#[tokio::test]
async fn large_events_make_a_page_shorter() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let customer = "c".repeat(300_000);
    let mut history = History::of(1).customer(&customer).placed();
    for _ in 0..20 {
        history = history.delivery_failed();
    }
    for part in history.events().chunks(1) {
        events.append(part).await;
    }
    let api = queries(database.read_model().await, events.log.clone());
    let uri = format!("/v1/orders/{}/history", id(1));
    for sort in ["oldest", "newest"] {
        let page = get(&api, &format!("{uri}?sort={sort}")).await;
        let n_events = page.body["events"].as_array().unwrap().len();
        assert!((1..20).contains(&n_events), "{n_events}");
        assert!(page.body["next_cursor"].is_string());
        assert!(page.body.to_string().len() < 5 * 1024 * 1024);
    }
}

#[tokio::test]
async fn page_that_is_none_is_refused() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    for number in 1..=2 {
        events.append(&History::of(number).placed().events()).await;
    }
    let api = queries(database.read_model().await, events.log.clone());
    let history = |number| format!("/v1/orders/{}/history", id(number));
    let first = get(&api, &format!("{}?limit=1", history(1))).await;
    let cursor = first.body["next_cursor"].as_str().unwrap();
    for uri in [
        format!("{}?limit=0", history(1)),
        format!("{}?limit=1001", history(1)),
        format!("{}?sort=sideways", history(1)),
        format!("{}?cursor=x", history(1)),
        format!("{}?cursor={cursor}", history(2)),
        format!("{}?cursor={cursor}&sort=newest", history(1)),
    ] {
        let answer = get(&api, &uri).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
    }
    let next = get(&api, &format!("{}?cursor={cursor}&sort=oldest", history(1))).await;
    assert_eq!(next.body["events"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn event_that_cannot_be_read_is_shown_as_found_and_changes_nothing() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    events.append(&History::of(1).placed().events()).await;
    let tool = events.tool();
    tool.append(id(1), "OrderMislaid", r#"{"where":null}"#).await;
    tool.append(id(1), "OrderStored", "no json").await;
    let stored = json!({"order_id": id(1), "stored_at": "1970-01-01T00:00:00Z"});
    tool.append(id(1), "OrderStored", &stored.to_string()).await;
    let api = queries(database.read_model().await, events.log.clone());
    let history = get(&api, &format!("/v1/orders/{}/history", id(1))).await;
    let shown = history.body["events"].as_array().unwrap();
    assert_eq!(
        (&shown[4]["state_after"], &shown[4]["changes"], &shown[4]["data"], &shown[4]["metadata"]),
        (&Value::Null, &json!([]), &json!({"where": null}), &json!({"where": null}))
    );
    assert_eq!(shown[5]["data"], json!("no json"));
    // The next one is compared with the state before the unreadable ones.
    let changes = shown[6]["changes"].as_array().unwrap();
    assert_eq!(
        changes.iter().map(|change| change["field"].clone()).collect::<Vec<_>>(),
        [json!("revision")]
    );
    assert_eq!(shown[6]["state_after"]["revision"], 6);
}
