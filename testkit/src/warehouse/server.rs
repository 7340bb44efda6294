//! As much of an HTTP/1.1 server as the warehouse needs. By hand, over blocking sockets: what it
//! says may be no HTTP at all, tests with and without a runtime use it, and a test that stops the
//! runtime's clock does not stop it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::lock;

pub(super) type Handler = Arc<dyn Fn(&Request, &Exchange) -> Reply + Send + Sync>;

/// What becomes of a request.
pub(super) enum Reply {
    /// It is answered with these bytes, and the connection waits for the next.
    Answer(Vec<u8>),
    /// The connection is closed after these bytes.
    Close(Vec<u8>),
}

/// A request that was read.
pub(super) struct Request {
    pub(super) start_line: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// What a handler waits with, so that a server that stops need not wait for it.
pub(super) struct Exchange {
    stop: Arc<Stop>,
}

/// A listening server. Stopped, with all its connections, when dropped.
pub(super) struct Server {
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
    pub(super) fn start(listen: &str, handler: Handler) -> Self {
        let listener = TcpListener::bind(listen).expect("the port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let stop = Arc::new(Stop::default());
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || accept(&listener, &stopping, &handler));
        Self { address, stop, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut open = lock(&self.stop.open);
        open.is_stopped = true;
        for connection in open.connections.values() {
            // It may have ended, which is as good.
            drop(connection.shutdown(Shutdown::Both));
        }
        drop(open);
        self.stop.changed.notify_all();
        // Wakes the listener, which then sees that it is to stop.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Exchange {
    /// Waits so long; `false` if the server was stopped meanwhile.
    pub(super) fn sleep(&self, delay: Duration) -> bool {
        let open = lock(&self.stop.open);
        let waited = self.stop.changed.wait_timeout_while(open, delay, |it| !it.is_stopped);
        waited.is_ok_and(|(open, _)| !open.is_stopped)
    }

    /// Waits until the server is stopped.
    pub(super) fn wait_for_the_end(&self) {
        let open = lock(&self.stop.open);
        drop(self.stop.changed.wait_while(open, |it| !it.is_stopped));
    }
}

/// Takes connections until the server stops, then waits until each has ended.
fn accept(listener: &TcpListener, stop: &Arc<Stop>, handler: &Handler) {
    std::thread::scope(|connections| {
        for connection in listener.incoming() {
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
                // A client that goes away ends its connection.
                drop(serve(&connection, stop, handler));
                drop(connection.shutdown(Shutdown::Both));
                lock(&stop.open).connections.remove(&number);
            });
        }
    });
}

fn serve(connection: &TcpStream, stop: &Arc<Stop>, handler: &Handler) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = read(&mut reader)? {
        let exchange = Exchange { stop: Arc::clone(stop) };
        match handler(&request, &exchange) {
            Reply::Answer(bytes) => (&*connection).write_all(&bytes)?,
            Reply::Close(bytes) => return (&*connection).write_all(&bytes),
        }
    }
    Ok(())
}

/// The next request; `None` if there is none any more.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(start_line) = line(reader)? else { return Ok(None) };
    let mut headers = BTreeMap::new();
    while let Some(header) = line(reader)?.filter(|it| !it.is_empty()) {
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { start_line, headers, body }))
}

fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let n_bytes = reader.read_line(&mut line)?;
    Ok((n_bytes > 0).then(|| line.trim_end().to_owned()))
}
