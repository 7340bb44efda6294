//! Request bodies that tell a cancelled call from a complete request.
//!
//! The libraries below take some cancelled calls for complete requests: hyper after a reset with
//! `NO_ERROR`, tonic after one with `CANCEL`. Without this body, a cancelled append would be
//! written with the events that had arrived.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body as HttpBody, Frame};
use prost::bytes::Bytes;
use tonic::{Status, body::Body};

use crate::{
    request_validation::MAX_MESSAGE_BYTES,
    rpc::{methods::RequestCount, status::handler_threw},
};

/// Size of the header of a message: one byte for the compression and four for the length.
const HEADER_BYTES: usize = 5;

/// Maximum length that EventStoreDB can parse: it reads a signed number.
const MAX_LENGTH: u32 = i32::MAX.cast_unsigned();

/// The body of a request. Fails if the caller cancels the call, if a message is too long or
/// incomplete, or if the number of messages is wrong for the method.
pub(crate) struct RequestBody {
    inner: Body,
    framing: MessageFraming,
    progress: Progress,
}

/// Progress of reading a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Reading,
    /// The end was received and not passed on yet.
    Ending,
    Over,
}

impl RequestBody {
    pub(crate) fn new(inner: Body, requests: RequestCount) -> Self {
        Self { inner, framing: MessageFraming::new(requests), progress: Progress::Reading }
    }

    fn check_frame(
        &mut self,
        received: Option<Result<Frame<Bytes>, Status>>,
    ) -> Result<Frame<Bytes>, Status> {
        // A body that ends without END_STREAM was reset.
        let Some(Ok(frame)) = received else { return Err(cancelled_by_caller()) };
        // Trailers end the request. The reader may not poll again, so completeness is checked here.
        match frame.data_ref() {
            Some(data) => self.framing.add_bytes(data)?,
            None => self.framing.check_complete()?,
        }
        Ok(frame)
    }
}

/// Returns ABORTED, because tonic takes CANCELLED for the end of the request.
fn cancelled_by_caller() -> Status {
    Status::aborted("The caller gave the call up before its end.")
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.progress == Progress::Over {
            return Poll::Ready(None);
        }
        if self.progress == Progress::Reading {
            let received = ready!(Pin::new(&mut self.inner).poll_frame(context));
            if received.is_some() || !self.inner.is_end_stream() {
                let checked = self.check_frame(received);
                if checked.is_err() {
                    self.progress = Progress::Over;
                }
                return Poll::Ready(Some(checked));
            }
            // Some libraries end the request of a cancelled call before they reset it. Waiting for
            // one more poll lets hyper look for the reset: if it has arrived, hyper drops the call.
            // A later reset cannot be told from a call that is cancelled while it runs.
            self.progress = Progress::Ending;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.progress = Progress::Over;
        Poll::Ready(self.framing.check_complete().err().map(Err))
    }

    /// Returns `false` until completeness was checked. A reader that sees the end does not poll
    /// again.
    fn is_end_stream(&self) -> bool {
        self.progress == Progress::Over
    }
}

/// Tracks where messages begin and end.
struct MessageFraming {
    requests: RequestCount,
    /// Number of messages that have begun.
    count: usize,
    header: [u8; HEADER_BYTES],
    /// Received bytes of the next message's header.
    n_header_bytes: usize,
    /// Missing bytes of the current message.
    n_missing: usize,
}

impl MessageFraming {
    fn new(requests: RequestCount) -> Self {
        Self { requests, count: 0, header: [0; HEADER_BYTES], n_header_bytes: 0, n_missing: 0 }
    }

    fn add_bytes(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let skipped = data.len().min(self.n_missing);
            self.n_missing -= skipped;
            data = &data[skipped..];
            if let Some((byte, rest)) = data.split_first() {
                self.add_header_byte(*byte)?;
                data = rest;
            }
        }
        Ok(())
    }

    fn add_header_byte(&mut self, byte: u8) -> Result<(), Status> {
        if self.requests == RequestCount::One && self.count == 1 {
            return Err(Status::internal("Additional data after the message received."));
        }
        self.header[self.n_header_bytes] = byte;
        self.n_header_bytes += 1;
        let (HEADER_BYTES, [_, length @ ..]) = (self.n_header_bytes, self.header) else {
            return Ok(());
        };
        self.n_header_bytes = 0;
        self.count += 1;
        self.n_missing = check_message_length(u32::from_be_bytes(length))?;
        Ok(())
    }

    fn check_complete(&self) -> Result<(), Status> {
        let is_whole = self.n_header_bytes == 0 && self.n_missing == 0;
        if is_whole && (self.requests == RequestCount::Many || self.count == 1) {
            return Ok(());
        }
        Err(Status::internal("Incomplete message."))
    }
}

fn check_message_length(length: u32) -> Result<usize, Status> {
    if length > MAX_LENGTH {
        return Err(handler_threw());
    }
    let too_long = || {
        Status::resource_exhausted("Received message exceeds the maximum configured message size.")
    };
    usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE_BYTES).ok_or_else(too_long)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let head = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &head[..], &vec![7; length]].concat()
    }

    /// Returns the error code of a body that consists of these pieces.
    fn check_body<'a>(
        requests: RequestCount,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Code> {
        let mut framing = MessageFraming::new(requests);
        let added = pieces.into_iter().try_for_each(|piece| framing.add_bytes(piece));
        added.and_then(|()| framing.check_complete()).err().map(|status| status.code())
    }

    #[test]
    fn unary_request_needs_exactly_one_complete_message() {
        let one = message(3);
        assert_eq!(check_body(RequestCount::One, [&one[..]]), None);
        assert_eq!(check_body(RequestCount::One, []), Some(Code::Internal));
        assert_eq!(check_body(RequestCount::One, [&one[..], &one]), Some(Code::Internal));
        assert_eq!(check_body(RequestCount::One, [&one[..7]]), Some(Code::Internal));
        assert_eq!(check_body(RequestCount::One, [&one[..2]]), Some(Code::Internal));
        assert_eq!(check_body(RequestCount::Many, []), None);
        assert_eq!(check_body(RequestCount::Many, [&one[..], &one]), None);
    }

    #[test]
    fn excessive_length_is_rejected_before_the_message_arrives() {
        let head = |length: u32| [&[0], &length.to_be_bytes()[..]].concat();
        let refused = |length| check_body(RequestCount::Many, [&head(length)[..]]);
        assert_eq!(refused(17 * 1_024 * 1_024), Some(Code::ResourceExhausted));
        assert_eq!(refused(MAX_LENGTH), Some(Code::ResourceExhausted));
        assert_eq!(refused(u32::MAX), Some(Code::Unknown));
    }

    proptest! {
        #[test]
        fn completeness_does_not_depend_on_frame_boundaries(
            lengths in prop::collection::vec(0_usize..40, 0..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            end in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut ends = vec![0];
            for length in &lengths {
                ends.push(ends.last().unwrap() + HEADER_BYTES + length);
            }
            let end = end.index(bytes.len() + 1);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(end + 1)).collect();
            cuts.extend([0, end]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            let is_whole = ends.contains(&end);
            prop_assert_eq!(check_body(RequestCount::Many, pieces).is_none(), is_whole);
        }
    }
}
