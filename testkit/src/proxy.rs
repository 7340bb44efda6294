//! A TCP proxy on loopback whose connections can fall silent.

use std::net::SocketAddr;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running proxy. Gone when dropped, and its connections with it.
pub struct Proxy {
    address: SocketAddr,
    /// Connections made before this many silences pass nothing on.
    n_silences: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one on a free port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let n_silences = watch::Sender::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, n_silences.clone()));
        Self { address, n_silences, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets all connections that there are fall silent: they stay open and pass nothing on. Later
    /// ones work.
    pub fn silence(&self) {
        self.n_silences.send_modify(|it| *it += 1);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, n_silences: watch::Sender<u64>) {
    let mut connections = JoinSet::new();
    while let Ok((inbound, _)) = listener.accept().await {
        let n_silences = n_silences.subscribe();
        connections.spawn(async move {
            if let Ok(outbound) = TcpStream::connect(target).await {
                join(inbound, outbound, n_silences).await;
            }
        });
    }
}

/// Passes on both ways until either side closes, or for ever nothing.
async fn join(inbound: TcpStream, outbound: TcpStream, mut n_silences: watch::Receiver<u64>) {
    let n_before = *n_silences.borrow_and_update();
    let silenced = async move { drop(n_silences.wait_for(|it| *it > n_before).await) };
    let (from_client, to_client) = tokio::io::split(inbound);
    let (from_target, to_target) = tokio::io::split(outbound);
    // Lives on while silent: its sockets stay open.
    let mut passing = pin!(async {
        tokio::select! {
            () = pass(from_client, to_target) => {}
            () = pass(from_target, to_client) => {}
        }
    });
    tokio::select! {
        () = &mut passing => {}
        () = silenced => std::future::pending().await,
    }
}

async fn pass<R: AsyncRead, W: AsyncWrite>(mut from: ReadHalf<R>, mut to: WriteHalf<W>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
