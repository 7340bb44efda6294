//! A message of a group: an event on its way to being done.

use uuid::Uuid;

use crate::log::ResolvedEvent;

/// Where a message came from, which is also what finishing it moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A place in the group's source.
    Source(u64),
    /// A revision in the group's parked stream, replayed.
    Parked(u64),
}

/// One event that the group has to get done.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// The original event's: of the link, if it was read through one.
    pub id: Uuid,
    pub origin: Origin,
    /// Deliveries that failed.
    pub retry_count: i32,
    pub resolved: ResolvedEvent,
}

impl Message {
    /// A message that was not delivered yet. `None` for an event that is not there.
    pub(super) fn new(origin: Origin, resolved: ResolvedEvent) -> Option<Self> {
        let id = resolved.original_event()?.id;
        Some(Self { id, origin, retry_count: 0, resolved })
    }
}
