//! What a client reads of an order never goes back, and a wait ends with the newest that there is.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use event_log::EventLog;
use projectors::ReadModel;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::contract::project;
use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{EventStore, get, get_with, queries};

/// An order whose row says that it was queued.
async fn queued(events: &EventStore, store: &Arc<ReadModel>) {
    let history = History::of(1).placed().events();
    events.append(&history).await;
    project(store, &history).await;
}

/// Follows the log for clients that wait.
fn follow(log: &EventLog) -> JoinSet<()> {
    let log = log.clone();
    let mut following = JoinSet::new();
    following.spawn(async move {
        log.follow_live_events(Duration::from_mins(1), CancellationToken::new()).await;
    });
    following
}

#[tokio::test]
async fn answer_from_the_stream_is_never_followed_by_an_older_row() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let store = database.read_model().await;
    queued(&events, &store).await;
    let log = events.log.clone();
    let _following = follow(&log);
    let api = queries(Arc::clone(&store), log);
    let order = format!("/v1/orders/{}", id(1));
    assert_eq!(get(&api, &order).await.body["source"], "table");

    let history = History::of(1).placed().fulfilled().events();
    events.append(&history[4..]).await;
    let awaited = get_with(&api, &order, &[("wait-for-revision", "4")]).await;
    assert_eq!(
        (&awaited.body["status"], &awaited.body["revision"]),
        (&json!("FULFILLED"), &json!(4))
    );
    for _ in 0..3 {
        let plain = get(&api, &order).await;
        assert_eq!(plain.body["revision"], 4, "the row is at revision 3");
    }
    // Not even while the stream cannot be read.
    events.stop().await;
    let plain = get(&api, &order).await;
    assert_eq!((plain.status, &plain.body["revision"]), (StatusCode::OK, &json!(4)));

    project(&store, &history).await;
    let plain = get(&api, &order).await;
    assert_eq!((&plain.body["source"], &plain.body["revision"]), (&json!("table"), &json!(4)));
}

#[tokio::test]
async fn wait_in_vain_ends_with_the_newest_state() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let store = database.read_model().await;
    queued(&events, &store).await;
    let _following = follow(&events.log);
    let api = queries(Arc::clone(&store), events.log.clone());
    let order = format!("/v1/orders/{}", id(1));
    let headers = [("prefer", "wait=2")];
    let history = History::of(1).placed().delivery_failed().events();
    let (waited, ()) = tokio::join!(get_with(&api, &order, &headers), events.append(&history[4..]));
    assert_eq!(waited.header("stale"), Some("true"));
    assert_eq!(
        (&waited.body["revision"], &waited.body["status"]),
        (&json!(4), &json!("PROCESSING"))
    );
}

#[tokio::test]
async fn wait_that_loses_the_event_store_ends_with_the_newest_row() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let store = database.read_model().await;
    queued(&events, &store).await;
    let _following = follow(&events.log);
    let api = queries(Arc::clone(&store), events.log.clone());
    let order = format!("/v1/orders/{}", id(1));
    let history = History::of(1).placed().fulfilled().events();
    let meanwhile = async {
        events.stop().await;
        project(&store, &history).await;
    };
    let headers = [("prefer", "wait=2")];
    let (waited, ()) = tokio::join!(get_with(&api, &order, &headers), meanwhile);
    assert_eq!((&waited.body["revision"], &waited.body["source"]), (&json!(4), &json!("table")));
}
