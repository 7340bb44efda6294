//! Verification finds and repairs exactly the rows that do not agree with the events.

use std::sync::Arc;

use domain::order::{Stage, fields};
use projectors::{
    Begin, Completions, Difference, Finding, Minute, MinuteDifference, Pace, Poison, ReadModel,
    Repair, SwapAtEnd, Verification, Verified,
};
use serde_json::{Value, json};
use testkit::wait;

use crate::events::{History, id};
use crate::rebuild::rebuild;
use crate::stores::Database;
use crate::system::{EventStore, Projector, clock, projected};

pub(crate) async fn verify(
    events: &EventStore,
    store: &Arc<ReadModel>,
    repair: Repair,
) -> (Verified, Vec<Finding>) {
    let (scratch, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut findings = Vec::new();
    let verification = Verification {
        log: &events.log,
        store,
        clock: &clock,
        scratch: scratch.path(),
        repair,
        pace: Pace::Full,
    };
    let verified =
        verification.verify_all(&mut |_| {}, &mut |finding| findings.push(finding)).await.unwrap();
    (verified, findings)
}

/// Projects the orders 1 to 2,100, more than a page; every third has failed.
async fn many_orders(database: &Database, events: &EventStore) -> Arc<ReadModel> {
    let store = database.read_model().await;
    let mut n_events = 0;
    for number in 1..=2_100 {
        let placed = History::of(number).placed();
        let history = match number % 3 {
            0 => placed.failed(Stage::Fulfillment, "refused").events(),
            _ => placed.events(),
        };
        n_events += history.len() as u64;
        events.append(&history).await;
    }
    let projector = Projector::start(&events.log, &store, 1_000);
    projected(&store, n_events).await;
    projector.stop().await.unwrap();
    store
}

fn difference(number: u128, table: &'static str, field: &str) -> impl Fn(&Finding) -> bool {
    let (order_id, field) = (id(number), field.to_owned());
    move |finding| {
        matches!(finding, Finding::Difference(it)
            if it.order_id == order_id && it.table == table && it.field == field)
    }
}

async fn changed_rows_are_found_and_repaired(database: &Database, hex: impl Fn(u128) -> String) {
    let events = EventStore::start().await;
    let store = many_orders(database, &events).await;
    let (sound, findings) = verify(&events, &store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");
    assert_eq!((sound.n_orders, sound.n_events), (2_100, 9_100));

    let copied = "insert into orders (order_id, customer_id, items, total_quantity, status, \
        attempt, deliveries, revision, updated_at) select ADDED, customer_id, items, \
        total_quantity, status, attempt, deliveries, revision, updated_at from orders \
        where order_id = COPIED";
    let statements = [
        format!("update orders set total_quantity = 9 where order_id = {}", hex(1)),
        format!("update orders set status = 'LOST' where order_id = {}", hex(2)),
        format!("delete from orders where order_id = {}", hex(1_999)),
        format!("update failed_orders set code = 'other' where order_id = {}", hex(3)),
        format!("delete from failed_orders where order_id = {}", hex(6)),
        copied.replace("ADDED", &hex(9_999)).replace("COPIED", &hex(7)),
        "update projection_counts set n_orders = 1_000_000 where status = 'FAILED'"
            .replace("1_000_000", "1000000"),
    ];
    for statement in &statements {
        database.execute(statement).await;
    }

    for (repair, n_mended) in [(Repair::Never, 0), (Repair::Always, 6)] {
        let (verified, mut findings) = verify(&events, &store, repair).await;
        assert_eq!((verified.n_differing, verified.n_mended), (6, n_mended), "{findings:?}");
        let quantity = Difference {
            order_id: id(1),
            table: "orders",
            field: "total_quantity".to_owned(),
            expected: json!(2),
            found: json!(9),
        };
        assert!(findings.contains(&Finding::Difference(quantity)), "{findings:?}");
        let expected: [&dyn Fn(&Finding) -> bool; 6] = [
            &difference(1, "orders", "total_quantity"),
            &difference(2, "orders", "status"),
            &difference(1_999, "orders", "row"),
            &difference(3, "failed_orders", "code"),
            &difference(6, "failed_orders", "row"),
            &difference(9_999, "orders", "row"),
        ];
        for is_expected in expected {
            let place = findings.iter().position(is_expected).expect("it is found");
            findings.remove(place);
        }
        // Statistics are verified only if the rows are right.
        findings.retain(|finding| !matches!(finding, Finding::Miscounted(_)));
        assert_eq!(findings, []);
        assert_eq!(verified.n_miscounted, u64::from(repair == Repair::Always));
    }

    let (mended, findings) = verify(&events, &store, Repair::Never).await;
    assert!(mended.is_sound(), "{findings:?}");
    assert_eq!(store.count_orders().await.unwrap().n_failed, 700);
    for number in [1, 2, 3, 1_999] {
        let order = store.order(id(number)).await.unwrap().unwrap();
        let whole = events.log.load(id(number)).await.unwrap().order.unwrap();
        assert_eq!(fields(&order.into()), fields(&whole));
    }
    assert_eq!(store.order(id(9_999)).await.unwrap(), None);
}

#[tokio::test]
async fn changed_rows_are_found_and_repaired_in_sqlite() {
    let hex = |number: u128| format!("x'{number:032x}'");
    changed_rows_are_found_and_repaired(&Database::sqlite(), hex).await;
}

#[tokio::test]
async fn changed_rows_are_found_and_repaired_in_postgres() {
    let hex = |number: u128| format!("'{number:032x}'::uuid");
    changed_rows_are_found_and_repaired(&Database::postgres().await, hex).await;
}

#[tokio::test]
async fn tables_may_be_behind_and_move_on_while_they_are_verified() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    events.append(&History::of(1).placed().events()).await;
    let projector = Projector::start(&events.log, &store, 10);
    projected(&store, 4).await;
    projector.stop().await.unwrap();
    // The tables do not reflect these events yet.
    events.append(&History::of(1).placed().fulfilled().events()[4..]).await;
    events.append(&History::of(2).placed().events()).await;
    let (behind, findings) = verify(&events, &store, Repair::Always).await;
    assert!(behind.is_sound(), "{findings:?}");

    let projector = Projector::start(&events.log, &store, 10);
    let orders = async {
        for number in 10..200 {
            events.append(&History::of(number).placed().fulfilled().events()).await;
        }
    };
    let ((), (moving, findings)) = tokio::join!(orders, verify(&events, &store, Repair::Always));
    assert!(moving.is_sound(), "{findings:?}");
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn event_that_cannot_be_projected_is_named() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    events.append_to(id(2), &History::of(1).received().events()).await;
    let (verified, findings) = verify(&events, &store, Repair::Never).await;
    assert_eq!(verified.n_poison, 1);
    let [Finding::Poison(Poison { stream, revision: 0, event_type, reason })] = &findings[..]
    else {
        panic!("{findings:?}")
    };
    assert_eq!((stream, event_type.as_str()), (&id(2).stream_name(), "OrderReceived"));
    assert!(reason.contains(&id(1).to_string()), "{reason}");
}

#[tokio::test]
async fn sample_is_spread_over_all_orders() {
    let (database, events) = (Database::sqlite(), EventStore::start().await);
    let store = database.read_model().await;
    for number in 1..=10 {
        events.append(&History::of(number).placed().events()).await;
    }
    let projector = Projector::start(&events.log, &store, 10);
    projected(&store, 40).await;
    projector.stop().await.unwrap();
    database.execute("update orders set customer_id = 'other'").await;

    let (scratch, clock) = (tempfile::tempdir().unwrap(), clock());
    let (log, repair) = (&events.log, Repair::Never);
    let verification = Verification {
        log,
        store: &store,
        clock: &clock,
        scratch: scratch.path(),
        repair,
        pace: Pace::Full,
    };
    let mut seen = Vec::new();
    let verified = verification
        .verify_sample(5, &mut |_| {}, &mut |finding| match finding {
            Finding::Difference(it) => seen.push((it.order_id, it.found)),
            Finding::Poison(_) | Finding::Miscounted(_) | Finding::Minute(_) => {
                panic!("{finding:?}")
            }
        })
        .await
        .unwrap();
    assert_eq!((verified.n_orders, verified.n_differing), (5, 5));
    let expected: Vec<_> = [2, 4, 6, 8, 10].map(|number| (id(number), Value::from("other"))).into();
    assert_eq!(seen, expected);
}

async fn wrong_minutes_are_found_and_repaired(database: &Database) {
    let events = EventStore::start().await;
    let store = database.read_model().await;
    for (number, second) in [(1, 60), (2, 120), (3, 180)] {
        let history = History::of(number).second(second).placed().fulfilled().events();
        events.append(&history).await;
    }
    let projector = Projector::start(&events.log, &store, 10);
    projected(&store, 15).await;
    projector.stop().await.unwrap();
    // Events that the tables do not reflect yet are no difference.
    events.append(&History::of(4).second(120).placed().events()).await;
    let right = store.minutes(0).await.unwrap();
    assert_eq!(right.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);

    database
        .execute(
            "update projection_minutes set n_received = 7, n_failed = 1, \
             total_completion_us = 5, max_completion_us = 999999999 where minute = 1; \
             delete from projection_minutes where minute = 2; \
             update projection_minutes set n_completed = null, max_completion_us = null \
             where minute = 3",
        )
        .await;
    for repair in [Repair::Never, Repair::Always] {
        let (verified, findings) = verify(&events, &store, repair).await;
        let completions =
            Some(Completions { n_orders: 1, total_micros: 5, max_micros: 999_999_999 });
        let found = |minute| Minute { n_received: 7, n_failed: 1, completions, ..right[&minute] };
        let differs = |minute, found| {
            Finding::Minute(MinuteDifference { minute, expected: right[&minute], found })
        };
        assert_eq!(findings, [differs(1, found(1)), differs(2, Minute::default())]);
        assert_eq!(verified.n_miscounted, 2);
    }
    // Completions that an earlier release did not count are no difference, and stay unknown.
    let mut mended = right.clone();
    mended.entry(3).and_modify(|minute| minute.completions = None);
    assert_eq!(store.minutes(0).await.unwrap(), mended);
    let (sound, findings) = verify(&events, &store, Repair::Never).await;
    assert!(sound.is_sound(), "{findings:?}");

    // A rebuild counts them.
    rebuild(&events, &store, Begin::Anew, SwapAtEnd::Yes).await.0.unwrap();
    let rebuilt = store.minutes(0).await.unwrap();
    assert_eq!([rebuilt[&1], rebuilt[&3]], [right[&1], right[&3]]);
}

#[tokio::test]
async fn wrong_minutes_are_found_and_repaired_in_sqlite() {
    wrong_minutes_are_found_and_repaired(&Database::sqlite()).await;
}

#[tokio::test]
async fn wrong_minutes_are_found_and_repaired_in_postgres() {
    wrong_minutes_are_found_and_repaired(&Database::postgres().await).await;
}

/// A projector that verifies its rows periodically finds rows that were changed.
async fn projector_verifies_its_rows_periodically(
    database: &Database,
    hex: impl Fn(u128) -> String,
) {
    let (events, store) = (EventStore::start().await, database.read_model().await);
    for number in 1..=10 {
        events.append(&History::of(number).placed().events()).await;
    }
    assert_eq!(store.last_verification().await.unwrap(), None);
    let found = async |n_findings: u64| {
        wait::until_async("a verification comes to that", async || {
            let last = store.last_verification().await.unwrap()?;
            (last.n_orders == 10 && last.n_findings == n_findings).then_some(())
        })
        .await;
    };
    let projector = Projector::start_verifying(&events.log, &store, 1_000, 50);
    found(0).await;
    let change = format!("update orders set total_quantity = 9 where order_id = {}", hex(1));
    database.execute(&change).await;
    found(1).await;
    let (mended, _) = verify(&events, &store, Repair::Always).await;
    assert_eq!(mended.n_mended, 1);
    found(0).await;
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn projector_verifies_its_rows_periodically_in_sqlite() {
    let hex = |number: u128| format!("x'{number:032x}'");
    projector_verifies_its_rows_periodically(&Database::sqlite(), hex).await;
}

#[tokio::test]
async fn projector_verifies_its_rows_periodically_in_postgres() {
    let hex = |number: u128| format!("'{number:032x}'::uuid");
    projector_verifies_its_rows_periodically(&Database::postgres().await, hex).await;
}
