//! A message of a group: one event that is to be delivered until it is acknowledged or parked.

use uuid::Uuid;

use crate::log::ResolvedEvent;

/// Where a message came from. Finishing the message advances that source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A position in the group's source.
    Source(u64),
    /// A revision in the group's parked stream. The message is replayed.
    Parked(u64),
}

/// One event that the group has to deliver.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Id of the original event: of the link, if the event was read through a link.
    pub id: Uuid,
    pub origin: Origin,
    /// Number of failed deliveries.
    pub retry_count: i32,
    pub resolved: ResolvedEvent,
}

impl Message {
    /// Creates a message that has not been delivered yet. Returns `None` if neither event nor link
    /// exists.
    pub(super) fn new(origin: Origin, resolved: ResolvedEvent) -> Option<Self> {
        let id = resolved.original_event()?.id;
        Some(Self { id, origin, retry_count: 0, resolved })
    }
}
