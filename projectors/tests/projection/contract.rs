//! The contract of the store, whatever the database.

mod failures;
mod statistics;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::order::{Recorded, Stage, Status};
use event_log::Position;
use jiff::Timestamp;
use projectors::{
    Changes, Checkpoint, Events, FailedOrder, FailedOrderFilter, Lookups, OrderCounts, OrderFilter,
    OrderRow, Page, Place, ReadModel, RowChanges, Rows, StoreError, apply, migrate, open,
};
use tokio::task::JoinSet;

use crate::events::{History, at, id};
use crate::faults::Fault;
use crate::stores::Database;

pub(crate) use failures::*;
pub(crate) use statistics::*;
pub(crate) use texts::*;

/// More rows than any test makes.
const ALL: Page = Page { after: None, limit: 1_000 };

/// Applies a batch as the runner does, and moves the checkpoint by one.
pub(crate) async fn project(store: &ReadModel, batch: &[Recorded]) {
    let from = store.checkpoint().await.unwrap();
    let orders: Vec<_> = batch.iter().map(|recorded| recorded.event.order_id()).collect();
    let events = Events { recorded: batch, ..Events::default() };
    let rows = store.rows(&orders).await.unwrap();
    let changes = (store.projection().apply)(rows, &events).unwrap();
    store.write(&changes, &from, &behind(&from)).await.unwrap();
}

fn behind(from: &Checkpoint) -> Checkpoint {
    let commit = from.position.map_or(0, |position| position.commit) + 1;
    Checkpoint {
        position: Some(Position { commit, prepare: commit }),
        events_applied: from.events_applied + 1,
        last_event_at: Some(at(5)),
        moved_at: Some(at(6)),
        ..*from
    }
}

/// Returns all rows of orders and failures.
async fn tables(store: &ReadModel) -> (Vec<OrderRow>, Vec<FailedOrder>) {
    let orders = store.orders(&OrderFilter::default(), &ALL).await.unwrap();
    let with_resolved = FailedOrderFilter { include_resolved: true, ..Default::default() };
    let failed_orders = store.failed_orders(&with_resolved, &ALL).await.unwrap();
    (orders, failed_orders)
}

pub(crate) async fn rows_read_back_as_they_were_written(database: &Database) {
    let store = database.read_model().await;
    let awkward = "\0 ' \" \\ \u{E000} \u{10FFFF} \u{FFFF} ü";
    let histories = [
        History::of(1).customer(awkward).placed().fulfilled().events(),
        History::of(2).quantity(u64::MAX).received().failed(Stage::Validation, awkward).events(),
        History::of(3).placed().delivery_failed().failed(Stage::DeadLetter, "transient").events(),
        // Its first event cannot be decoded.
        History::of(4).placed().events().split_off(1),
    ];
    for history in histories {
        let expected = apply(BTreeMap::new(), &history, &[]);
        project(&store, &history).await;

        let order_id = history[0].event.order_id();
        let order = store.order(order_id).await.unwrap().unwrap();
        assert_eq!(order, expected.orders[0]);
        let rows = store.rows(&[order_id, id(99)]).await.unwrap();
        assert_eq!(rows.keys().collect::<Vec<_>>(), [&order_id]);
        let rows = Rows::from_records(rows[&order_id].clone()).unwrap();
        assert_eq!(rows.order, Some(order));
        assert_eq!(rows.failed.as_ref(), expected.failed_orders.first());
    }
    assert_eq!(store.order(id(99)).await.unwrap(), None);
}

/// More than a database may be asked for in one statement.
pub(crate) async fn any_number_of_orders_is_read_at_once(database: &Database) {
    let store = database.read_model().await;
    let log: Vec<_> = (1..=1_100).flat_map(|n| History::of(n).placed().events()).collect();
    project(&store, &log).await;
    let asked: Vec<_> = (1..=1_200).map(id).collect();
    let orders = store.orders_by_id(&asked).await.unwrap();
    let found: BTreeSet<_> = orders.iter().map(|order| order.order_id).collect();
    assert_eq!((orders.len(), found), (1_100, (1..=1_100).map(id).collect()));
    assert_eq!(store.orders_by_id(&[]).await.unwrap(), []);
}

/// Some lookups are aborted meanwhile.
pub(crate) async fn concurrent_lookups_find_each_order(database: &Database) {
    let store = database.read_model().await;
    for number in 1..=3 {
        project(&store, &History::of(number).placed().events()).await;
    }
    let lookups = Lookups::new(store);
    let mut asking = JoinSet::new();
    for index in 0..200_u128 {
        let (lookups, number) = (lookups.clone(), index % 4 + 1);
        let asked = async move { (number, lookups.order(id(number)).await.unwrap()) };
        let task = asking.spawn(asked);
        if index % 7 == 0 {
            task.abort();
        }
    }
    let mut n_found = 0;
    while let Some(asked) = asking.join_next().await {
        let Ok((number, order)) = asked else { continue };
        assert_eq!(order.map(|order| order.order_id), (number < 4).then_some(id(number)));
        n_found += 1;
    }
    assert!(n_found >= 171, "{n_found} were answered");
}

pub(crate) async fn batch_applied_again_changes_nothing(database: &Database) {
    let store = database.read_model().await;
    let batches = [
        [History::of(1).placed().events(), History::of(2).placed().fulfilled().events()].concat(),
        History::of(1).placed().failed(Stage::Fulfillment, "refused").events().split_off(4),
        History::of(1)
            .placed()
            .failed(Stage::Fulfillment, "refused")
            .queued()
            .fulfilled()
            .events()
            .split_off(5),
    ];
    for batch in &batches {
        project(&store, batch).await;
        let once = tables(&store).await;
        project(&store, batch).await;
        assert_eq!(tables(&store).await, once);
    }
    let in_the_end = tables(&store).await;
    assert_eq!((in_the_end.0.len(), in_the_end.1.len()), (2, 1));
    // From position 0 again.
    for batch in &batches {
        project(&store, batch).await;
    }
    assert_eq!(tables(&store).await, in_the_end);
}

pub(crate) async fn older_revision_never_overwrites_a_newer_one(database: &Database) {
    let store = database.read_model().await;
    let failed = History::of(1).placed().failed(Stage::Fulfillment, "refused");
    let older = apply(BTreeMap::new(), &failed.events(), &[]);
    let newer = History::of(1).placed().failed(Stage::Fulfillment, "refused").queued().fulfilled();
    project(&store, &newer.events()).await;
    let before = tables(&store).await;

    // Without the fold, which would skip these events.
    let from = store.checkpoint().await.unwrap();
    store.write(&older.into(), &from, &behind(&from)).await.unwrap();
    assert_eq!(tables(&store).await, before);
}

pub(crate) async fn rows_and_checkpoint_move_together_or_not_at_all(database: &Database) {
    let store = database.read_model().await;
    project(&store, &History::of(1).placed().events()).await;
    let checkpoint = store.checkpoint().await.unwrap();
    let failed = History::of(1).placed().failed(Stage::Fulfillment, "refused").events();

    // The last table of the transaction is missing, so the transaction fails after the others are written.
    database.execute("alter table failed_orders rename to elsewhere").await;
    let changes = apply(BTreeMap::new(), &failed, &[]);
    let error =
        store.write(&changes.clone().into(), &checkpoint, &behind(&checkpoint)).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");

    assert_eq!(store.checkpoint().await.unwrap(), checkpoint);
    let order = store.order(id(1)).await.unwrap().unwrap();
    assert_eq!((order.status, order.revision), (Status::Processing, 3));

    database.execute("alter table elsewhere rename to failed_orders").await;
    project(&store, &failed).await;
    assert_eq!(store.checkpoint().await.unwrap(), behind(&checkpoint));
    assert_eq!(store.order(id(1)).await.unwrap().unwrap().status, Status::Failed);
}

pub(crate) async fn checkpoint_that_moved_stops_the_writer(database: &Database) {
    let store = database.read_model().await;
    let stale = store.checkpoint().await.unwrap();
    assert_eq!(stale, Checkpoint::default());
    project(&store, &History::of(1).placed().events()).await;
    let current = store.checkpoint().await.unwrap();

    let changes = apply(BTreeMap::new(), &History::of(2).placed().events(), &[]);
    let at = |commit, prepare| Some(Position { commit, prepare });
    let others = [
        stale,
        Checkpoint { epoch: 1, ..current },
        Checkpoint { position: at(2, 1), ..current },
        Checkpoint { position: at(1, 2), ..current },
    ];
    for from in others {
        let error = store.write(&changes.clone().into(), &from, &behind(&from)).await.unwrap_err();
        assert!(matches!(error, StoreError::CheckpointMoved), "{error:?}");
    }
    assert_eq!(store.checkpoint().await.unwrap(), current);
    assert_eq!(store.order(id(2)).await.unwrap(), None);
}

pub(crate) async fn checkpoint_moves_without_events(database: &Database) {
    let store = database.read_model().await;
    let from = store.checkpoint().await.unwrap();
    let position = Some(Position { commit: u64::MAX - 1, prepare: 7 });
    let to = Checkpoint { position, events_skipped: 3, moved_at: Some(at(9)), ..from };
    store.write(&RowChanges::default(), &from, &to).await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap(), to);
}

/// Writes orders and failures of which many have the same time.
async fn crowd(database: &Database) -> Arc<ReadModel> {
    let history = |number: u128| {
        let second = 1_000 + i64::try_from(number / 10).unwrap();
        History::of(number).second(second).placed().failed(Stage::Fulfillment, "refused").events()
    };
    let log: Vec<_> = (1..=25).flat_map(history).collect();
    let store = database.read_model().await;
    project(&store, &log).await;
    store
}

/// Reads a list of 25 rows in pages of 7, and returns their places.
async fn read_pages(list: impl AsyncFn(Page) -> Vec<Place>) -> Vec<Place> {
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let places = list(Page { after, limit: 7 }).await;
        assert!(places.len() <= 7);
        seen.extend_from_slice(&places);
        let Some(end) = places.last().filter(|_| seen.len() <= 25) else { break };
        after = Some(*end);
    }
    assert_eq!(seen.len(), 25);
    seen
}

pub(crate) async fn pages_show_every_order_exactly_once(database: &Database) {
    let store = crowd(database).await;
    let list = async |page: Page| {
        let orders = store.orders(&OrderFilter::default(), &page).await.unwrap();
        orders.iter().map(Place::of_order).collect()
    };
    let seen = read_pages(list).await;
    assert!(seen.is_sorted_by(|before, behind| before > behind), "{seen:?}");
}

pub(crate) async fn orders_are_filtered(database: &Database) {
    let store = database.read_model().await;
    let log = [
        History::of(1).second(100).customer("cust-\0").placed().events(),
        History::of(2).second(200).customer("cust-b").placed().fulfilled().events(),
        History::of(3).second(300).customer("cust-\0").placed().fulfilled().events(),
        // An order without a known time of receipt is listed as the oldest.
        History::of(4).second(400).customer("cust-b").placed().events().split_off(3),
    ];
    project(&store, &log.concat()).await;

    let all = OrderFilter::default;
    let ever = (Some(Timestamp::MIN), Some(Timestamp::MAX));
    let customer = |id: &str| Some(id.to_owned());
    let filters: [(OrderFilter, &[u128]); 8] = [
        (all(), &[3, 2, 1, 4]),
        (OrderFilter { from: ever.0, to: ever.1, ..all() }, &[3, 2, 1, 4]),
        (OrderFilter { status: Some(Status::Fulfilled), ..all() }, &[3, 2]),
        (OrderFilter { status: Some(Status::Failed), ..all() }, &[]),
        (OrderFilter { customer_id: customer("cust-\0"), ..all() }, &[3, 1]),
        (OrderFilter { customer_id: customer("cust-"), ..all() }, &[]),
        (OrderFilter { from: Some(at(100)), to: Some(at(300)), ..all() }, &[2, 1]),
        (
            OrderFilter {
                tenant: None,
                status: Some(Status::Processing),
                customer_id: customer("cust-\0"),
                from: Some(at(100)),
                to: Some(at(101)),
            },
            &[1],
        ),
    ];
    for (filter, expected) in filters {
        let orders = store.orders(&filter, &ALL).await.unwrap();
        let found: Vec<_> = orders.iter().map(|order| order.order_id).collect();
        assert_eq!(found, expected.iter().copied().map(id).collect::<Vec<_>>(), "{filter:?}");
    }
}

pub(crate) async fn failures_are_filtered_and_resolved_ones_shown_on_request(database: &Database) {
    let store = database.read_model().await;
    let log = [
        History::of(1).second(100).received().failed(Stage::Validation, "rules").events(),
        History::of(2)
            .second(200)
            .customer("cust-\0")
            .placed()
            .failed(Stage::Fulfillment, "refused")
            .events(),
        History::of(3)
            .second(300)
            .placed()
            .failed(Stage::Fulfillment, "refused")
            .queued()
            .fulfilled()
            .events(),
    ];
    project(&store, &log.concat()).await;

    let open = FailedOrderFilter::default;
    let code = |code: &str| Some(code.to_owned());
    let customer = |id: &str| Some(id.to_owned());
    let filters: [(FailedOrderFilter, &[u128]); 8] = [
        (open(), &[2, 1]),
        (FailedOrderFilter { include_resolved: true, ..open() }, &[3, 2, 1]),
        (FailedOrderFilter { stage: Some(Stage::Validation), ..open() }, &[1]),
        (FailedOrderFilter { code: code("refused"), ..open() }, &[2]),
        (FailedOrderFilter { code: code("poison"), ..open() }, &[]),
        (FailedOrderFilter { customer_id: customer("cust-\0"), ..open() }, &[2]),
        (FailedOrderFilter { customer_id: customer("cust-"), ..open() }, &[]),
        (FailedOrderFilter { from: Some(at(130)), to: Some(at(230)), ..open() }, &[1]),
    ];
    for (filter, expected) in filters {
        let failed = store.failed_orders(&filter, &ALL).await.unwrap();
        let found: Vec<_> = failed.iter().map(|failed| failed.order_id).collect();
        assert_eq!(found, expected.iter().copied().map(id).collect::<Vec<_>>(), "{filter:?}");
    }
}

pub(crate) async fn orders_are_counted_by_state(database: &Database) {
    let store = database.read_model().await;
    assert_eq!(store.count_orders().await.unwrap(), OrderCounts::default());
    let log = [
        History::of(1).placed().events(),
        History::of(2).placed().fulfilled().events(),
        History::of(3).received().failed(Stage::Validation, "rules").events(),
        History::of(4).placed().failed(Stage::Fulfillment, "refused").events(),
        History::of(5).placed().failed(Stage::Fulfillment, "refused").events(),
        History::of(6).placed().failed(Stage::DeadLetter, "poison").events(),
        // Failed and queued again: not listed as failed.
        History::of(7).placed().failed(Stage::DeadLetter, "poison").queued().events(),
    ];
    project(&store, &log.concat()).await;

    let counts = store.count_orders().await.unwrap();
    assert_eq!((counts.n_processing, counts.n_fulfilled, counts.n_failed), (2, 1, 4));
    let by_stage =
        [counts.n_failed_validation, counts.n_failed_fulfillment, counts.n_failed_dead_letter];
    assert_eq!(by_stage, [1, 2, 1]);
}

pub(crate) async fn lists_of_a_tenant_contain_its_orders_only(database: &Database) {
    let store = database.read_model().await;
    let log: Vec<_> = (1..=4)
        .flat_map(|n| History::of(n).placed().failed(Stage::Fulfillment, "refused").events())
        .collect();
    let changes = Changes {
        tenants: vec![(id(1), "a".to_owned()), (id(2), "b\0".to_owned()), (id(3), "a".to_owned())],
        ..apply(BTreeMap::new(), &log, &[])
    };
    let from = store.checkpoint().await.unwrap();
    store.write(&changes.clone().into(), &from, &behind(&from)).await.unwrap();
    // A tenant that was written once is never replaced.
    let from = store.checkpoint().await.unwrap();
    let again = Changes { tenants: vec![(id(1), "b".to_owned())], ..Changes::default() };
    store.write(&again.into(), &from, &behind(&from)).await.unwrap();

    for (tenant, expected) in [("a", vec![1, 3]), ("b\0", vec![2]), ("b", vec![]), ("%", vec![])] {
        let tenant = Some(tenant.to_owned());
        let filter = OrderFilter { tenant: tenant.clone(), ..OrderFilter::default() };
        let orders = store.orders(&filter, &ALL).await.unwrap();
        let orders: BTreeSet<_> = orders.iter().map(|order| order.order_id).collect();
        let expected: BTreeSet<_> = expected.into_iter().map(id).collect();
        assert_eq!(orders, expected, "{filter:?}");
        let filter = FailedOrderFilter { tenant, ..FailedOrderFilter::default() };
        let failed = store.failed_orders(&filter, &ALL).await.unwrap();
        assert_eq!(failed.iter().map(|failed| failed.order_id).collect::<BTreeSet<_>>(), expected);
    }
}

pub(crate) async fn former_holder_of_the_lease_cannot_write(database: &Database) {
    let store = database.read_model().await;
    let free = store.lease().await.unwrap();
    assert_eq!((free.epoch, free.holder.as_deref()), (0, None));
    assert_eq!(store.take_lease(&free, "first").await.unwrap(), Some(1));
    assert_eq!(store.take_lease(&free, "second").await.unwrap(), None);
    let of_first = store.checkpoint().await.unwrap();

    // A beat invalidates the lease as it was seen before.
    let seen = store.lease().await.unwrap();
    assert!(store.beat(1).await.unwrap());
    assert_eq!(store.take_lease(&seen, "second").await.unwrap(), None);
    let seen = store.lease().await.unwrap();
    assert_eq!(store.take_lease(&seen, "second").await.unwrap(), Some(2));

    assert!(!store.beat(1).await.unwrap());
    let changes = apply(BTreeMap::new(), &History::of(1).placed().events(), &[]);
    let error =
        store.write(&changes.clone().into(), &of_first, &behind(&of_first)).await.unwrap_err();
    assert!(matches!(error, StoreError::CheckpointMoved), "{error:?}");
    assert_eq!(store.order(id(1)).await.unwrap(), None);

    store.give_back_lease(1).await.unwrap();
    assert_eq!(store.lease().await.unwrap().holder.as_deref(), Some("second"));
    store.give_back_lease(2).await.unwrap();
    assert_eq!(store.lease().await.unwrap().holder, None);
}

pub(crate) async fn challenged_lease_is_answered_by_its_holder_only(database: &Database) {
    let store = database.read_model().await;
    let free = store.lease().await.unwrap();
    store.take_lease(&free, "first").await.unwrap();
    let taken = store.lease().await.unwrap();
    assert!(!taken.is_challenged());

    // Of several standbys, one makes the challenge.
    assert!(store.challenge(&taken).await.unwrap());
    assert!(!store.challenge(&taken).await.unwrap());
    let challenged = store.lease().await.unwrap();
    assert!(challenged.is_challenged());
    assert!(!store.challenge(&challenged).await.unwrap());

    assert!(!store.beat(2).await.unwrap());
    assert_eq!(store.lease().await.unwrap(), challenged);
    assert!(store.beat(1).await.unwrap());
    assert!(!store.lease().await.unwrap().is_challenged());
    assert_eq!(store.take_lease(&challenged, "second").await.unwrap(), None);
}

pub(crate) async fn lease_counts_as_held_only_after_its_commit(database: &Database) {
    let store = database.read_model().await;
    let free = store.lease().await.unwrap();
    let fault = Fault::at_commit(database, "projection_checkpoints", "update");
    database.execute(&fault.install).await;
    let refused = store.take_lease(&free, "first").await;
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    assert_eq!(store.lease().await.unwrap(), free);

    database.execute(&fault.remove).await;
    assert_eq!(store.take_lease(&free, "first").await.unwrap(), Some(1));
}

pub(crate) async fn migrating_again_does_nothing(database: &Database) {
    let first = migrate(&database.url()).await.unwrap();
    assert_eq!(first.first().map(|ran| (ran.version, ran.name.as_str())), Some((1, "read_model")));
    let store = open(&database.url()).unwrap();
    project(&store, &History::of(1).placed().events()).await;

    assert_eq!(migrate(&database.url()).await.unwrap(), []);
    assert_eq!(tables(&store).await.0.len(), 1);
    store.check_schema().await.unwrap();
    store.ping().await.unwrap();
}

pub(crate) async fn schema_that_is_missing_or_newer_is_refused(database: &Database) {
    let store = open(&database.url()).unwrap();
    let missing = store.check_schema().await.unwrap_err();
    assert!(matches!(missing, StoreError::SchemaOlder { found: 0, .. }), "{missing:?}");

    migrate(&database.url()).await.unwrap();
    store.check_schema().await.unwrap();

    let newer = "update _sqlx_migrations set version = 9000 where version = 1";
    database.execute(newer).await;
    for error in
        [store.check_schema().await.unwrap_err(), migrate(&database.url()).await.unwrap_err()]
    {
        assert!(matches!(error, StoreError::SchemaNewer { found: 9000, .. }), "{error:?}");
    }
}
