//! HTTP/2 frames by hand, for what even a bare HTTP/2 client does not send in this order.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::fixture::in_time;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// The error code of a call that its caller gives up.
const CANCEL: u32 = 8;

/// One connection with one call.
pub(crate) struct Frames {
    socket: TcpStream,
}

impl Frames {
    /// Begins a gRPC call.
    pub(crate) async fn open(port: u16, path: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        // Literals that go into no table: a zero, and both texts behind their lengths.
        let headers: Vec<u8> = fields
            .iter()
            .flat_map(|(name, value)| [vec![0], text(name), text(value)].concat())
            .collect();
        let settings = frame(SETTINGS, 0, 0, &[]);
        let headers = frame(HEADERS, END_HEADERS, 1, &headers);
        socket.write_all(&[PREFACE, &settings, &headers].concat()).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn send(&mut self, data: &[u8]) {
        self.socket.write_all(&frame(DATA, 0, 1, data)).await.unwrap();
    }

    /// Ends the request and gives the call up at once: what Node's library makes of a cancelled
    /// call.
    pub(crate) async fn end_and_cancel(&mut self) {
        let end = frame(DATA, END_STREAM, 1, &[]);
        let reset = frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
        self.socket.write_all(&[end, reset].concat()).await.unwrap();
    }

    /// Waits until the node has received what was sent so far.
    pub(crate) async fn received(&mut self) {
        self.socket.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
        while in_time(self.next_kind()).await != (PING, ACK) {}
    }

    /// Kind and flags of the next frame that the node sends.
    async fn next_kind(&mut self) -> (u8, u8) {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).await.unwrap();
        (head[3], head[4])
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}
