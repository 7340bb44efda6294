//! Two releases side by side: events and tables of a later release, and projectors of two versions of a
//! projection. docs/UPGRADING.md states what is tested here.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::order::Status;
use projectors::{
    Begin, Finding, ORDERS, Projection, ReadModel, Repair, ReplayError, SCHEMA_VERSION, StoreError,
    SwapAtEnd, Unfinished, Verification, migrate, open,
};
use testkit::wait;

use crate::events::{History, id};
use crate::rebuild::{append_orders, projected_all, rebuild};
use crate::stores::Database;
use crate::system::{EventStore, Projector, clock, projected};
use crate::verify::verify;

/// The schema version of a later release.
const LATER: i64 = SCHEMA_VERSION + 1;

/// Migrates the database as a later release does: a new table, and new columns of all tables.
async fn migrate_later(database: &Database, declared: Option<i64>) {
    let success = match database {
        Database::Sqlite(_) => "1",
        Database::Postgres(_) => "true",
    };
    let checksum = "checksum, execution_time";
    database
        .execute(&format!(
            "create table later (id integer primary key);
             alter table orders add column later integer;
             alter table projection_checkpoints add column later integer;
             alter table projection_counts add column later integer;
             alter table projection_minutes add column later integer not null default 0;
             insert into _sqlx_migrations (version, description, success, {checksum})
                 select {LATER}, 'later', {success}, {checksum}
                 from _sqlx_migrations where version = {SCHEMA_VERSION};"
        ))
        .await;
    if let Some(works_with) = declared {
        let declare = format!("insert into schema_compatibility values ({LATER}, {works_with})");
        database.execute(&declare).await;
    }
}

async fn expanded_schema_is_used_by_the_older_release(database: &Database) {
    let events = EventStore::start().await;
    database.read_model().await;
    migrate_later(database, Some(SCHEMA_VERSION)).await;

    assert_eq!(migrate(&database.url()).await.unwrap(), []);
    let store = open(&database.url()).unwrap();
    assert_eq!(store.plan_migrations().await.unwrap(), []);
    assert_eq!(store.schema_version().await.unwrap(), Some(LATER));
    append_orders(&events, 1..=6).await;
    let projector = Projector::start(&events.log, &store, 10);
    projected_all(&store, 6).await;
    let (rebuilt, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await;
    assert!(rebuilt.unwrap().is_live, "{findings:?}");
    append_orders(&events, 7..=9).await;
    projected_all(&store, 9).await;
    store.roll_back(Unfinished::Refuse, clock().now()).await.unwrap();
    projected_all(&store, 9).await;
    projector.stop().await.unwrap();
    let (verified, findings) = verify(&events, &store, Repair::Never).await;
    assert!(verified.is_sound(), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expanded_schema_is_used_by_the_older_release_in_sqlite() {
    expanded_schema_is_used_by_the_older_release(&Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expanded_schema_is_used_by_the_older_release_in_postgres() {
    expanded_schema_is_used_by_the_older_release(&Database::postgres().await).await;
}

#[tokio::test]
async fn contracted_or_undeclared_schema_is_refused_by_the_older_release() {
    for declared in [Some(LATER), None] {
        let database = Database::sqlite();
        let store = database.read_model().await;
        migrate_later(&database, declared).await;
        for refused in [store.check_schema().await, migrate(&database.url()).await.map(drop)] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, StoreError::SchemaNewer { found: LATER, .. }), "{refused:?}");
            assert!(refused.to_string().contains("docs/UPGRADING.md"), "{refused}");
        }
    }
}

#[tokio::test]
async fn declarations_are_recorded_for_databases_that_were_migrated_before() {
    let database = Database::sqlite();
    let store = database.read_model().await;
    database.execute("delete from schema_compatibility").await;
    migrate(&database.url()).await.unwrap();
    // Seen by a release that knows only the first migration of them all.
    migrate_later(&database, Some(SCHEMA_VERSION)).await;
    store.check_schema().await.unwrap();
    database.execute(&format!("delete from schema_compatibility where version = {LATER}")).await;
    store.check_schema().await.unwrap_err();
}

/// The projection of the orders as a later release has it.
fn later_orders() -> &'static Projection {
    Box::leak(Box::new(Projection { version: ORDERS.version + 1, ..ORDERS }))
}

fn assert_newer(refused: &StoreError) {
    assert!(matches!(refused, StoreError::ProjectionNewer { .. }), "{refused:?}");
    assert!(refused.to_string().contains("dofs projections --projection orders rebuild"));
}

async fn older_projector_stands_by_behind_a_newer_one(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    let newer = store.for_projection(later_orders());
    append_orders(&events, 1..=3).await;
    let old = Projector::start(&events.log, &store, 10);
    projected_all(&store, 3).await;
    // The newer projector takes over once the older one stops.
    let new = Projector::start(&events.log, &newer, 10);
    old.stop().await.unwrap();
    append_orders(&events, 4..=6).await;
    projected_all(&store, 6).await;
    assert_eq!(store.lease().await.unwrap().written_by, ORDERS.version + 1);
    new.stop().await.unwrap();

    let free = store.lease().await.unwrap();
    assert_eq!(free.holder, None);
    assert_eq!(store.take_lease(&free, "older").await.unwrap(), None);
    assert_newer(&store.check_projection().await.unwrap_err());
    let at = store.checkpoint().await.unwrap();
    assert_newer(&store.mend_rows(&BTreeMap::new(), &at).await.unwrap_err());

    // The older projector runs, and the events are projected by the newer one.
    let old = Projector::start(&events.log, &store, 10);
    append_orders(&events, 7..=9).await;
    let new = Projector::start(&events.log, &newer, 10);
    projected_all(&store, 9).await;
    assert_eq!(store.lease().await.unwrap().epoch, free.epoch + 1);
    old.stop().await.unwrap();
    new.stop().await.unwrap();

    // The way back: the older release builds the tables anew, and its projector goes on.
    rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await.0.unwrap();
    let old = Projector::start(&events.log, &store, 10);
    append_orders(&events, 10..=12).await;
    projected_all(&store, 12).await;
    old.stop().await.unwrap();
    let (verified, findings) = verify(&events, &store, Repair::Never).await;
    assert!(verified.is_sound(), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_projector_stands_by_behind_a_newer_one_in_sqlite() {
    older_projector_stands_by_behind_a_newer_one(&Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_projector_stands_by_behind_a_newer_one_in_postgres() {
    older_projector_stands_by_behind_a_newer_one(&Database::postgres().await).await;
}

/// A rebuild hands the lease over with the tables, so their version must stop the holder.
#[tokio::test(flavor = "multi_thread")]
async fn rebuild_by_a_newer_release_ends_the_turn_of_an_older_projector() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    let newer = store.for_projection(later_orders());
    append_orders(&events, 1..=3).await;
    let old = Projector::start(&events.log, &store, 10);
    projected_all(&store, 3).await;
    rebuild(&events, &newer, Begin::Anew, SwapAtEnd::Yes).await.0.unwrap();
    assert_newer(&store.check_projection().await.unwrap_err());
    append_orders(&events, 4..=6).await;
    let new = Projector::start(&events.log, &newer, 10);
    projected_all(&store, 6).await;
    let lease = store.lease().await.unwrap();
    assert_eq!(lease.written_by, ORDERS.version + 1);
    old.stop().await.unwrap();
    assert_eq!(store.lease().await.unwrap().holder, lease.holder, "the older one held no lease");
    new.stop().await.unwrap();
}

#[tokio::test]
async fn verification_by_an_older_release_is_refused() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    append_orders(&events, 1..=3).await;
    let newer = Projector::start(&events.log, &store.for_projection(later_orders()), 10);
    projected_all(&store, 3).await;
    newer.stop().await.unwrap();
    let (scratch, clock) = (tempfile::tempdir().unwrap(), clock());
    let verification = Verification {
        log: &events.log,
        store: &store,
        clock: &clock,
        scratch: scratch.path(),
        repair: Repair::Always,
        pace: projectors::Pace::Full,
    };
    let whole = verification.verify_all(&mut |_| {}, &mut |_| {}).await;
    let sample = verification.verify_sample(2, &mut |_| {}, &mut |_| {}).await;
    for refused in [whole, sample] {
        let Err(ReplayError::Store(refused)) = refused else { panic!("{refused:?}") };
        assert_newer(&refused);
    }
}

/// Appends one order with an event of unknown type, one in a newer schema, and one with unknown members,
/// each between known events.
async fn append_later_events(events: &EventStore) {
    let tool = events.tool();
    for (number, event_type, data, metadata) in [
        (1, "OrderSplit", "{}".to_owned(), r#"{"schema_version": 1}"#),
        (2, "OrderStored", "{}".to_owned(), r#"{"schema_version": 2}"#),
        (
            3,
            "FulfillmentDeliveryStarted",
            format!(r#"{{"order_id": "{}", "attempt": 1, "delivery": 2, "later": [1]}}"#, id(3)),
            r#"{"schema_version": 1, "later": {}}"#,
        ),
    ] {
        let history = History::of(number).placed().fulfilled().events();
        events.append(&history[..4]).await;
        tool.append_raw(&id(number).stream_name(), event_type, &data, metadata).await;
        let mut end = history[4..].to_vec();
        end[0].revision += 1;
        events.append(&end).await;
    }
}

async fn projected_statuses(store: &Arc<ReadModel>) -> Vec<Status> {
    let mut statuses = Vec::new();
    for number in 1..=3 {
        statuses.push(store.order(id(number)).await.unwrap().unwrap().status);
    }
    statuses
}

#[tokio::test]
async fn events_of_a_later_release_are_skipped_counted_and_named() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    append_later_events(&events).await;
    let projector = Projector::start(&events.log, &store, 4);
    projected(&store, 18).await;
    wait::until_async("the projector has caught up", async || {
        (projected_statuses(&store).await == [Status::Fulfilled; 3]).then_some(())
    })
    .await;
    projector.stop().await.unwrap();
    let checkpoint = store.checkpoint().await.unwrap();
    assert_eq!((checkpoint.events_applied, checkpoint.events_skipped), (16, 2));

    let (verified, findings) = verify(&events, &store, Repair::Never).await;
    assert_eq!((verified.n_poison, verified.n_differing), (2, 0), "{findings:?}");
    let named: Vec<_> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Poison(poison) => Some((poison.stream.clone(), poison.event_type.as_str())),
            Finding::Difference(_) | Finding::Miscounted(_) | Finding::Minute(_) => None,
        })
        .collect();
    let expected = [(id(1).stream_name(), "OrderSplit"), (id(2).stream_name(), "OrderStored")];
    assert_eq!(named, expected);
    let rebuilt = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await.0;
    assert!(matches!(rebuilt, Err(projectors::RebuildError::Poison(2))), "{rebuilt:?}");
}
