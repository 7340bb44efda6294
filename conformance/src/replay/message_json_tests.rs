//! Tests of the conversion between the recording's JSON and messages.

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    PROTOCOL,
    json_to_message::{encode_message, encode_messages},
    message_to_json::{MessageTranslator, shorten_events},
    placeholders::Placeholders,
};

const READ_RESPONSE: &str = "event_store.client.streams.ReadResp";
const APPEND_REQUEST: &str = "event_store.client.streams.AppendReq";

fn pool() -> &'static DescriptorPool {
    &PROTOCOL
}

fn new_placeholders() -> Placeholders {
    Placeholders::new("127.0.0.1:2113", Uuid::from_u128(1))
}

/// Encodes a message and translates it back to JSON.
fn round_trip(kind: &str, json: &Value) -> Value {
    let kind = pool().get_message_by_name(kind).unwrap();
    let mut placeholders = new_placeholders();
    let bytes = encode_message(json, Some(&kind), &mut placeholders).unwrap();
    let message = DynamicMessage::decode(kind, bytes).unwrap();
    let answer = MessageTranslator { pool: pool(), placeholders: &mut placeholders }
        .message_to_json(&message);
    let mut answer = placeholders.insert_into(&answer);
    shorten_events(&mut answer);
    answer
}

#[test]
fn short_forms_round_trip() {
    let request = json!({ "options": { "stream_identifier": "s", "revision": 3 } });
    assert_eq!(round_trip(APPEND_REQUEST, &request), request);
    for (id, data) in [
        ("id(e0)", json!("{}")),
        ("structured id(e0)", json!({ "hex": "00ff" })),
        ("id(e0)", json!({ "repeat": "a", "times": 601 })),
    ] {
        let metadata = json!({ "content-type": "text/plain", "type": "T" });
        let proposed = json!({ "id": id, "metadata": metadata, "data": data });
        let request = json!({ "proposed_message": proposed });
        assert_eq!(round_trip(APPEND_REQUEST, &request), request);
    }
}

#[test]
fn event_is_shortened_to_unusual_values() {
    let metadata = |content_type| json!({ "created": "16000000000000000", "type": "T", "content-type": content_type });
    let event = |metadata, prepare: u64| {
        let event = json!({
            "id": "id(e0)", "stream_identifier": "s", "stream_revision": 2, "data": "{}",
            "commit_position": 7, "prepare_position": prepare, "metadata": metadata,
        });
        round_trip(READ_RESPONSE, &json!({ "event": { "event": event, "commit_position": 7 } }))
    };
    let usual = json!({ "at": "s#2", "id": "id(e0)", "type": "T", "data": "{}" });
    assert_eq!(event(metadata("application/json"), 7), json!({ "event": usual }));

    let other = event(metadata("text/plain"), 9);
    assert_eq!(other["event"]["content_type"], "text/plain");
    assert_eq!(other["event"]["prepare_position"], ">s#2");
    let missing = event(json!({ "type": "T" }), 7);
    assert_eq!(missing["event"]["created"], Value::Null);
    assert!(missing["event"].get("created").is_some(), "{missing}");
}

#[test]
fn repeated_message_numbers_its_copies() {
    let kind = pool().get_message_by_name(APPEND_REQUEST).unwrap();
    let message = json!({ "proposed_message": { "id": "id(%id)", "data": "%n" } });
    let item = json!({ "times": 3, "first_id": 5, "message": message });
    let mut placeholders = new_placeholders();
    let messages = encode_messages(&item, Some(&kind), &mut placeholders).unwrap();
    let shown = messages.into_iter().map(|bytes| {
        let message = DynamicMessage::decode(kind.clone(), bytes).unwrap();
        MessageTranslator { pool: pool(), placeholders: &mut placeholders }
            .message_to_json(&message)
    });
    let shown: Vec<_> = shown.collect();
    let wanted =
        [5, 6, 7].map(|n| json!({ "id": format!("id(e{n})"), "data": (n - 5).to_string() }));
    let shown: Vec<_> = shown
        .iter()
        .map(|message| placeholders.insert_into(&message["proposed_message"]))
        .collect();
    assert_eq!(shown, wanted);
}

#[test]
fn unknown_field_or_invalid_value_is_an_error() {
    let kind = pool().get_message_by_name(APPEND_REQUEST).unwrap();
    for request in [
        json!({ "optoins": {} }),
        json!({ "options": { "revision": "three" } }),
        json!({ "options": { "revision": -1 } }),
        json!({ "bytes": "0g" }),
    ] {
        assert!(
            encode_message(&request, Some(&kind), &mut new_placeholders()).is_err(),
            "{request}"
        );
    }
}

#[test]
fn unknown_position_is_an_error() {
    let kind = pool().get_message_by_name("event_store.client.streams.ReadReq").unwrap();
    let request = json!({ "options": { "all": { "position": "s#3" } } });
    let refused = encode_message(&request, Some(&kind), &mut new_placeholders()).unwrap_err();
    assert_eq!(refused.to_string(), r#"the position "s#3" is not known yet"#);
}
