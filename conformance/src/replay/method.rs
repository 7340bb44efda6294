//! Methods of the protocol, and what the replay reads from their messages.

use prost::{DecodeError, bytes::Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage};
use tonic::codegen::http::uri::{InvalidUri, PathAndQuery};

use super::{
    answer::Answer,
    message_to_json::{message_field, stream_text, u64_field},
    raw_call::Received,
};

/// Status flag of a group that is reading.
const READING: &str = "OutstandingPageRequest";

/// A method of the protocol, or an unknown method.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) path: PathAndQuery,
    /// Types of request and response; `None` if the method is unknown.
    types: Option<(MessageDescriptor, MessageDescriptor)>,
}

impl Method {
    /// Finds a method by its name in the recording: `streams.Streams/Read`, or the full name of the
    /// service after a `=`.
    pub(super) fn find_by_name(pool: &DescriptorPool, name: &str) -> Result<Self, InvalidUri> {
        let name = match name.strip_prefix('=') {
            Some(full) => full.to_owned(),
            None => format!("event_store.client.{name}"),
        };
        let path = PathAndQuery::try_from(format!("/{name}"))?;
        let types = name.split_once('/').and_then(|(service, method)| {
            let service = pool.get_service_by_name(service)?;
            let method = service.methods().find(|known| known.name() == method)?;
            Some((method.input(), method.output()))
        });
        Ok(Self { path, types })
    }

    pub(super) fn request_type(&self) -> Option<&MessageDescriptor> {
        self.types.as_ref().map(|(request, _)| request)
    }

    /// Decodes responses. Responses of an unknown method are left out.
    pub(super) fn decode_responses(&self, received: Received) -> Result<Answer, DecodeError> {
        let end = received.end;
        let Some((_, response)) = &self.types else {
            return Ok(Answer { messages: Vec::new(), end });
        };
        let decode = |bytes| DynamicMessage::decode(response.clone(), bytes);
        let messages = received.messages.into_iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Answer { messages, end })
    }

    /// Returns whether a response says that a subscription has caught up.
    pub(super) fn is_caught_up(&self, response: &Bytes) -> bool {
        self.types.as_ref().is_some_and(|(_, kind)| {
            DynamicMessage::decode(kind.clone(), response.clone())
                .is_ok_and(|message| message.has_field_by_name("caught_up"))
        })
    }

    /// Returns name (`stream#revision`) and position of the last event of each successful append.
    /// Empty for other methods.
    pub(super) fn appended_events(
        &self,
        sent: &[Bytes],
        received: Received,
    ) -> Result<Vec<(String, u64)>, DecodeError> {
        let appends = ["AppendReq", "BatchAppendReq"];
        let Some(request) = self.request_type().filter(|kind| appends.contains(&kind.name()))
        else {
            return Ok(Vec::new());
        };
        let decode = |bytes: &Bytes| DynamicMessage::decode(request.clone(), bytes.clone()).ok();
        let sent: Vec<_> = sent.iter().filter_map(decode).collect();
        let mut events = Vec::new();
        for answer in self.decode_responses(received)?.messages {
            let Some(success) = message_field(&answer, "success") else { continue };
            let Some(position) = message_field(&success, "position") else { continue };
            // A single append has no correlation id, neither in its request nor in its answer.
            let id = correlation_id(&answer);
            let is_same = |message: &&DynamicMessage| correlation_id(message) == id;
            let options =
                sent.iter().filter(is_same).find_map(|message| message_field(message, "options"));
            if let Some(options) = options {
                let event = last_event_name(&options, &success);
                events.push((event, u64_field(&position, "commit_position")));
            }
        }
        Ok(events)
    }
}

/// Returns whether an answer about a group says that it is reading.
pub(super) fn is_group_reading(answer: &Answer) -> bool {
    answer.subscription_info().is_some_and(|info| {
        let state = info.get_field_by_name("status");
        state.is_some_and(|state| state.as_str().is_some_and(|text| text.contains(READING)))
    })
}

fn last_event_name(options: &DynamicMessage, success: &DynamicMessage) -> String {
    let stream = stream_text(options);
    if success.has_field_by_name("current_revision") {
        format!("{stream}#{}", u64_field(success, "current_revision"))
    } else {
        format!("{stream}#none")
    }
}

fn correlation_id(message: &DynamicMessage) -> Option<DynamicMessage> {
    message.descriptor().get_field_by_name("correlation_id")?;
    message_field(message, "correlation_id")
}
