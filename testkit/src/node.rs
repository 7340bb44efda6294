//! An embedded event store without a client.

use std::net::SocketAddr;
use std::path::Path;

use event_node::{Node, NodeConfig};
use tokio_util::sync::CancellationToken;

use crate::clock::clock;

/// A running node. Its data remains when it stops.
pub struct TestNode {
    node: Node,
    stop: CancellationToken,
}

impl TestNode {
    /// Starts a node with its data in `data`. Port 0 in `listen` selects a free port.
    pub async fn start(data: &Path, listen: &str) -> Self {
        let stop = CancellationToken::new();
        let config = NodeConfig {
            user_name: "admin".to_owned(),
            ..NodeConfig::new(listen.parse().expect("an address to listen on"), data)
        };
        let node = Node::start(config, clock(), stop.clone()).await;
        Self { node: node.expect("the node starts"), stop }
    }

    /// Returns the address that the node listens on.
    pub fn address(&self) -> SocketAddr {
        self.node.address()
    }

    pub fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.address())
    }

    /// Stops the node and waits until its store is closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.node.wait_until_ended().await.expect("the node stops without an error");
    }
}
