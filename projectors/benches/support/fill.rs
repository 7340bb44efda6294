//! Orders: placed, and later fulfilled or refused.

use domain::ids::{CommandId, OrderId};
use domain::order::{OrderCommand, OrderEvent, RecordFailed, RecordFulfilled, Stage, decide, fold};
use event_log::{Cause, EventHash, EventLog, Expected, StreamHead};
use testkit::spec::{at, recorded};
use testkit::store::{cause, placed};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Concurrent appends.
const CONCURRENCY: usize = 256;
/// Number of orders that are placed before the outcomes of the previous ones are recorded.
const WAVE: u64 = 1_000;

/// Returns the id of an order: in the order of time, otherwise random, as the API makes them.
pub(crate) fn order_id(number: u64) -> OrderId {
    let random = Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes()).as_u128();
    OrderId(Uuid::from_u128(u128::from(number) << 80 | random >> 48))
}

/// Appends `n_orders` orders, each in two appends.
pub(crate) async fn append_orders(log: &EventLog, n_orders: u64) {
    let mut running = JoinSet::new();
    for wave in 0..=n_orders.div_ceil(WAVE) {
        let numbers = |wave: u64| wave * WAVE..n_orders.min((wave + 1) * WAVE);
        let before = wave.checked_sub(1).map(numbers).into_iter().flatten();
        let appends =
            before.map(|number| (number, true)).chain(numbers(wave).map(|number| (number, false)));
        for (number, is_placed) in appends {
            if running.len() >= CONCURRENCY {
                running.join_next().await.unwrap().unwrap();
            }
            let log = log.clone();
            running.spawn(async move {
                if is_placed { end(&log, number).await } else { place(&log, number).await }
            });
        }
        // An order is placed before its outcome is recorded.
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    }
}

/// Places an order: four events.
pub(crate) async fn place(log: &EventLog, number: u64) {
    let id = order_id(number);
    let cause = Cause { tenant: Some(format!("tenant-{}", number % 100)), ..cause(number.into()) };
    log.append(id, Expected::NoStream, &placed(id), &cause).await.unwrap();
}

/// Ends an order that was placed: one event.
pub(crate) async fn end(log: &EventLog, number: u64) {
    let id = order_id(number);
    let command_id = CommandId::for_delivery(id.0, 1, "ended");
    let cause = Cause { command_id, ..cause(number.into()) };
    let head = StreamHead { revision: 3, hash: EventHash::NONE };
    log.append(id, Expected::After(head), &outcome(id, number), &cause).await.unwrap();
}

/// Seven of ten are fulfilled.
fn outcome(id: OrderId, number: u64) -> Vec<OrderEvent> {
    let order = fold(&recorded(placed(id))).unwrap();
    let (attempt, deliveries, at) = (1, 1, at(8));
    let command = if number % 10 < 7 {
        let reference = format!("sim-{number}");
        OrderCommand::RecordFulfilled(RecordFulfilled { attempt, deliveries, reference, at })
    } else {
        let (code, reason) = ("refused".to_owned(), "no stock".to_owned());
        let stage = Stage::Fulfillment;
        OrderCommand::RecordFailed(RecordFailed { stage, code, reason, attempt, deliveries, at })
    };
    decide(Some(&order), command).unwrap()
}
