//! Changes to the messages of one call on their way through the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use conformance::protocol::event_store::client::streams::{ReadReq, read_options::Extent};
use prost::Message;

use super::Refusal;
use crate::strict_store::{Frames, Strictness, frame};

/// What changes the messages of a call, and what the call is.
pub(super) struct Changes {
    method: String,
    strictness: Option<Arc<Strictness>>,
    is_subscription: AtomicBool,
}

impl Changes {
    pub(super) fn new(method: String, strictness: Option<Arc<Strictness>>) -> Self {
        Self { method, strictness, is_subscription: AtomicBool::new(false) }
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
            if self.method == "Streams/Read" && subscribes(&message) {
                self.is_subscription.store(true, Ordering::Relaxed);
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
            match strictness.change_response(&self.method, &message) {
                Ok(message) => changed.extend_from_slice(&frame(&message)),
                Err(refusal) => return (changed.freeze(), Some(refusal)),
            }
        }
        (changed.freeze(), None)
    }
}

fn subscribes(message: &Bytes) -> bool {
    let request = ReadReq::decode(message.clone()).ok();
    let extent = request.and_then(|request| request.options?.extent);
    matches!(extent, Some(Extent::Subscription(_)))
}
