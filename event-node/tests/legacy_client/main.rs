//! The tests of the Rust client that is published under the name `eventstore`, run against this
//! node from the client's package, as `tests/node` does with the client that goes on under another
//! name.

#[cfg(test)]
#[expect(dead_code, reason = "these tests need little of what they share with `tests/node`")]
#[path = "../node/fixture.rs"]
mod fixture;

include!(concat!(env!("OUT_DIR"), "/eventstore_tests.rs"));

/// What the client's own tests run with: some of them count on events of others. Those are
/// appended with this client too, which panics when another one came to TLS before it.
#[cfg(test)]
async fn used_node() -> (fixture::TestNode, eventstore_4::Client) {
    let node = fixture::TestNode::start().await;
    let port = node.port();
    let settings = format!("esdb://127.0.0.1:{port}?tls=false&defaultDeadline=60000");
    let client = eventstore_4::Client::new(settings.parse().unwrap()).unwrap();
    let event = || eventstore_4::EventData::binary("happened", vec![].into());
    let events: Vec<_> = (0..10).map(|_| event()).collect();
    client
        .append_to_stream("used", &eventstore_4::AppendToStreamOptions::default(), events)
        .await
        .unwrap();
    (node, client)
}
