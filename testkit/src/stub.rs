//! An HTTP server that answers from a list and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// How long a client may take over its request. Reached only when something is broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Gone when dropped.
pub struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Method and path with its query, e.g. `GET /v1/orders?limit=1`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Null if there was none.
    pub body: Value,
}

impl Seen {
    /// A header's value, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

impl Stub {
    /// Starts one on a free port. It gives each answer (a status and a body) once, in this order,
    /// and the last one again and again.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn start(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let answers: Vec<_> = answers.into_iter().collect();
        assert!(!answers.is_empty(), "a stub has an answer");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let (remembered, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let n_answered = lock(&remembered).len();
                let answer = answers.get(n_answered).or(answers.last());
                // A client that goes away in between has asked nothing.
                if let (Some(request), Some((status, body))) = (read(&stream), answer) {
                    lock(&remembered).push(request);
                    answered(&stream, *status, body);
                }
            }
        });
        Self { address, seen, stop, serving: Some(serving) }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// The lines of the requests that came so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.seen).iter().map(|it| it.line.clone()).collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it, so that it sees the flag.
        drop(TcpStream::connect(self.address));
        if let Some(serving) = self.serving.take() {
            drop(serving.join());
        }
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(stream: &TcpStream) -> Option<Seen> {
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
    let mut seen = Seen { line: line.to_owned(), headers, body: Value::Null };
    if let Some(length) = seen.header("content-length").and_then(|it| it.parse().ok()) {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        seen.body = serde_json::from_slice(&body).unwrap_or_else(|_| text());
    }
    Some(seen)
}

fn answered(mut stream: &TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever asked may have gone.
    drop(stream.write_all(answer.as_bytes()));
}
