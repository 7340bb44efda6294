//! The time from an append to its row, at a steady rate of events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_log::EventLog;
use projectors::{ReadModel, open};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use super::fill::{end, order_id, place};

/// Portions of orders per second; the orders of a portion are placed at once.
const PORTIONS_PER_SECOND: u64 = 100;
/// One order of this many is observed: more reads would be a load of their own.
const LOOKED_AT: u64 = 50;
/// Delay between two reads of an order.
const LOOK: Duration = Duration::from_millis(2);
/// Orders that are placed before the measurement.
const WARM_UP: u64 = 1_000;

/// The measured latencies, the shortest first.
pub(crate) struct Latencies {
    seen: Vec<Duration>,
    n_events: u64,
    appended_in: Duration,
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part: usize| self.seen[(self.seen.len() - 1) * part / 100].as_millis();
        let rate = super::per_second(self.n_events, self.appended_in);
        write!(f, "p50 {} ms, p99 {} ms at {rate} events/s", at(50), at(99))
    }
}

/// Appends events at a rate per second for some time, and observes some of the orders.
pub(crate) async fn measure(
    log: &EventLog,
    read_model: &str,
    events_per_second: u64,
    span: Duration,
) -> Latencies {
    let store = open(read_model).unwrap();
    let portion = events_per_second / super::super::EVENTS_PER_ORDER / PORTIONS_PER_SECOND;
    let (mut running, mut number) = (JoinSet::new(), 0);
    let mut ticks = interval(Duration::from_millis(1_000 / PORTIONS_PER_SECOND));
    let started = Instant::now();
    while started.elapsed() < span {
        ticks.tick().await;
        for _ in 0..portion {
            running.spawn(order(log.clone(), Arc::clone(&store), number));
            number += 1;
        }
    }
    let mut seen: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    seen.sort();
    let appended_in = started.elapsed();
    Latencies { seen, n_events: number * super::super::EVENTS_PER_ORDER, appended_in }
}

/// Places an order and ends it. For observed orders, returns the time until the row shows the end.
async fn order(log: EventLog, store: Arc<ReadModel>, number: u64) -> Option<Duration> {
    place(&log, number).await;
    end(&log, number).await;
    if !number.is_multiple_of(LOOKED_AT) {
        return None;
    }
    let appended = Instant::now();
    loop {
        let order = store.order(order_id(number)).await.unwrap();
        if order.is_some_and(|order| order.revision == 4) {
            return (number >= WARM_UP).then(|| appended.elapsed());
        }
        sleep(LOOK).await;
    }
}
