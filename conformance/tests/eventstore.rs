//! The checks in the package of the official client under its old name, `eventstore`. No other
//! client may run in this process, because this one panics if the TLS provider is already set.

include!(concat!(env!("OUT_DIR"), "/eventstore_checks.rs"));

/// Connects to a node and appends ten events, because some checks rely on events of others.
#[cfg(test)]
async fn connect_and_append(node: &testkit::node::TestNode) -> eventstore::Client {
    let settings = format!("{}&defaultDeadline=60000", node.url());
    let client = eventstore::Client::new(settings.parse().unwrap()).unwrap();
    let event = |_| eventstore::EventData::binary("happened", vec![].into());
    let options = eventstore::AppendToStreamOptions::default();
    let events: Vec<_> = (0..10).map(event).collect();
    client.append_to_stream("used", &options, events).await.unwrap();
    client
}
