//! Conversion of protocol messages to the JSON of the recording: the reverse of
//! [`super::json_to_message`]. Positions become marks, and values that depend on time are left out.

use prost::bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, Value as Field,
};
use serde_json::{Map, Value, json};
use tonic::Code;
use uuid::Uuid;

use super::placeholders::Placeholders;

/// Largest number that every JSON reader reads exactly. Larger numbers are written as text.
const MAX_EXACT: u64 = 9_007_199_254_740_991;

/// Maximum number of bytes that are written as they are. A longer repetition is shortened.
const MAX_TEXT_BYTES: usize = 600;

/// Fields that depend on time.
const LEFT_OUT: [&str; 4] = [
    "average_per_second",
    "average_items_per_second",
    "count_since_last_measurement",
    "observed_measurements",
];

/// Translates messages to JSON, and notes the positions of events in `placeholders`.
pub(super) struct MessageTranslator<'a> {
    pub(super) pool: &'a DescriptorPool,
    pub(super) placeholders: &'a mut Placeholders,
}

impl MessageTranslator<'_> {
    pub(super) fn message_to_json(&mut self, message: &DynamicMessage) -> Value {
        match message.descriptor().name() {
            "StreamIdentifier" => stream_name_json(message),
            "UUID" => id_json(message),
            "Position" | "AllStreamPosition" => self.position_to_json(message),
            "RecordedEvent" => self.event_to_json(message),
            "Any" => self.detail_to_json(message),
            "ReadEvent" => {
                self.note_read_events(message);
                self.fields_to_json(message)
            }
            _ => self.fields_to_json(message),
        }
    }

    fn fields_to_json(&mut self, message: &DynamicMessage) -> Value {
        let mut out = Map::new();
        for (field, value) in message.fields() {
            if !LEFT_OUT.contains(&field.name()) {
                let value = self.field_to_json(&field, value);
                out.insert(field.name().to_owned(), value);
            }
        }
        if message.unknown_fields().next().is_some() {
            out.insert("unknown fields".to_owned(), true.into());
        }
        Value::Object(out)
    }

    fn field_to_json(&mut self, field: &FieldDescriptor, value: &Field) -> Value {
        match (field.name(), value) {
            ("commit_position" | "prepare_position", Field::U64(position)) => {
                self.placeholders.mark_position(*position).into()
            }
            ("time_stamp", _) => "TIME".into(),
            ("code", Field::I32(code)) => code_name(Code::from_i32(*code)).into(),
            (_, Field::List(items)) => {
                items.iter().map(|item| self.field_to_json(field, item)).collect()
            }
            (_, Field::Map(_)) => metadata_to_json(value),
            (_, Field::Message(message)) => self.message_to_json(message),
            (_, Field::EnumNumber(number)) => enum_name(field, *number),
            (_, value) => scalar_to_json(value),
        }
    }

    fn position_to_json(&mut self, message: &DynamicMessage) -> Value {
        let [commit, prepare] =
            ["commit_position", "prepare_position"].map(|name| u64_field(message, name));
        if commit == prepare {
            return self.placeholders.mark_position(commit).into();
        }
        let [commit, prepare] =
            [commit, prepare].map(|position| self.placeholders.mark_position(position));
        json!({ "commit_position": commit, "prepare_position": prepare })
    }

    /// Returns the short form of an event: name, id, type and data. Usual values are left out.
    fn event_to_json(&mut self, event: &DynamicMessage) -> Value {
        let mut out = Map::new();
        out.insert("at".to_owned(), event_name(event).into());
        if let Some(Field::Message(id)) = event.get_field_by_name("id").as_deref() {
            out.insert("id".to_owned(), id_json(id));
        }
        let mut keys =
            event.get_field_by_name("metadata").map(|metadata| metadata_to_json(&metadata));
        let keys = keys.as_mut().and_then(Value::as_object_mut);
        let mut keys = keys.map(std::mem::take).unwrap_or_default();
        out.insert("type".to_owned(), keys.remove("type").unwrap_or_default());
        for (key, name, usual) in
            [("content-type", "content_type", "application/json"), ("created", "created", "TIME")]
        {
            let value = keys.remove(key).unwrap_or_default();
            if value != usual {
                out.insert(name.to_owned(), value);
            }
        }
        if !keys.is_empty() {
            out.insert("metadata".to_owned(), Value::Object(keys));
        }
        for name in ["custom_metadata", "data"] {
            if event.has_field_by_name(name) {
                let value = event.get_field_by_name(name);
                let json = value.map(|value| scalar_to_json(&value));
                out.insert(name.to_owned(), json.unwrap_or_default());
            }
        }
        for name in ["commit_position", "prepare_position"] {
            if event.has_field_by_name(name) {
                let mark = self.placeholders.mark_position(u64_field(event, name));
                out.insert(name.to_owned(), mark.into());
            }
        }
        Value::Object(out)
    }

    /// Notes the positions of an event and its link. A group delivers a link's target with the
    /// position of the link. Such a target has no known position.
    fn note_read_events(&mut self, read: &DynamicMessage) {
        let (event, link) = (message_field(read, "event"), message_field(read, "link"));
        let position = |event: &DynamicMessage| u64_field(event, "commit_position");
        let link_position = link.as_ref().map(position);
        if let Some(link) = &link {
            self.placeholders.note_read(event_name(link), position(link));
        }
        if let Some(event) = event.filter(|event| Some(position(event)) != link_position) {
            self.placeholders.note_read(event_name(&event), position(&event));
        }
    }

    /// Decodes a detail of an error. The protocol has its own copies of Google's detail types.
    fn detail_to_json(&mut self, message: &DynamicMessage) -> Value {
        let url = message.get_field_by_name("type_url");
        let url = url.as_ref().and_then(|url| url.as_str()).unwrap_or_default();
        let bytes = match message.get_field_by_name("value").as_deref() {
            Some(Field::Bytes(bytes)) => bytes.clone(),
            _ => Bytes::new(),
        };
        let name = url.rsplit('/').next().unwrap_or_default();
        let own = name.replace("google.rpc.", "event_store.client.");
        let own = own.replace("google.protobuf.", "event_store.client.");
        let kind = self.pool.get_message_by_name(&own);
        match kind.and_then(|kind| DynamicMessage::decode(kind, bytes.clone()).ok()) {
            Some(detail) => json!({ "type": url, "value": self.message_to_json(&detail) }),
            None if bytes.is_empty() => json!({ "type": url, "value": {} }),
            None => json!({ "type": url, "bytes": bytes_json(&bytes) }),
        }
    }
}

/// Removes positions that repeat the event's name from all events. Positions must have been
/// replaced by placeholders.
pub(super) fn shorten_events(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(shorten_events),
        Value::Object(fields) => {
            fields.values_mut().for_each(shorten_events);
            let usual = |name| fields.get("at").is_some() && fields.get(name) == fields.get("at");
            if usual("commit_position") && usual("prepare_position") {
                fields.remove("commit_position");
                fields.remove("prepare_position");
            } else if fields.contains_key("at") && !fields.contains_key("commit_position") {
                fields.insert("commit_position".to_owned(), Value::Null);
            }
            // A response that holds only an event and the same position is shortened to the event.
            let at = fields.get("event").and_then(|event| event.get("at"));
            if fields.len() == 2 && at.is_some() && fields.get("commit_position") == at {
                *value = fields.remove("event").unwrap_or_default();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns `stream#revision`.
fn event_name(event: &DynamicMessage) -> String {
    format!("{}#{}", stream_text(event), u64_field(event, "stream_revision"))
}

/// Returns the name in a message's field `stream_identifier`.
pub(super) fn stream_text(message: &DynamicMessage) -> String {
    let stream = match message.get_field_by_name("stream_identifier").as_deref() {
        Some(Field::Message(stream)) => stream_name_json(stream),
        _ => Value::default(),
    };
    stream.as_str().map_or_else(|| stream.to_string(), str::to_owned)
}

/// Returns a field that holds a message, if it is set.
pub(super) fn message_field(message: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    if !message.has_field_by_name(name) {
        return None;
    }
    message.get_field_by_name(name)?.as_message().cloned()
}

/// Returns an unsigned field of 64 bits, or 0 if it is not set.
pub(super) fn u64_field(message: &DynamicMessage, name: &str) -> u64 {
    message.get_field_by_name(name).and_then(|field| field.as_u64()).unwrap_or_default()
}

/// Returns the name of a status code in the protocol.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Returns bytes as text, or in hexadecimal if they are not UTF-8.
pub(super) fn bytes_json(bytes: &Bytes) -> Value {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return json!({ "hex": hex::encode(bytes) });
    };
    match text.chars().next() {
        Some(first) if bytes.len() > MAX_TEXT_BYTES && text.chars().all(|char| char == first) => {
            json!({ "repeat": first.to_string(), "times": text.chars().count() })
        }
        _ => text.into(),
    }
}

fn stream_name_json(identifier: &DynamicMessage) -> Value {
    match identifier.get_field_by_name("stream_name").as_deref() {
        Some(Field::Bytes(name)) => bytes_json(name),
        _ => Value::default(),
    }
}

fn id_json(id: &DynamicMessage) -> Value {
    if id.has_field_by_name("string") {
        return id.get_field_by_name("string").map_or(Value::Null, |text| scalar_to_json(&text));
    }
    let Some(halves) = message_field(id, "structured") else { return json!({}) };
    let half = |name| halves.get_field_by_name(name).and_then(|half| half.as_i64());
    let [most, least] = ["most_significant_bits", "least_significant_bits"]
        .map(|name| half(name).unwrap_or_default().cast_unsigned());
    format!("structured {}", Uuid::from_u64_pair(most, least)).into()
}

/// Converts an event's metadata. A valid time of creation becomes `TIME`.
fn metadata_to_json(map: &Field) -> Value {
    let Field::Map(map) = map else { return Value::default() };
    let text = |key: &MapKey| key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
    let mut entries: Vec<_> =
        map.iter().map(|(key, value)| (text(key), scalar_to_json(value))).collect();
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (key, value) in &mut entries {
        // The number of 100 ns ticks since 1970 has 17 digits today.
        let is_time = |text: &str| {
            (16..=18).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
        };
        if key == "created" && value.as_str().is_some_and(is_time) {
            *value = "TIME".into();
        }
    }
    Value::Object(entries.into_iter().collect())
}

fn enum_name(field: &FieldDescriptor, number: i32) -> Value {
    let kind = field.kind();
    let value = kind.as_enum().and_then(|kind| kind.get_value(number));
    value.map_or_else(|| number.into(), |value| value.name().into())
}

fn scalar_to_json(value: &Field) -> Value {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(number) => (*number).into(),
        Field::U32(number) => (*number).into(),
        Field::I64(number) if number.unsigned_abs() <= MAX_EXACT => (*number).into(),
        Field::I64(number) => number.to_string().into(),
        Field::U64(number) if *number <= MAX_EXACT => (*number).into(),
        Field::U64(number) => number.to_string().into(),
        Field::String(text) => text.as_str().into(),
        Field::Bytes(bytes) => bytes_json(bytes),
        other @ (Field::F32(_)
        | Field::F64(_)
        | Field::EnumNumber(_)
        | Field::Message(_)
        | Field::List(_)
        | Field::Map(_)) => format!("{other:?}").into(),
    }
}
