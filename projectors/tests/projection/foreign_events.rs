//! Events of other programs around the orders: filter checkpoints name their positions, and the
//! log's head moves without an event of an order.

use std::sync::Arc;

use domain::ids::CommandId;
use event_log::{Cause, ExpectedLast, Position};
use projectors::{
    Begin, Pace, ReadModel, ReadModelTrouble, Repair, ReplayError, SwapAtEnd, Verification,
    find_trouble, projection_status,
};
use serde_json::json;
use testkit::wait;
use uuid::Uuid;

use crate::events::{at, id};
use crate::rebuild::{append_orders, projected_all, rebuild};
use crate::stores::Database;
use crate::system::{EventStore, Projector, clock};
use crate::verify::verify;

/// Number of events after which a filtered subscription sends checkpoints.
const ENOUGH_FOR_CHECKPOINTS: u128 = 70;

/// Appends events to a stream of another program.
async fn append_foreign(events: &EventStore, numbers: std::ops::Range<u128>) {
    let journal = events.log.store().open_journal("another-program");
    for number in numbers {
        let id = Uuid::from_u128(0xF00 << 64 | number);
        let cause = Cause::new(CommandId::for_request(id), "another program", at(1_000));
        journal.append(ExpectedLast::Any, "SomethingElse", &json!({}), &cause).await.unwrap();
    }
}

/// Waits until the live checkpoint is beyond a position. If no order was appended since, it is then at an
/// event of another program.
async fn live_moved_beyond(store: &Arc<ReadModel>, position: Option<Position>) {
    wait::until_async("a filter checkpoint moves the live checkpoint", async || {
        (store.checkpoint().await.ok()?.position > position).then_some(())
    })
    .await;
}

async fn assert_sound(events: &EventStore, store: &Arc<ReadModel>) {
    let (sound, findings) = verify(events, store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");
}

async fn rebuild_ends_without_any_order(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    let projector = Projector::start(&events.log, &store, 100);
    append_foreign(&events, 0..ENOUGH_FOR_CHECKPOINTS).await;
    live_moved_beyond(&store, None).await;
    projector.stop().await.unwrap();
    // The embedded store counts the events between two checkpoints alike for all subscriptions; a
    // real one does not: there, the live checkpoint may be at any foreign event.
    let head = events.log.store().head().await.unwrap().unwrap();
    let moved = format!(
        "update projection_checkpoints set commit_position = {}, prepare_position = {}",
        head.commit, head.prepare
    );
    database.execute(&moved).await;

    let (rebuilt, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await;
    assert_eq!(findings, []);
    assert!(rebuilt.unwrap().is_live);
    assert_sound(&events, &store).await;
    let projector = Projector::start(&events.log, &store, 100);
    append_orders(&events, 1..=3).await;
    projected_all(&store, 3).await;
    projector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_ends_without_any_order_in_sqlite() {
    rebuild_ends_without_any_order(&Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_ends_without_any_order_in_postgres() {
    rebuild_ends_without_any_order(&Database::postgres().await).await;
}

async fn rebuild_and_resume_end_behind_foreign_events(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_foreign(&events, 0..10).await;
    append_orders(&events, 1..=20).await;
    let last_of_orders = events.log.store().head().await.unwrap();
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 20).await;
    projector.stop().await.unwrap();
    // A projector counts checkpoints from where it begins, a replay from the first event.
    let projector = Projector::start(&events.log, &store, 100);
    append_foreign(&events, 10..10 + ENOUGH_FOR_CHECKPOINTS).await;
    live_moved_beyond(&store, last_of_orders).await;

    let (first, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::No).await;
    assert_eq!(findings, []);
    assert!(first.unwrap().compared.unwrap().is_sound());
    let before = store.checkpoint().await.unwrap().position;
    append_foreign(&events, 200..200 + 2 * ENOUGH_FOR_CHECKPOINTS).await;
    live_moved_beyond(&store, before).await;
    let (second, findings) = rebuild(&events, &store, Begin::WhereItStopped, SwapAtEnd::Yes).await;
    assert_eq!(findings, []);
    let second = second.unwrap();
    assert!(second.is_live && second.n_events == 100, "{second:?}");
    assert_sound(&events, &store).await;
    projector.stop().await.unwrap();

    let status = projection_status(&events.log, &store, clock().now()).await.unwrap();
    assert_eq!((status.lag.lag_events, status.lag.stuck), (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_and_resume_end_behind_foreign_events_in_sqlite() {
    rebuild_and_resume_end_behind_foreign_events(&Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_and_resume_end_behind_foreign_events_in_postgres() {
    rebuild_and_resume_end_behind_foreign_events(&Database::postgres().await).await;
}

/// A server up to 24.10 may name the end of its log in a filter checkpoint, where no event is yet.
async fn rebuild_ends_with_a_checkpoint_beyond_the_log(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=10).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 10).await;
    projector.stop().await.unwrap();
    let beyond = "update projection_checkpoints set commit_position = commit_position + 4000, \
        prepare_position = prepare_position + 4000 where name = 'orders'";
    database.execute(beyond).await;

    assert_sound(&events, &store).await;
    let status = projection_status(&events.log, &store, clock().now()).await.unwrap();
    assert_eq!((status.lag.lag_events, status.lag.stuck), (0, false));
    let (rebuilt, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await;
    assert_eq!(findings, []);
    let rebuilt = rebuilt.unwrap();
    assert!(rebuilt.is_live && rebuilt.compared.unwrap().is_sound(), "{rebuilt:?}");
    // The next events are no longer skipped.
    let projector = Projector::start(&events.log, &store, 100);
    append_orders(&events, 11..=12).await;
    projected_all(&store, 12).await;
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn rebuild_ends_with_a_checkpoint_beyond_the_log_in_sqlite() {
    rebuild_ends_with_a_checkpoint_beyond_the_log(&Database::sqlite()).await;
}

#[tokio::test]
async fn rebuild_ends_with_a_checkpoint_beyond_the_log_in_postgres() {
    let database = Database::postgres().await;
    rebuild_ends_with_a_checkpoint_beyond_the_log(&database).await;
}

/// An event store that was restored from an older backup, and has since grown beyond the checkpoint by
/// events of other programs.
async fn older_backup_is_noticed_and_rebuilt_from(database: &Database) {
    let (events, restored) = (EventStore::start().await, EventStore::start().await);
    let store = database.read_model().await;
    append_orders(&events, 1..=10).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 10).await;
    projector.stop().await.unwrap();
    let status = projection_status(&events.log, &store, clock().now()).await.unwrap();
    assert_eq!(status.ahead, None);

    append_orders(&restored, 1..=7).await;
    append_foreign(&restored, 0..2 * ENOUGH_FOR_CHECKPOINTS).await;
    let status = projection_status(&restored.log, &store, clock().now()).await.unwrap();
    assert!(status.checkpoint.position < restored.log.store().head().await.unwrap());
    let ahead = status.ahead.unwrap();
    assert!([8, 9, 10].map(id).contains(&ahead.order_id), "{ahead}");
    assert_eq!(ahead.n_events, 3 * 5, "of three orders");
    let trouble = find_trouble(Some(&restored.log), &store, clock().now()).await;
    assert_eq!(trouble, Some(ReadModelTrouble::Ahead(ahead)));

    let (rebuilt, findings) = rebuild(&restored, &store, Begin::Anew, SwapAtEnd::Yes).await;
    let rebuilt = rebuilt.unwrap();
    assert!(rebuilt.is_live && rebuilt.n_events == 35, "{rebuilt:?}");
    assert_eq!(rebuilt.compared.unwrap().n_differing, 3, "{findings:?}");
    assert_sound(&restored, &store).await;
    let status = projection_status(&restored.log, &store, clock().now()).await.unwrap();
    assert_eq!(status.ahead, None);
    let projector = Projector::start(&restored.log, &store, 100);
    append_orders(&restored, 11..=12).await;
    projected_all(&store, 9).await;
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn older_backup_is_noticed_and_rebuilt_from_in_sqlite() {
    older_backup_is_noticed_and_rebuilt_from(&Database::sqlite()).await;
}

#[tokio::test]
async fn older_backup_is_noticed_and_rebuilt_from_in_postgres() {
    older_backup_is_noticed_and_rebuilt_from(&Database::postgres().await).await;
}

#[tokio::test]
async fn rows_of_another_event_store_are_neither_verified_nor_mended() {
    let (database, first) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    append_orders(&first, 1..=3).await;
    let projector = Projector::start(&first.log, &store, 100);
    projected_all(&store, 3).await;
    projector.stop().await.unwrap();

    let second = EventStore::start().await;
    append_orders(&second, 4..=5).await;
    let (scratch, clock) = (tempfile::tempdir().unwrap(), clock());
    let (log, repair) = (&second.log, Repair::Always);
    let verification = Verification {
        log,
        store: &store,
        clock: &clock,
        scratch: scratch.path(),
        repair,
        pace: Pace::Full,
    };
    let mut found = |finding| panic!("{finding:?}");
    let all = verification.verify_all(&mut |_| {}, &mut found).await.unwrap_err();
    assert!(matches!(all, ReplayError::Origin(_)), "{all:?}");
    let sample = verification.verify_sample(2, &mut |_| {}, &mut found).await.unwrap_err();
    assert!(matches!(sample, ReplayError::Origin(_)), "{sample:?}");
    assert!(store.order(id(1)).await.unwrap().is_some());
}
