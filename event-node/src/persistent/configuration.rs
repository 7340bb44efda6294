//! The stream `$persistentSubscriptionConfig`: a record of all groups for each change of a group.
//!
//! EventStoreDB's tools read it. The node does not: it starts groups from the index's group table.

use serde::Serialize;

use crate::{
    log::{
        FilterField, FilterSpec, GroupKey, Log, LogError, METADATA_TYPE, StreamRead, metastream_of,
    },
    persistent::{
        parked_stream::TIME_FORMAT,
        settings::{ALL_STREAM, GroupSettings},
    },
};

const STREAM: &str = "$persistentSubscriptionConfig";

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
    fn for_group(key: &'a GroupKey, settings: &GroupSettings) -> Self {
        Self {
            stream: &key.stream,
            group: &key.name,
            filter: settings
                .filter
                .as_ref()
                .filter(|_| key.stream == ALL_STREAM)
                .map(FilterEntry::from_filter),
            resolve_link_tos: settings.resolve_links,
            extra_statistics: settings.extra_statistics,
            message_timeout: settings.message_timeout_ms,
            start_position: settings.format_start(key),
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

/// Appends a record of the groups as changed by `user`.
pub(super) async fn append_record<'a>(
    log: &Log,
    user: &str,
    groups: impl Iterator<Item = (&'a GroupKey, &'a GroupSettings)>,
) -> Result<(), LogError> {
    // The metadata limits the stream to two records, so it is written before the first record.
    ensure_stream_metadata(log).await?;
    let record = ConfigurationRecord {
        version: VERSION,
        updated: log.clock().now().strftime(TIME_FORMAT).to_string(),
        updated_by: user,
        entries: groups.map(|(key, settings)| GroupEntry::for_group(key, settings)).collect(),
    };
    // Serializing strings and numbers to JSON does not fail.
    let data = serde_json::to_vec(&record).unwrap_or_default();
    // A refusal counts as success: a client has tombstoned the stream and does not want records.
    log.append_json_event(STREAM.to_owned(), EVENT_TYPE, data).await.map(drop)
}

async fn ensure_stream_metadata(log: &Log) -> Result<(), LogError> {
    let metastream = metastream_of(STREAM);
    match log.read_newest_event(&metastream).await? {
        StreamRead::Missing => {
            log.append_json_event(metastream, METADATA_TYPE, STREAM_METADATA).await.map(drop)
        }
        StreamRead::Page(_) | StreamRead::Deleted => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistent::settings::StartFrom;

    fn key(stream: &str) -> GroupKey {
        GroupKey { stream: stream.to_owned(), name: "g".to_owned() }
    }

    #[test]
    fn entry_has_the_format_of_event_store_db() {
        let entry =
            serde_json::to_string(&GroupEntry::for_group(&key("s"), &GroupSettings::for_tests()))
                .unwrap();
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
            ..GroupSettings::for_tests()
        };
        let entry =
            serde_json::to_value(GroupEntry::for_group(&key(ALL_STREAM), &settings)).unwrap();
        let expected = serde_json::json!({
            "context": "streamid", "type": "prefix", "data": "order-,queue-", "isAllStream": true
        });
        assert_eq!(entry["filter"], expected);
        assert_eq!(entry["startPosition"], "C:-1/P:-1");
        assert_eq!(entry.get("maxRetryCount"), None);
    }
}
