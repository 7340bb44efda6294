//! Formats of an exported event: as stored, or as a `CloudEvent`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::ids::OrderId;
use event_log::{LoggedEvent, Metadata};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

/// An event as stored. Its position in the store is omitted, so that a copied store yields the same
/// lines.
#[derive(Serialize)]
pub(super) struct StoredEvent<'a> {
    order_id: OrderId,
    revision: u64,
    event_id: Uuid,
    #[serde(rename = "type")]
    event_type: &'a str,
    recorded_at: Timestamp,
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
    /// Hash of the event, which is `previous_hash` in the metadata of the next event of the stream.
    hash: String,
}

impl<'a> StoredEvent<'a> {
    pub(super) fn new(event: &'a LoggedEvent) -> Self {
        let (data, data_base64) = encode_payload(&event.data);
        let (metadata, metadata_base64) = encode_payload(&event.metadata);
        Self {
            order_id: event.order_id,
            revision: event.revision,
            event_id: event.event_id,
            event_type: &event.event_type,
            recorded_at: event.recorded_at(),
            data,
            data_base64,
            metadata,
            metadata_base64,
            hash: event.head().hash.to_string(),
        }
    }
}

/// An event in the JSON format of `CloudEvents` 1.0, with its documented extensions `sequence` and
/// `traceparent`, and extensions of DOFS.
#[derive(Serialize)]
pub(super) struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    subject: OrderId,
    time: Timestamp,
    datacontenttype: &'static str,
    /// The revision with leading zeros, because consumers compare it as text.
    sequence: String,
    eventhash: String,
    #[serde(flatten)]
    extensions: Option<Extensions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Event metadata as `CloudEvents` extensions, whose names are limited to lower-case letters and
/// digits.
#[derive(Serialize)]
struct Extensions {
    correlationid: Uuid,
    causationid: Uuid,
    schemaversion: u32,
    actor: String,
    producer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    requestid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previoushash: Option<String>,
}

impl<'a> CloudEvent<'a> {
    pub(super) fn new(event: &'a LoggedEvent) -> Self {
        let (data, data_base64) = encode_payload(&event.data);
        let is_json = data_base64.is_none();
        Self {
            specversion: "1.0",
            id: event.event_id,
            source: format!("/v1/orders/{}", event.order_id),
            event_type: &event.event_type,
            subject: event.order_id,
            time: event.recorded_at(),
            datacontenttype: if is_json { "application/json" } else { "application/octet-stream" },
            sequence: format!("{:020}", event.revision),
            eventhash: event.head().hash.to_string(),
            extensions: event.metadata().map(Extensions::from),
            data,
            data_base64,
        }
    }
}

impl From<Metadata> for Extensions {
    fn from(metadata: Metadata) -> Self {
        Self {
            correlationid: metadata.correlation_id,
            causationid: metadata.causation_id,
            schemaversion: metadata.schema_version,
            actor: metadata.actor,
            producer: format!("{}/{}", metadata.producer.service, metadata.producer.version),
            requestid: metadata.request_id,
            traceparent: metadata.traceparent,
            previoushash: metadata.previous_hash,
        }
    }
}

/// Returns stored bytes as JSON, or as Base64 if they are not JSON. JSON is kept byte for byte, except
/// that JSON with line breaks is compacted to one line.
fn encode_payload(bytes: &[u8]) -> (Option<Box<RawValue>>, Option<String>) {
    if bytes.is_empty() {
        return (None, None);
    }
    let json: Option<&RawValue> = serde_json::from_slice(bytes).ok();
    let line = json.and_then(|json| {
        if json.get().contains(['\n', '\r']) {
            to_raw_value(&serde_json::from_str::<Value>(json.get()).ok()?).ok()
        } else {
            Some(json.to_owned())
        }
    });
    if line.is_none() { (None, Some(BASE64_STANDARD.encode(bytes))) } else { (line, None) }
}

#[cfg(test)]
mod tests {
    use event_log::Position;
    use serde_json::json;

    use super::*;

    fn logged_event(data: &[u8], metadata: &[u8]) -> LoggedEvent {
        LoggedEvent {
            order_id: OrderId(Uuid::from_u128(7)),
            event_id: Uuid::from_u128(8),
            revision: 3,
            position: Position { commit: 9, prepare: 9 },
            event_type: "OrderStored".to_owned(),
            data: data.to_vec(),
            metadata: metadata.to_vec(),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn stored_json_is_exported_byte_for_byte() {
        let line = serde_json::to_string(&StoredEvent::new(&logged_event(
            b"{ \"b\":1.0,\"a\":1 }",
            b"{}",
        )));
        assert!(line.unwrap().contains(r#""data":{ "b":1.0,"a":1 },"metadata":{},"hash":""#));
    }

    #[test]
    fn every_event_is_exported_as_one_line() {
        let export = |data: &[u8], metadata: &[u8]| {
            let event = logged_event(data, metadata);
            let stored = serde_json::to_string(&StoredEvent::new(&event)).unwrap();
            let cloud = serde_json::to_string(&CloudEvent::new(&event)).unwrap();
            assert!(!stored.contains('\n') && !cloud.contains('\n'), "{stored} {cloud}");
            let values = [stored, cloud].map(|line| serde_json::from_str::<Value>(&line).unwrap());
            values.into()
        };
        let (stored, cloud): (Value, Value) = export(b"{\n\"a\": 1}", b"\xff");
        assert_eq!((&stored["data"], &cloud["data"]), (&json!({"a": 1}), &json!({"a": 1})));
        assert_eq!(stored["metadata_base64"], "/w==");
        let (stored, cloud) = export(b"no json", b"");
        assert_eq!(
            (&stored["data_base64"], &cloud["data_base64"]),
            (&json!("bm8ganNvbg=="), &json!("bm8ganNvbg=="))
        );
        assert_eq!((&stored["metadata"], &cloud["data"]), (&Value::Null, &Value::Null));
        assert_eq!(cloud["datacontenttype"], "application/octet-stream");
    }

    #[test]
    fn cloud_event_has_valid_names_and_required_attributes() {
        let line = serde_json::to_value(CloudEvent::new(&logged_event(b"{}", b"{}"))).unwrap();
        let names: Vec<_> = line.as_object().unwrap().keys().collect();
        let is_allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        assert!(names.iter().all(|name| name.chars().all(is_allowed)), "{names:?}");
        assert_eq!(
            (&line["specversion"], &line["sequence"], &line["time"]),
            (&json!("1.0"), &json!("00000000000000000003"), &json!("1970-01-01T00:00:00Z"))
        );
    }
}
