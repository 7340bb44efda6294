//! Statistics: orders by state, and events by minute.

use std::collections::BTreeMap;

use domain::order::{OrderEvent, Recorded, Stage, Status};

use super::row;

row! {
    /// A change of the number of orders in one state.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CountChange {
        pub status: Status,
        pub stage: Option<Stage>,
        pub n_orders: i64,
    }
}

/// Numbers of events in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Minute {
    pub n_events: u64,
    pub n_received: u64,
    pub n_fulfilled: u64,
    pub n_failed: u64,
    /// Failures because the gateway refused the order.
    pub n_refused: u64,
}

impl Minute {
    /// Returns whether one of the numbers is greater than in `other`.
    pub fn exceeds(self, other: Self) -> bool {
        self.n_events > other.n_events
            || self.n_received > other.n_received
            || self.n_fulfilled > other.n_fulfilled
            || self.n_failed > other.n_failed
            || self.n_refused > other.n_refused
    }

    /// Returns the share of fulfilled orders among those that the gateway fulfilled or refused.
    #[expect(clippy::cast_precision_loss, reason = "a rate of more than 2^53 may be imprecise")]
    pub fn success_rate(&self) -> Option<f64> {
        let n_answered = self.n_fulfilled + self.n_refused;
        (n_answered > 0).then(|| self.n_fulfilled as f64 / n_answered as f64)
    }

    /// Subtracts the numbers of `other`. Smaller numbers wrap around.
    pub(crate) fn subtract(self, other: Self) -> Self {
        Self {
            n_events: self.n_events.wrapping_sub(other.n_events),
            n_received: self.n_received.wrapping_sub(other.n_received),
            n_fulfilled: self.n_fulfilled.wrapping_sub(other.n_fulfilled),
            n_failed: self.n_failed.wrapping_sub(other.n_failed),
            n_refused: self.n_refused.wrapping_sub(other.n_refused),
        }
    }
}

/// Changes of the statistics by one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// At most one entry per state, and none of 0.
    pub counts: Vec<CountChange>,
    /// By the number of minutes since 1970.
    pub minutes: BTreeMap<i64, Minute>,
}

impl Statistics {
    /// Counts an order that was in the state `before` and is in the state `after` now; `None` if there
    /// is no such order.
    pub(crate) fn count_change(
        &mut self,
        before: Option<(Status, Option<Stage>)>,
        after: Option<(Status, Option<Stage>)>,
    ) {
        if before == after {
            return;
        }
        if let Some(after) = after {
            self.add_orders(after, 1);
        }
        if let Some(before) = before {
            self.add_orders(before, -1);
        }
    }

    /// Counts an event that was applied.
    pub(crate) fn count_event(&mut self, recorded: &Recorded) {
        let number = recorded.recorded_at.as_second().div_euclid(60);
        let minute = self.minutes.entry(number).or_default();
        minute.n_events += 1;
        match &recorded.event {
            OrderEvent::Received(_) => minute.n_received += 1,
            OrderEvent::Fulfilled(_) => minute.n_fulfilled += 1,
            OrderEvent::Failed(failed) => {
                minute.n_failed += 1;
                minute.n_refused += u64::from(failed.stage == Stage::Fulfillment);
            }
            OrderEvent::Validated(_)
            | OrderEvent::Stored(_)
            | OrderEvent::Queued(_)
            | OrderEvent::Discarded(_)
            | OrderEvent::DeliveryFailed(_)
            | OrderEvent::DeliveryStarted(_) => {}
        }
    }

    fn add_orders(&mut self, (status, stage): (Status, Option<Stage>), n_orders: i64) {
        let known =
            self.counts.iter_mut().find(|count| (count.status, count.stage) == (status, stage));
        match known {
            Some(known) => known.n_orders += n_orders,
            None => self.counts.push(CountChange { status, stage, n_orders }),
        }
        self.counts.retain(|count| count.n_orders != 0);
    }
}
