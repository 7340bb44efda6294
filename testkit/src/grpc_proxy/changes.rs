//! Changes to the messages of one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use conformance::protocol::event_store::client::Empty;
use conformance::protocol::event_store::client::streams::{
    ReadReq, ReadResp,
    read_options::{Extent, Source, stream::RevisionOption},
    read_resp::Content,
};
use prost::Message;

use super::frames::{Frames, encode_frame};
use super::{MessageFilter, Refusal};

/// Changes to the messages of a call, with the state of the call.
pub(super) struct Changes {
    method: String,
    filter: Option<Arc<dyn MessageFilter>>,
    is_subscription: AtomicBool,
    /// Whether a subscription from the start of a stream has received an event. A real server sends
    /// `CaughtUp` for a stream only once the stream exists.
    has_first_event: AtomicBool,
    owes_caught_up: AtomicBool,
}

impl Changes {
    pub(super) fn new(method: String, filter: Option<Arc<dyn MessageFilter>>) -> Self {
        Self {
            method,
            filter,
            is_subscription: AtomicBool::new(false),
            has_first_event: AtomicBool::new(true),
            owes_caught_up: AtomicBool::new(false),
        }
    }

    /// Changes bytes of the request.
    ///
    /// # Errors
    /// If a message is refused.
    pub(super) fn change_request(
        &self,
        frames: &mut Frames,
        data: Bytes,
    ) -> Result<Bytes, Refusal> {
        let Some(filter) = &self.filter else { return Ok(data) };
        let mut changed = BytesMut::new();
        for message in frames.push(&data) {
            if self.method == "Streams/Read"
                && let Some(is_from_start) = subscription_start(&message)
            {
                self.is_subscription.store(true, Ordering::Relaxed);
                self.has_first_event.store(!is_from_start, Ordering::Relaxed);
            }
            let message = filter.change_request(&self.method, &message)?;
            changed.extend_from_slice(&encode_frame(&message));
        }
        Ok(changed.freeze())
    }

    /// Changes bytes of the response. Also returns the status that ends the call after them, if any.
    pub(super) fn change_response(
        &self,
        frames: &mut Frames,
        data: Bytes,
    ) -> (Bytes, Option<Refusal>) {
        let Some(filter) = &self.filter else { return (data, None) };
        let mut changed = BytesMut::new();
        for message in frames.push(&data) {
            if self.is_subscription.load(Ordering::Relaxed)
                && let Some(refusal) = filter.take_overrun(&message)
            {
                return (changed.freeze(), Some(refusal));
            }
            if self.is_early_caught_up(&message) {
                continue;
            }
            match filter.change_response(&self.method, &message) {
                Ok(message) => changed.extend_from_slice(&encode_frame(&message)),
                Err(refusal) => return (changed.freeze(), Some(refusal)),
            }
            if self.is_first_event(&message) {
                changed.extend_from_slice(&encode_frame(&caught_up()));
            }
        }
        (changed.freeze(), None)
    }

    /// Returns whether the message is a `CaughtUp` for a stream without an event.
    fn is_early_caught_up(&self, message: &Bytes) -> bool {
        let is_early = !self.has_first_event.load(Ordering::Relaxed)
            && matches!(decode_content(message), Some(Content::CaughtUp(_)));
        self.owes_caught_up.fetch_or(is_early, Ordering::Relaxed);
        is_early
    }

    /// Returns whether the message is the first event of a stream that did not exist before, so that
    /// the withheld `CaughtUp` is due.
    fn is_first_event(&self, message: &Bytes) -> bool {
        if self.has_first_event.load(Ordering::Relaxed)
            || !matches!(decode_content(message), Some(Content::Event(_)))
        {
            return false;
        }
        self.has_first_event.store(true, Ordering::Relaxed);
        self.owes_caught_up.load(Ordering::Relaxed)
    }
}

fn decode_content(message: &Bytes) -> Option<Content> {
    ReadResp::decode(message.clone()).ok()?.content
}

fn caught_up() -> Vec<u8> {
    ReadResp { content: Some(Content::CaughtUp(Empty {})) }.encode_to_vec()
}

/// Returns `None` if a read is no subscription, otherwise whether it subscribes to a stream from its
/// start.
fn subscription_start(message: &Bytes) -> Option<bool> {
    let options = ReadReq::decode(message.clone()).ok()?.options?;
    matches!(options.extent, Some(Extent::Subscription(_))).then_some(())?;
    let Some(Source::Stream(stream)) = options.source else { return Some(false) };
    Some(matches!(stream.revision_option, Some(RevisionOption::Start(_))))
}
