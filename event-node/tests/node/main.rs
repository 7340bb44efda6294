//! The node over the wire, with the Rust client; and that client's own tests, run against this node
//! from the client's package.
//!
//! Of the client's tests nothing is copied: `build.rs` finds the files where cargo has unpacked
//! them. The first check that fails ends its suite.

extern crate eventstore as kurrentdb;

#[cfg(test)]
mod append;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod fuzz_values;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod read;
#[cfg(test)]
mod subscribe;
#[cfg(test)]
mod wire;

include!(concat!(env!("OUT_DIR"), "/client_tests.rs"));

use crate::fixture::TestNode;

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_stream_tests_pass() -> eyre::Result<()> {
    let node = TestNode::start().await;
    streams::tests(node.client()).await?;
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_persistent_subscription_tests_pass() -> eyre::Result<()> {
    let node = TestNode::start().await;
    persistent_subscriptions::tests(node.client()).await?;
    node.stop().await;
    Ok(())
}
