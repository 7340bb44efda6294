//! Events, links and new events.

use std::sync::Arc;

use prost::bytes::Bytes;
use uuid::Uuid;

/// Revision of a tombstone, and so the last revision of a deleted stream.
pub(super) const TOMBSTONE_REVISION: u64 = i64::MAX as u64;

/// Revision number by which a link refers to the newest event of a stream.
pub(super) const NEWEST_REVISION: i64 = -1;

/// Event type of a link to another event.
pub(crate) const LINK_TYPE: &str = "$>";

/// Event type of a stream's metadata in its metastream.
pub(crate) const METADATA_TYPE: &str = "$metadata";

pub(super) const TOMBSTONE_TYPE: &str = "$streamDeleted";

/// Prefix that turns a stream name into the name of its metastream.
pub(super) const METASTREAM_PREFIX: &str = "$$";

/// A recorded event. Shared by reference count; readers never copy it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Event {
    /// Position in `$all`, from 1. A scavenge leaves gaps.
    pub position: u64,
    pub stream: Arc<str>,
    /// Revision in its stream, from 0 without gaps.
    pub revision: u64,
    pub id: Uuid,
    pub event_type: String,
    /// Whether the client declared the data as `application/json`. The node does not parse it.
    pub is_json: bool,
    /// Time of the commit in 100 ns ticks since the Unix epoch.
    pub created_ticks: i64,
    pub metadata: Bytes,
    pub data: Bytes,
}

impl Event {
    /// Returns the link's target, if the event is a well-formed link.
    pub(crate) fn link_target(&self) -> Option<LinkTarget<'_>> {
        if self.event_type != LINK_TYPE {
            return None;
        }
        let (revision, stream) = std::str::from_utf8(&self.data).ok()?.split_once('@')?;
        // EventStoreDB parses the number like .NET, which accepts surrounding white space.
        let revision = revision.trim_matches(|character| matches!(character, '\t'..='\r' | ' '));
        Some(LinkTarget { stream, revision: revision.parse().ok()? })
    }
}

/// Target of a link, from its data `revision@stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkTarget<'a> {
    pub stream: &'a str,
    /// [`NEWEST_REVISION`] or an event's revision. Other negative numbers refer to no event.
    pub revision: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub id: Uuid,
    pub event_type: String,
    pub is_json: bool,
    pub metadata: Bytes,
    pub data: Bytes,
}

impl NewEvent {
    /// Creates an event without metadata.
    pub(crate) fn new(id: Uuid, event_type: &str, is_json: bool, data: impl Into<Bytes>) -> Self {
        let (event_type, data) = (event_type.to_owned(), data.into());
        Self { id, event_type, is_json, metadata: Bytes::new(), data }
    }
}

/// An event as a reader receives it: the recorded event, or a link with its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedEvent {
    /// `None` if the target of `link` does not exist any more.
    pub event: Option<Arc<Event>>,
    pub link: Option<Arc<Event>>,
}

impl ResolvedEvent {
    /// Returns an event that was not read through a link.
    pub(crate) fn without_link(event: Arc<Event>) -> Self {
        Self { event: Some(event), link: None }
    }

    /// Returns the event that was read: the link if there is one. Positions and acknowledgements
    /// refer to this event.
    pub(crate) fn original_event(&self) -> Option<&Arc<Event>> {
        self.link.as_ref().or(self.event.as_ref())
    }
}

/// Returns the name of the stream that holds the metadata of `stream`.
pub(crate) fn metastream_of(stream: &str) -> String {
    format!("{METASTREAM_PREFIX}{stream}")
}

/// Returns the stream described by the metastream `stream`; `None` if it is not a metastream.
pub(crate) fn described_stream(stream: &str) -> Option<&str> {
    stream.strip_prefix(METASTREAM_PREFIX).filter(|described| !described.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(data: &'static str) -> Event {
        Event {
            event_type: LINK_TYPE.to_owned(),
            data: Bytes::from_static(data.as_bytes()),
            ..Event::default()
        }
    }

    #[test]
    fn link_is_split_at_its_first_at_sign() {
        let event = link("7@user@example");
        let target = LinkTarget { stream: "user@example", revision: 7 };
        assert_eq!(event.link_target(), Some(target));
    }

    #[test]
    fn link_numbers_are_parsed_like_eventstoredb() {
        let revision = |data| link(data).link_target().map(|target| target.revision);
        assert_eq!((revision("-1@s"), revision("-2@s")), (Some(-1), Some(-2)));
        for data in [" -1\t@s", "-01@s"] {
            assert_eq!(revision(data), Some(NEWEST_REVISION), "{data:?}");
        }
        for data in [" 1@s", "+1@s", "0001@s", "\t1\n@s"] {
            assert_eq!(revision(data), Some(1), "{data:?}");
        }
        for data in ["1.5@s", "99999999999999999999@s", "@s", "- 1@s"] {
            assert_eq!(revision(data), None, "{data:?}");
        }
    }

    #[test]
    fn link_without_valid_number_has_no_target() {
        assert_eq!(link("x@stream").link_target(), None);
        assert_eq!(link("1.5@stream").link_target(), None);
        assert_eq!(link("99999999999999999999@stream").link_target(), None);
        assert_eq!(link("7").link_target(), None);
    }

    #[test]
    fn metastreams_are_recognised_by_their_prefix() {
        assert_eq!(described_stream("$$order-1"), Some("order-1"));
        assert_eq!(described_stream("$$$scavenges"), Some("$scavenges"));
        assert_eq!(described_stream("$$"), None);
        assert_eq!(described_stream("$scavenges"), None);
    }
}
