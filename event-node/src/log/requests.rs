//! Requests to the writer and their outcomes.

use crate::log::event::NewEvent;

/// Expected state of the stream in an append or deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedRevision {
    Any,
    NoStream,
    StreamExists,
    /// The stream's last event has this revision.
    Revision(u64),
}

/// One atomic change of the log.
#[derive(Debug)]
pub(crate) enum WriteRequest {
    Append(Append),
    /// Hides all events of a stream. An append makes the stream visible again with later revisions.
    SoftDelete(Deletion),
    /// Deletes a stream permanently.
    Tombstone(Deletion),
    Group(GroupWrite),
}

#[derive(Debug)]
pub(crate) struct Append {
    pub stream: String,
    pub expected: ExpectedRevision,
    pub events: Vec<NewEvent>,
}

#[derive(Debug)]
pub(crate) struct Deletion {
    pub stream: String,
    pub expected: ExpectedRevision,
}

/// A change of a persistent subscription group.
#[derive(Debug, Clone)]
pub(crate) enum GroupWrite {
    /// Creates the group, or replaces its settings and keeps its checkpoint.
    Save {
        key: GroupKey,
        settings: String,
    },
    /// All events of the group's source up to `checkpoint` are processed.
    Checkpoint {
        key: GroupKey,
        checkpoint: u64,
    },
    Remove {
        key: GroupKey,
    },
}

/// Identifies a persistent subscription group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    /// The stream that the group reads, or `$all`.
    pub stream: String,
    pub name: String,
}

impl GroupKey {
    pub(crate) fn parked_stream(&self) -> String {
        format!("$persistentsubscription-{self}-parked")
    }
}

impl std::fmt::Display for GroupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}", self.stream, self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// Durable, by this request or by an earlier duplicate.
    Written {
        /// The stream's last revision after this write; `None` if it has no events.
        revision: Option<u64>,
        /// Position of the write's last event; `None` if the write had no events.
        position: Option<u64>,
    },
    /// The stream's last revision; `None` if it has no events.
    WrongExpectedVersion {
        current: Option<u64>,
    },
    StreamDeleted,
}

impl WriteRequest {
    /// Returns the size of the event bodies in bytes, to bound a commit.
    pub(crate) fn body_bytes(&self) -> usize {
        match self {
            Self::Append(append) => append
                .events
                .iter()
                .map(|event| event.data.len() + event.metadata.len() + event.event_type.len())
                .sum(),
            Self::SoftDelete(_) | Self::Tombstone(_) | Self::Group(_) => 0,
        }
    }
}
