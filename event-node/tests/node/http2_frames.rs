//! HTTP/2 frames written by hand, in an order that no HTTP/2 library sends.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::fixture::within_deadline;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// HTTP/2 error code of a cancelled call.
const CANCEL: u32 = 8;

/// A connection with one call.
pub(crate) struct FrameConnection {
    socket: TcpStream,
}

impl FrameConnection {
    /// Connects and begins a gRPC call.
    pub(crate) async fn open_call(port: u16, path: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        // HPACK literals without indexing: a zero, and both texts after their lengths.
        let headers: Vec<u8> = fields
            .iter()
            .flat_map(|(name, value)| {
                [vec![0], length_prefixed(name), length_prefixed(value)].concat()
            })
            .collect();
        let settings = encode_frame(SETTINGS, 0, 0, &[]);
        let headers = encode_frame(HEADERS, END_HEADERS, 1, &headers);
        socket.write_all(&[PREFACE, &settings, &headers].concat()).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn send_data(&mut self, data: &[u8]) {
        self.socket.write_all(&encode_frame(DATA, 0, 1, data)).await.unwrap();
    }

    /// Ends the request and resets the call at once, as Node's library does for a cancelled call.
    pub(crate) async fn end_and_cancel(&mut self) {
        let end = encode_frame(DATA, END_STREAM, 1, &[]);
        let reset = encode_frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
        self.socket.write_all(&[end, reset].concat()).await.unwrap();
    }

    /// Waits until the node has received everything that was sent.
    pub(crate) async fn wait_until_received(&mut self) {
        self.socket.write_all(&encode_frame(PING, 0, 0, &[7; 8])).await.unwrap();
        while within_deadline(self.read_frame_kind()).await != (PING, ACK) {}
    }

    /// Reads the next frame. Returns its kind and flags.
    async fn read_frame_kind(&mut self) -> (u8, u8) {
        let mut header = [0; 9];
        self.socket.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).await.unwrap();
        (header[3], header[4])
    }
}

fn encode_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn length_prefixed(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}
