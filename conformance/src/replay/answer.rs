//! The answer to a call, and the part of it that a step of the recording compares.

use prost_reflect::DynamicMessage;
use serde_json::{Map, Value, json};
use tonic::{Status, metadata::KeyAndValueRef};

use super::{
    message_to_json::{MessageTranslator, code_name, message_field, u64_field},
    operation::AnswerPart,
    raw_call::CallEnd,
};

/// Trailers that are not compared: they do not depend on the answer, or the library reads them.
const IGNORED_TRAILERS: [&str; 11] = [
    "date",
    "server",
    "content-type",
    "content-length",
    "grpc-accept-encoding",
    "grpc-encoding",
    "transfer-encoding",
    "accept-encoding",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
];

/// The library's message for a response that is not gRPC.
const WITHOUT_STATUS: &str = "grpc-status header missing, mapped from HTTP status code ";

/// Fields of a persistent subscription that [`AnswerPart::Group`] compares.
const GROUP_FIELDS: [&str; 10] = [
    "status",
    "total_items",
    "total_in_flight_messages",
    "outstanding_messages_count",
    "read_buffer_count",
    "retry_buffer_count",
    "parked_message_count",
    "last_known_event_position",
    "last_checkpointed_event_position",
    "connections",
];

/// The decoded responses of a call and how it ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) messages: Vec<DynamicMessage>,
    pub(super) end: Option<CallEnd>,
}

impl Answer {
    /// Returns a part of the answer in the format of the recording.
    pub(super) fn select_part(
        &self,
        part: AnswerPart,
        translator: &mut MessageTranslator<'_>,
    ) -> Value {
        let status = match &self.end {
            None | Some(CallEnd::Cancelled) => "open".into(),
            Some(CallEnd::Status(status)) => describe_status(status),
        };
        match part {
            AnswerPart::Status => status,
            AnswerPart::Messages => self.translate_messages(translator),
            AnswerPart::All => {
                json!({ "messages": self.translate_messages(translator), "status": status })
            }
            AnswerPart::Kinds => json!({ "messages": self.response_kinds(), "status": status }),
            AnswerPart::Revisions => {
                let messages = self.messages.iter().map(|message| {
                    let revision = message_field(message, "event")
                        .and_then(|read| message_field(&read, "event"));
                    revision.map_or_else(
                        || translator.message_to_json(message),
                        |event| u64_field(&event, "stream_revision").into(),
                    )
                });
                json!({ "messages": messages.collect::<Value>(), "status": status })
            }
            AnswerPart::Outcome => {
                // A status with neither message nor trailers is described by its code alone.
                let code = status.get("code").or(Some(&status));
                let trailers = status.get("trailers");
                let exception = trailers.and_then(|trailers| trailers.get("exception"));
                let mut out = Map::new();
                out.extend(code.map(|code| ("code".to_owned(), code.clone())));
                out.extend(exception.map(|name| ("exception".to_owned(), name.clone())));
                out.insert("messages".to_owned(), self.response_kinds());
                Value::Object(out)
            }
            AnswerPart::Deliveries => {
                self.delivered_events().iter().map(describe_delivery).collect()
            }
            AnswerPart::Group => {
                let mut out = self.translate_group(translator);
                out.retain(|name, _| GROUP_FIELDS.contains(&name.as_str()));
                json!({ "group": out, "status": status })
            }
            AnswerPart::StartFrom => {
                let start = self.translate_group(translator).remove("start_from");
                let mut out = Map::from_iter([("status".to_owned(), status)]);
                out.extend(start.map(|start| ("start_from".to_owned(), start)));
                Value::Object(out)
            }
        }
    }

    /// Returns the events among the responses.
    pub(super) fn delivered_events(&self) -> Vec<DynamicMessage> {
        self.messages.iter().filter_map(|message| message_field(message, "event")).collect()
    }

    /// Returns the persistent subscription that the first response describes.
    pub(super) fn subscription_info(&self) -> Option<DynamicMessage> {
        message_field(self.messages.first()?, "subscription_info")
    }

    fn translate_messages(&self, translator: &mut MessageTranslator<'_>) -> Value {
        self.messages.iter().map(|message| translator.message_to_json(message)).collect()
    }

    fn response_kinds(&self) -> Value {
        let kind = |message: &DynamicMessage| {
            let names: Vec<_> =
                message.fields().map(|(field, _)| field.name().to_owned()).collect();
            Value::from(names.join("+"))
        };
        self.messages.iter().map(kind).collect()
    }

    fn translate_group(&self, translator: &mut MessageTranslator<'_>) -> Map<String, Value> {
        match self.subscription_info().map(|info| translator.message_to_json(&info)) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }
}

fn describe_status(status: &Status) -> Value {
    let mut trailers: Vec<_> =
        status.metadata().iter().filter_map(|entry| to_trailer(&entry)).collect();
    trailers.sort();
    let code = code_name(status.code());
    if status.message().is_empty() && trailers.is_empty() {
        return code.into();
    }
    let mut out = Map::from_iter([("code".to_owned(), code.into())]);
    if !status.message().is_empty() {
        let text = status.message();
        let message = text.strip_prefix(WITHOUT_STATUS).map(|code| format!("HTTP status {code}"));
        out.insert("message".to_owned(), message.unwrap_or_else(|| text.to_owned()).into());
    }
    if !trailers.is_empty() {
        let trailers = trailers.into_iter().map(|(name, value)| (name, value.into()));
        out.insert("trailers".to_owned(), Value::Object(trailers.collect()));
    }
    Value::Object(out)
}

fn to_trailer(entry: &KeyAndValueRef<'_>) -> Option<(String, String)> {
    let KeyAndValueRef::Ascii(name, value) = entry else { return None };
    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
    (!IGNORED_TRAILERS.contains(&name.as_str())).then(|| (name.as_str().to_owned(), value))
}

/// Describes revision and retry count of a delivered event.
fn describe_delivery(delivery: &DynamicMessage) -> Value {
    let [event, link] = ["event", "link"].map(|name| message_field(delivery, name));
    let revision =
        link.as_ref().or(event.as_ref()).map(|event| u64_field(event, "stream_revision"));
    let kind = match (&event, &link) {
        (_, None) => "",
        (Some(_), Some(_)) => " (link)",
        (None, Some(_)) => " (link, target missing)",
    };
    let retries = delivery.get_field_by_name("retry_count").and_then(|count| count.as_i32());
    let retries = match retries {
        _ if delivery.has_field_by_name("no_retry_count") => " no retry count".to_owned(),
        Some(count) if delivery.has_field_by_name("retry_count") => format!(" retry {count}"),
        _ => " retry absent".to_owned(),
    };
    format!("{}{kind}{retries}", revision.unwrap_or_default()).into()
}
