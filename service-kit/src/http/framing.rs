//! Protection against request smuggling: checks the message framing of every request of a
//! connection, pipelined requests included.
//!
//! A head with two body lengths is ambiguous. hyper takes one of the lengths, as RFC 9112 allows, and
//! keeps the connection. A proxy in front may have taken the other length; then the rest of the body
//! is a request that the proxy has never seen. This module parses the bytes by stricter rules before
//! hyper gets them. It invalidates an ambiguous head or chunk and all later bytes of the connection.

/// Maximum length of a line that states a body's length, in bytes: far longer than clients send.
/// Other lines may be longer.
const MAX_LINE_BYTES: usize = 256;
/// Overwrites refused bytes: no HTTP parser accepts a NUL in a head or in a chunk's size.
const REFUSED: u8 = 0;

/// Framing parser of one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// The current line without its line feed, cut to [`MAX_LINE_BYTES`].
    line: Vec<u8>,
    /// Body length that the current head has stated so far.
    body: Option<BodyLength>,
}

/// The part of a message that the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The request line, or empty lines before it.
    #[default]
    RequestLine,
    Header,
    /// A body with this many bytes left, at least one.
    Body(u64),
    ChunkSize,
    /// A chunk with this many bytes left, at least one.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailer,
    /// Every later byte of the connection.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyLength {
    Bytes(u64),
    Chunked,
}

impl Framing {
    /// Parses bytes that were read and overwrites them from the first ambiguity on. hyper then
    /// answers as to any malformed request and closes the connection.
    pub(super) fn check_bytes(&mut self, mut read: &mut [u8]) {
        while !read.is_empty() {
            let n_parsed = match self.place {
                Place::Body(n_left) => self.skip_data(n_left, read.len()),
                Place::Chunk(n_left) => self.skip_data(n_left, read.len()),
                Place::Refused => return read.fill(REFUSED),
                Place::RequestLine
                | Place::Header
                | Place::ChunkSize
                | Place::ChunkEnd
                | Place::Trailer => self.parse_line(read),
            };
            read = read.get_mut(n_parsed..).unwrap_or_default();
        }
    }

    /// Skips data with `n_left` bytes left. Returns the number of skipped bytes.
    fn skip_data(&mut self, n_left: u64, n_read: usize) -> usize {
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

    /// Parses a line as far as it was read. Returns the number of its bytes.
    fn parse_line(&mut self, read: &mut [u8]) -> usize {
        let line_feed = read.iter().position(|byte| *byte == b'\n');
        let n_room = MAX_LINE_BYTES.saturating_sub(self.line.len());
        let part = read.iter().take(line_feed.unwrap_or(read.len()).min(n_room));
        self.line.extend(part);
        let Some(line_feed) = line_feed else { return read.len() };
        self.place = self.place_after_line().unwrap_or(Place::Refused);
        if self.place == Place::Refused {
            // The line feed is enough: hyper acts on a line only once it is complete.
            read[line_feed] = REFUSED;
        }
        self.line.clear();
        line_feed + 1
    }

    /// Returns the place after the current line; `None` if the line is ambiguous.
    fn place_after_line(&mut self) -> Option<Place> {
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
            Place::ChunkSize if is_whole => Some(match parse_chunk_size(line)? {
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

    /// Notes the body length that a header states; `None` if it is ambiguous or the second one.
    fn note_header(&mut self) -> Option<()> {
        // hyper refuses a line without a name.
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else { return Some(()) };
        let (name, value) = self.line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let length = if name.eq_ignore_ascii_case(b"content-length") {
            BodyLength::Bytes(parse_digits(value, 10)?)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // hyper decodes no other coding: it would pass the compressed body on as plain.
            value.eq_ignore_ascii_case(b"chunked").then_some(BodyLength::Chunked)?
        } else {
            return Some(());
        };
        let is_whole = self.line.len() < MAX_LINE_BYTES;
        (is_whole && self.body.replace(length).is_none()).then_some(())
    }
}

/// Returns the size in a chunk's first line. Extensions are ignored.
fn parse_chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    parse_digits(size.trim_ascii_end(), 16)
}

fn parse_digits(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` accepts a sign.
    let are_digits = digits.chars().all(|digit| digit.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| are_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the bytes that hyper gets if they are read in pieces of this length.
    fn check_in_pieces(sent: &str, length: usize) -> String {
        let mut bytes = sent.as_bytes().to_vec();
        let mut framing = Framing::default();
        for piece in bytes.chunks_mut(length) {
            framing.check_bytes(piece);
        }
        String::from_utf8(bytes).unwrap()
    }

    /// Unambiguous requests, each with a body that looks like a head.
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
    fn unambiguous_pipelined_requests_pass_unchanged() {
        for first in CLEAR {
            for second in CLEAR {
                let sent = format!("{first}{second}");
                for length in 1..sent.len() {
                    assert_eq!(check_in_pieces(&sent, length), sent, "in pieces of {length}");
                }
            }
        }
    }

    #[test]
    fn second_body_length_is_refused_in_every_head() {
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
                    assert_eq!(check_in_pieces(&sent, length), expected, "in pieces of {length}");
                }
            }
        }
    }

    #[test]
    fn ambiguous_body_length_is_refused() {
        let padded = format!("Content-Length: {}3", " ".repeat(MAX_LINE_BYTES));
        let extended =
            format!("Transfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(MAX_LINE_BYTES));
        for ambiguous in [
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
            let sent = format!("POST / HTTP/1.1\r\n{ambiguous}\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            for length in 1..sent.len() {
                let passed = check_in_pieces(&sent, length);
                assert!(
                    passed.ends_with("\0\0\0\0"),
                    "{ambiguous} in pieces of {length}: {passed}"
                );
            }
        }
    }
}
