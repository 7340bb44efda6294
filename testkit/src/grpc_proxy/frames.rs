//! Framing of gRPC messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Length of a frame's header: a compression flag and the length of the message.
const HEADER: usize = 5;

/// Decoder that splits received bytes into messages.
#[derive(Default)]
pub(crate) struct Frames {
    received: BytesMut,
}

impl Frames {
    /// Adds bytes and returns the messages that are complete with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        self.received.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(length) = self.received.get(1..HEADER) {
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            if self.received.len() < HEADER + length {
                break;
            }
            assert_eq!(self.received[0], 0, "test clients do not compress messages");
            self.received.advance(HEADER);
            messages.push(self.received.split_to(length).freeze());
        }
        messages
    }
}

pub(crate) fn encode_frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("messages of tests are small");
    let mut frame = BytesMut::with_capacity(HEADER + message.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.extend_from_slice(message);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded_from_chunks_of_every_size() {
        let sent = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 300])];
        let stream: Vec<u8> = sent.iter().flat_map(|message| encode_frame(message)).collect();
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let received: Vec<_> = stream.chunks(size).flat_map(|part| frames.push(part)).collect();
            assert_eq!(received, sent, "in chunks of {size} bytes");
        }
    }
}
