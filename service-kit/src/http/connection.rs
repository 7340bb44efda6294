//! A client's connection: connection limit, TLS, read and write time-outs, request framing, error
//! bodies for malformed requests, and a close that does not lose the last response.

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

use super::config::ApiConfig;
use super::edge::SECURITY_HEADERS;
use super::framing::Framing;
use super::keep_alive::{Awaited, ReadLimits, ReadTimeouts, RequestCounter};
use crate::problem::Problem;

/// How long a closed connection is still read. Without it, bytes that the client is still sending
/// would reset the connection before the client has read the last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of bytes read while lingering.
const MAX_LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Accepts connections up to a limit, with TLS if there is a certificate.
#[derive(Clone)]
pub(super) struct Acceptor {
    permits: Arc<Semaphore>,
    tls: Option<RustlsAcceptor>,
    read_limits: ReadLimits,
    write_timeout: Duration,
}

impl Acceptor {
    pub(super) fn new(config: &ApiConfig, tls: Option<RustlsConfig>) -> Self {
        let handshake_timeout = Duration::from_millis(config.header_timeout_ms.get());
        let tls = tls.map(|tls| RustlsAcceptor::new(tls).handshake_timeout(handshake_timeout));
        let max_connections = config.max_connections.get().min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max_connections));
        let write_timeout = Duration::from_millis(config.write_timeout_ms.get());
        Self { permits, tls, read_limits: ReadLimits::from_config(config), write_timeout }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Connection;
    type Service = AddExtension<S, RequestCounter>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Connection, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let tls = self.tls.clone();
        let (read_limits, write_timeout) = (self.read_limits, self.write_timeout);
        Box::pin(async move {
            stream.set_nodelay(true)?;
            let Ok(permit) = permit else {
                if tls.is_none() {
                    // Not awaited: the socket's buffer is empty, so the response fits or is lost.
                    drop(stream.try_write(&raw_response(StatusCode::SERVICE_UNAVAILABLE)));
                    // Closing a socket with unread bytes resets it, and the response would be lost.
                    drop(stream.try_read(&mut [0; 4096]));
                }
                tracing::debug!("Connection refused: connection limit reached");
                return Err(io::Error::other("too many connections"));
            };
            let io: Box<dyn Io> = match tls {
                None => Box::new(stream),
                Some(tls) => Box::new(tls.accept(stream, ()).await?.0),
            };
            let requests = RequestCounter::default();
            let connection = Connection {
                io,
                framing: Framing::default(),
                read_timeouts: ReadTimeouts::new(read_limits, requests.clone()),
                own_response: None,
                write_timeout,
                write_timer: None,
                linger: None,
                _permit: permit,
            };
            Ok((connection, Extension(requests).layer(service)))
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(super) struct Connection {
    io: Box<dyn Io>,
    framing: Framing,
    read_timeouts: ReadTimeouts,
    /// The response that replaces hyper's, and the number of its bytes that are written.
    own_response: Option<(Vec<u8>, usize)>,
    write_timeout: Duration,
    /// Runs while the client does not read.
    write_timer: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
    _permit: OwnedSemaphorePermit,
}

struct Linger {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Connection {
    /// Writes the bytes, or our own response if the bytes are a response that hyper made.
    fn poll_write_or_replace(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.own_response.is_none() {
            // `is_write_vectored` is false, so hyper passes a whole head in one call.
            let Some(status) = parse_hyper_error(bytes) else {
                return Pin::new(&mut self.io).poll_write(cx, bytes);
            };
            self.own_response = Some((raw_response(status), 0));
        }
        // Reports `bytes` as written only when the whole replacement is: until then hyper repeats
        // the call with the same bytes.
        while let Some((response, written)) = &mut self.own_response {
            let rest = response.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                self.own_response = None;
                break;
            }
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n_written => *written += n_written,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Completes when the read time-out has passed: with the end of the stream between two requests,
    /// with an error within a head.
    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.read_timeouts.poll_expired(cx)) {
            Awaited::Request => Poll::Ready(Ok(())),
            Awaited::RestOfHead => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Fails the connection if the client reads nothing for the write time-out. This frees the
    /// handler and the body that wait for the client.
    fn poll_write_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let timeout = self.write_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        tracing::debug!("Connection closed: client does not read");
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
            return self.poll_read_timeout(cx);
        }
        if buffer.filled().len() > n_before {
            self.read_timeouts.note_received();
        }
        self.framing.check_bytes(buffer.filled_mut().get_mut(n_before..).unwrap_or_default());
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_write_or_replace(cx, bytes);
        self.poll_write_timeout(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.poll_write_timeout(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            let shut = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.poll_write_timeout(cx, shut))?;
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            deadline: Box::pin(sleep(LINGER_TIMEOUT)),
            bytes_left: MAX_LINGER_BYTES,
        });
        let mut scratch = [0; 4096];
        while linger.bytes_left > 0 && linger.deadline.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            // An error ends the connection too, so there is nothing to report.
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

/// Returns the status if these bytes are hyper's own response to a malformed request: a head without
/// a body and without the request id of each response of ours.
fn parse_hyper_error(bytes: &[u8]) -> Option<StatusCode> {
    let head = bytes.strip_prefix(b"HTTP/1.1 ").filter(|head| head.first() == Some(&b'4'))?;
    let head = std::str::from_utf8(head.strip_suffix(b"\r\n\r\n")?).ok()?;
    let is_bare = head.contains("\r\ncontent-length: 0") && !head.contains("\r\nx-request-id:");
    StatusCode::from_bytes(head.as_bytes().get(..3).filter(|_| is_bare)?).ok()
}

/// Returns the bytes of a whole response that closes its connection.
fn raw_response(status: StatusCode) -> Vec<u8> {
    let problem = Problem::of_status(status);
    let body = problem.plain();
    let mut headers = SECURITY_HEADERS.iter().fold(String::new(), |headers, (name, value)| {
        // Every value is ASCII.
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
    fn only_error_responses_of_hyper_are_replaced() {
        let by_hyper = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
            content-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
        assert_eq!(parse_hyper_error(by_hyper), StatusCode::from_u16(431).ok());
        let ours: [&[u8]; 5] = [
            b"HTTP/1.1 404 Not Found\r\nx-request-id: 7\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 4",
            b"",
        ];
        for ours in ours {
            assert_eq!(parse_hyper_error(ours), None, "{}", String::from_utf8_lossy(ours));
        }
    }
}
