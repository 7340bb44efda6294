//! The framing of requests: where each body ends, so that the head of every request of a connection
//! is checked, also of one that is pipelined.
//!
//! A head that says twice how long its body is can be read in two ways. hyper takes one of them, as
//! RFC 9112 allows, and keeps the connection. A proxy before this process may have taken the other,
//! and then the rest of the body is a request that the proxy never saw (request smuggling). So the
//! bytes are followed by stricter rules than hyper's before hyper has them: a head or a chunk that
//! is not clear is refused, and with it all that comes behind it on the connection.

/// Maximum length of the lines that decide about a body's length, in bytes: far beyond what any
/// client sends. Other lines may be longer.
const MAX_LINE_BYTES: usize = 256;
/// In place of a byte that hyper needs, it makes what was sent something that no parser takes.
const REFUSED: u8 = 0;

/// Follows the requests of one connection as their bytes are read.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// The current line without its line feed, up to [`MAX_LINE_BYTES`] of it.
    line: Vec<u8>,
    /// What the current head has said about its body.
    body: Option<BodyLength>,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A request's first line, or empty lines before it.
    #[default]
    RequestLine,
    Header,
    /// A body, of which so many bytes are still to come; at least one.
    Body(u64),
    ChunkSize,
    /// A chunk, of which so many bytes are still to come; at least one.
    Chunk(u64),
    /// The end of line behind a chunk.
    ChunkEnd,
    Trailer,
    /// Nothing that hyper will read.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyLength {
    Bytes(u64),
    Chunked,
}

impl Framing {
    /// Follows bytes that were read, and spoils those that are not clear: hyper answers them as it
    /// answers whatever is malformed, and ends the connection.
    pub(super) fn check(&mut self, mut read: &mut [u8]) {
        while !read.is_empty() {
            let n_followed = match self.place {
                Place::Body(n_left) => self.follow_data(n_left, read.len()),
                Place::Chunk(n_left) => self.follow_data(n_left, read.len()),
                Place::Refused => return read.fill(REFUSED),
                Place::RequestLine
                | Place::Header
                | Place::ChunkSize
                | Place::ChunkEnd
                | Place::Trailer => self.follow_line(read),
            };
            read = read.get_mut(n_followed..).unwrap_or_default();
        }
    }

    /// Follows data, of which `n_left` bytes are still to come. Returns how many are here.
    fn follow_data(&mut self, n_left: u64, n_read: usize) -> usize {
        let n_here = usize::try_from(n_left).unwrap_or(usize::MAX).min(n_read);
        let n_left = n_left - n_here as u64;
        self.place = match (self.place, n_left) {
            (Place::Chunk(_), 0) => Place::ChunkEnd,
            (Place::Chunk(_), _) => Place::Chunk(n_left),
            (_, 0) => Place::RequestLine,
            (_, _) => Place::Body(n_left),
        };
        n_here
    }

    /// Follows a line, as far as it is here. Returns how many bytes of it are.
    fn follow_line(&mut self, read: &mut [u8]) -> usize {
        let line_feed = read.iter().position(|byte| *byte == b'\n');
        let n_room = MAX_LINE_BYTES.saturating_sub(self.line.len());
        let part = read.iter().take(line_feed.unwrap_or(read.len()).min(n_room));
        self.line.extend(part);
        let Some(line_feed) = line_feed else { return read.len() };
        self.place = self.place_behind_line().unwrap_or(Place::Refused);
        if self.place == Place::Refused {
            read[line_feed] = REFUSED;
        }
        self.line.clear();
        line_feed + 1
    }

    /// Returns what comes behind the current line; `None` if the line is not clear.
    fn place_behind_line(&mut self) -> Option<Place> {
        let line = self.line.as_slice();
        let is_empty = line.is_empty() || line == b"\r";
        let is_whole = line.len() < MAX_LINE_BYTES && line.ends_with(b"\r");
        match self.place {
            Place::RequestLine if is_empty => Some(Place::RequestLine),
            Place::RequestLine => Some(Place::Header),
            Place::Header if is_empty => Some(match self.body.take() {
                None | Some(BodyLength::Bytes(0)) => Place::RequestLine,
                Some(BodyLength::Bytes(n_bytes)) => Place::Body(n_bytes),
                Some(BodyLength::Chunked) => Place::ChunkSize,
            }),
            Place::Header => self.note_header().map(|()| Place::Header),
            Place::ChunkSize if is_whole => Some(match chunk_size(line)? {
                0 => Place::Trailer,
                n_bytes => Place::Chunk(n_bytes),
            }),
            Place::ChunkEnd if line == b"\r" => Some(Place::ChunkSize),
            Place::Trailer if line == b"\r" => Some(Place::RequestLine),
            Place::Trailer if is_whole => Some(Place::Trailer),
            Place::ChunkSize
            | Place::ChunkEnd
            | Place::Trailer
            | Place::Body(_)
            | Place::Chunk(_)
            | Place::Refused => None,
        }
    }

    /// Notes what a header says about the body; `None` if it says it again, or not clearly.
    fn note_header(&mut self) -> Option<()> {
        // A line without a name is not for hyper either.
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else { return Some(()) };
        let (name, value) = self.line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let length = if name.eq_ignore_ascii_case(b"content-length") {
            BodyLength::Bytes(parse_digits(value, 10)?)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // hyper undoes no other coding, and would take the packed body for the plain one.
            value.eq_ignore_ascii_case(b"chunked").then_some(BodyLength::Chunked)?
        } else {
            return Some(());
        };
        let is_whole = self.line.len() < MAX_LINE_BYTES;
        (is_whole && self.body.replace(length).is_none()).then_some(())
    }
}

/// Returns the size that a chunk's first line names, without regard to extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    parse_digits(size.trim_ascii_end(), 16)
}

fn parse_digits(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    // The parser takes a sign, too.
    let are_digits = digits.chars().all(|digit| digit.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| are_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes as hyper gets them, if they come in pieces of this length.
    fn passed_on(sent: &str, length: usize) -> String {
        let mut bytes = sent.as_bytes().to_vec();
        let mut framing = Framing::default();
        for piece in bytes.chunks_mut(length) {
            framing.check(piece);
        }
        String::from_utf8(bytes).unwrap()
    }

    /// Requests that are clear, each with a body that looks like a head.
    const CLEAR: [&str; 6] = [
        "\r\n\nGET /: HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nX: Content-Length: 3\r\nContent-Length:  00035 \r\n\
         Content-Lengths: 1\r\n\r\nContent-Length: 3\nContent-Length: 3",
        "POST / HTTP/1.1\nContent-Length: 9\n\nA: b\r\n\r\nx",
        "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTRANSFER-ENCODING: Chunked\r\n\r\n\
         11;a=b\r\nContent-Length: 3\r\n0A \r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
    ];

    #[test]
    fn clear_requests_are_passed_on_one_behind_the_other() {
        for first in CLEAR {
            for second in CLEAR {
                let sent = format!("{first}{second}");
                for length in 1..sent.len() {
                    assert_eq!(passed_on(&sent, length), sent, "in pieces of {length}");
                }
            }
        }
    }

    #[test]
    fn second_framing_is_refused_in_every_head_however_it_arrives() {
        for (first, second) in [
            ("Content-Length: 3", "Transfer-Encoding: chunked"),
            ("transfer-encoding: chunked", "CONTENT-LENGTH: 3"),
            ("Content-Length: 3", "content-length: 3"),
            ("Transfer-Encoding: chunked", "transfer-encoding: chunked"),
        ] {
            for before in ["", "\r\n\r\n"].iter().chain(&CLEAR) {
                let clear = format!("{before}POST / HTTP/1.1\r\n{first}\r\nA: b\r\n{second}\r");
                let rest = "\n\r\n3\r\nabc\r\n0\r\n\r\n";
                let sent = format!("{clear}{rest}");
                let expected = format!("{clear}{}", "\0".repeat(rest.len()));
                for length in 1..sent.len() {
                    assert_eq!(passed_on(&sent, length), expected, "in pieces of {length}");
                }
            }
        }
    }

    #[test]
    fn framing_that_is_not_clear_is_refused() {
        let padded = format!("Content-Length: {}3", " ".repeat(MAX_LINE_BYTES));
        let extended =
            format!("Transfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(MAX_LINE_BYTES));
        for unclear in [
            "Content-Length: +3",
            "Content-Length: 3, 3",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\n\r\n+3",
            "Transfer-Encoding: chunked\r\n\r\n3 3",
            "Transfer-Encoding: chunked\r\n\r\n ",
            "Transfer-Encoding: chunked\r\n\r\n10000000000000000",
            "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n3\n",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\nC: d",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\n",
            padded.as_str(),
            extended.as_str(),
        ] {
            let sent = format!("POST / HTTP/1.1\r\n{unclear}\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            for length in 1..sent.len() {
                let passed = passed_on(&sent, length);
                assert!(passed.ends_with("\0\0\0\0"), "{unclear} in pieces of {length}: {passed}");
            }
        }
    }
}
