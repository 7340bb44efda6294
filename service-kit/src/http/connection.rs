//! A client's connection: how many there may be, what hyper says before a request is one, and how
//! a connection ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Extension;
use axum::http::StatusCode;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tower::Layer;

use super::ApiConfig;
use super::around::SECURITY_HEADERS;
use super::framing::Framing;
use super::keep_alive::{Awaited, ReadLimits, ReadTimeouts, Requests};
use crate::problem::Problem;

/// How long a connection that we end is still read, so that what the client was sending does not
/// reset it before our last answer is read.
const LINGER: Duration = Duration::from_secs(2);
/// What is read meanwhile, at most.
const MAX_LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Takes connections, up to a number, and speaks TLS on them if there is a certificate.
#[derive(Clone)]
pub(super) struct Acceptor {
    slots: Arc<Semaphore>,
    tls: Option<RustlsAcceptor>,
    read_limits: ReadLimits,
    write_timeout: Duration,
}

impl Acceptor {
    pub(super) fn new(config: &ApiConfig, tls: Option<RustlsConfig>) -> Self {
        let handshake_timeout = Duration::from_millis(config.header_timeout_ms.get());
        let tls = tls.map(|it| RustlsAcceptor::new(it).handshake_timeout(handshake_timeout));
        let max_connections = config.max_connections.get().min(Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(max_connections));
        let write_timeout = Duration::from_millis(config.write_timeout_ms.get());
        Self { slots, tls, read_limits: ReadLimits::of(config), write_timeout }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Connection;
    type Service = AddExtension<S, Requests>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Connection, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let tls = self.tls.clone();
        let (read_limits, write_timeout) = (self.read_limits, self.write_timeout);
        Box::pin(async move {
            stream.set_nodelay(true)?;
            let Ok(slot) = slot else {
                if tls.is_none() {
                    // If it does not fit at once, the client sees a closed connection.
                    drop(stream.try_write(&raw_answer(StatusCode::SERVICE_UNAVAILABLE)));
                    // What has come already is read: unread, it would take the answer with it.
                    drop(stream.try_read(&mut [0; 4096]));
                }
                tracing::debug!("Connection turned away: as many as are allowed are open");
                return Err(io::Error::other("too many connections"));
            };
            let io: Box<dyn Io> = match tls {
                None => Box::new(stream),
                Some(tls) => Box::new(tls.accept(stream, ()).await?.0),
            };
            let requests = Requests::default();
            let connection = Connection {
                io,
                framing: Framing::default(),
                read_timeouts: ReadTimeouts::new(read_limits, requests.clone()),
                said: None,
                write_timeout,
                stalled: None,
                linger: None,
                _slot: slot,
            };
            Ok((connection, Extension(requests).layer(service)))
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection.
pub(super) struct Connection {
    io: Box<dyn Io>,
    framing: Framing,
    read_timeouts: ReadTimeouts,
    /// What we say in place of hyper, and how much of it is written.
    said: Option<(Vec<u8>, usize)>,
    write_timeout: Duration,
    /// Runs while the client takes nothing of what is written to it.
    stalled: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
    _slot: OwnedSemaphorePermit,
}

struct Linger {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Connection {
    /// Writes, or what we say in place of hyper.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.said.is_none() {
            let Some(status) = status_of_bare_answer(bytes) else {
                return Pin::new(&mut self.io).poll_write(cx, bytes);
            };
            self.said = Some((raw_answer(status), 0));
        }
        while let Some((answer, written)) = &mut self.said {
            let rest = answer.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                self.said = None;
                break;
            }
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n_written => *written += n_written,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Ends a connection whose client has sent nothing for too long: as if the client had closed it
    /// between two requests, and with an error in a head.
    fn read_in_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.read_timeouts.poll_expired(cx)) {
            Awaited::Request => Poll::Ready(Ok(())),
            Awaited::RestOfHead => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Breaks the connection if its client has taken nothing for too long: what it keeps waiting
    /// for it is let go with it.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        tracing::debug!("Connection broken: its client does not read");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n_before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if read.is_pending() {
            return self.read_in_time(cx);
        }
        if buffer.filled().len() > n_before {
            self.read_timeouts.note_received();
        }
        self.framing.check(buffer.filled_mut().get_mut(n_before..).unwrap_or_default());
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            let shut = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.in_time(cx, shut))?;
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            deadline: Box::pin(sleep(LINGER)),
            bytes_left: MAX_LINGER_BYTES,
        });
        let mut scratch = [0; 4096];
        while linger.bytes_left > 0 && linger.deadline.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            // A connection that breaks now has ended, which is what is wanted.
            if ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer)).is_err()
                || buffer.filled().is_empty()
            {
                break;
            }
            linger.bytes_left = linger.bytes_left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

/// The status, if this is what hyper by itself says to something that is not a request: a head
/// without a body, and without the request id that each of our own answers has.
fn status_of_bare_answer(bytes: &[u8]) -> Option<StatusCode> {
    let head = bytes.strip_prefix(b"HTTP/1.1 ").filter(|it| it.first() == Some(&b'4'))?;
    let head = std::str::from_utf8(head.strip_suffix(b"\r\n\r\n")?).ok()?;
    let is_bare = head.contains("\r\ncontent-length: 0") && !head.contains("\r\nx-request-id:");
    StatusCode::from_bytes(head.as_bytes().get(..3).filter(|_| is_bare)?).ok()
}

/// A whole answer to something that is not a request; the connection ends with it.
fn raw_answer(status: StatusCode) -> Vec<u8> {
    let problem = Problem::of_status(status);
    let body = problem.plain();
    let mut headers = SECURITY_HEADERS.iter().fold(String::new(), |headers, (name, value)| {
        // They are all text.
        format!("{headers}{name}: {}\r\n", value.to_str().unwrap_or_default())
    });
    if let Some(seconds) = problem.retry_after_seconds() {
        headers = format!("{headers}retry-after: {seconds}\r\n");
    }
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_by_itself_is_replaced() {
        let hypers = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
            content-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
        assert_eq!(status_of_bare_answer(hypers), StatusCode::from_u16(431).ok());
        let ours: [&[u8]; 5] = [
            b"HTTP/1.1 404 Not Found\r\nx-request-id: 7\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 4",
            b"",
        ];
        for ours in ours {
            assert_eq!(status_of_bare_answer(ours), None, "{}", String::from_utf8_lossy(ours));
        }
    }
}
