//! A TCP proxy on loopback whose connections can stall or lose responses.

use std::net::SocketAddr;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running proxy. Stopped when dropped, with its connections.
pub struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    _tasks: JoinSet<()>,
}

/// Faults so far. A fault affects the connections that were opened before it.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    n_silences: u64,
    n_losses: u64,
    /// Text in a client's request that starts the loss of responses.
    trigger: Option<&'static str>,
}

impl Proxy {
    /// Starts a proxy on a free port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let faults = watch::Sender::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_connections(listener, target, faults.clone()));
        Self { address, faults, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stalls all open connections: they stay open and forward nothing. New connections work.
    pub fn stall_connections(&self) {
        self.faults.send_modify(|faults| faults.n_silences += 1);
    }

    /// Discards the responses on all open connections once a client has sent `trigger`. Requests still
    /// reach the target. New connections work.
    pub fn lose_answers_to(&self, trigger: &'static str) {
        self.faults.send_modify(|faults| faults.trigger = Some(trigger));
    }
}

async fn accept_connections(
    listener: TcpListener,
    target: SocketAddr,
    faults: watch::Sender<Faults>,
) {
    let mut connections = JoinSet::new();
    while let Ok((inbound, _)) = listener.accept().await {
        let faults = faults.clone();
        connections.spawn(async move {
            if let Ok(outbound) = TcpStream::connect(target).await {
                forward_connection(inbound, outbound, faults).await;
            }
        });
    }
}

/// Forwards bytes in both directions until either side closes; once stalled, forwards nothing forever.
async fn forward_connection(
    inbound: TcpStream,
    outbound: TcpStream,
    faults: watch::Sender<Faults>,
) {
    let before = *faults.borrow();
    let (mut later, mut losses) = (faults.subscribe(), faults.subscribe());
    let is_silenced = move |faults: &Faults| faults.n_silences > before.n_silences;
    let silenced = async move { drop(later.wait_for(is_silenced).await) };
    let is_lost = move |faults: &Faults| faults.n_losses > before.n_losses;
    let lost = async move { drop(losses.wait_for(is_lost).await) };
    // The trigger could be split between two reads, but not if it is sent by one write over loopback.
    let find_trigger = |bytes: &[u8]| {
        let contains = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        faults.send_if_modified(|faults| {
            let is_triggered = faults.trigger.take_if(|trigger| contains(trigger)).is_some();
            faults.n_losses += u64::from(is_triggered);
            is_triggered
        });
    };
    let (from_client, to_client) = tokio::io::split(inbound);
    let (mut from_target, to_target) = tokio::io::split(outbound);
    // Not dropped while stalled, so that its sockets stay open.
    let mut forwarding = pin!(async {
        let responses = async {
            tokio::select! {
                () = forward_bytes(&mut from_target, to_client, |_| {}) => {}
                // Still read: a full buffer would stop the target, and so its work on requests.
                () = lost => forward_bytes(&mut from_target, tokio::io::sink(), |_| {}).await,
            }
        };
        tokio::select! {
            () = forward_bytes(from_client, to_target, find_trigger) => {}
            () = responses => {}
        }
    });
    tokio::select! {
        () = &mut forwarding => {}
        () = silenced => std::future::pending().await,
    }
}

async fn forward_bytes(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    observe: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        observe(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
