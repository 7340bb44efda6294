//! The store's own events about streams: their metadata, and tombstones.

use domain::ids::OrderId;
use eventstore::RecordedEvent;
use serde::Deserialize;

/// Type of the event that ends a tombstoned stream.
pub(crate) const TOMBSTONE_TYPE: &str = "$streamDeleted";
/// Prefix of the name of a stream's metadata stream.
pub(crate) const METASTREAM_PREFIX: &str = "$$";
/// Type of the event that sets a stream's metadata.
pub(crate) const METADATA_TYPE: &str = "$metadata";
/// Member of a stream's metadata with the number of events that the store keeps.
pub(crate) const MAX_COUNT: &str = "$maxCount";
/// The `$tb` of a stream that was deleted but not tombstoned.
const SOFT_DELETED: i64 = i64::MAX;

/// The part of a stream's metadata that hides events.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StreamMetadata {
    #[serde(rename = "$tb")]
    truncate_before: Option<i64>,
    #[serde(rename = "$maxAge")]
    max_age_seconds: Option<i64>,
}

impl StreamMetadata {
    /// Parses the metadata. Bytes that are not metadata hide nothing.
    pub(crate) fn parse(data: &[u8]) -> Self {
        serde_json::from_slice(data).unwrap_or_default()
    }

    /// Returns whether the stream was deleted but not tombstoned.
    pub(crate) fn is_soft_deleted(&self) -> bool {
        self.truncate_before == Some(SOFT_DELETED)
    }

    /// Returns whether events of the stream may be hidden.
    pub(crate) fn hides_events(&self) -> bool {
        self.truncate_before.is_some_and(|before| before > 0) || self.max_age_seconds.is_some()
    }
}

/// Returns the order whose stream this event of the store deletes: the last event of a tombstoned
/// stream, or metadata that hides all events of a stream.
pub(crate) fn deleted_order(event: &RecordedEvent) -> Option<OrderId> {
    if event.event_type == TOMBSTONE_TYPE {
        return OrderId::from_stream(event.stream_id());
    }
    let order_id = OrderId::from_stream(event.stream_id().strip_prefix(METASTREAM_PREFIX)?)?;
    StreamMetadata::parse(&event.data).is_soft_deleted().then_some(order_id)
}
