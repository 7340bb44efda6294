//! Rebuilds beside the live tables, while projector and readers go on.

use std::sync::Arc;

use domain::ids::OrderId;
use domain::order::Stage;
use projectors::{
    Begin, Difference, Finding, OrderFilter, Page, Phase, Progress, ReadModel, Rebuild,
    RebuildError, Rebuilt, Repair, StoreError, SwapAtEnd, SwapWhen, Swapped, Unfinished,
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testkit::wait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{EventStore, Projector, clock, projected};
use crate::verify::verify;

pub(crate) async fn rebuild(
    events: &EventStore,
    store: &Arc<ReadModel>,
    begin: Begin,
    at_end: SwapAtEnd,
) -> (Result<Rebuilt, RebuildError>, Vec<Finding>) {
    let clock = clock();
    let work = Rebuild { log: &events.log, store, clock: &clock, begin, at_end, batch_size: 50 };
    let mut findings = Vec::new();
    let mut n_judged = 0;
    let mut progress = |it: Progress| {
        if it.phase == Phase::Judge {
            n_judged += 1;
        }
    };
    let rebuilt = work.run(&mut progress, &mut |finding| findings.push(finding)).await;
    // Both sides are at one position: a stream is read only if its rows differ.
    let n_differing = rebuilt.as_ref().ok().and_then(|rebuilt| Some(rebuilt.compared?.n_differing));
    assert!(
        n_differing.is_none_or(|n_differing| n_differing == n_judged),
        "{n_judged} judged, {n_differing:?}"
    );
    (rebuilt, findings)
}

pub(crate) async fn append_orders(events: &EventStore, numbers: std::ops::RangeInclusive<u128>) {
    for number in numbers {
        let placed = History::of(number).placed();
        let history = match number % 3 {
            0 => placed.failed(Stage::Fulfillment, "refused").events(),
            _ => placed.fulfilled().events(),
        };
        events.append(&history).await;
    }
}

pub(crate) async fn projected_all(store: &Arc<ReadModel>, n_orders: u64) {
    wait::until_async("all orders are projected", async || {
        let counts = store.count_orders().await.ok()?;
        (counts.n_fulfilled + counts.n_failed >= n_orders).then_some(())
    })
    .await;
}

/// Reads as the API does until it is told to stop. No read fails, and no order is missing.
async fn read_without_a_gap(store: Arc<ReadModel>, stop: CancellationToken) -> u64 {
    let mut n_reads = 0;
    let page = Page { after: None, limit: 20 };
    while !stop.is_cancelled() {
        let orders = store.orders(&OrderFilter::default(), &page).await.unwrap();
        assert_eq!(orders.len(), 20);
        assert!(store.order(id(7)).await.unwrap().is_some());
        let counts = store.count_orders().await.unwrap();
        assert!(counts.n_fulfilled + counts.n_failed >= 100, "{counts:?}");
        n_reads += 1;
    }
    n_reads
}

async fn rebuild_runs_beside_projector_and_readers(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    let projector = Projector::start(&events.log, &store, 100);
    append_orders(&events, 1..=100).await;
    projected_all(&store, 100).await;

    let stop = CancellationToken::new();
    let mut readers = JoinSet::new();
    readers.spawn(read_without_a_gap(Arc::clone(&store), stop.clone()));
    let ((), (first, findings)) = tokio::join!(
        append_orders(&events, 101..=250),
        rebuild(&events, &store, Begin::Anew, SwapAtEnd::No),
    );
    assert_eq!(findings, []);
    assert!(!first.unwrap().is_live);
    let ((), (second, findings)) = tokio::join!(
        append_orders(&events, 251..=400),
        rebuild(&events, &store, Begin::WhereItStopped, SwapAtEnd::Yes),
    );
    assert_eq!(findings, []);
    let second = second.unwrap();
    assert!(second.is_live && second.compared.unwrap().is_sound(), "{second:?}");

    projected_all(&store, 400).await;
    let (sound, findings) = verify(&events, &store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");
    assert_eq!(sound.n_orders, 400);
    let names: Vec<_> = store.sets().await.unwrap().iter().map(|set| set.name).collect();
    assert_eq!(names, ["live", "previous"]);

    // Swap and rollback, while the projector goes on.
    for _time in 0..2 {
        store.roll_back(Unfinished::Refuse, clock().now()).await.unwrap();
        projected_all(&store, 400).await;
        let (sound, findings) = verify(&events, &store, Repair::Never).await;
        assert!(sound.is_sound(), "{findings:?}");
    }
    stop.cancel();
    assert!(readers.join_next().await.unwrap().unwrap() > 0);
    projector.stop().await.unwrap();

    let later = clock().now().checked_add(jiff::SignedDuration::from_hours(1)).unwrap();
    assert!(!store.drop_previous(clock().now()).await.unwrap());
    assert!(store.drop_previous(later).await.unwrap());
    let nothing = store.roll_back(Unfinished::Refuse, later).await.unwrap_err();
    assert!(matches!(nothing, StoreError::Set(_)), "{nothing:?}");
    // The indexes exist under their names.
    database.execute("drop index orders_by_time").await;
    database.execute("drop index orders_processing_by_age").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_runs_beside_projector_and_readers_in_sqlite() {
    Box::pin(rebuild_runs_beside_projector_and_readers(&Database::sqlite())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_runs_beside_projector_and_readers_in_postgres() {
    Box::pin(rebuild_runs_beside_projector_and_readers(&Database::postgres().await)).await;
}

async fn rows_that_are_wrong_are_reported_and_replaced(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=20).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 20).await;
    projector.stop().await.unwrap();
    database.execute("update orders set reference = 'wrong' where status = 'FAILED'").await;
    database.execute("update projection_counts set n_orders = 77").await;

    let (rebuilt, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await;
    assert_eq!(rebuilt.unwrap().compared.unwrap().n_differing, 6);
    assert_eq!(findings.len(), 6, "{findings:?}");
    let (sound, findings) = verify(&events, &store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");
    assert_eq!(store.count_orders().await.unwrap().n_failed, 6);
}

#[tokio::test]
async fn rows_that_are_wrong_are_reported_and_replaced_in_sqlite() {
    rows_that_are_wrong_are_reported_and_replaced(&Database::sqlite()).await;
}

#[tokio::test]
async fn rows_that_are_wrong_are_reported_and_replaced_in_postgres() {
    rows_that_are_wrong_are_reported_and_replaced(&Database::postgres().await).await;
}

async fn rebuild_that_was_cut_off_goes_on_and_another_one_ends_it(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=60).await;
    let nothing = rebuild(&events, &store, Begin::WhereItStopped, SwapAtEnd::Yes).await.0;
    assert!(nothing.unwrap_err().to_string().contains("without `--resume`"));

    // Interrupted: the future is dropped after the first batch.
    let (cut, reached) = (CancellationToken::new(), CancellationToken::new());
    let clock = clock();
    let (log, begin, at_end) = (&events.log, Begin::Anew, SwapAtEnd::Yes);
    let cut_off = Rebuild { log, store: &store, clock: &clock, begin, at_end, batch_size: 50 };
    let mut n_done = 0;
    let mut progress = |it: Progress| {
        n_done = it.n_done;
        if n_done > 0 {
            cut.cancel();
        }
    };
    let mut found = |_| {};
    tokio::select! {
        biased;
        () = cut.cancelled() => reached.cancel(),
        _ = cut_off.run(&mut progress, &mut found) => {}
    }
    assert!(reached.is_cancelled() && (1..300).contains(&n_done), "{n_done}");

    // A rebuild that was taken over can no longer write.
    let stale = store.next_set(Begin::WhereItStopped).await.unwrap();
    let before = stale.checkpoint().await.unwrap();
    let (rebuilt, findings) = rebuild(&events, &store, Begin::WhereItStopped, SwapAtEnd::No).await;
    // The live tables are empty: nothing was projected into them.
    assert_eq!(findings, []);
    assert_eq!(rebuilt.unwrap().n_events, 300);
    let error =
        stale.write(&projectors::RowChanges::default(), &before, &before).await.unwrap_err();
    assert!(matches!(error, StoreError::CheckpointMoved), "{error:?}");
    let error = store
        .swap(&before, SwapWhen::LiveAtMost(None), clock.now(), &mut |_, _| {})
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::CheckpointMoved), "{error:?}");
}

#[tokio::test]
async fn rebuild_that_was_cut_off_goes_on_in_sqlite() {
    rebuild_that_was_cut_off_goes_on_and_another_one_ends_it(&Database::sqlite()).await;
}

#[tokio::test]
async fn rebuild_that_was_cut_off_goes_on_in_postgres() {
    rebuild_that_was_cut_off_goes_on_and_another_one_ends_it(&Database::postgres().await).await;
}

#[tokio::test]
async fn rebuild_names_events_that_it_cannot_project_and_leaves_the_live_tables() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    events.append_to(id(2), &History::of(1).received().events()).await;
    for begin in [Begin::Anew, Begin::WhereItStopped] {
        let (rebuilt, findings) = rebuild(&events, &store, begin, SwapAtEnd::Yes).await;
        assert!(matches!(rebuilt, Err(RebuildError::Poison(1))), "{rebuilt:?}");
        let n_named = usize::from(begin == Begin::Anew);
        assert_eq!(findings.len(), n_named, "{findings:?}");
    }
    let names: Vec<_> = store.sets().await.unwrap().iter().map(|set| set.name).collect();
    assert_eq!(names, ["live", "next"]);
}

#[tokio::test]
async fn rebuild_switches_to_another_event_store() {
    let (database, first) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    append_orders(&first, 1..=20).await;
    let projector = Projector::start(&first.log, &store, 100);
    projected_all(&store, 20).await;
    projector.stop().await.unwrap();

    let second = EventStore::start().await;
    append_orders(&second, 31..=32).await;
    let (rebuilt, findings) = rebuild(&second, &store, Begin::Anew, SwapAtEnd::Yes).await;
    let rebuilt = rebuilt.unwrap();
    assert_eq!((rebuilt.compared, rebuilt.is_live, findings), (None, true, vec![]));
    let projector = Projector::start(&second.log, &store, 100);
    append_orders(&second, 33..=33).await;
    projected(&store, 15).await;
    projector.stop().await.unwrap();
    assert_eq!(store.order(id(1)).await.unwrap(), None);
}

/// Lists the orders of a tenant.
async fn orders_of(store: &Arc<ReadModel>, tenant: &str) -> Vec<OrderId> {
    let filter = OrderFilter { tenant: Some(tenant.to_owned()), ..OrderFilter::default() };
    let orders = store.orders(&filter, &Page { after: None, limit: 20 }).await.unwrap();
    orders.iter().map(|order| order.order_id).collect()
}

async fn tenants_are_part_of_a_set(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    for (number, tenant) in [(1, "shop"), (2, "shop"), (3, "market")] {
        let history = History::of(number).placed().events();
        events.append_of(Some(tenant), id(number), &history).await;
    }
    append_orders(&events, 4..=4).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected(&store, 17).await;
    projector.stop().await.unwrap();
    let damage = "delete from order_tenants where tenant = 'market'; \
        update order_tenants set tenant = 'market'";
    let differs = |number: u128, field: &str, expected: Value, found: Value| {
        let (table, field) = ("order_tenants", field.to_owned());
        Finding::Difference(Difference { order_id: id(number), table, field, expected, found })
    };
    let missing = json!({"order_id": id(3), "tenant": "market"});
    let damaged = [
        differs(1, "tenant", "shop".into(), "market".into()),
        differs(2, "tenant", "shop".into(), "market".into()),
        differs(3, "row", missing, Value::Null),
    ];

    database.execute(damage).await;
    let (_, findings) = verify(&events, &store, Repair::Always).await;
    assert_eq!(findings, damaged);
    assert_eq!(orders_of(&store, "shop").await, [id(2), id(1)]);

    database.execute(damage).await;
    let (rebuilt, findings) = rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await;
    assert!(rebuilt.unwrap().is_live);
    assert_eq!(findings, damaged);
    assert_eq!(orders_of(&store, "shop").await, [id(2), id(1)]);
    assert_eq!(orders_of(&store, "market").await, [id(3)]);
    store.roll_back(Unfinished::Refuse, clock().now()).await.unwrap();
    assert_eq!(orders_of(&store, "market").await, [id(2), id(1)]);
}

#[tokio::test]
async fn tenants_are_part_of_a_set_in_sqlite() {
    tenants_are_part_of_a_set(&Database::sqlite()).await;
}

#[tokio::test]
async fn tenants_are_part_of_a_set_in_postgres() {
    tenants_are_part_of_a_set(&Database::postgres().await).await;
}

/// A rebuild that ends right after the swap, as if it were killed there, beside a running projector.
async fn rebuild_may_end_right_after_the_swap(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    append_orders(&events, 1..=30).await;
    let projector = Projector::start(&events.log, &store, 100);
    projected_all(&store, 30).await;
    rebuild(&events, &store, Begin::Anew, SwapAtEnd::No).await.0.unwrap();
    let next = store.next_set(Begin::WhereItStopped).await.unwrap().checkpoint().await.unwrap();
    // The rebuild held the lease and has not given it back.
    wait::until_async("the projector does not renew its lease just then", async || {
        let seen = store.lease().await.unwrap();
        store.take_lease(&seen, "rebuild").await.unwrap()
    })
    .await;
    let swapped = store.swap(&next, SwapWhen::Anyway, clock().now(), &mut |_, _| {}).await.unwrap();
    assert_eq!(swapped, Swapped::Done);

    append_orders(&events, 31..=40).await;
    projected_all(&store, 40).await;
    let (sound, findings) = verify(&events, &store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");
    let names: Vec<_> = store.sets().await.unwrap().iter().map(|set| set.name).collect();
    assert_eq!(names, ["live", "previous"]);
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn rebuild_may_end_right_after_the_swap_in_sqlite() {
    rebuild_may_end_right_after_the_swap(&Database::sqlite()).await;
}

#[tokio::test]
async fn rebuild_may_end_right_after_the_swap_in_postgres() {
    rebuild_may_end_right_after_the_swap(&Database::postgres().await).await;
}

#[tokio::test]
async fn rebuild_that_is_cut_off_in_the_swap_leaves_the_live_tables() {
    let (database, events) = (Database::postgres().await, EventStore::start().await);
    let store = database.read_model().await;
    append_orders(&events, 1..=30).await;
    rebuild(&events, &store, Begin::Anew, SwapAtEnd::No).await.0.unwrap();
    let before = store.checkpoint().await.unwrap();
    let next = store.next_set(Begin::WhereItStopped).await.unwrap().checkpoint().await.unwrap();

    // A slow reader: the swap waits for it within its transaction.
    let mut reader = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::raw_sql("begin; lock table orders in access share mode")
        .execute(&mut reader)
        .await
        .unwrap();
    let waits = "select exists (select 1 from pg_locks where not granted)";
    let is_waiting = async || {
        let waits: bool = sqlx::query_scalar(waits).fetch_one(&mut reader).await.ok()?;
        waits.then_some(())
    };
    let mut steps = |_, _| {};
    tokio::select! {
        swapped = store.swap(&next, SwapWhen::Anyway, clock().now(), &mut steps) => panic!("{swapped:?}"),
        () = wait::until_async("the swap waits for the reader", is_waiting) => {}
    }
    reader.close().await.unwrap();

    assert_eq!(store.checkpoint().await.unwrap(), before);
    let (rebuilt, findings) = rebuild(&events, &store, Begin::WhereItStopped, SwapAtEnd::Yes).await;
    assert!(rebuilt.unwrap().is_live, "{findings:?}");
    assert_eq!(store.count_orders().await.unwrap().n_fulfilled, 20);
}
