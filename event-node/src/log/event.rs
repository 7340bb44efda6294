//! What the log stores: recorded events, links between them, and what is asked to be recorded.

use std::sync::Arc;

use prost::bytes::Bytes;
use uuid::Uuid;

/// The revision that a tombstone takes, and with it the last revision of a deleted stream.
pub(super) const TOMBSTONE_REVISION: u64 = i64::MAX as u64;

/// Event type of a link to another event.
pub(super) const LINK_TYPE: &str = "$>";

/// Event type of a stream's metadata, in its metastream.
pub(super) const METADATA_TYPE: &str = "$metadata";

/// Event type of a tombstone.
pub(super) const TOMBSTONE_TYPE: &str = "$streamDeleted";

/// Prefix that turns a stream's name into its metastream's.
pub(super) const METASTREAM_PREFIX: &str = "$$";

/// An event as it was recorded. Shared, never copied: readers hand out the same allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Place in `$all`: from 1, without gaps.
    pub position: u64,
    pub stream: Arc<str>,
    /// Place in its stream: from 0, without gaps.
    pub revision: u64,
    pub id: Uuid,
    pub event_type: String,
    /// Whether the appender called the data `application/json`. The bytes are never parsed.
    pub is_json: bool,
    /// 100 ns ticks since the Unix epoch.
    pub created_ticks: i64,
    pub metadata: Bytes,
    pub data: Bytes,
}

impl Event {
    /// The event that this one links to, if it is a well-formed link.
    pub(crate) fn link_target(&self) -> Option<LinkTarget<'_>> {
        if self.event_type != LINK_TYPE {
            return None;
        }
        let (revision, stream) = std::str::from_utf8(&self.data).ok()?.split_once('@')?;
        Some(LinkTarget { stream, revision: revision.parse().ok()? })
    }
}

/// What the data of a link names, as `revision@stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkTarget<'a> {
    pub stream: &'a str,
    pub revision: u64,
}

/// An event to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub id: Uuid,
    pub event_type: String,
    pub is_json: bool,
    pub metadata: Bytes,
    pub data: Bytes,
}

/// An event as a reader receives it: as recorded, or a link together with what it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Absent when `link` points to an event that is gone.
    pub event: Option<Arc<Event>>,
    pub link: Option<Arc<Event>>,
}

impl Resolved {
    /// An event that was not looked up through a link.
    pub(crate) fn plain(event: Arc<Event>) -> Self {
        Self { event: Some(event), link: None }
    }

    /// The event that was read: the link if there is one. Positions and acknowledgements are its.
    pub(crate) fn original(&self) -> Option<&Arc<Event>> {
        self.link.as_ref().or(self.event.as_ref())
    }
}

/// The name of the stream that holds `stream`'s metadata.
pub(crate) fn metastream_of(stream: &str) -> String {
    format!("{METASTREAM_PREFIX}{stream}")
}

/// The stream whose metadata `stream` holds, if it is a metastream.
pub(super) fn described_by(stream: &str) -> Option<&str> {
    stream.strip_prefix(METASTREAM_PREFIX).filter(|described| !described.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(data: &'static str) -> Event {
        Event {
            position: 1,
            stream: "links".into(),
            revision: 0,
            id: Uuid::nil(),
            event_type: LINK_TYPE.to_owned(),
            is_json: false,
            created_ticks: 0,
            metadata: Bytes::new(),
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    #[test]
    fn a_link_is_split_at_its_first_at_sign() {
        let event = link("7@user@example");
        assert_eq!(event.link_target(), Some(LinkTarget { stream: "user@example", revision: 7 }));
    }

    #[test]
    fn a_link_without_a_number_points_nowhere() {
        assert_eq!(link("x@stream").link_target(), None);
        assert_eq!(link("7").link_target(), None);
    }

    #[test]
    fn metastreams_are_told_by_their_prefix() {
        assert_eq!(described_by("$$order-1"), Some("order-1"));
        assert_eq!(described_by("$$$scavenges"), Some("$scavenges"));
        assert_eq!(described_by("$$"), None);
        assert_eq!(described_by("$scavenges"), None);
    }
}
