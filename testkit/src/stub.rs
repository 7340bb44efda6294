//! An HTTP server that responds from a list and records its requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::sync::lock;

/// Maximum time to read a request. Reached only if something is broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Stopped when dropped.
pub struct Stub {
    address: SocketAddr,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
    stop: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

/// A received request.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedRequest {
    /// Method and path with its query, e.g. `GET /v1/orders?limit=1`.
    pub line: String,
    /// Headers; their names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; null without a body.
    pub body: Value,
}

impl ReceivedRequest {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

impl Stub {
    /// Starts a server on a free port. It gives each response (a status and a body) once, in this order,
    /// and then repeats the last one.
    ///
    /// # Panics
    /// If there is no response.
    pub fn start(responses: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let responses: Vec<_> = responses.into_iter().collect();
        assert!(!responses.is_empty(), "a stub needs a response");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (received, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (recorded, stopped) = (Arc::clone(&received), Arc::clone(&stop));
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let n_received = lock(&recorded).len();
                let response = responses.get(n_received).or(responses.last());
                // Incomplete requests do not count.
                if let (Some(request), Some((status, body))) = (read_request(&stream), response) {
                    lock(&recorded).push(request);
                    write_response(&stream, *status, body);
                }
            }
        });
        Self { address, received, stop, serving: Some(serving) }
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests received so far.
    pub fn received_requests(&self) -> Vec<ReceivedRequest> {
        lock(&self.received).clone()
    }

    /// Returns method and path of the requests received so far.
    pub fn request_lines(&self) -> Vec<String> {
        lock(&self.received).iter().map(|request| request.line.clone()).collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the server thread, which then reads the flag.
        drop(TcpStream::connect(self.address));
        if let Some(serving) = self.serving.take() {
            drop(serving.join());
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<ReceivedRequest> {
    stream.set_read_timeout(Some(READ_TIMEOUT)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let (line, _version) = first.trim_end().rsplit_once(' ')?;

    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let mut request = ReceivedRequest { line: line.to_owned(), headers, body: Value::Null };
    if let Some(length) = request.header("content-length").and_then(|it| it.parse().ok()) {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        request.body = serde_json::from_slice(&body).unwrap_or_else(|_| text());
    }
    Some(request)
}

fn write_response(mut stream: &TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let response = format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    // The client may have closed the connection.
    drop(stream.write_all(response.as_bytes()));
}
