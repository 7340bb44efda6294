//! Permissions that the store denies.

use std::collections::BTreeSet;
use std::sync::Mutex;

use bytes::Bytes;
use conformance::protocol::event_store::client::{persistent_subscriptions as groups, streams};
use prost::Message;

use service_kit::mutex::lock;

/// Denied permissions; initially none.
#[derive(Default)]
pub(crate) struct Access {
    unreadable: Mutex<BTreeSet<String>>,
}

impl Access {
    pub(super) fn deny_reading(&self, stream: &str) {
        lock(&self.unreadable).insert(stream.to_owned());
    }

    pub(super) fn is_denied(&self, method: &str, message: &Bytes) -> bool {
        let source = match method {
            "Streams/Read" => read_source(message),
            "PersistentSubscriptions/Read" => group_source(message),
            _ => None,
        };
        source.is_some_and(|stream| lock(&self.unreadable).contains(&stream))
    }
}

fn read_source(message: &Bytes) -> Option<String> {
    use streams::read_options::Source;
    match streams::ReadReq::decode(message.clone()).ok()?.options?.source? {
        Source::All(_) => Some("$all".to_owned()),
        Source::Stream(stream) => {
            let name = stream.stream_identifier?.stream_name;
            Some(String::from_utf8_lossy(&name).into_owned())
        }
    }
}

/// Returns the stream of a consumer's group.
fn group_source(message: &Bytes) -> Option<String> {
    use groups::read_req::{Content, options::Source};
    match groups::ReadReq::decode(message.clone()).ok()?.content? {
        Content::Options(options) => match options.source? {
            Source::All(_) => Some("$all".to_owned()),
            Source::StreamIdentifier(stream) => {
                Some(String::from_utf8_lossy(&stream.stream_name).into_owned())
            }
        },
        Content::Ack(_) | Content::Nack(_) => None,
    }
}
