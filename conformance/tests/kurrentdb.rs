//! The checks in the package of the official client `kurrentdb`.

include!(concat!(env!("OUT_DIR"), "/kurrentdb_checks.rs"));

/// Connects to a node and appends ten events, because some checks rely on events of others.
#[cfg(test)]
async fn connect_and_append(node: &testkit::node::TestNode) -> kurrentdb::Client {
    let settings = format!("{}&defaultDeadline=60000", node.url());
    let client = kurrentdb::Client::new(settings.parse().unwrap()).unwrap();
    let event = |_| kurrentdb::EventData::binary("happened", vec![].into());
    let options = kurrentdb::AppendToStreamOptions::default();
    let events: Vec<_> = (0..10).map(event).collect();
    client.append_to_stream("used", &options, events).await.unwrap();
    client
}
