//! The node over the wire, with the Rust client; and that client's own tests, run against this node
//! from the client's package.
//!
//! Of the client's tests nothing is copied: `build.rs` finds the files where cargo has unpacked
//! them, and makes a test of each check.

#[cfg(test)]
mod append;
#[cfg(test)]
mod batch;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod fuzz_values;
#[cfg(test)]
mod group_answers;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod many;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod read;
#[cfg(test)]
mod subscribe;
#[cfg(test)]
mod wire;

include!(concat!(env!("OUT_DIR"), "/kurrentdb_tests.rs"));

/// What the client's own tests run with: some of them count on events of others.
#[cfg(test)]
async fn used_node() -> (fixture::TestNode, eventstore::Client) {
    let node = fixture::TestNode::start().await;
    let client = node.client();
    fixture::append(&client, "used", eventstore::StreamState::Any, fixture::events(10)).await;
    (node, client)
}
