//! `given(events).when(command).then(events)` for the order's rules.

use domain::order::{OrderCommand, OrderError, OrderEvent, Recorded, decide, fold};
use jiff::Timestamp;

/// An order's history so far.
#[derive(Debug)]
pub struct Given {
    history: Vec<Recorded>,
}

/// What the rules said to a command.
#[derive(Debug)]
pub struct When {
    outcome: Result<Vec<OrderEvent>, OrderError>,
}

/// An order to which this happened, in this order.
pub fn given(events: impl IntoIterator<Item = OrderEvent>) -> Given {
    Given { history: recorded(events) }
}

/// Events as a log would hold them: numbered from 0, a second apart.
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

/// So many seconds after the epoch.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("the second is a time")
}

impl Given {
    /// Asks for a command.
    pub fn when(self, command: OrderCommand) -> When {
        When { outcome: decide(fold(&self.history).as_ref(), command) }
    }
}

impl When {
    /// Exactly these events follow.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = OrderEvent>) {
        assert_eq!(self.outcome, Ok(expected.into_iter().collect()));
    }

    /// It was done already.
    #[track_caller]
    pub fn then_nothing(self) {
        assert_eq!(self.outcome, Ok(Vec::new()));
    }

    /// A rule forbids it.
    #[track_caller]
    pub fn then_refused(self, expected: OrderError) {
        assert_eq!(self.outcome, Err(expected));
    }
}
