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
    /// `None` if an earlier release has counted events of the minute.
    pub completions: Option<Completions>,
}

/// Times from receipt to first end of the orders that ended in one minute, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Completions {
    pub n_orders: u64,
    pub total_micros: u64,
    pub max_micros: u64,
}

impl Completions {
    fn add(&mut self, micros: u64) {
        self.n_orders += 1;
        self.total_micros += micros;
        self.max_micros = self.max_micros.max(micros);
    }

    fn exceeds(self, other: Self) -> bool {
        self.n_orders > other.n_orders
            || self.total_micros > other.total_micros
            || self.max_micros > other.max_micros
    }

    /// Returns the mean time in seconds; `None` if no order ended.
    pub fn mean_seconds(self) -> Option<f64> {
        (self.n_orders > 0).then(|| to_seconds(self.total_micros) / to_number(self.n_orders))
    }

    /// Returns the longest time in seconds; `None` if no order ended.
    pub fn max_seconds(self) -> Option<f64> {
        (self.n_orders > 0).then(|| to_seconds(self.max_micros))
    }
}

fn to_seconds(micros: u64) -> f64 {
    to_number(micros) / 1_000_000.0
}

#[expect(clippy::cast_precision_loss, reason = "a statistic of more than 2^53 may be imprecise")]
fn to_number(number: u64) -> f64 {
    number as f64
}

impl Minute {
    /// Returns whether one of the numbers is greater than in `other`.
    pub fn exceeds(self, other: Self) -> bool {
        self.n_events > other.n_events
            || self.n_received > other.n_received
            || self.n_fulfilled > other.n_fulfilled
            || self.n_failed > other.n_failed
            || self.n_refused > other.n_refused
            || other
                .completions
                .is_some_and(|other| self.completions.unwrap_or_default().exceeds(other))
    }

    /// Returns whether the numbers found are these. Completions that an earlier release did not count
    /// agree with any.
    fn agrees_with(self, found: Self) -> bool {
        let completions = found.completions.or(self.completions);
        let is_complete = completions.unwrap_or_default() == self.completions.unwrap_or_default();
        is_complete && Self { completions: found.completions, ..self } == found
    }

    /// Returns the share of fulfilled orders among those that the gateway fulfilled or refused.
    pub fn success_rate(&self) -> Option<f64> {
        let n_answered = self.n_fulfilled + self.n_refused;
        (n_answered > 0).then(|| to_number(self.n_fulfilled) / to_number(n_answered))
    }
}

/// A minute whose statistics are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteDifference {
    /// Counted from 1970.
    pub minute: i64,
    pub expected: Minute,
    pub found: Minute,
}

impl MinuteDifference {
    /// Compares two minutes; `None` if they agree.
    pub(crate) fn between(minute: i64, expected: Minute, found: Minute) -> Option<Self> {
        (!expected.agrees_with(found)).then_some(Self { minute, expected, found })
    }

    /// Returns what has to be added to the numbers found. Numbers that were too large wrap around. A
    /// maximum is the expected one.
    pub(crate) fn lacking(&self) -> Minute {
        let Self { expected, found: other, .. } = *self;
        let of_expected = expected.completions.unwrap_or_default();
        let of_found = other.completions.unwrap_or_default();
        let completions = Completions {
            n_orders: of_expected.n_orders.wrapping_sub(of_found.n_orders),
            total_micros: of_expected.total_micros.wrapping_sub(of_found.total_micros),
            max_micros: of_expected.max_micros,
        };
        Minute {
            completions: Some(completions),
            n_events: expected.n_events.wrapping_sub(other.n_events),
            n_received: expected.n_received.wrapping_sub(other.n_received),
            n_fulfilled: expected.n_fulfilled.wrapping_sub(other.n_fulfilled),
            n_failed: expected.n_failed.wrapping_sub(other.n_failed),
            n_refused: expected.n_refused.wrapping_sub(other.n_refused),
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

    /// Counts an event that was applied. `completion_micros` is given for the first end of an order.
    pub(crate) fn count_event(&mut self, recorded: &Recorded, completion_micros: Option<u64>) {
        let number = recorded.recorded_at.as_second().div_euclid(60);
        let minute = self.minutes.entry(number).or_default();
        minute.n_events += 1;
        let completions = minute.completions.get_or_insert_default();
        if let Some(micros) = completion_micros {
            completions.add(micros);
        }
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
