//! The client's sockets: sets `TCP_NODELAY`, and shuts down connections that have fallen silent.
//!
//! The client crate opens its sockets without the option, and has no setting for it. It writes a
//! request in three parts. Without the option the kernel holds the second part back until the store
//! acknowledges the first, which takes 40 ms. The client cannot close a connection either. So this
//! module finds the sockets among the process's descriptors (docs/decisions/0014).

use std::fs;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Mutex;
use std::time::Duration;

use eventstore::ClientSettings;
use filedescriptor::FileDescriptor;
use service_kit::mutex::lock;
use tokio::time::Instant;

/// The folder of this process's descriptors, on every Unix.
const DESCRIPTORS: &str = "/dev/fd";
/// A slower call may have waited for a delayed acknowledgement (40 ms): the client may have opened
/// its connection anew, without the option.
const SLOW_CALL: Duration = Duration::from_millis(30);
/// Least time between two scans of the descriptors: a store may be slow for other reasons.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// The sockets of one client.
pub(crate) struct ClientSockets {
    state: Mutex<State>,
}

struct State {
    /// Ports of the store's nodes, as far as the address and the nodes have named them.
    ports: Vec<u32>,
    /// When the descriptors were last scanned.
    last_scan: Option<Instant>,
    /// When the store last sent something.
    last_response: Option<Instant>,
}

impl ClientSockets {
    pub(crate) fn new(settings: &ClientSettings) -> Self {
        let ports = settings.hosts().iter().map(|host| host.port).collect();
        Self { state: Mutex::new(State { ports, last_scan: None, last_response: None }) }
    }

    /// Notes the port of a node that the store has named.
    pub(crate) fn note_node(&self, port: u32) {
        let ports = &mut lock(&self.state).ports;
        if !ports.contains(&port) {
            ports.push(port);
        }
    }

    /// Notes a response to a call that began at `began`. Sets the option on sockets that lack it, if
    /// there may be new ones.
    pub(crate) fn note_response(&self, began: Instant) {
        let mut state = lock(&self.state);
        state.last_response = Some(Instant::now());
        if is_scan_due(state.last_scan.map(|at| at.elapsed()), began.elapsed()) {
            state.last_scan = state.last_response;
            // Not under the lock: every call takes it, and a scan opens files.
            drop(state);
            set_nodelay();
        }
    }

    /// Notes that a subscription has delivered something: the connection works.
    pub(crate) fn note_life(&self) {
        lock(&self.state).last_response = Some(Instant::now());
    }

    /// Notes that a call that began at `began` has timed out. If the store has sent nothing else
    /// meanwhile, shuts its connection down.
    pub(crate) fn note_silence(&self, began: Instant) {
        if lock(&self.state).last_response.is_none_or(|at| at < began) {
            self.shut_down();
        }
    }

    /// Shuts down the connections to the store with all calls on them. The client reconnects by
    /// itself with the next call.
    pub(crate) fn shut_down(&self) {
        let ports = lock(&self.state).ports.clone();
        for connection in tcp_connections() {
            let peer = connection.peer_addr();
            if peer.is_ok_and(|peer| ports.contains(&u32::from(peer.port())))
                && let Err(error) = connection.shutdown(Shutdown::Both)
            {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "Connection was already closed");
            }
        }
    }
}

/// Returns whether to scan the descriptors after a call of this duration.
fn is_scan_due(since_last_scan: Option<Duration>, call_duration: Duration) -> bool {
    since_last_scan.is_none_or(|since| call_duration >= SLOW_CALL && since >= SCAN_INTERVAL)
}

/// Sets `TCP_NODELAY` on every TCP connection of this process that lacks it: all of them carry small
/// messages whose receivers wait.
fn set_nodelay() {
    for connection in tcp_connections() {
        if connection.nodelay().is_ok_and(|is_set| !is_set)
            && let Err(error) = connection.set_nodelay(true)
        {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "TCP_NODELAY cannot be set");
        }
    }
}

/// Returns the TCP connections of this process.
fn tcp_connections() -> impl Iterator<Item = TcpStream> {
    let numbers = list_descriptors().unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "Descriptors cannot be listed: {DESCRIPTORS} is unreadable");
        Vec::new()
    });
    // A descriptor that was closed since the listing is skipped.
    numbers.into_iter().filter_map(|number| open_connection(number).ok()?)
}

fn list_descriptors() -> io::Result<Vec<RawFd>> {
    let numbers = fs::read_dir(DESCRIPTORS)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    Ok(numbers)
}

/// Returns a second handle to the TCP connection with this number; `None` if the number is anything
/// else.
fn open_connection(number: RawFd) -> io::Result<Option<TcpStream>> {
    let is_socket = |file: fs::Metadata| file.file_type().is_socket();
    if !is_socket(fs::metadata(format!("{DESCRIPTORS}/{number}"))?) {
        return Ok(None);
    }
    let copy = FileDescriptor::dup(&number).map_err(io::Error::other)?;
    let file = fs::File::from(copy.as_fd().try_clone_to_owned()?);
    if !is_socket(file.metadata()?) {
        // The number was reused for a file between the check and `dup`. Closing any descriptor of a
        // file releases all locks of the process on it, SQLite's too: so these stay open.
        let _left_open: (RawFd, RawFd) = (copy.into_raw_fd(), file.into_raw_fd());
        return Ok(None);
    }
    let connection = TcpStream::from(OwnedFd::from(file));
    // Listeners and sockets of other families have no such peer.
    Ok(connection.peer_addr().is_ok().then_some(connection))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn nodelay_is_set_on_connections_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        assert!(!client.nodelay().unwrap());
        set_nodelay();
        assert!(client.nodelay().unwrap() && server.nodelay().unwrap());
        assert!(open_connection(file.as_raw_fd()).unwrap().is_none());
        assert!(open_connection(listener.as_raw_fd()).unwrap().is_none());
    }

    #[test]
    fn sockets_are_scanned_first_and_after_slow_calls() {
        assert!(is_scan_due(None, Duration::ZERO), "the first call");
        assert!(!is_scan_due(Some(Duration::ZERO), SLOW_CALL), "a moment ago");
        assert!(!is_scan_due(Some(SCAN_INTERVAL), Duration::from_millis(1)), "a quick call");
        assert!(is_scan_due(Some(SCAN_INTERVAL), SLOW_CALL), "a slow call");
    }
}
