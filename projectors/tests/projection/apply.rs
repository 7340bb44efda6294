//! The fold of the projection `orders`.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::{OrderEvent, Recorded, Stage, Status, fields, fold};
use projectors::{Changes, Completions, OrderRow, Rows, apply};
use proptest::prelude::*;

use crate::events::{History, at, id};

/// Tables in memory, and the completions of all minutes.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tables {
    rows: BTreeMap<OrderId, Rows>,
    completions: Completions,
}

/// Applies a batch to tables in memory, as the runner does to those of a database.
fn apply_to(tables: &mut Tables, batch: &[Recorded]) {
    let touched = batch.iter().map(|recorded| recorded.event.order_id());
    let rows = touched.filter_map(|id| Some((id, tables.rows.get(&id)?.clone()))).collect();
    let changes = apply(rows, batch, &[]);
    for order in changes.orders {
        let rows = tables.rows.entry(order.order_id).or_default();
        rows.order = Some(order);
    }
    for failed in changes.failed_orders {
        let rows = tables.rows.entry(failed.order_id).or_default();
        rows.failed = Some(failed);
    }
    for completions in changes.statistics.minutes.values().filter_map(|minute| minute.completions) {
        tables.completions.n_orders += completions.n_orders;
        tables.completions.total_micros += completions.total_micros;
        tables.completions.max_micros = tables.completions.max_micros.max(completions.max_micros);
    }
}

/// Returns the time in microseconds after which an order reached its first end, from its whole history.
fn first_end(history: &[&Recorded]) -> Option<u64> {
    let ended_at = history.iter().find_map(|recorded| match &recorded.event {
        OrderEvent::Fulfilled(event) => Some(Some(event.fulfilled_at)),
        // An order that breaks a rule was never accepted.
        OrderEvent::Failed(event) if event.stage == Stage::Validation => Some(None),
        OrderEvent::Failed(event) => Some(Some(event.failed_at)),
        OrderEvent::Received(_)
        | OrderEvent::Validated(_)
        | OrderEvent::Stored(_)
        | OrderEvent::Queued(_)
        | OrderEvent::Discarded(_)
        | OrderEvent::DeliveryFailed(_)
        | OrderEvent::DeliveryStarted(_) => None,
    })??;
    let OrderEvent::Received(received) = &history[0].event else { panic!("{history:?}") };
    u64::try_from(ended_at.duration_since(received.received_at).as_micros()).ok()
}

fn applied(batch: &[Recorded]) -> Tables {
    let mut tables = Tables::default();
    apply_to(&mut tables, batch);
    tables
}

#[test]
fn order_is_written_once_per_batch() {
    let history = History::of(1).placed().fulfilled().events();
    let changes = apply(BTreeMap::new(), &history, &[]);
    assert_eq!(changes.orders, [OrderRow::from(fold(&history).unwrap())]);
    assert_eq!(changes.failed_orders, []);
}

#[test]
fn failure_keeps_the_order_as_it_was() {
    let history = History::of(1).placed().failed(Stage::Fulfillment, "refused").events();
    let failed = applied(&history).rows[&id(1)].failed.clone().unwrap();
    assert_eq!((failed.stage, failed.code.as_str()), (Stage::Fulfillment, "refused"));
    assert_eq!((failed.attempt, failed.failed_at, failed.resolved_at), (1, at(1_030), None));
    assert_eq!(failed.order, fields(&fold(&history).unwrap()));
}

#[test]
fn failure_is_resolved_by_success_or_discard_only() {
    let failed = || History::of(1).placed().failed(Stage::DeadLetter, "transient");
    let resolved_at = |history: History| {
        applied(&history.events()).rows[&id(1)].failed.as_ref().unwrap().resolved_at
    };
    assert_eq!(resolved_at(failed().queued()), None);
    assert_eq!(resolved_at(failed().queued().fulfilled()), Some(at(1_060)));
    assert_eq!(resolved_at(failed().discarded()), Some(at(1_090)));
    assert_eq!(resolved_at(failed().discarded().queued().failed(Stage::DeadLetter, "t")), None);
    assert_eq!(resolved_at(failed().queued().failed(Stage::Fulfillment, "refused")), None);
}

#[test]
fn order_that_never_failed_has_no_failure() {
    let tables = applied(&History::of(1).placed().fulfilled().events());
    assert_eq!(tables.rows[&id(1)].failed, None);
    assert_eq!(tables.rows[&id(1)].order.as_ref().unwrap().status, Status::Fulfilled);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Queue,
    DeliveryFails,
    Fulfil,
    Fail(Stage),
}

fn any_history(number: u128) -> impl Strategy<Value = Vec<Recorded>> {
    let step = prop_oneof![
        Just(Step::Queue),
        Just(Step::DeliveryFails),
        Just(Step::Fulfil),
        prop::sample::select(&Stage::ALL).prop_map(Step::Fail)
    ];
    prop::collection::vec(step, 0..8).prop_map(move |steps| {
        let placed = History::of(number).placed();
        let history = steps.into_iter().fold(placed, |history, step| match step {
            Step::Queue => history.queued(),
            Step::DeliveryFails => history.delivery_failed(),
            Step::Fulfil => history.fulfilled(),
            Step::Fail(stage) => history.failed(stage, "refused"),
        });
        history.events()
    })
}

/// Histories of several orders, interleaved as in a log.
fn any_log() -> impl Strategy<Value = Vec<Recorded>> {
    (any_history(1), any_history(2), any_history(3)).prop_map(|(first, second, third)| {
        let mut log: Vec<_> = [first, second, third].concat();
        log.sort_by_key(|recorded| recorded.revision);
        log
    })
}

proptest! {
    /// For any batches, and any part of the log applied again, the rows equal those of one batch, and the
    /// rows of orders equal the folds of their streams. Each order counts as completed once.
    #[test]
    fn rows_do_not_depend_on_batches(
        log in any_log(),
        sizes in prop::collection::vec(1_usize..6, 1..40),
        again_from in 0_usize..40,
    ) {
        let whole = applied(&log);

        let mut cut = Tables::default();
        let mut rest = log.as_slice();
        for size in sizes.into_iter().cycle() {
            let (batch, behind) = rest.split_at(size.min(rest.len()));
            apply_to(&mut cut, batch);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&cut, &whole);

        apply_to(&mut cut, &log[again_from.min(log.len())..]);
        prop_assert_eq!(&cut, &whole);
        prop_assert_eq!(apply(whole.rows.clone(), &log, &[]), Changes::default());

        let mut times = Vec::new();
        for (order_id, rows) in whole.rows {
            let history = log.iter().filter(|recorded| recorded.event.order_id() == order_id);
            let history: Vec<_> = history.collect();
            times.extend(first_end(&history));
            prop_assert_eq!(rows.order, fold(history).map(OrderRow::from));
        }
        let expected = Completions {
            n_orders: times.len() as u64,
            total_micros: times.iter().sum(),
            max_micros: times.iter().copied().max().unwrap_or_default(),
        };
        prop_assert_eq!(whole.completions, expected);
    }
}
