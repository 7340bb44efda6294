//! Conversion of the recording's JSON to protocol messages.
//!
//! Field names are those of the `.proto` files. Some messages have a short form. A stream
//! identifier is its name, an id its text (`structured id(x)` for a structured id), a position one
//! placeholder. Bytes are text, `{"hex": "00ff"}` or `{"repeat": "a", "times": 3}`.
//!
//! `{"bytes": "ffff"}` in place of a message is sent unchanged. `{"times": 9, "first_id": 3, "message":
//! ...}` is nine messages, in which `%id` stands for `e3`, `e4`, ... and `%n` for 0, 1, ...

use std::{borrow::Cow, collections::HashMap};

use prost::{Message, bytes::Bytes};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage,
    Value as Field,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::placeholders::Placeholders;

/// An error in a request of the recording.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RequestError(String);

type Result<T> = std::result::Result<T, RequestError>;

fn request_error<T>(reason: impl Into<String>) -> Result<T> {
    Err(RequestError(reason.into()))
}

/// Returns the encoded messages of one item of a `send` list.
pub(super) fn encode_messages(
    item: &Value,
    kind: Option<&MessageDescriptor>,
    placeholders: &mut Placeholders,
) -> Result<Vec<Bytes>> {
    let (Some(times), Some(message)) = (item["times"].as_u64(), item.get("message")) else {
        return Ok(vec![encode_message(item, kind, placeholders)?]);
    };
    // Copies are made from the text, because `%n` and `%id` may be anywhere in it.
    let template = message.to_string();
    let first = item["first_id"].as_u64().unwrap_or_default();
    let copies = (0..times).map(|index| {
        let id = format!("e{}", first + index);
        let text = template.replace("%id", &id).replace("%n", &index.to_string());
        let copy = serde_json::from_str(&text).map_err(|error| RequestError(error.to_string()))?;
        encode_message(&copy, kind, placeholders)
    });
    copies.collect()
}

pub(super) fn encode_message(
    json: &Value,
    kind: Option<&MessageDescriptor>,
    placeholders: &mut Placeholders,
) -> Result<Bytes> {
    if let Some(hex) = json["bytes"].as_str() {
        return parse_hex(hex).map(Bytes::from);
    }
    let Some(kind) = kind else {
        return request_error("the method is unknown: only bytes can be sent");
    };
    Ok(to_message(json, kind, placeholders)?.encode_to_vec().into())
}

pub(super) fn parse_hex(text: &str) -> Result<Vec<u8>> {
    hex::decode(text).map_err(|error| RequestError(format!("invalid digits `{text}`: {error}")))
}

fn to_message(
    json: &Value,
    kind: &MessageDescriptor,
    placeholders: &mut Placeholders,
) -> Result<DynamicMessage> {
    let mut message = DynamicMessage::new(kind.clone());
    match (kind.name(), json) {
        ("StreamIdentifier", Value::String(_)) => {
            message.set_field_by_name("stream_name", Field::Bytes(to_bytes(json, placeholders)?));
        }
        // An empty object is an identifier without a name, which the last arm makes.
        ("StreamIdentifier", Value::Object(fields)) if !fields.is_empty() => {
            message.set_field_by_name("stream_name", Field::Bytes(to_bytes(json, placeholders)?));
        }
        ("UUID", Value::String(text)) => {
            set_id(&mut message, &placeholders.fill_placeholders(text))?;
        }
        ("Position" | "AllStreamPosition", Value::String(_) | Value::Number(_)) => {
            for name in ["commit_position", "prepare_position"] {
                message.set_field_by_name(name, Field::U64(to_position(json, placeholders)?));
            }
        }
        (_, Value::Object(fields)) => set_fields(&mut message, fields, placeholders)?,
        _ => return request_error(format!("{json} is not a {}", kind.full_name())),
    }
    Ok(message)
}

fn set_fields(
    message: &mut DynamicMessage,
    fields: &Map<String, Value>,
    placeholders: &mut Placeholders,
) -> Result<()> {
    for (name, json) in fields {
        let kind = message.descriptor();
        let Some(field) = kind.get_field_by_name(name) else {
            return request_error(format!("{} has no field `{name}`", kind.full_name()));
        };
        let value = to_field(json, &field, placeholders)?;
        message
            .try_set_field(&field, value)
            .map_err(|error| RequestError(format!("{name}: {error}")))?;
    }
    Ok(())
}

fn set_id(message: &mut DynamicMessage, text: &str) -> Result<()> {
    let Some(id) = text.strip_prefix("structured ") else {
        message.set_field_by_name("string", Field::String(text.to_owned()));
        return Ok(());
    };
    let Ok(id) = id.parse::<Uuid>() else { return request_error(format!("`{id}` is not an id")) };
    let structured = message.get_field_by_name("structured").map(Cow::into_owned);
    let Some(Field::Message(mut structured)) = structured else {
        return request_error("the protocol has no structured ids");
    };
    let (most, least) = id.as_u64_pair();
    structured.set_field_by_name("most_significant_bits", Field::I64(most.cast_signed()));
    structured.set_field_by_name("least_significant_bits", Field::I64(least.cast_signed()));
    message.set_field_by_name("structured", Field::Message(structured));
    Ok(())
}

fn to_field(
    json: &Value,
    field: &FieldDescriptor,
    placeholders: &mut Placeholders,
) -> Result<Field> {
    if field.is_map() {
        return to_map(json, placeholders);
    }
    if field.is_list() {
        let Value::Array(items) = json else {
            return request_error(format!("{json} is not a list"));
        };
        let items = items.iter().map(|item| to_scalar(item, field, placeholders));
        return Ok(Field::List(items.collect::<Result<_>>()?));
    }
    to_scalar(json, field, placeholders)
}

/// Converts a map. All maps of the protocol have text as keys and values.
fn to_map(json: &Value, placeholders: &mut Placeholders) -> Result<Field> {
    let Value::Object(fields) = json else { return request_error(format!("{json} is not a map")) };
    let mut map = HashMap::new();
    for (key, value) in fields {
        let value = placeholders.fill_placeholders(value.as_str().unwrap_or_default());
        map.insert(MapKey::String(key.clone()), Field::String(value));
    }
    Ok(Field::Map(map))
}

fn to_scalar(
    json: &Value,
    field: &FieldDescriptor,
    placeholders: &mut Placeholders,
) -> Result<Field> {
    let invalid = || RequestError(format!("{json} is not a value of {}", field.full_name()));
    if matches!(field.name(), "commit_position" | "prepare_position") {
        return Ok(Field::U64(to_position(json, placeholders)?));
    }
    let value = match field.kind() {
        Kind::Bool => json.as_bool().map(Field::Bool),
        Kind::Int32 => json.as_i64().and_then(|number| number.try_into().ok()).map(Field::I32),
        Kind::Uint32 => json.as_u64().and_then(|number| number.try_into().ok()).map(Field::U32),
        Kind::Int64 => {
            json.as_str().map_or(json.as_i64(), |text| text.parse().ok()).map(Field::I64)
        }
        Kind::Uint64 => {
            json.as_str().map_or(json.as_u64(), |text| text.parse().ok()).map(Field::U64)
        }
        Kind::String => {
            json.as_str().map(|text| Field::String(placeholders.fill_placeholders(text)))
        }
        Kind::Bytes => Some(Field::Bytes(to_bytes(json, placeholders)?)),
        Kind::Enum(kind) => match json.as_str() {
            Some(name) => kind.get_value_by_name(name).map(|value| value.number()),
            None => json.as_i64().and_then(|number| number.try_into().ok()),
        }
        .map(Field::EnumNumber),
        Kind::Message(kind) => Some(Field::Message(to_message(json, &kind, placeholders)?)),
        kind @ (Kind::Double
        | Kind::Float
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64) => return request_error(format!("the protocol has no {kind:?}")),
    };
    value.ok_or_else(invalid)
}

fn to_position(json: &Value, placeholders: &Placeholders) -> Result<u64> {
    let position = match json.as_str() {
        Some(token) if token.contains('#') => placeholders.find_position(token),
        Some(digits) => digits.parse().ok(),
        None => json.as_u64(),
    };
    position.ok_or_else(|| RequestError(format!("the position {json} is not known yet")))
}

fn to_bytes(json: &Value, placeholders: &mut Placeholders) -> Result<Bytes> {
    if let Value::String(text) = json {
        return Ok(placeholders.fill_placeholders(text).into());
    }
    if let Some(hex) = json["hex"].as_str() {
        return parse_hex(hex).map(Bytes::from);
    }
    match (json["repeat"].as_str(), json["times"].as_u64().map(usize::try_from)) {
        (Some(text), Some(Ok(times))) => Ok(text.repeat(times).into()),
        _ => request_error(format!("{json} is not bytes")),
    }
}
