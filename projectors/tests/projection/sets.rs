//! Sets of tables: conflicts, locks, takeovers and snapshots.

use std::sync::Arc;

use projectors::{
    Begin, OrderFilter, Pace, Page, Phase, Progress, ReadModel, Rebuild, RebuildError, Repair,
    ReplayError, StoreError, SwapAtEnd, Unfinished, Verification,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tokio::time::timeout;

use crate::events::id;
use crate::rebuild::{append_orders, projected_all, rebuild};
use crate::stores::Database;
use crate::system::{EventStore, PATIENCE, POLL, Projector, clock};

async fn names(store: &Arc<ReadModel>) -> Vec<&'static str> {
    let mut names: Vec<_> = store.sets().await.unwrap().iter().map(|set| set.name).collect();
    names.sort_unstable();
    names
}

async fn rollback_beside_an_unfinished_rebuild_is_refused(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=20).await;
    rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await.0.unwrap();
    let before = store.checkpoint().await.unwrap();
    rebuild(&events, &store, Begin::Anew, SwapAtEnd::No).await.0.unwrap();

    let refused = store.roll_back(Unfinished::Refuse, clock().now()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unfinished { n_events: 100, .. }), "{refused:?}");
    let refused = refused.to_string();
    assert!(refused.contains("--resume") && refused.contains("--discard"), "{refused}");
    assert_eq!(store.checkpoint().await.unwrap(), before);
    assert_eq!(names(&store).await, ["live", "next", "previous"]);

    store.roll_back(Unfinished::Discard, clock().now()).await.unwrap();
    assert_eq!(names(&store).await, ["live", "previous"]);
    assert_eq!(store.count_orders().await.unwrap().total(), 0);
    // Without an unfinished set, nothing has to be dropped.
    store.roll_back(Unfinished::Discard, clock().now()).await.unwrap();
    assert_eq!(store.count_orders().await.unwrap().total(), 20);

    rebuild(&events, &store, Begin::Anew, SwapAtEnd::No).await.0.unwrap();
    assert!(store.discard_next_set().await.unwrap());
    assert!(!store.discard_next_set().await.unwrap());
    assert_eq!(names(&store).await, ["live", "previous"]);
    let nothing = rebuild(&events, &store, Begin::WhereItStopped, SwapAtEnd::Yes).await.0;
    assert!(nothing.unwrap_err().to_string().contains("without `--resume`"));
}

#[tokio::test]
async fn rollback_beside_an_unfinished_rebuild_is_refused_in_sqlite() {
    rollback_beside_an_unfinished_rebuild_is_refused(&Database::sqlite()).await;
}

#[tokio::test]
async fn rollback_beside_an_unfinished_rebuild_is_refused_in_postgres() {
    rollback_beside_an_unfinished_rebuild_is_refused(&Database::postgres().await).await;
}

/// Rebuilds, and runs `interfere` when a phase begins.
async fn rebuild_disturbed(
    events: &EventStore,
    store: &Arc<ReadModel>,
    phase: Phase,
    interfere: impl AsyncFnOnce(),
) -> Result<projectors::Rebuilt, RebuildError> {
    let (clock, reached) = (clock(), tokio_util::sync::CancellationToken::new());
    let (log, begin, at_end) = (&events.log, Begin::Anew, SwapAtEnd::Yes);
    let work = Rebuild { log, store, clock: &clock, begin, at_end, batch_size: 2 };
    let mut progress = |it: Progress| {
        if it.phase == phase && it.n_done > 0 {
            reached.cancel();
        }
    };
    let mut found = |_| {};
    let mut work = std::pin::pin!(work.run(&mut progress, &mut found));
    tokio::select! {
        biased;
        () = reached.cancelled() => {}
        ended = &mut work => return ended,
    }
    // The rebuild goes on meanwhile, so its current write may have to be waited for.
    tokio::join!(work, interfere()).0
}

async fn rebuild_whose_tables_are_dropped_says_so(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=40).await;
    let dropped = async || assert!(store.discard_next_set().await.unwrap());
    let ended = rebuild_disturbed(&events, &store, Phase::Replay, dropped).await;
    assert!(matches!(ended, Err(RebuildError::TakenOver)), "{ended:?}");
    assert_eq!(names(&store).await, ["live"]);

    // Another rebuild has begun anew.
    let begun = async || drop(store.next_set(Begin::Anew).await.unwrap());
    let ended = rebuild_disturbed(&events, &store, Phase::Replay, begun).await;
    assert!(matches!(ended, Err(RebuildError::TakenOver)), "{ended:?}");
    assert_eq!(names(&store).await, ["live", "next"]);
}

#[tokio::test]
async fn rebuild_whose_tables_are_dropped_says_so_in_sqlite() {
    rebuild_whose_tables_are_dropped_says_so(&Database::sqlite()).await;
}

#[tokio::test]
async fn rebuild_whose_tables_are_dropped_says_so_in_postgres() {
    rebuild_whose_tables_are_dropped_says_so(&Database::postgres().await).await;
}

#[tokio::test]
async fn tables_in_use_are_no_database_that_is_away() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let events = EventStore::start().await;
        let store = database.read_model().await;
        append_orders(&events, 1..=5).await;
        rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await.0.unwrap();
        let now = clock().now();
        let refused = match &database {
            Database::Sqlite(_) => {
                let mut other = SqliteConnection::connect(&database.url()).await.unwrap();
                sqlx::raw_sql("begin immediate").execute(&mut other).await.unwrap();
                store.roll_back(Unfinished::Refuse, now).await.unwrap_err()
            }
            Database::Postgres(_) => {
                let mut other = PgConnection::connect(&database.url()).await.unwrap();
                let lock = "begin; lock table orders in access share mode";
                sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
                store.roll_back(Unfinished::Refuse, now).await.unwrap_err()
            }
        };
        assert!(matches!(refused, StoreError::Locked { .. }), "{refused:?}");
        assert_eq!(store.count_orders().await.unwrap().total(), 5);
    }
}

/// A reader has locked the second table, and wants the first one, which the rollback has locked already.
#[tokio::test]
async fn rollback_gives_up_before_the_database_ends_a_reader() {
    let (events, database) = (EventStore::start().await, Database::postgres().await);
    let store = database.read_model().await;
    append_orders(&events, 1..=5).await;
    rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await.0.unwrap();
    let mut reader = PgConnection::connect(&database.url()).await.unwrap();
    let lock = "begin; lock table failed_orders in access share mode";
    sqlx::raw_sql(lock).execute(&mut reader).await.unwrap();
    let reading = async {
        let mut watcher = PgConnection::connect(&database.url()).await.unwrap();
        let is_locked = "select exists (select 1 from pg_locks where granted \
            and relation = 'orders'::regclass and mode = 'AccessExclusiveLock')";
        let locked = async {
            while !sqlx::query_scalar::<_, bool>(is_locked).fetch_one(&mut watcher).await.unwrap() {
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(PATIENCE, locked).await.expect("the rollback locks `orders`");
        sqlx::raw_sql("select count(*) from orders").execute(&mut reader).await
    };
    let (refused, read) = tokio::join!(store.roll_back(Unfinished::Refuse, clock().now()), reading);
    assert!(matches!(refused, Err(StoreError::Locked { .. })), "{refused:?}");
    assert!(read.is_ok(), "{read:?}");
}

async fn snapshot_stays_as_it_was(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=5).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 5).await;
    let snapshot = store.snapshot().await.unwrap();
    let before = snapshot.checkpoint().await.unwrap();
    append_orders(&events, 6..=20).await;
    projected_all(&store, 20).await;
    projector.stop().await.unwrap();
    database.execute("update orders set customer_id = 'other'").await;

    let page = Page { after: None, limit: 50 };
    let filter = OrderFilter::default();
    let reads = (0..8).map(|_read| snapshot.orders(&filter, &page));
    for orders in futures::future::join_all(reads).await {
        let orders = orders.unwrap();
        assert!(orders.len() == 5 && orders.iter().all(|order| order.customer_id != "other"));
    }
    assert_eq!(snapshot.checkpoint().await.unwrap().position, before.position);
    let changes = projectors::RowChanges::default();
    snapshot.write(&changes, &before, &before).await.unwrap_err();
    drop(snapshot);
    assert_eq!(store.order(id(20)).await.unwrap().unwrap().customer_id, "other");
}

#[tokio::test]
async fn snapshot_stays_as_it_was_in_sqlite() {
    snapshot_stays_as_it_was(&Database::sqlite()).await;
}

#[tokio::test]
async fn snapshot_stays_as_it_was_in_postgres() {
    snapshot_stays_as_it_was(&Database::postgres().await).await;
}

#[tokio::test]
async fn snapshot_that_the_server_lost_is_not_taken_for_a_new_one() {
    let database = Database::postgres().await;
    let store = database.read_model().await;
    let snapshot = store.snapshot().await.unwrap();
    snapshot.checkpoint().await.unwrap();
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
        where datname = current_database() and pid <> pg_backend_pid()";
    let mut operator = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(others)).execute(&mut operator).await.unwrap();
    for _read in 0..2 {
        snapshot.checkpoint().await.unwrap_err();
    }
    store.checkpoint().await.unwrap();
}

#[tokio::test]
async fn folder_without_room_for_temporary_tables_is_named() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    append_orders(&events, 1..=2).await;
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let (missing, repair) = (folder.path().join("missing"), Repair::Never);
    let verification = Verification {
        log: &events.log,
        store: &store,
        clock: &clock,
        scratch: &missing,
        repair,
        pace: Pace::Full,
    };
    let failed = verification.verify_all(&mut |_| {}, &mut |_| {}).await.unwrap_err();
    assert!(matches!(failed, ReplayError::Scratch { .. }), "{failed:?}");
    assert!(failed.to_string().contains("missing"), "{failed}");
}
