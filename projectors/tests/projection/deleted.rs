//! Orders whose streams an operator deleted, tombstoned or truncated.

use std::sync::Arc;

use axum::http::StatusCode;
use domain::order::Stage;
use projectors::{Begin, OrderCounts, ReadModel, Repair, SwapAtEnd};
use serde_json::json;
use testkit::wait;

use crate::events::{History, id};
use crate::rebuild::rebuild;
use crate::stores::Database;
use crate::system::{EventStore, Projector, get, projected, queries};
use crate::verify::verify;

/// Projects the orders 1 to 4, of which 1 and 2 have failed. The projector keeps running.
async fn four_orders(events: &EventStore, database: &Database) -> (Arc<ReadModel>, Projector) {
    let store = database.read_model().await;
    let projector = Projector::start(&events.log, &store, 100);
    for number in 1..=4 {
        let placed = History::of(number).placed();
        let history = match number {
            1 | 2 => placed.failed(Stage::DeadLetter, "poison").events(),
            _ => placed.fulfilled().events(),
        };
        events.append_of(Some("acme"), id(number), &history).await;
    }
    projected(&store, 20).await;
    (store, projector)
}

async fn deleted_orders_leave_the_tables(database: &Database) {
    let events = EventStore::start().await;
    let (store, projector) = four_orders(&events, database).await;
    let tool = events.tool();
    tool.tombstone(id(1)).await;
    tool.delete(id(3)).await;
    tool.truncate(id(4), 2).await;
    let left = OrderCounts {
        n_fulfilled: 1,
        n_failed: 1,
        n_failed_dead_letter: 1,
        ..OrderCounts::default()
    };
    wait::until_async("the deleted orders have left the tables", async || {
        (store.count_orders().await.ok()? == left).then_some(())
    })
    .await;
    let rows = store.rows(&[1, 2, 3, 4].map(id)).await.unwrap();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [id(2), id(4)]);

    let (verified, findings) = verify(&events, &store, Repair::Never).await;
    assert!(verified.is_sound() && verified.n_orders == 2, "{verified:?} {findings:?}");
    let (rebuilt, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await;
    let rebuilt = rebuilt.unwrap();
    assert!(rebuilt.is_live && rebuilt.compared.unwrap().is_sound(), "{findings:?}");
    assert_eq!(store.count_orders().await.unwrap(), left);
    assert_eq!(store.checkpoint().await.unwrap().events_skipped, 0);
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn deleted_orders_leave_sqlite_and_rebuild_and_verify_are_sound() {
    deleted_orders_leave_the_tables(&Database::sqlite()).await;
}

#[tokio::test]
async fn deleted_orders_leave_postgres_and_rebuild_and_verify_are_sound() {
    deleted_orders_leave_the_tables(&Database::postgres().await).await;
}

#[tokio::test]
async fn rows_of_deleted_orders_are_found_and_removed() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let (store, projector) = four_orders(&events, &database).await;
    projector.stop().await.unwrap();
    events.tool().tombstone(id(1)).await;
    // An older release passed the deletion without deleting the row.
    let head = events.log.store().head().await.unwrap().unwrap();
    database
        .execute(&format!(
            "update projection_checkpoints set commit_position = {}, prepare_position = {}",
            head.commit, head.prepare
        ))
        .await;
    let (found, _) = verify(&events, &store, Repair::Never).await;
    assert_eq!((found.n_differing, found.n_undecided), (1, 0));
    let (mended, _) = verify(&events, &store, Repair::Always).await;
    assert_eq!(mended.n_mended, 1);
    let (sound, findings) = verify(&events, &store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");
    assert!(store.order(id(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn rows_of_a_truncated_order_are_left_as_they_are() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let (store, projector) = four_orders(&events, &database).await;
    projector.stop().await.unwrap();
    events.tool().truncate(id(2), 3).await;
    // The rest of the stream is no reason to change the row or to report it.
    let order_id = id(2).0.simple().to_string();
    let changed = format!("update orders set customer_id = 'kept' where order_id = x'{order_id}'");
    database.execute(&changed).await;
    let (verified, findings) = verify(&events, &store, Repair::Always).await;
    assert!(verified.is_sound(), "{findings:?}");
    assert_eq!((verified.n_undecided, verified.n_mended), (1, 0));
    assert_eq!(store.order(id(2)).await.unwrap().unwrap().customer_id, "kept");
}

#[tokio::test]
async fn deleted_order_is_gone_on_every_route() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    for number in 1..=4 {
        let history = History::of(number).placed().failed(Stage::DeadLetter, "poison").events();
        events.append(&history).await;
    }
    let api = queries(database.read_model().await, events.log.clone());
    let tool = events.tool();
    tool.tombstone(id(1)).await;
    tool.delete(id(2)).await;
    tool.truncate(id(3), 5).await;
    let gone = json!({"error": "Order was deleted from the event store"});
    for number in 1..=3 {
        let order = format!("/v1/orders/{}", id(number));
        for uri in [
            order.clone(),
            format!("{order}?at_revision=0"),
            format!("{order}?at=9999-12-31T23:59:59Z"),
            format!("{order}/history"),
            format!("{order}/history?sort=newest"),
            format!("{order}/history/compare"),
            format!("{order}/history/compare?from=0&to=1"),
            format!("/v1/dead-letters/{}", id(number)),
        ] {
            let answer = get(&api, &uri).await;
            assert_eq!((answer.status, &answer.body), (StatusCode::GONE, &gone), "{uri}");
        }
    }
    // Of a truncated stream, the rest is shown.
    tool.truncate(id(4), 3).await;
    let order = format!("/v1/orders/{}", id(4));
    let history = get(&api, &format!("{order}/history")).await;
    let revisions: Vec<_> = history.body["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["revision"].clone())
        .collect();
    assert_eq!(revisions, [json!(3), json!(4)]);
    let compared = get(&api, &format!("{order}/history/compare")).await;
    assert_eq!(compared.body["from"]["revision"], 3);
    for uri in ["?at_revision=2", "?at=1970-01-01T00:00:00Z", "/history/compare?from=0"] {
        assert_eq!(get(&api, &format!("{order}{uri}")).await.status, StatusCode::GONE, "{uri}");
    }
    assert_eq!(get(&api, &format!("{order}?at_revision=5")).await.status, StatusCode::NOT_FOUND);
}
