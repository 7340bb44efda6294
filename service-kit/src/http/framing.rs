//! Requests that say twice how long they are. hyper believes one of the ways, as RFC 9112 allows;
//! whoever stands before us may have believed the other, and taken the rest for another request. We
//! let nobody try.

/// Headers that say how long a body is.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
/// The longest of them.
const MAX_NAME_BYTES: usize = 17;
/// In place of a colon it makes a head one that no parser takes.
const SPOILED: u8 = 0;

/// Looks at the heads of a connection's requests as they are read.
#[derive(Debug, Default)]
pub(super) struct Heads {
    place: Place,
    /// The name that a line begins with, as far as it can be one of ours.
    name: Vec<u8>,
    n_framings: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a request, or in its first line.
    #[default]
    First,
    /// In the name of a header.
    Name,
    /// Behind the name.
    Value,
    /// Behind the head: no business of ours.
    Body,
}

impl Heads {
    /// Looks at what was read, and spoils a head that says twice how long its body is: it is
    /// answered like any other that is broken.
    pub(super) fn look(&mut self, mut read: &mut [u8]) {
        while self.place != Place::Body && !read.is_empty() {
            let ends = |byte: &u8| *byte == b'\n' || (*byte == b':' && self.place == Place::Name);
            let end = read.iter().position(ends);
            if self.place == Place::Name {
                let line = &read[..end.unwrap_or(read.len())];
                let room = (MAX_NAME_BYTES + 1).saturating_sub(self.name.len());
                self.name.extend(line.iter().take(room).map(u8::to_ascii_lowercase));
            }
            let Some(end) = end else { return };
            let is_colon = read[end] == b':';
            if is_colon && FRAMING.contains(&self.name.as_slice()) {
                self.n_framings += 1;
                if self.n_framings > 1 {
                    read[end] = SPOILED;
                }
            }
            let is_empty = self.name.is_empty() || self.name == b"\r";
            self.place = match self.place {
                Place::Name if is_colon => Place::Value,
                Place::Name if is_empty => Place::Body,
                Place::First | Place::Name | Place::Value | Place::Body => Place::Name,
            };
            self.name.clear();
            read = &mut read[end + 1..];
        }
    }

    /// An answer was written: what comes next is the next request.
    pub(super) fn answered(&mut self) {
        if self.place == Place::Body {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes as hyper gets them, if they come in pieces of this length.
    fn seen(sent: &str, length: usize) -> String {
        let mut bytes = sent.as_bytes().to_vec();
        let mut heads = Heads::default();
        for piece in bytes.chunks_mut(length) {
            heads.look(piece);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn second_framing_is_spoiled_however_it_arrives() {
        for (first, second) in [
            ("Content-Length: 3", "Transfer-Encoding: chunked"),
            ("transfer-encoding: chunked", "CONTENT-LENGTH: 3"),
            ("Content-Length: 3", "content-length: 3"),
            ("Transfer-Encoding: chunked", "transfer-encoding: chunked"),
        ] {
            let sent = format!("POST / HTTP/1.1\r\n{first}\r\nA: b\r\n{second}\r\n\r\n{{:}}");
            let expected = sent.replace(second, &second.replace(':', "\0"));
            for length in 1..sent.len() {
                assert_eq!(seen(&sent, length), expected, "in pieces of {length}");
            }
        }
    }

    #[test]
    fn other_heads_and_bodies_are_left_alone() {
        for sent in [
            "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nX: Content-Length: 3\r\nContent-Length: 9\r\n\
             Content-Lengths: 1\r\n\r\nContent-Length: 3\n",
            "POST / HTTP/1.1\nContent-Length: 9\n\nContent-Length: 3\nContent-Length: 3\n",
        ] {
            for length in 1..sent.len() {
                assert_eq!(seen(sent, length), sent, "in pieces of {length}");
            }
        }
    }

    #[test]
    fn each_request_of_a_connection_is_looked_at() {
        let mut heads = Heads::default();
        let mut first = *b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        heads.look(&mut first);
        heads.answered();
        let mut next = *b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}";
        heads.look(&mut next);
        assert!(!first.contains(&SPOILED) && next.contains(&SPOILED));
    }
}
