//! A TCP proxy on loopback whose connections can fall silent, or lose the answers.

use std::net::SocketAddr;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running proxy. Gone when dropped, and its connections with it.
pub struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    _tasks: JoinSet<()>,
}

/// What has happened to the connections so far: each fault is one of those made before it.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    n_silences: u64,
    n_losses: u64,
    /// What a client says that makes answers be lost from then on.
    trigger: Option<&'static str>,
}

impl Proxy {
    /// Starts one on a free port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let faults = watch::Sender::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, faults.clone()));
        Self { address, faults, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets all connections that there are fall silent: they stay open and pass nothing on. Later
    /// ones work.
    pub fn silence(&self) {
        self.faults.send_modify(|it| it.n_silences += 1);
    }

    /// Lets all connections that there are lose what the target says once a client has said
    /// `trigger`: what the target is told still reaches it. Later ones work.
    pub fn lose_answers_to(&self, trigger: &'static str) {
        self.faults.send_modify(|it| it.trigger = Some(trigger));
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, faults: watch::Sender<Faults>) {
    let mut connections = JoinSet::new();
    while let Ok((inbound, _)) = listener.accept().await {
        let faults = faults.clone();
        connections.spawn(async move {
            if let Ok(outbound) = TcpStream::connect(target).await {
                join(inbound, outbound, faults).await;
            }
        });
    }
}

/// Passes on both ways until either side closes, or for ever nothing.
async fn join(inbound: TcpStream, outbound: TcpStream, faults: watch::Sender<Faults>) {
    let before = *faults.borrow();
    let (mut later, mut losses) = (faults.subscribe(), faults.subscribe());
    let silenced =
        async move { drop(later.wait_for(|it| it.n_silences > before.n_silences).await) };
    let lost = async move { drop(losses.wait_for(|it| it.n_losses > before.n_losses).await) };
    // It may be cut in two, but not where a program sends it in one go over loopback.
    let heard = |said: &[u8]| {
        let is_said = |it: &str| said.windows(it.len()).any(|part| part == it.as_bytes());
        faults.send_if_modified(|it| {
            let is_triggered = it.trigger.take_if(|it| is_said(it)).is_some();
            it.n_losses += u64::from(is_triggered);
            is_triggered
        });
    };
    let (from_client, to_client) = tokio::io::split(inbound);
    let (mut from_target, to_target) = tokio::io::split(outbound);
    // Lives on while silent: its sockets stay open.
    let mut passing = pin!(async {
        let answers = async {
            tokio::select! {
                () = pass(&mut from_target, to_client, |_| {}) => {}
                () = lost => pass(&mut from_target, tokio::io::sink(), |_| {}).await,
            }
        };
        tokio::select! {
            () = pass(from_client, to_target, heard) => {}
            () = answers => {}
        }
    });
    tokio::select! {
        () = &mut passing => {}
        () = silenced => std::future::pending().await,
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    heard: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        heard(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
