//! Request bodies that end only where their caller ended them.
//!
//! The libraries below take a call that its caller gave up for one that ended: hyper a reset with
//! `NO_ERROR`, tonic one with `CANCEL`. What had arrived of an append would be all of it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body as HttpBody, Frame};
use prost::bytes::Bytes;
use tonic::{Status, body::Body};

use crate::{
    gate::MAX_REQUEST_BYTES,
    rpc::{methods::Requests, status::handler_threw},
};

/// Bytes in front of a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// Largest length that the original can read, which takes it for a signed number.
const MAX_LENGTH: u32 = i32::MAX.cast_unsigned();

/// The messages of a request. Fails if the caller gives the call up, if a message is too long or
/// is not all there, and if there is not the number of them that the method takes.
pub(crate) struct RequestBody {
    inner: Body,
    messages: Messages,
    progress: Progress,
}

/// How far the reader of a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Reading,
    /// The end was received, and its reader does not know yet.
    Ending,
    Over,
}

impl RequestBody {
    pub(crate) fn new(inner: Body, requests: Requests) -> Self {
        Self { inner, messages: Messages::new(requests), progress: Progress::Reading }
    }

    /// Checks what the connection gave, other than an end.
    fn checked(
        &mut self,
        received: Option<Result<Frame<Bytes>, Status>>,
    ) -> Result<Frame<Bytes>, Status> {
        // Without END_STREAM, what looks like an end is a reset.
        let Some(Ok(frame)) = received else { return Err(given_up()) };
        // Trailers end the request: whoever reads it need not ask again.
        match frame.data_ref() {
            Some(data) => self.messages.add(data)?,
            None => self.messages.end()?,
        }
        Ok(frame)
    }
}

/// Not CANCELLED, which tonic would take for the end of the request.
fn given_up() -> Status {
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
                let checked = self.checked(received);
                if checked.is_err() {
                    self.progress = Progress::Over;
                }
                return Poll::Ready(Some(checked));
            }
            // Some libraries end the request of a cancelled call before they reset it. If the reset
            // is there already, hyper drops the call now, since it looks for one whenever there is
            // no answer yet. One that comes later cannot be told from a call that is given up while
            // it is carried out.
            self.progress = Progress::Ending;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.progress = Progress::Over;
        Poll::Ready(self.messages.end().err().map(Err))
    }

    /// Not before the request was judged as a whole: who sees it ended does not ask any more.
    fn is_end_stream(&self) -> bool {
        self.progress == Progress::Over
    }
}

/// Follows where messages begin and end.
struct Messages {
    requests: Requests,
    /// Messages that have begun.
    count: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of the next message's head that are here.
    head_bytes: usize,
    /// Bytes of the last message that are still to come.
    missing: usize,
}

impl Messages {
    fn new(requests: Requests) -> Self {
        Self { requests, count: 0, head: [0; HEAD_BYTES], head_bytes: 0, missing: 0 }
    }

    fn add(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let skipped = data.len().min(self.missing);
            self.missing -= skipped;
            data = &data[skipped..];
            if let Some((byte, rest)) = data.split_first() {
                self.add_to_head(*byte)?;
                data = rest;
            }
        }
        Ok(())
    }

    fn add_to_head(&mut self, byte: u8) -> Result<(), Status> {
        if self.requests == Requests::One && self.count == 1 {
            return Err(Status::internal("Additional data after the message received."));
        }
        self.head[self.head_bytes] = byte;
        self.head_bytes += 1;
        let (HEAD_BYTES, [_, length @ ..]) = (self.head_bytes, self.head) else { return Ok(()) };
        self.head_bytes = 0;
        self.count += 1;
        self.missing = length_of_message(u32::from_be_bytes(length))?;
        Ok(())
    }

    fn end(&self) -> Result<(), Status> {
        let is_whole = self.head_bytes == 0 && self.missing == 0;
        if is_whole && (self.requests == Requests::Many || self.count == 1) {
            return Ok(());
        }
        Err(Status::internal("Incomplete message."))
    }
}

fn length_of_message(length: u32) -> Result<usize, Status> {
    if length > MAX_LENGTH {
        return Err(handler_threw());
    }
    let too_long = || {
        Status::resource_exhausted("Received message exceeds the maximum configured message size.")
    };
    usize::try_from(length).ok().filter(|it| *it <= MAX_REQUEST_BYTES).ok_or_else(too_long)
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

    /// What a body made of these pieces is, as a whole.
    fn judged<'a>(requests: Requests, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Code> {
        let mut messages = Messages::new(requests);
        let added = pieces.into_iter().try_for_each(|piece| messages.add(piece));
        added.and_then(|()| messages.end()).err().map(|status| status.code())
    }

    #[test]
    fn one_message_is_neither_none_nor_two_nor_half_a_one() {
        let one = message(3);
        assert_eq!(judged(Requests::One, [&one[..]]), None);
        assert_eq!(judged(Requests::One, []), Some(Code::Internal));
        assert_eq!(judged(Requests::One, [&one[..], &one]), Some(Code::Internal));
        assert_eq!(judged(Requests::One, [&one[..7]]), Some(Code::Internal));
        assert_eq!(judged(Requests::One, [&one[..2]]), Some(Code::Internal));
        assert_eq!(judged(Requests::Many, []), None);
        assert_eq!(judged(Requests::Many, [&one[..], &one]), None);
    }

    #[test]
    fn a_length_is_refused_before_its_message_is_there() {
        let head = |length: u32| [&[0], &length.to_be_bytes()[..]].concat();
        let refused = |length| judged(Requests::Many, [&head(length)[..]]);
        assert_eq!(refused(17 * 1_024 * 1_024), Some(Code::ResourceExhausted));
        assert_eq!(refused(MAX_LENGTH), Some(Code::ResourceExhausted));
        assert_eq!(refused(u32::MAX), Some(Code::Unknown));
    }

    proptest! {
        #[test]
        fn messages_are_whole_however_their_bytes_are_cut(
            lengths in prop::collection::vec(0_usize..40, 0..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            end in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut ends = vec![0];
            for length in &lengths {
                ends.push(ends.last().unwrap() + HEAD_BYTES + length);
            }
            let end = end.index(bytes.len() + 1);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(end + 1)).collect();
            cuts.extend([0, end]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            let is_whole = ends.contains(&end);
            prop_assert_eq!(judged(Requests::Many, pieces).is_none(), is_whole);
        }
    }
}
