//! Changes to the messages of one call on their way through the proxy.

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

use super::Refusal;
use crate::strict_store::{Frames, Strictness, frame};

/// What changes the messages of a call, and what the call is.
pub(super) struct Changes {
    method: String,
    strictness: Option<Arc<Strictness>>,
    is_subscription: AtomicBool,
    /// Whether a subscription to a stream from its start has been sent an event. A real server does
    /// not say that a stream is caught up before it exists.
    has_first_event: AtomicBool,
    owes_caught_up: AtomicBool,
}

impl Changes {
    pub(super) fn new(method: String, strictness: Option<Arc<Strictness>>) -> Self {
        Self {
            method,
            strictness,
            is_subscription: AtomicBool::new(false),
            has_first_event: AtomicBool::new(true),
            owes_caught_up: AtomicBool::new(false),
        }
    }

    /// Returns bytes of the request as they go on.
    ///
    /// # Errors
    /// A message is refused.
    pub(super) fn change_request(
        &self,
        frames: &mut Frames,
        data: Bytes,
    ) -> Result<Bytes, Refusal> {
        let Some(strictness) = &self.strictness else { return Ok(data) };
        let mut changed = BytesMut::new();
        for message in frames.push(&data) {
            if self.method == "Streams/Read"
                && let Some(is_from_start) = subscribes(&message)
            {
                self.is_subscription.store(true, Ordering::Relaxed);
                self.has_first_event.store(!is_from_start, Ordering::Relaxed);
            }
            let message = strictness.change_request(&self.method, &message)?;
            changed.extend_from_slice(&frame(&message));
        }
        Ok(changed.freeze())
    }

    /// Returns bytes of the response as they go on, and the status that ends the call behind them.
    pub(super) fn change_response(
        &self,
        frames: &mut Frames,
        data: Bytes,
    ) -> (Bytes, Option<Refusal>) {
        let Some(strictness) = &self.strictness else { return (data, None) };
        let mut changed = BytesMut::new();
        for message in frames.push(&data) {
            if self.is_subscription.load(Ordering::Relaxed)
                && let Some(refusal) = strictness.overrun(&message)
            {
                return (changed.freeze(), Some(refusal));
            }
            if self.is_early_caught_up(&message) {
                continue;
            }
            match strictness.change_response(&self.method, &message) {
                Ok(message) => changed.extend_from_slice(&frame(&message)),
                Err(refusal) => return (changed.freeze(), Some(refusal)),
            }
            if self.is_first_event(&message) {
                changed.extend_from_slice(&frame(&caught_up()));
            }
        }
        (changed.freeze(), None)
    }

    /// Returns whether this says that a stream is caught up that has had no event.
    fn is_early_caught_up(&self, message: &Bytes) -> bool {
        let is_early = !self.has_first_event.load(Ordering::Relaxed)
            && matches!(content(message), Some(Content::CaughtUp(_)));
        self.owes_caught_up.fetch_or(is_early, Ordering::Relaxed);
        is_early
    }

    /// Returns whether this is the first event of a stream that was not there, whose reader is yet to
    /// be told that it has caught up.
    fn is_first_event(&self, message: &Bytes) -> bool {
        if self.has_first_event.load(Ordering::Relaxed)
            || !matches!(content(message), Some(Content::Event(_)))
        {
            return false;
        }
        self.has_first_event.store(true, Ordering::Relaxed);
        self.owes_caught_up.load(Ordering::Relaxed)
    }
}

fn content(message: &Bytes) -> Option<Content> {
    ReadResp::decode(message.clone()).ok()?.content
}

fn caught_up() -> Vec<u8> {
    ReadResp { content: Some(Content::CaughtUp(Empty {})) }.encode_to_vec()
}

/// Returns whether a read is a subscription, and if so, whether one to a stream from its start.
fn subscribes(message: &Bytes) -> Option<bool> {
    let options = ReadReq::decode(message.clone()).ok()?.options?;
    matches!(options.extent, Some(Extent::Subscription(_))).then_some(())?;
    let Some(Source::Stream(stream)) = options.source else { return Some(false) };
    Some(matches!(stream.revision_option, Some(RevisionOption::Start(_))))
}
