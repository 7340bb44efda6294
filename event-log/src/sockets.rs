//! The sockets of the client: the option `TCP_NODELAY`, and an end for those that fell silent.
//!
//! The client crate opens its sockets without the option, and has no setting for it. It writes a
//! request in three parts, so without the option the kernel holds the second part back until the
//! store acknowledges the first, which takes a store 40 ms. Nor can the client close a connection.
//! Both is done from outside (docs/decisions/0014).

use std::fs;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventstore::ClientSettings;
use filedescriptor::FileDescriptor;
use tokio::time::Instant;

/// The descriptors of this process, on every Unix.
const DESCRIPTORS: &str = "/dev/fd";
/// A call that takes longer may have waited for a delayed acknowledgement, which takes 40 ms: its
/// connection may be one that the client made anew by itself.
const SLOW_CALL: Duration = Duration::from_millis(30);
/// The least time between two looks at the descriptors: a store may be slow for other reasons.
const INTERVAL: Duration = Duration::from_secs(1);

/// The sockets of one client.
pub(crate) struct Sockets {
    state: Mutex<State>,
}

struct State {
    /// Where the nodes of the store listen, as far as the address and the nodes have said.
    ports: Vec<u32>,
    /// When the descriptors were looked at last.
    looked: Option<Instant>,
    /// When something came from the store last.
    answered: Option<Instant>,
}

impl Sockets {
    pub(crate) fn of(settings: &ClientSettings) -> Self {
        let ports = settings.hosts().iter().map(|host| host.port).collect();
        Self { state: Mutex::new(State { ports, looked: None, answered: None }) }
    }

    /// The store has named a node that listens there.
    pub(crate) fn note_node(&self, port: u32) {
        let ports = &mut self.state().ports;
        if !ports.contains(&port) {
            ports.push(port);
        }
    }

    /// The store answered a call that began then. Sets the option on sockets that lack it, if there
    /// may be new ones.
    pub(crate) fn note_answer(&self, began: Instant) {
        let mut state = self.state();
        state.answered = Some(Instant::now());
        if is_due(state.looked.map(|at| at.elapsed()), began.elapsed()) {
            state.looked = state.answered;
            drop(state);
            set_nodelay();
        }
    }

    /// Something came over a subscription: the connection lives.
    pub(crate) fn note_life(&self) {
        self.state().answered = Some(Instant::now());
    }

    /// The store has not answered a call that began then, and the caller's patience is over. If
    /// nothing else came from it meanwhile, its connection counts as dead.
    pub(crate) fn note_silence(&self, began: Instant) {
        if self.state().answered.is_none_or(|at| at < began) {
            self.shut_down();
        }
    }

    /// Shuts the connections to the store down, whatever is open on them: the client connects again
    /// by itself with the next call.
    pub(crate) fn shut_down(&self) {
        let ports = self.state().ports.clone();
        for connection in connections() {
            let peer = connection.peer_addr();
            if peer.is_ok_and(|it| ports.contains(&u32::from(it.port())))
                && let Err(error) = connection.shutdown(Shutdown::Both)
            {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "Connection was closed already");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether to look at the sockets after a call of this duration, that long after the last look.
fn is_due(since_last: Option<Duration>, duration: Duration) -> bool {
    since_last.is_none_or(|since| duration >= SLOW_CALL && since >= INTERVAL)
}

/// Sets `TCP_NODELAY` on every TCP connection of this process that lacks it: all of them carry small
/// messages that somebody waits for.
fn set_nodelay() {
    for connection in connections() {
        if connection.nodelay().is_ok_and(|it| !it)
            && let Err(error) = connection.set_nodelay(true)
        {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "TCP_NODELAY cannot be set");
        }
    }
}

/// The TCP connections of this process.
fn connections() -> impl Iterator<Item = TcpStream> {
    let numbers = descriptors().unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "Sockets cannot be looked at: {DESCRIPTORS} is not there");
        Vec::new()
    });
    // A descriptor that was closed meanwhile is nothing to look at.
    numbers.into_iter().filter_map(|number| connection_of(number).ok()?)
}

fn descriptors() -> io::Result<Vec<RawFd>> {
    let numbers = fs::read_dir(DESCRIPTORS)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    Ok(numbers)
}

/// A second handle to the TCP connection with this number; `None` if the number is anything else.
fn connection_of(number: RawFd) -> io::Result<Option<TcpStream>> {
    let is_socket = |file: fs::Metadata| file.file_type().is_socket();
    if !is_socket(fs::metadata(format!("{DESCRIPTORS}/{number}"))?) {
        return Ok(None);
    }
    let copy = FileDescriptor::dup(&number).map_err(io::Error::other)?;
    let file = fs::File::from(copy.as_fd().try_clone_to_owned()?);
    if !is_socket(file.metadata()?) {
        // The number was given to a file meanwhile. A process loses all its locks on a file when it
        // closes any descriptor of it, SQLite's locks too: these stay open.
        let _left_open: (RawFd, RawFd) = (copy.into_raw_fd(), file.into_raw_fd());
        return Ok(None);
    }
    let connection = TcpStream::from(OwnedFd::from(file));
    // A listener, and a socket of another family, has no such peer.
    Ok(connection.peer_addr().is_ok().then_some(connection))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn every_connection_gets_the_option_and_nothing_else_is_touched() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        assert!(!client.nodelay().unwrap());
        set_nodelay();
        assert!(client.nodelay().unwrap() && server.nodelay().unwrap());
        assert!(connection_of(file.as_raw_fd()).unwrap().is_none());
        assert!(connection_of(listener.as_raw_fd()).unwrap().is_none());
    }

    #[test]
    fn sockets_are_looked_at_first_and_after_slow_calls() {
        assert!(is_due(None, Duration::ZERO), "the first call");
        assert!(!is_due(Some(Duration::ZERO), SLOW_CALL), "a moment ago");
        assert!(!is_due(Some(INTERVAL), Duration::from_millis(1)), "a quick call");
        assert!(is_due(Some(INTERVAL), SLOW_CALL), "a slow call");
    }
}
