//! What the writer can be asked, and what it answers.

use crate::log::event::NewEvent;

/// What the appender believes about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Any,
    NoStream,
    StreamExists,
    /// The revision of the stream's last event.
    Revision(u64),
}

/// One atomic change of the log.
#[derive(Debug)]
pub(crate) enum Write {
    Append(Append),
    /// Hides all events of a stream; an append brings it back, with later revisions.
    SoftDelete(Removal),
    /// Ends a stream for ever.
    Tombstone(Removal),
    Group(GroupWrite),
}

#[derive(Debug)]
pub(crate) struct Append {
    pub stream: String,
    pub expected: Expected,
    pub events: Vec<NewEvent>,
}

#[derive(Debug)]
pub(crate) struct Removal {
    pub stream: String,
    pub expected: Expected,
}

/// A change of what is kept about persistent subscription groups.
#[derive(Debug, Clone)]
pub(crate) enum GroupWrite {
    /// Creates the group, or replaces its settings and keeps its checkpoint.
    Save {
        key: GroupKey,
        settings: String,
    },
    /// Everything up to `checkpoint` in the group's source is done.
    Checkpoint {
        key: GroupKey,
        checkpoint: u64,
    },
    Remove {
        key: GroupKey,
    },
}

/// Names a persistent subscription group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    /// The stream the group reads, or `$all`.
    pub stream: String,
    pub name: String,
}

impl GroupKey {
    /// The stream that holds the messages which the group set aside.
    pub(crate) fn parked_stream(&self) -> String {
        format!("$persistentsubscription-{self}-parked")
    }
}

impl std::fmt::Display for GroupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}", self.stream, self.name)
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Durable, now or when it was first asked for.
    Written {
        /// The stream's last revision as of this write; `None` if it has no events.
        revision: Option<u64>,
        /// Position of the last event of this write; `None` if it had no events.
        position: Option<u64>,
    },
    /// The stream's last revision, `None` if it has no events.
    WrongExpectedVersion {
        current: Option<u64>,
    },
    StreamDeleted,
}

impl Write {
    /// Bytes of event bodies in it, for bounding what one commit carries.
    pub(crate) fn weight(&self) -> usize {
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
