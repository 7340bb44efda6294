//! Specifications of the order's rules: `given(events).when(command).then(events)`.

use domain::order::{OrderCommand, OrderError, OrderEvent, Recorded, decide, fold};
use jiff::Timestamp;

#[derive(Debug)]
pub struct Given {
    history: Vec<Recorded>,
}

#[derive(Debug)]
pub struct Decision {
    outcome: Result<Vec<OrderEvent>, OrderError>,
}

/// Starts a specification with the events of an order, oldest first.
pub fn given(events: impl IntoIterator<Item = OrderEvent>) -> Given {
    Given { history: recorded(events) }
}

/// Returns events as the log records them: numbered from 0, one second apart.
pub fn recorded(events: impl IntoIterator<Item = OrderEvent>) -> Vec<Recorded> {
    events
        .into_iter()
        .zip(0_u32..)
        .map(|(event, index)| Recorded {
            revision: u64::from(index),
            recorded_at: at(i64::from(index)),
            event,
        })
        .collect()
}

/// Returns the time this many seconds after the epoch.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("the time is in range")
}

impl Given {
    pub fn when(self, command: OrderCommand) -> Decision {
        Decision { outcome: decide(fold(&self.history).as_ref(), command) }
    }
}

impl Decision {
    /// Asserts that the decision is exactly these events.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = OrderEvent>) {
        assert_eq!(self.outcome, Ok(expected.into_iter().collect()));
    }

    /// Asserts that the decision is no event: the command was already done.
    #[track_caller]
    pub fn then_nothing(self) {
        assert_eq!(self.outcome, Ok(Vec::new()));
    }

    /// Asserts that a rule rejects the command.
    #[track_caller]
    pub fn then_refused(self, expected: OrderError) {
        assert_eq!(self.outcome, Err(expected));
    }
}
