//! Methods of the protocol, and what their messages say.

use prost::{DecodeError, bytes::Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage};
use tonic::codegen::http::uri::{InvalidUri, PathAndQuery};

use super::{
    answer::{number, stream_text},
    call::Received,
    view::{Answer, part},
};

/// What a group says of its state while it reads.
const READING: &str = "OutstandingPageRequest";

/// A method of the protocol, or one that the protocol does not have.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) path: PathAndQuery,
    /// Request and response; none if the method is unknown.
    messages: Option<(MessageDescriptor, MessageDescriptor)>,
}

impl Method {
    /// Finds a method as the recording names it: `streams.Streams/Read`, or with the whole name of
    /// the service behind a `=`.
    pub(super) fn find(pool: &DescriptorPool, name: &str) -> Result<Self, InvalidUri> {
        let name = match name.strip_prefix('=') {
            Some(full) => full.to_owned(),
            None => format!("event_store.client.{name}"),
        };
        let path = PathAndQuery::try_from(format!("/{name}"))?;
        let messages = name.split_once('/').and_then(|(service, method)| {
            let service = pool.get_service_by_name(service)?;
            let method = service.methods().find(|known| known.name() == method)?;
            Some((method.input(), method.output()))
        });
        Ok(Self { path, messages })
    }

    /// Returns the type of the requests.
    pub(super) fn request(&self) -> Option<&MessageDescriptor> {
        self.messages.as_ref().map(|(request, _)| request)
    }

    /// Decodes responses. Those of an unknown method are left out.
    pub(super) fn decode(&self, received: Received) -> Result<Answer, DecodeError> {
        let ending = received.ending;
        let Some((_, response)) = &self.messages else {
            return Ok(Answer { messages: Vec::new(), ending });
        };
        let decode = |bytes| DynamicMessage::decode(response.clone(), bytes);
        let messages = received.messages.into_iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Answer { messages, ending })
    }

    /// Returns whether a response says that a subscription has caught up.
    pub(super) fn is_caught_up(&self, response: &Bytes) -> bool {
        self.messages.as_ref().is_some_and(|(_, kind)| {
            DynamicMessage::decode(kind.clone(), response.clone())
                .is_ok_and(|message| message.has_field_by_name("caught_up"))
        })
    }

    /// Returns what the answers to appends say of their last events: `stream#revision`, and the
    /// position. Empty for other methods.
    pub(super) fn appended_events(
        &self,
        sent: &[Bytes],
        received: Received,
    ) -> Result<Vec<(String, u64)>, DecodeError> {
        let appends = ["AppendReq", "BatchAppendReq"];
        let Some(request) = self.request().filter(|kind| appends.contains(&kind.name())) else {
            return Ok(Vec::new());
        };
        let decode = |bytes: &Bytes| DynamicMessage::decode(request.clone(), bytes.clone()).ok();
        let sent: Vec<_> = sent.iter().filter_map(decode).collect();
        let mut events = Vec::new();
        for answer in self.decode(received)?.messages {
            let Some(success) = part(&answer, "success") else { continue };
            let Some(position) = part(&success, "position") else { continue };
            // A single append has no correlation id, neither in its request nor in its answer.
            let id = correlation_id(&answer);
            let is_same = |message: &&DynamicMessage| correlation_id(message) == id;
            let options = sent.iter().filter(is_same).find_map(|message| part(message, "options"));
            if let Some(options) = options {
                let event = last_event(&options, &success);
                events.push((event, number(&position, "commit_position")));
            }
        }
        Ok(events)
    }
}

/// Returns whether an answer about a group says that it is reading.
pub(super) fn is_group_reading(answer: &Answer) -> bool {
    let info = answer.messages.first().and_then(|message| part(message, "subscription_info"));
    info.is_some_and(|info| {
        let state = info.get_field_by_name("status");
        state.is_some_and(|state| state.as_str().is_some_and(|text| text.contains(READING)))
    })
}

fn last_event(options: &DynamicMessage, success: &DynamicMessage) -> String {
    let stream = stream_text(options);
    if success.has_field_by_name("current_revision") {
        format!("{stream}#{}", number(success, "current_revision"))
    } else {
        format!("{stream}#none")
    }
}

fn correlation_id(message: &DynamicMessage) -> Option<DynamicMessage> {
    message.descriptor().get_field_by_name("correlation_id")?;
    part(message, "correlation_id")
}
