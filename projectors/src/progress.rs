//! Progress of rebuilds and verifications.

/// The phase of a rebuild or a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The log is folded into tables.
    Replay,
    /// The tables are compared with the live ones, page by page.
    Compare,
    /// The streams of orders whose rows differ decide which side is wrong.
    Judge,
    /// The indexes of the new tables are made.
    Indexes,
    /// Events that were recorded since the replay are folded.
    CatchUp,
    /// The new tables are swapped in.
    Swap,
}

impl Phase {
    /// Returns the label of the phase.
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

    /// Returns the unit of the numbers of the phase.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Replay | Self::CatchUp => "events",
            Self::Compare | Self::Judge => "orders",
            Self::Indexes | Self::Swap => "steps",
        }
    }
}

/// The progress of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    /// In the phase's unit. The work of an interrupted rebuild counts.
    pub n_done: u64,
    /// The total; `None` if it is unknown. While the log is read it is an estimate, because positions
    /// do not count events.
    pub n_total: Option<u64>,
}

/// Receives progress.
pub(crate) type Watcher<'a> = dyn FnMut(Progress) + Send + 'a;

/// Estimates the number of events of orders up to `until`, given that `n_done` of them were found up to
/// `position`. Positions are byte offsets, and the log also contains events of other programs.
pub(crate) fn estimate_total(n_done: u64, position: u64, until: u64) -> Option<u64> {
    if position >= until {
        return Some(n_done);
    }
    // The product of a count and a byte offset may exceed 64 bits.
    let total = u128::from(n_done) * u128::from(until) / u128::from(position.max(1));
    u64::try_from(total).ok().filter(|_| n_done > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_estimated_from_the_part_read() {
        assert_eq!(estimate_total(100, 1_000, 4_000), Some(400));
        assert_eq!(estimate_total(100, 4_000, 4_000), Some(100));
        assert_eq!(estimate_total(100, 5_000, 4_000), Some(100));
        assert_eq!(estimate_total(0, 10, 4_000), None);
        assert_eq!(estimate_total(u64::MAX, 1, u64::MAX), None);
    }
}
