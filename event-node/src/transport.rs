//! Accepted connections, with or without TLS. TCP has neither Nagle's algorithm nor delayed
//! acknowledgements.
//!
//! The Rust client leaves Nagle's algorithm on and sends an append in several small writes. Each
//! write waits for the TCP acknowledgement of the one before, which Linux delays by 40 ms.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Maximum time for the TLS handshake of a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of handshakes at the same time. More connections wait in the listener's backlog.
const MAX_HANDSHAKES: usize = 256;

/// Time before the next attempt to accept a connection after a failed one: the process may have no
/// free file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 22;

/// Response to a client without TLS. An HTTP/2 client reports an invalid frame.
const TLS_REQUIRED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    connection: close\r\n\r\nThis port accepts connections with TLS only.\n";

/// The TLS configuration of new connections. It changes when the certificate is replaced.
pub(crate) type TlsConfig = watch::Receiver<Arc<ServerConfig>>;

/// Accepted connections.
pub(crate) type Connections = Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>;

/// Returns the connections that the listener accepts, without TLS.
pub(crate) fn accept_connections(listener: TcpListener) -> Connections {
    Box::pin(TcpListenerStream::new(listener).map(|accepted| {
        let stream = accepted?;
        stream.set_nodelay(true)?;
        Ok(Connection::Plain(TcpConnection(stream)))
    }))
}

/// Returns the connections whose TLS handshakes succeed, and the task that accepts them. The task
/// ends when the connections are dropped.
pub(crate) fn accept_tls_connections(
    listener: TcpListener,
    config: TlsConfig,
) -> (Connections, impl Future<Output = ()> + Send) {
    let (sender, accepted) = mpsc::channel(1);
    let accepting = async move {
        tokio::select! {
            () = accept_with_handshakes(listener, config, &sender) => {}
            () = sender.closed() => {}
        }
    };
    (Box::pin(ReceiverStream::new(accepted)), accepting)
}

/// Handshakes run concurrently. Otherwise a client that sends nothing would hold up all others.
async fn accept_with_handshakes(
    listener: TcpListener,
    config: TlsConfig,
    accepted: &mpsc::Sender<io::Result<Connection>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            connected = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match connected {
                Ok((stream, _)) => {
                    let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
                    handshakes.spawn(timeout(HANDSHAKE_TIMEOUT, perform_handshake(stream, acceptor)));
                }
                Err(error) => {
                    tracing::warn!(%error, "Connection cannot be accepted");
                    sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            },
            Some(ended) = handshakes.join_next() => match ended {
                Ok(Ok(Ok(connection))) => {
                    if accepted.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Ok(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
                Ok(Err(_)) => tracing::debug!("TLS handshake timed out"),
                Err(error) => tracing::error!(%error, "TLS handshake panicked"),
            },
        }
    }
}

async fn perform_handshake(mut stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
        stream.write_all(TLS_REQUIRED).await?;
        stream.shutdown().await?;
        return Err(io::Error::other("the client does not use TLS"));
    }
    let stream = acceptor.accept(TcpConnection(stream)).await?;
    Ok(Connection::Tls(Box::new(stream)))
}

/// One accepted connection.
pub(crate) enum Connection {
    Plain(TcpConnection),
    Tls(Box<TlsStream<TcpConnection>>),
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Self::Plain(stream) => stream.0.connect_info(),
            Self::Tls(stream) => stream.get_ref().0.0.connect_info(),
        }
    }
}

/// Calls a method of the connection's stream.
macro_rules! with_stream {
    ($connection:expr, $stream:ident => $call:expr) => {
        match &mut *$connection {
            Connection::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Connection::Tls(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self, stream => stream.poll_write(context, buffer))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, stream => stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The default method would write the first buffer only, and so frame headers apart from
        // their data.
        with_stream!(self, stream => stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// One TCP connection.
pub(crate) struct TcpConnection(TcpStream);

impl TcpConnection {
    /// Makes the kernel acknowledge received data at once. The kernel resets this option after a
    /// while, so every read sets it again. If setting it fails, the connection is only slower.
    fn disable_delayed_ack(&self) {
        #[cfg(target_os = "linux")]
        drop(self.0.set_quickack(true));
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        if read.is_ready() {
            self.disable_delayed_ack();
        }
        read
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
