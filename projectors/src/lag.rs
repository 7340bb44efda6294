//! The lag of the tables behind the log.

use event_log::Backlog;
use jiff::Timestamp;

use crate::store::Checkpoint;

/// Maximum number of events that are counted for the lag.
pub(crate) const MAX_LAG_EVENTS: usize = 10_000;
/// The projection is stuck if an event has waited for longer than this, and the checkpoint has not moved
/// for as long either.
const STUCK_AFTER_SECS: f64 = 10.0;

/// How far the tables are behind the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// Counted up to 10,000.
    pub lag_events: u64,
    /// The age of the oldest event that is not applied; 0 if there is none.
    pub lag_seconds: f64,
    /// Events wait, and the checkpoint does not move.
    pub stuck: bool,
}

pub(crate) fn compute_lag(checkpoint: &Checkpoint, backlog: Backlog, now: Timestamp) -> Lag {
    // The time is another process's, whose clock may be ahead of this one.
    let age = |time: Timestamp| now.duration_since(time).as_secs_f64().max(0.0);
    let lag_seconds = backlog.oldest.map_or(0.0, age);
    let unmoved_seconds = checkpoint.moved_at.map_or(f64::INFINITY, age);
    Lag {
        // One event too many is counted if the checkpoint is at an event of another program.
        lag_events: backlog.n_events.min(MAX_LAG_EVENTS as u64),
        lag_seconds,
        stuck: lag_seconds > STUCK_AFTER_SECS && unmoved_seconds > STUCK_AFTER_SECS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn stuck_projection_has_waiting_events_and_unmoved_checkpoint() {
        let moved = |second| Checkpoint { moved_at: Some(at(second)), ..Checkpoint::default() };
        let waiting = |second| Backlog { n_events: 3, oldest: Some(at(second)) };
        let nothing = Backlog { n_events: 0, oldest: None };
        let stuck = |checkpoint, backlog| compute_lag(&checkpoint, backlog, at(1_000)).stuck;

        assert!(stuck(moved(900), waiting(901)));
        assert!(stuck(Checkpoint::default(), waiting(901)));
        // Behind and catching up; idle until just now; nothing to do.
        assert!(!stuck(moved(999), waiting(901)));
        assert!(!stuck(moved(900), waiting(999)));
        assert!(!stuck(moved(900), nothing));
        let beyond = Backlog { n_events: MAX_LAG_EVENTS as u64 + 1, oldest: Some(at(1_000)) };
        assert_eq!(compute_lag(&moved(900), beyond, at(1_000)).lag_events, MAX_LAG_EVENTS as u64);
        let behind = compute_lag(&moved(900), waiting(998), at(1_000));
        assert_eq!(behind, Lag { lag_events: 3, lag_seconds: 2.0, stuck: false });
    }
}
