//! Orders that are asked for at the same time, while the read model fails and clients hang up.

use std::sync::Arc;

use axum::http::StatusCode;
use projectors::{Lookups, StoreError, open};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use testkit::wait;
use tokio::task::JoinSet;

use crate::events::{History, id};
use crate::rebuild::{append_orders, projected_all};
use crate::stores::Database;
use crate::system::{EventStore, Projector, get, queries};

/// As many clients as were seen to get a 500.
const CLIENTS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_shown_to_many_at_once_while_the_read_model_is_away() {
    let (away, events) = (Database::sqlite(), EventStore::start().await);
    events.append(&History::of(1).placed().events()).await;
    let api = queries(open(&away.url()).unwrap(), events.log.clone());
    let mut clients = JoinSet::new();
    for _client in 0..CLIENTS {
        let api = api.clone();
        clients.spawn(async move { get(&api, &format!("/v1/orders/{}", id(1))).await });
    }
    while let Some(answer) = clients.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.body["source"], json!("stream"));
    }
}

#[tokio::test]
async fn lookups_outlive_the_clients_that_took_them_along() {
    let (database, events) = (Database::postgres().await, EventStore::start().await);
    let store = database.read_model().await;
    append_orders(&events, 1..=5).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 5).await;
    projector.stop().await.unwrap();

    let lookups = Lookups::new(Arc::clone(&store));
    let mut operator = PgConnection::connect(&database.url()).await.unwrap();
    let lock = "begin; lock table orders in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut operator).await.unwrap();
    let mut clients = JoinSet::new();
    let mut ask = |number| {
        let lookups = lookups.clone();
        clients.spawn(async move { lookups.order(id(number)).await })
    };
    let mut waiting = async |n_statements: i64| {
        let waits = "select count(*) from pg_locks where not granted";
        wait::until_async("statements wait for the table", async || {
            let n_waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut operator).await.ok()?;
            (n_waiting >= n_statements).then_some(())
        })
        .await;
    };
    // The first statement reads one order. The second reads the orders of all waiting clients.
    let first = ask(1);
    waiting(1).await;
    let second = ask(1);
    let others: Vec<_> = (0..15).map(|index| ask(index % 5 + 1)).collect();
    first.abort();
    waiting(2).await;
    second.abort();
    waiting(3).await;
    operator.close().await.unwrap();
    let mut n_found = 0;
    while let Some(found) = clients.join_next().await {
        match found {
            Ok(found) => n_found += usize::from(found.unwrap().is_some()),
            Err(hung_up) => assert!(hung_up.is_cancelled(), "{hung_up}"),
        }
    }
    assert_eq!(n_found, others.len());
}

async fn row_that_cannot_be_read_fails_its_own_lookups_only(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=5).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 5).await;
    projector.stop().await.unwrap();
    // Only order 3 failed.
    database.execute("update orders set status = 'LOST' where status = 'FAILED'").await;

    let lookups = Lookups::new(Arc::clone(&store));
    let mut asking = JoinSet::new();
    for index in 0..100_u128 {
        let (lookups, number) = (lookups.clone(), index % 6 + 1);
        asking.spawn(async move { (number, lookups.order(id(number)).await) });
    }
    while let Some(asked) = asking.join_next().await {
        match asked.unwrap() {
            (3, found) => {
                let error = found.unwrap_err();
                assert!(matches!(*error, StoreError::Row { .. }), "{error:?}");
            }
            (number, found) => {
                let found = found.unwrap().map(|order| order.order_id);
                assert_eq!(found, (number < 6).then_some(id(number)));
            }
        }
    }
    let answer = get(&queries(store, events.log.clone()), &format!("/v1/orders/{}", id(3))).await;
    assert_eq!((answer.status, &answer.body["source"]), (StatusCode::OK, &json!("stream")));
}

#[tokio::test]
async fn row_that_cannot_be_read_fails_its_own_lookups_only_in_sqlite() {
    row_that_cannot_be_read_fails_its_own_lookups_only(&Database::sqlite()).await;
}

#[tokio::test]
async fn row_that_cannot_be_read_fails_its_own_lookups_only_in_postgres() {
    row_that_cannot_be_read_fails_its_own_lookups_only(&Database::postgres().await).await;
}
