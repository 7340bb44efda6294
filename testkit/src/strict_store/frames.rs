//! Messages of a gRPC call in the bytes of its stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A flag that says whether the message is compressed, and its length.
const HEAD: usize = 5;

/// Takes bytes as they come and gives whole messages.
#[derive(Default)]
pub(crate) struct Frames {
    received: BytesMut,
}

impl Frames {
    /// Adds bytes and returns the messages that are complete with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        self.received.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(length) = self.received.get(1..HEAD) {
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            if self.received.len() < HEAD + length {
                break;
            }
            assert_eq!(self.received[0], 0, "the clients of our tests compress nothing");
            self.received.advance(HEAD);
            messages.push(self.received.split_to(length).freeze());
        }
        messages
    }
}

/// Returns a message with its head.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message of a test is small");
    let mut frame = BytesMut::with_capacity(HEAD + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.extend_from_slice(message);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let sent = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 300])];
        let stream: Vec<u8> = sent.iter().flat_map(|message| frame(message)).collect();
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let received: Vec<_> = stream.chunks(size).flat_map(|part| frames.push(part)).collect();
            assert_eq!(received, sent, "in parts of {size} bytes");
        }
    }
}
