//! How far a rebuild or a verification has come.

use crate::verify::Finding;

/// What a rebuild or a verification does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Folds the log into tables.
    Replay,
    /// Compares the tables with the live ones, a page of orders at a time.
    Compare,
    /// Asks the streams of orders whose rows differ which side is wrong.
    Judge,
    /// Makes the indexes of the new tables.
    Indexes,
    /// Folds what was recorded since the replay.
    CatchUp,
    /// Puts the new tables in the place of the live ones.
    Swap,
}

impl Phase {
    /// The phase in a word or two, as progress is labelled.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Compare => "compare",
            Self::Judge => "judge",
            Self::Indexes => "indexes",
            Self::CatchUp => "catch up",
            Self::Swap => "swap",
        }
    }

    /// What the numbers of the phase count.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Replay | Self::CatchUp => "events",
            Self::Compare | Self::Judge => "orders",
            Self::Indexes | Self::Swap => "steps",
        }
    }
}

/// How far a phase has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    /// In the phase's unit; what an interrupted rebuild had done before counts.
    pub n_done: u64,
    /// Of how many. While the log is read this is an estimate, because a position says nothing
    /// about a number of events. `None` if nobody knows.
    pub n_total: Option<u64>,
}

/// Is told of progress.
pub(crate) type Watcher<'a> = dyn FnMut(Progress) + Send + 'a;

/// Is told how far a rebuild or a verification is, and what it finds.
pub(crate) struct Observer<'a> {
    pub(crate) progress: &'a mut Watcher<'a>,
    pub(crate) found: &'a mut (dyn FnMut(Finding) + Send + 'a),
}

/// Estimates how many events there are up to `until`, if `n_done` of them were found up to
/// `position`: positions are byte offsets, and events of other programs lie between the orders'.
pub(crate) fn estimate(n_done: u64, position: u64, until: u64) -> Option<u64> {
    if position >= until {
        return Some(n_done);
    }
    let total = u128::from(n_done) * u128::from(until) / u128::from(position.max(1));
    u64::try_from(total).ok().filter(|_| n_done > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_estimated_from_the_part_of_the_log_that_was_read() {
        assert_eq!(estimate(100, 1_000, 4_000), Some(400));
        assert_eq!(estimate(100, 4_000, 4_000), Some(100));
        assert_eq!(estimate(100, 5_000, 4_000), Some(100));
        assert_eq!(estimate(0, 10, 4_000), None);
        assert_eq!(estimate(u64::MAX, 1, u64::MAX), None);
    }
}
