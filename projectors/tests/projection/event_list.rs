//! The list of events of all orders, newest first.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use domain::order::Stage;
use serde_json::{Value, json};

use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{EventStore, get, log, queries, queries_of_tenant};

/// Order and revision of an event.
type Listed = (String, u64);

fn listed(page: &Value) -> Vec<Listed> {
    let items = page["items"].as_array().unwrap().iter();
    let listed = |item: &Value| {
        (item["order_id"].as_str().unwrap().to_owned(), item["revision"].as_u64().unwrap())
    };
    items.map(listed).collect()
}

/// Reads all pages, and returns the events and the number of pages.
async fn read_all(api: &Router, query: &str) -> (Vec<Listed>, usize) {
    let (mut events, mut n_pages) = (Vec::new(), 0);
    let mut next = Some(format!("/v1/events?{query}"));
    while let Some(uri) = next {
        let page = get(api, &uri).await;
        assert_eq!(page.status, StatusCode::OK, "{uri}: {}", page.body);
        events.extend(listed(&page.body));
        n_pages += 1;
        next = page.header("link").map(|link| {
            link.trim_start_matches('<').split('>').next().unwrap_or_default().to_owned()
        });
        assert_eq!(next.is_some(), page.body["next_cursor"].is_string());
    }
    (events, n_pages)
}

/// Places orders of two tenants and of none; every third has failed. Returns all events, newest first.
async fn append_orders(events: &EventStore) -> Vec<Listed> {
    let mut appended = Vec::new();
    for number in 1..=30 {
        let placed = History::of(number).placed();
        let history = match number % 3 {
            0 => placed.failed(Stage::DeadLetter, "poison").events(),
            _ => placed.fulfilled().events(),
        };
        let tenant = [None, Some("a"), Some("b")][usize::try_from(number % 3).unwrap()];
        events.append_of(tenant, id(number), &history).await;
        appended.extend(history.iter().map(|event| (id(number).to_string(), event.revision)));
    }
    appended.reverse();
    appended
}

#[tokio::test]
async fn pages_list_every_event_once_newest_first() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    assert_eq!(get(&api, "/v1/events").await.body, json!({"items": [], "next_cursor": null}));
    let all = append_orders(&events).await;
    for limit in [1, 7, 75, 149, 150, 200] {
        assert_eq!(read_all(&api, &format!("limit={limit}")).await.0, all, "{limit}");
    }
    let first = get(&api, "/v1/events").await.body;
    assert_eq!(listed(&first), all[..50]);
    // Events that are appended later do not move the pages.
    events.append(&History::of(99).placed().events()).await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = get(&api, &format!("/v1/events?cursor={cursor}")).await.body;
    assert_eq!(listed(&second), all[50..100]);
}

#[tokio::test]
async fn events_are_filtered_by_order_and_type() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    let all = append_orders(&events).await;
    let order = id(4).to_string();
    let of_order = |listed: &&Listed| listed.0 == order;
    let expected: Vec<_> = all.iter().filter(of_order).cloned().collect();
    for limit in [1, 2, 5, 50] {
        let query = format!("order_id={order}&limit={limit}");
        assert_eq!(read_all(&api, &query).await.0, expected, "{limit}");
    }
    let expected: Vec<_> = all.iter().filter(|(_, revision)| [0, 2].contains(revision)).collect();
    let (found, _) = read_all(&api, "types=OrderStored,OrderReceived&limit=9").await;
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    let (found, _) = read_all(&api, &format!("order_id={order}&types=OrderStored")).await;
    assert_eq!(found, [(order.clone(), 2)]);
    assert_eq!(read_all(&api, &format!("order_id={}", id(999))).await.0, []);

    let cursor = get(&api, "/v1/events?limit=1").await.body;
    let cursor = cursor["next_cursor"].as_str().unwrap();
    for query in [
        "types=Lost".to_owned(),
        "order_id=x".to_owned(),
        "limit=0".to_owned(),
        "limit=201".to_owned(),
        "cursor=x".to_owned(),
        format!("cursor={cursor}&types=OrderStored"),
    ] {
        let refused = get(&api, &format!("/v1/events?{query}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn tenant_gets_the_events_of_its_orders_only() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let store = database.read_model().await;
    let all = append_orders(&events).await;
    for (tenant, rest) in [("a", 1), ("b", 2)] {
        let api = queries_of_tenant(Arc::clone(&store), events.log.clone(), Some(tenant));
        let own: Vec<_> = (1..=30).filter(|number| number % 3 == rest).map(id).collect();
        let is_own = |listed: &&Listed| own.iter().any(|id| id.to_string() == listed.0);
        let expected: Vec<_> = all.iter().filter(is_own).cloned().collect();
        for limit in [3, 200] {
            assert_eq!(read_all(&api, &format!("limit={limit}")).await.0, expected, "{tenant}");
        }
        assert_eq!(read_all(&api, &format!("order_id={}", id(3))).await.0, []);
        assert_eq!(read_all(&api, &format!("order_id={}", own[0])).await.0.len(), 5);
    }
    // A cursor of another tenant grants no access.
    let api = queries(Arc::clone(&store), events.log.clone());
    let page = get(&api, "/v1/events?limit=1").await.body;
    let cursor = page["next_cursor"].as_str().unwrap();
    let foreign = queries_of_tenant(store, events.log.clone(), Some("c"));
    assert_eq!(read_all(&foreign, &format!("cursor={cursor}")).await, (vec![], 1));
}

#[tokio::test]
async fn page_ends_early_where_few_events_match() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    events.append(&History::of(1).placed().events()).await;
    let noise = (4..12_000).fold(History::of(2).placed(), |history, _| history.delivery_failed());
    for part in noise.events().chunks(500) {
        events.append(part).await;
    }
    let first = get(&api, "/v1/events?types=OrderReceived").await.body;
    assert_eq!(first["items"], json!([]));
    let (found, n_pages) = read_all(&api, "types=OrderReceived").await;
    assert_eq!(found, [(id(2).to_string(), 0), (id(1).to_string(), 0)]);
    assert!((3..=24).contains(&n_pages), "{n_pages}");
}

#[tokio::test]
async fn large_events_make_a_page_shorter() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    let customer = "c".repeat(400_000);
    for number in 1..=8 {
        events.append(&History::of(number).customer(&customer).placed().events()).await;
    }
    let page = get(&api, "/v1/events?limit=200").await.body;
    assert!(listed(&page).len() < 32 && page["next_cursor"].is_string());
    let (all, _) = read_all(&api, "limit=200").await;
    assert_eq!(all.len(), 32);
}

#[tokio::test]
async fn event_that_cannot_be_read_is_listed_as_found() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    events.append(&History::of(1).placed().events()).await;
    events.tool().append(id(1), "OrderMislaid", r#"{"where":null}"#).await;
    events.tool().append(id(1), "OrderStored", "no json").await;
    let page = get(&api, "/v1/events?limit=2").await.body;
    let shown = page["items"].as_array().unwrap();
    assert_eq!((&shown[0]["type"], &shown[0]["data"]), (&json!("OrderStored"), &json!("no json")));
    assert_eq!(
        (&shown[1]["type"], &shown[1]["data"], &shown[1]["metadata"]),
        (&json!("OrderMislaid"), &json!({"where": null}), &json!({"where": null}))
    );
}

#[tokio::test]
async fn tombstoned_order_has_no_events_in_its_list() {
    let (events, database) = (EventStore::start().await, Database::sqlite());
    let api = queries(database.read_model().await, events.log.clone());
    for number in 1..=3 {
        events.append(&History::of(number).placed().events()).await;
    }
    events.tool().tombstone(id(1)).await;
    events.tool().delete(id(2)).await;
    for number in [1, 2] {
        assert_eq!(read_all(&api, &format!("order_id={}", id(number))).await.0, []);
    }
    assert_eq!(read_all(&api, "limit=3").await.0.len(), 12);
}

#[tokio::test]
async fn unreachable_event_store_is_503() {
    let database = Database::sqlite();
    let api = queries(database.read_model().await, log("esdb://127.0.0.1:9?tls=false"));
    let answer = get(&api, "/v1/events").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
