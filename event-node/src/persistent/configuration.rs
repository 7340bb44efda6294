//! The stream `$persistentSubscriptionConfig`: a record of all groups for each change of a group.
//!
//! EventStoreDB's tools read it. The node does not: it starts groups from the index's group table.

use prost::bytes::Bytes;
use serde::Serialize;

use crate::{
    log::{
        Append, Direction, ExpectedRevision, FilterField, FilterSpec, GroupKey, Log, LogError,
        NewEvent, StreamQuery, StreamRead, WriteRequest, metastream_of,
    },
    persistent::{
        parked_stream::{METADATA_TYPE, TIME_FORMAT},
        settings::{ALL_STREAM, GroupSettings},
    },
};

/// Name of the stream.
const STREAM: &str = "$persistentSubscriptionConfig";

/// Event type of a record.
const EVENT_TYPE: &str = "$PersistentConfig";

/// Metadata of the stream. Each record names every group, so older records are of no use.
const STREAM_METADATA: &[u8] = br#"{"$maxCount":2}"#;

/// Version of the record's format.
const VERSION: &str = "2";

/// A record of all groups. As in EventStoreDB, zeros, `false` and absent values are left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationRecord<'a> {
    version: &'static str,
    updated: String,
    updated_by: &'a str,
    entries: Vec<GroupEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupEntry<'a> {
    stream: &'a str,
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<FilterEntry>,
    #[serde(skip_serializing_if = "is_default")]
    resolve_link_tos: bool,
    #[serde(skip_serializing_if = "is_default")]
    extra_statistics: bool,
    #[serde(skip_serializing_if = "is_default")]
    message_timeout: i32,
    start_position: String,
    #[serde(skip_serializing_if = "is_default")]
    live_buffer_size: i32,
    #[serde(skip_serializing_if = "is_default")]
    history_buffer_size: i32,
    #[serde(skip_serializing_if = "is_default")]
    max_retry_count: i32,
    #[serde(skip_serializing_if = "is_default")]
    read_batch_size: i32,
    #[serde(skip_serializing_if = "is_default")]
    check_point_after: i32,
    #[serde(skip_serializing_if = "is_default")]
    min_check_point_count: i32,
    #[serde(skip_serializing_if = "is_default")]
    max_check_point_count: i32,
    #[serde(skip_serializing_if = "is_default")]
    max_subscriber_count: i32,
    named_consumer_strategy: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FilterEntry {
    context: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    data: String,
    is_all_stream: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl FilterEntry {
    fn from_filter(filter: &FilterSpec) -> Self {
        let (kind, data) = if filter.regex.is_empty() {
            ("prefix", filter.prefixes.join(","))
        } else {
            ("regex", filter.regex.clone())
        };
        let context = match filter.field {
            FilterField::StreamName => "streamid",
            FilterField::EventType => "eventtype",
        };
        Self { context, kind, data, is_all_stream: true }
    }
}

impl<'a> GroupEntry<'a> {
    fn for_group(stream: &'a str, group: &'a str, settings: &GroupSettings) -> Self {
        let key = GroupKey { stream: stream.to_owned(), name: group.to_owned() };
        Self {
            stream,
            group,
            filter: settings
                .filter
                .as_ref()
                .filter(|_| stream == ALL_STREAM)
                .map(FilterEntry::from_filter),
            resolve_link_tos: settings.resolve_links,
            extra_statistics: settings.extra_statistics,
            message_timeout: settings.message_timeout_ms,
            start_position: settings.format_start(&key),
            live_buffer_size: settings.live_buffer_size,
            history_buffer_size: settings.history_buffer_size,
            max_retry_count: settings.max_retry_count,
            read_batch_size: settings.read_batch_size,
            check_point_after: settings.checkpoint_after_ms,
            min_check_point_count: settings.min_checkpoint_count,
            max_check_point_count: settings.max_checkpoint_count,
            max_subscriber_count: settings.max_subscriber_count,
            named_consumer_strategy: settings.strategy.name(),
        }
    }
}

/// Appends a record of the groups, given by stream, name and settings, as changed by `user`.
pub(super) async fn append_record<'a>(
    log: &Log,
    user: &str,
    groups: impl Iterator<Item = (&'a str, &'a str, &'a GroupSettings)>,
) -> Result<(), LogError> {
    // The metadata limits the stream to two records, so it is written before the first record.
    ensure_stream_metadata(log).await?;
    let record = ConfigurationRecord {
        version: VERSION,
        updated: log.clock().now().strftime(TIME_FORMAT).to_string(),
        updated_by: user,
        entries: groups
            .map(|(stream, name, settings)| GroupEntry::for_group(stream, name, settings))
            .collect(),
    };
    // Serializing strings and numbers to JSON does not fail.
    let data = serde_json::to_vec(&record).unwrap_or_default();
    append_event(log, STREAM.to_owned(), EVENT_TYPE, data.into()).await
}

/// Appends the stream's metadata unless it exists.
async fn ensure_stream_metadata(log: &Log) -> Result<(), LogError> {
    let metastream = metastream_of(STREAM);
    let newest = StreamQuery {
        stream: metastream.clone(),
        direction: Direction::Backwards,
        from: u64::MAX,
        limit: 1,
        now_ticks: log.now_ticks(),
    };
    match log.read_stream(newest).await? {
        StreamRead::Missing => {
            append_event(log, metastream, METADATA_TYPE, Bytes::from_static(STREAM_METADATA)).await
        }
        StreamRead::Page(_) | StreamRead::Deleted => Ok(()),
    }
}

async fn append_event(
    log: &Log,
    stream: String,
    event_type: &str,
    data: Bytes,
) -> Result<(), LogError> {
    let event = NewEvent {
        id: log.clock().new_id(),
        event_type: event_type.to_owned(),
        is_json: true,
        metadata: Bytes::new(),
        data,
    };
    let append = Append { stream, expected: ExpectedRevision::Any, events: vec![event] };
    // A refusal counts as success: a client has tombstoned the stream and does not want records.
    log.write(WriteRequest::Append(append)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistent::settings::{ConsumerStrategy, StartFrom};

    fn settings() -> GroupSettings {
        GroupSettings {
            filter: None,
            start: StartFrom::Beginning,
            resolve_links: false,
            extra_statistics: false,
            message_timeout_ms: 30_000,
            checkpoint_after_ms: 2_000,
            max_retry_count: 10,
            min_checkpoint_count: 10,
            max_checkpoint_count: 1_000,
            max_subscriber_count: 0,
            live_buffer_size: 500,
            read_batch_size: 20,
            history_buffer_size: 500,
            strategy: ConsumerStrategy::RoundRobin,
        }
    }

    #[test]
    fn entry_has_the_format_of_event_store_db() {
        let entry = serde_json::to_string(&GroupEntry::for_group("s", "g", &settings())).unwrap();
        assert_eq!(
            entry,
            r#"{"stream":"s","group":"g","messageTimeout":30000,"startPosition":"0","liveBufferSize":500,"historyBufferSize":500,"maxRetryCount":10,"readBatchSize":20,"checkPointAfter":2000,"minCheckPointCount":10,"maxCheckPointCount":1000,"namedConsumerStrategy":"RoundRobin"}"#
        );
    }

    #[test]
    fn entry_on_all_stream_has_its_filter() {
        let filter = FilterSpec {
            field: FilterField::StreamName,
            regex: String::new(),
            prefixes: vec!["order-".to_owned(), "queue-".to_owned()],
        };
        let settings = GroupSettings {
            filter: Some(filter),
            start: StartFrom::End,
            max_retry_count: 0,
            ..settings()
        };
        let entry =
            serde_json::to_value(GroupEntry::for_group(ALL_STREAM, "g", &settings)).unwrap();
        let expected = serde_json::json!({
            "context": "streamid", "type": "prefix", "data": "order-,queue-", "isAllStream": true
        });
        assert_eq!(entry["filter"], expected);
        assert_eq!(entry["startPosition"], "C:-1/P:-1");
        assert_eq!(entry.get("maxRetryCount"), None);
    }
}
