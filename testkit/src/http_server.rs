//! A minimal HTTP/1.1 server over blocking sockets. Not a library's, because it also sends invalid HTTP,
//! works without a runtime, and is not affected by tests that pause the clock of the runtime.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use service_kit::mutex::lock;

pub(crate) type Handler = Arc<dyn Fn(&Request, &Exchange) -> Reply + Send + Sync>;

/// How a request is answered.
pub(crate) enum Reply {
    /// Sends these bytes and keeps the connection open.
    Respond(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Close(Vec<u8>),
}

pub(crate) struct Request {
    pub(crate) start_line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// Lets a handler wait without delaying the stop of the server.
pub(crate) struct Exchange {
    stop: Arc<Stop>,
}

/// A listening server. Stopped, with all its connections, when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Default)]
struct Open {
    is_stopped: bool,
    n_accepted: usize,
    connections: BTreeMap<usize, TcpStream>,
}

impl Server {
    pub(crate) fn start(listen: &str, handler: Handler) -> Self {
        let listener = TcpListener::bind(listen).expect("the port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let stop = Arc::new(Stop::default());
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || accept_connections(&listener, &stopping, &handler));
        Self { address, stop, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut open = lock(&self.stop.open);
        open.is_stopped = true;
        for connection in open.connections.values() {
            // The connection may be closed already.
            drop(connection.shutdown(Shutdown::Both));
        }
        drop(open);
        self.stop.changed.notify_all();
        // Wakes the listening thread, which then reads the flag.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Exchange {
    /// Waits for this delay. Returns `false` if the server is stopped meanwhile.
    pub(crate) fn wait_for(&self, delay: Duration) -> bool {
        let open = lock(&self.stop.open);
        let waited = self.stop.changed.wait_timeout_while(open, delay, |open| !open.is_stopped);
        waited.is_ok_and(|(open, _)| !open.is_stopped)
    }

    /// Waits until the server is stopped.
    pub(crate) fn wait_for_stop(&self) {
        let open = lock(&self.stop.open);
        drop(self.stop.changed.wait_while(open, |open| !open.is_stopped));
    }
}

/// Accepts connections until the server stops, then waits until each has ended.
fn accept_connections(listener: &TcpListener, stop: &Arc<Stop>, handler: &Handler) {
    std::thread::scope(|connections| {
        for connection in listener.incoming() {
            // The lock is held until the connection is registered. A stop in between would not
            // close it.
            let mut open = lock(&stop.open);
            if open.is_stopped {
                return;
            }
            let Ok(connection) = connection else { continue };
            let Ok(handle) = connection.try_clone() else { continue };
            let number = open.n_accepted;
            open.n_accepted += 1;
            open.connections.insert(number, handle);
            connections.spawn(move || {
                // Fails if the client closes the connection.
                drop(serve_connection(&connection, stop, handler));
                drop(connection.shutdown(Shutdown::Both));
                lock(&stop.open).connections.remove(&number);
            });
        }
    });
}

fn serve_connection(connection: &TcpStream, stop: &Arc<Stop>, handler: &Handler) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_request(&mut reader)? {
        let exchange = Exchange { stop: Arc::clone(stop) };
        match handler(&request, &exchange) {
            Reply::Respond(bytes) => (&*connection).write_all(&bytes)?,
            Reply::Close(bytes) => return (&*connection).write_all(&bytes),
        }
    }
    Ok(())
}

/// Reads the next request; `None` if the client has closed the connection.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(start_line) = read_line(reader)? else { return Ok(None) };
    let mut headers = BTreeMap::new();
    while let Some(header) = read_line(reader)?.filter(|header| !header.is_empty()) {
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { start_line, headers, body }))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let n_bytes = reader.read_line(&mut line)?;
    Ok((n_bytes > 0).then(|| line.trim_end().to_owned()))
}

pub(crate) fn format_response(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let header = |(name, value): &(&str, &str)| [name, ": ", value, "\r\n"].concat();
    let headers: String = headers.iter().map(header).collect();
    let length = body.len();
    format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}
