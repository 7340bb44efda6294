//! PostgreSQL behind a pooler that gives each transaction another session, and databases that cannot
//! hold the rows.

use std::sync::Arc;

use domain::ids::OrderId;
use projectors::{Begin, OrderFilter, Page, ReadModel, Repair, SwapAtEnd, migrate, open};
use sqlx::{Connection, PgConnection};
use testkit::pgbouncer::PgBouncer;
use testkit::{postgres, wait};
use tokio::task::JoinSet;

use crate::events::id;
use crate::rebuild::{append_orders, projected_all, rebuild};
use crate::system::{EventStore, Projector};
use crate::verify::verify;

/// Concurrent readers: more than the pooler has sessions.
const N_READERS: usize = 16;
const N_READS: usize = 50;

/// Reads as the API does, in statements of many kinds.
async fn read_again_and_again(store: Arc<ReadModel>, order_ids: Vec<OrderId>) {
    for n_read in 0..N_READS {
        let order_id = order_ids[n_read % order_ids.len()];
        assert_eq!(store.order(order_id).await.unwrap().unwrap().order_id, order_id);
        let page = Page { after: None, limit: 5 };
        assert_eq!(store.orders(&OrderFilter::default(), &page).await.unwrap().len(), 5);
        assert!(store.count_orders().await.unwrap().total() >= 20);
        store.lease().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooled_sessions_of_single_transactions_work() {
    let server = tokio::task::spawn_blocking(postgres::start_private_server).await.unwrap();
    let Some(bouncer) = PgBouncer::start(&server) else { return };
    let (url, events) = (bouncer.url("postgres"), EventStore::start().await);
    assert!(!migrate(&url).await.unwrap().is_empty());
    assert_eq!(migrate(&url).await.unwrap(), [], "it has had them");
    let stores = [open(&url).unwrap(), open(&url).unwrap()];
    let [store, _] = &stores;
    store.check_schema().await.unwrap();
    append_orders(&events, 1..=20).await;
    let projector = Projector::start_verifying(&events.log, store, 3, 100);
    projected_all(store, 20).await;

    // Meanwhile, two processes read with more connections than there are sessions.
    let order_ids: Vec<OrderId> = (1..=20).map(id).collect();
    let mut readers = JoinSet::new();
    for n_reader in 0..N_READERS {
        let store = Arc::clone(&stores[n_reader % stores.len()]);
        readers.spawn(read_again_and_again(store, order_ids.clone()));
    }
    append_orders(&events, 21..=60).await;
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    projected_all(store, 60).await;
    let last = wait::until_async("the projector has verified its rows", async || {
        store.last_verification().await.unwrap().filter(|last| last.n_orders == 60)
    })
    .await;
    assert_eq!(last.n_findings, 0);
    projector.stop().await.unwrap();

    let (verified, findings) = verify(&events, store, Repair::Never).await;
    assert!(verified.is_sound(), "{findings:?}");
    let (rebuilt, findings) = rebuild(&events, store, Begin::Anew, SwapAtEnd::Yes).await;
    assert!(rebuilt.unwrap().is_live, "{findings:?}");
    assert_eq!(store.count_orders().await.unwrap().total(), 60);
}

#[tokio::test]
async fn database_in_another_encoding_is_refused_with_the_reason() {
    let server = tokio::task::spawn_blocking(postgres::start_private_server).await.unwrap();
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let latin =
        "create database latin template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'";
    sqlx::raw_sql(latin).execute(&mut connection).await.unwrap();
    let url = format!("{}latin", server.url().trim_end_matches("postgres"));
    let refused = migrate(&url).await.unwrap_err().to_string();
    assert!(refused.contains("LATIN1") && refused.contains("encoding 'UTF8'"), "{refused}");
}
