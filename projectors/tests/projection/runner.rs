//! The projector and the routes over a running event store.

use std::sync::Arc;

use axum::http::StatusCode;
use domain::order::{Stage, fields, fold};
use projectors::{ProjectorError, StoreError, migrate, open};
use serde_json::{Value, json};
use testkit::postgres;

use crate::events::{History, at, id};
use crate::stores::Database;
use crate::system::{EventStore, Projector, get, projected, queries};

#[tokio::test]
async fn projector_goes_on_where_it_stopped() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    let history =
        |number| History::of(number).placed().failed(Stage::Fulfillment, "refused").events();
    for number in 1..=4 {
        events.append(&history(number)[..4]).await;
    }

    let projector = Projector::start(&events.log, &store, 3);
    projected(&store, 16).await;
    projector.stop().await.unwrap();
    for number in 1..=4 {
        events.append(&history(number)[4..]).await;
    }
    let projector = Projector::start(&events.log, &store, 3);
    projected(&store, 20).await;
    projector.stop().await.unwrap();

    for number in 1..=4 {
        let order = store.order(id(number)).await.unwrap().unwrap();
        let whole = events.log.load(id(number)).await.unwrap().order.unwrap();
        assert_eq!(fields(&order.into()), fields(&whole));
    }
    let checkpoint = store.checkpoint().await.unwrap();
    assert_eq!((checkpoint.events_applied, checkpoint.events_skipped), (20, 0));
    assert_eq!(checkpoint.moved_at, Some(at(2_000)));
    assert_eq!(store.count_orders().await.unwrap().n_failed_fulfillment, 4);
}

#[tokio::test]
async fn two_projectors_of_one_read_model_do_no_harm() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    let projectors = [1, 2].map(|batch_size| Projector::start(&events.log, &store, batch_size));
    for number in 1..=20 {
        events.append(&History::of(number).placed().fulfilled().events()).await;
    }
    projected(&store, 100).await;
    for projector in projectors {
        projector.stop().await.unwrap();
    }
    assert_eq!(store.count_orders().await.unwrap().n_fulfilled, 20);
    assert_eq!(store.checkpoint().await.unwrap().events_applied, 100);
}

#[tokio::test]
async fn projector_that_stands_by_takes_over_from_one_that_fell_silent() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    // A holder that never answers a challenge.
    let free = store.lease().await.unwrap();
    store.take_lease(&free, "silent").await.unwrap();
    events.append(&History::of(1).placed().events()).await;

    let projector = Projector::start(&events.log, &store, 100);
    let begun = tokio::time::Instant::now();
    projected(&store, 4).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(store.checkpoint().await.unwrap().epoch, 2);

    projector.stop().await.unwrap();
    assert_eq!(store.lease().await.unwrap().holder, None);
}

#[tokio::test]
async fn event_store_that_was_replaced_is_refused() {
    let (database, first) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    first.append(&History::of(1).placed().events()).await;
    let projector = Projector::start(&first.log, &store, 100);
    projected(&store, 4).await;
    projector.stop().await.unwrap();

    let second = EventStore::start().await;
    let refused = async || {
        let ended = Projector::start(&second.log, &store, 100).ended().await;
        let Err(ProjectorError::Origin(refused)) = ended else { panic!("{ended:?}") };
        refused.to_string()
    };
    assert!(refused().await.contains("here there is none"));
    second.append(&History::of(2).placed().events()).await;
    assert!(refused().await.contains("dofs projections rebuild"));
    assert_eq!(store.order(id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn event_about_another_order_is_passed_over_and_counted() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    events.append_to(id(2), &History::of(1).received().events()).await;
    events.append(&History::of(3).placed().events()).await;

    let projector = Projector::start(&events.log, &store, 100);
    projected(&store, 5).await;
    projector.stop().await.unwrap();
    let checkpoint = store.checkpoint().await.unwrap();
    assert_eq!((checkpoint.events_applied, checkpoint.events_skipped), (4, 1));
    assert_eq!(store.order(id(1)).await.unwrap(), None);
    assert_eq!(store.order(id(2)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_crashes_is_waited_for_and_orders_are_read_from_their_streams() {
    let (mut server, events) = (postgres::start_private_server(), EventStore::start().await);
    migrate(&server.url()).await.unwrap();
    let store = open(&server.url()).unwrap();
    let api = queries(Arc::clone(&store), events.log.clone());
    let projector = Projector::start(&events.log, &store, 100);
    events.append(&History::of(1).placed().events()).await;
    projected(&store, 4).await;

    server.stop_immediately();
    events.append(&History::of(1).placed().fulfilled().events()[4..]).await;
    let by_id = get(&api, &format!("/v1/orders/{}", id(1))).await;
    assert_eq!(by_id.status, StatusCode::OK, "{}", by_id.body);
    assert_eq!((&by_id.body["source"], &by_id.body["revision"]), (&json!("stream"), &json!(4)));
    let list = get(&api, "/v1/orders").await;
    assert_eq!(list.status, StatusCode::SERVICE_UNAVAILABLE, "{}", list.body);
    assert_eq!(list.header("retry-after"), Some("1"));

    server.start();
    projected(&store, 5).await;
    projector.stop().await.unwrap();
    let by_id = get(&api, &format!("/v1/orders/{}", id(1))).await;
    assert_eq!((&by_id.body["source"], &by_id.body["revision"]), (&json!("table"), &json!(4)));
}

#[tokio::test]
async fn projector_refuses_a_schema_that_it_does_not_know() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = open(&database.url()).unwrap();
    let ended = Projector::start(&events.log, &store, 100).ended().await;
    let Err(ProjectorError::Schema(reason)) = ended else { panic!("{ended:?}") };
    assert!(matches!(reason, StoreError::SchemaOlder { .. }), "{reason:?}");
}

#[tokio::test]
async fn accepted_order_is_found_before_it_is_projected_and_while_the_tables_are_down() {
    let (migrated, missing) = (Database::sqlite(), Database::sqlite());
    let events = EventStore::start().await;
    events.append(&History::of(1).placed().events()).await;

    for store in [migrated.read_model().await, open(&missing.url()).unwrap()] {
        let api = queries(store, events.log.clone());
        let answer = get(&api, &format!("/v1/orders/{}", id(1))).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.header("etag"), Some("\"3\""));
        assert_eq!(answer.body["source"], json!("stream"));
        assert_eq!(answer.body["status"], json!("PROCESSING"));

        for path in [format!("/order/{}", id(2)), format!("/v1/orders/{}/history", id(2))] {
            let answer = get(&api, &path).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(answer.body, json!({"error": format!("Order {} not found", id(2))}));
        }
    }
}

#[tokio::test]
async fn history_shows_what_every_event_changed() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let history = History::of(1).placed().failed(Stage::Fulfillment, "refused").events();
    events.append(&history).await;
    let api = queries(database.read_model().await, events.log.clone());

    let answer = get(&api, &format!("/v1/orders/{}/history", id(1))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["order_id"], json!(id(1)));
    let entries = answer.body["events"].as_array().unwrap();
    let types: Vec<_> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    let expected = ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued", "OrderFailed"];
    assert_eq!(types, expected);

    let failed = entries.last().unwrap();
    let members: Vec<_> = failed.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "revision",
            "event_id",
            "type",
            "data",
            "metadata",
            "recorded_at",
            "state_after",
            "changes"
        ]
    );
    assert_eq!(failed["revision"], json!(4));
    assert_eq!(failed["data"]["code"], json!("refused"));
    assert_eq!(failed["metadata"]["actor"], json!("customer"));
    assert_eq!(failed["recorded_at"], json!("1970-01-01T00:16:40Z"));
    assert_eq!(failed["state_after"], Value::Object(fields(&fold(&history).unwrap())));
    let changed = |field: &str| {
        let changes = failed["changes"].as_array().unwrap();
        changes.iter().find(|change| change["field"] == field).cloned()
    };
    let status = json!({"field": "status", "before": "PROCESSING", "after": "FAILED"});
    assert_eq!(changed("status"), Some(status));
    assert_eq!(changed("items"), None);
}

#[tokio::test]
async fn statistics_say_what_waits_and_how_far_the_tables_are_behind() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    let api = queries(Arc::clone(&store), events.log.clone());
    events.append(&History::of(1).second(1_991).placed().events()).await;
    events.append(&History::of(2).second(1_992).placed().fulfilled().events()).await;
    let refused = History::of(3).second(1_993).placed().failed(Stage::Fulfillment, "refused");
    events.append(&refused.events()).await;

    let behind = get(&api, "/v1/stats").await;
    assert_eq!(behind.status, StatusCode::OK, "{}", behind.body);
    let projection = json!({"lag_events": 14, "lag_seconds": 9.0, "stuck": false, "ahead_events": 0,
            "verification": null, "advice": null});
    assert_eq!(behind.body["projection"], projection);
    assert_eq!(behind.body["success_rate"], json!({"observed": null, "configured": 0.7}));

    let projector = Projector::start(&events.log, &store, 100);
    projected(&store, 14).await;
    projector.stop().await.unwrap();
    let caught_up = get(&api, "/v1/stats").await;
    assert_eq!(
        caught_up.body,
        json!({
            "orders": {"PROCESSING": 1, "FULFILLED": 1, "FAILED": 1},
            "failed_by_stage": {"validation": 0, "fulfillment": 1, "dead_letter": 0},
            "queue": {"waiting": 1, "in_flight": 0, "parked": 0, "retrying": 0,
                "oldest_waiting_seconds": 9.0},
            "fulfillment": {"paused": false, "breaker": "closed", "watchdog_reconnects": 0},
            "projection": {"lag_events": 0, "lag_seconds": 0.0, "stuck": false, "ahead_events": 0,
                "verification": null, "advice": null},
            "event_store": {"oldest_event_at": "1970-01-01T00:16:40Z", "disk_bytes": null},
            "unavailable": {},
            "success_rate": {"observed": 0.5, "configured": 0.7},
        })
    );
    let per_minute = get(&api, "/v1/stats?minutes=2").await;
    assert_eq!(
        per_minute.body["per_minute"],
        json!([{
            "minute": "1970-01-01T00:33:00Z",
            "events": 14,
            "received": 3,
            "fulfilled": 1,
            "failed": 1,
            "success_rate": 0.5,
            "mean_completion_seconds": 45.0,
            "max_completion_seconds": 60.0,
        }])
    );
    let none = get(&api, "/v1/stats?minutes=0").await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST, "{}", none.body);
}
