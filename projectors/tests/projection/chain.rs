//! The check of the hash chain in histories.

use std::collections::BTreeSet;

use axum::Router;
use domain::ids::OrderId;
use event_log::LoggedEvent;
use serde_json::{Value, json};

use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{EventStore, get, queries};

/// Number of events of an order.
const N_EVENTS: u64 = 7;

/// Appends an order with that many events, and returns them as they are stored.
async fn append_order(events: &EventStore, number: u128) -> Vec<LoggedEvent> {
    let history = History::of(number).placed().delivery_failed().delivery_started(2).fulfilled();
    events.append(&history.events()).await;
    events.log.read_history(id(number)).await.unwrap()
}

/// Writes events into the stream of another order, as `edit` changes their data and metadata.
async fn forge(
    events: &EventStore,
    order_id: OrderId,
    history: &[LoggedEvent],
    edit: impl Fn(u64, &mut Value, &mut Value),
) {
    let tool = events.tool();
    for event in history {
        let mut data = serde_json::from_slice(&event.data).unwrap();
        let mut metadata = serde_json::from_slice(&event.metadata).unwrap();
        edit(event.revision, &mut data, &mut metadata);
        let [data, metadata] = [data, metadata].map(|json| json.to_string());
        tool.append_with_metadata(order_id, &event.event_type, [&data, &metadata]).await;
    }
}

fn remove_hash(metadata: &mut Value) {
    metadata.as_object_mut().unwrap().shift_remove("previous_hash").unwrap();
}

/// Returns what a page of these revisions should say.
fn expected_chain(page: &[u64], unhashed: &BTreeSet<u64>, broken: &BTreeSet<u64>) -> Value {
    let broken_at = page.iter().filter(|revision| broken.contains(revision)).min();
    let state = match broken_at {
        Some(_) => "broken",
        None if page.iter().any(|revision| unhashed.contains(revision)) => "unhashed",
        None => "verified",
    };
    json!({"state": state, "broken_at": broken_at})
}

/// Checks all pages of a history, of every size and in both directions.
async fn check_pages(
    api: &Router,
    order_id: OrderId,
    unhashed: impl IntoIterator<Item = u64>,
    broken: impl IntoIterator<Item = u64>,
) {
    let (unhashed, broken) = (unhashed.into_iter().collect(), broken.into_iter().collect());
    for limit in 1..=N_EVENTS + 1 {
        for sort in ["oldest", "newest"] {
            let history = format!("/v1/orders/{order_id}/history?limit={limit}");
            let mut uri = format!("{history}&sort={sort}");
            loop {
                let page = get(api, &uri).await.body;
                let events = page["events"].as_array().unwrap();
                let revisions: Vec<_> =
                    events.iter().map(|event| event["revision"].as_u64().unwrap()).collect();
                let expected = expected_chain(&revisions, &unhashed, &broken);
                assert_eq!(page["chain"], expected, "{uri}: {revisions:?}");
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                uri = format!("{history}&cursor={cursor}");
            }
        }
    }
}

#[tokio::test]
async fn every_page_shows_the_state_of_its_links() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    let history = append_order(&events, 1).await;
    check_pages(&api, id(1), [], []).await;
    // A copy has the same bytes, and so the same hashes.
    forge(&events, id(2), &history, |_, _, _| {}).await;
    check_pages(&api, id(2), [], []).await;

    // The event behind a changed one shows the change. A changed last event is not detected.
    for changed in 0..N_EVENTS {
        let order_id = id(10 + u128::from(changed));
        let change = |revision, data: &mut Value, _: &mut Value| {
            if revision == changed {
                data["note"] = json!("changed");
            }
        };
        forge(&events, order_id, &history, change).await;
        check_pages(&api, order_id, [], (changed + 1 < N_EVENTS).then_some(changed + 1)).await;
    }
    // The hash covers the metadata, too.
    for stripped in 1..N_EVENTS {
        let order_id = id(30 + u128::from(stripped));
        let strip = |revision, _: &mut Value, metadata: &mut Value| {
            if revision == stripped {
                remove_hash(metadata);
            }
        };
        forge(&events, order_id, &history, strip).await;
        check_pages(&api, order_id, [], [stripped, stripped + 1]).await;
    }
    // A removed event.
    let removed = [&history[..3], &history[4..]].concat();
    forge(&events, id(50), &removed, |_, _, _| {}).await;
    check_pages(&api, id(50), [], [3]).await;
    // Events of an earlier release only.
    forge(&events, id(51), &history, |_, _, metadata| remove_hash(metadata)).await;
    check_pages(&api, id(51), 0..N_EVENTS, []).await;
}

#[tokio::test]
async fn chain_may_begin_behind_events_without_hashes() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    let history = append_order(&events, 1).await;
    forge(&events, id(2), &history[..4], |_, _, metadata| remove_hash(metadata)).await;
    let rest = History::of(2).placed().delivery_failed().delivery_started(2).fulfilled().events();
    events.append(&rest[4..]).await;
    check_pages(&api, id(2), 0..4, []).await;
}

#[tokio::test]
async fn chain_of_a_long_history_must_not_end() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    let history = (4..1_100).fold(History::of(1).placed(), |history, _| history.delivery_failed());
    for part in history.events().chunks(500) {
        events.append(part).await;
    }
    for _event in 0..2 {
        events.tool().append(id(1), "OrderStored", "{}").await;
    }
    // The second read continues from a kept state, behind the beginning of the chain.
    for _read in 0..2 {
        let uri = format!("/v1/orders/{}/history?sort=newest&limit=1", id(1));
        let newest = get(&api, &uri).await.body;
        assert_eq!(newest["chain"], json!({"state": "broken", "broken_at": 1_101}));
        let cursor = newest["next_cursor"].as_str().unwrap();
        let uri = format!("/v1/orders/{}/history?limit=2&cursor={cursor}", id(1));
        let page = get(&api, &uri).await.body;
        assert_eq!(page["chain"], json!({"state": "broken", "broken_at": 1_100}));
        let cursor = page["next_cursor"].as_str().unwrap();
        let uri = format!("/v1/orders/{}/history?limit=90&cursor={cursor}", id(1));
        assert_eq!(get(&api, &uri).await.body["chain"]["state"], "verified");
    }
}
