//! The figures of a group at one moment.

use crate::persistent::consumers::{Consumers, Rate};

/// What a group says about itself.
pub(super) struct Figures<'a> {
    pub pushed: Rate,
    /// The last place of the source that has an event, as far as the group knows.
    pub last_known: Option<u64>,
    /// Everything before it is done, as it was last written.
    pub checkpointed: u64,
    pub buffered: usize,
    pub live_buffered: usize,
    pub is_live: bool,
    pub retrying: usize,
    pub outstanding: usize,
    pub in_flight: usize,
    pub is_replaying: bool,
    /// Parked messages before this revision are being, or were, replayed.
    pub replayed_before: u64,
    pub consumers: &'a mut Consumers,
}
