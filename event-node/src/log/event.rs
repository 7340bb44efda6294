//! What the log stores: recorded events, links between them, and what is asked to be recorded.

use std::sync::Arc;

use prost::bytes::Bytes;
use uuid::Uuid;

/// The revision that a tombstone takes, and with it the last revision of a deleted stream.
pub(super) const TOMBSTONE_REVISION: u64 = i64::MAX as u64;

/// The revision by which a link points to the newest event of a stream.
pub(super) const NEWEST: i64 = -1;

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
    /// Place in `$all`: from 1; a scavenge leaves gaps.
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
        // The original reads a number as .NET does, which allows for white space around it.
        let revision = revision.trim_matches(|it| matches!(it, '\t'..='\r' | ' '));
        Some(LinkTarget { stream, revision: revision.parse().ok()? })
    }
}

/// What the data of a link names, as `revision@stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkTarget<'a> {
    pub stream: &'a str,
    /// [`NEWEST`], or the number of an event; no event has another negative one.
    pub revision: i64,
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
        let target = LinkTarget { stream: "user@example", revision: 7 };
        assert_eq!(event.link_target(), Some(target));
    }

    #[test]
    fn numbers_of_links_are_read_as_the_original_does() {
        let revision = |data| link(data).link_target().map(|target| target.revision);
        assert_eq!((revision("-1@s"), revision("-2@s")), (Some(-1), Some(-2)));
        for data in [" -1\t@s", "-01@s"] {
            assert_eq!(revision(data), Some(NEWEST), "{data:?}");
        }
        for data in [" 1@s", "+1@s", "0001@s", "\t1\n@s"] {
            assert_eq!(revision(data), Some(1), "{data:?}");
        }
        for data in ["1.5@s", "99999999999999999999@s", "@s", "- 1@s"] {
            assert_eq!(revision(data), None, "{data:?}");
        }
    }

    #[test]
    fn a_link_without_a_number_points_nowhere() {
        assert_eq!(link("x@stream").link_target(), None);
        assert_eq!(link("1.5@stream").link_target(), None);
        assert_eq!(link("99999999999999999999@stream").link_target(), None);
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
