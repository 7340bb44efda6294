//! ServerFeatures.GetSupportedMethods: exactly what this node serves.

use crate::wire::event_store::client::server_features::{SupportedMethod, SupportedMethods};

/// The server whose protocol this node speaks: clients choose what to use by it.
const SERVER_VERSION: &str = "24.6.0";

const STREAMS: &str = "event_store.client.streams.streams";
const PERSISTENT_SUBSCRIPTIONS: &str =
    "event_store.client.persistent_subscriptions.persistentsubscriptions";
const GOSSIP: &str = "event_store.client.gossip.gossip";
const SERVER_FEATURES: &str = "event_store.client.server_features.serverfeatures";

/// Service, method, features.
const METHODS: [(&str, &str, &[&str]); 15] = [
    (STREAMS, "read", &["position", "events"]),
    (STREAMS, "append", &[]),
    (STREAMS, "batchappend", &["deadline_duration"]),
    (STREAMS, "delete", &[]),
    (STREAMS, "tombstone", &[]),
    (PERSISTENT_SUBSCRIPTIONS, "create", &["stream", "all"]),
    (PERSISTENT_SUBSCRIPTIONS, "update", &["stream", "all"]),
    (PERSISTENT_SUBSCRIPTIONS, "delete", &["stream", "all"]),
    (PERSISTENT_SUBSCRIPTIONS, "read", &["stream", "all"]),
    (PERSISTENT_SUBSCRIPTIONS, "getinfo", &["stream", "all"]),
    (PERSISTENT_SUBSCRIPTIONS, "replayparked", &["stream", "all"]),
    (PERSISTENT_SUBSCRIPTIONS, "list", &["stream", "all"]),
    (PERSISTENT_SUBSCRIPTIONS, "restartsubsystem", &["stream", "all"]),
    (GOSSIP, "read", &[]),
    (SERVER_FEATURES, "getsupportedmethods", &[]),
];

pub(crate) fn supported_methods() -> SupportedMethods {
    let methods = METHODS.iter().map(|(service, method, features)| SupportedMethod {
        method_name: (*method).to_owned(),
        service_name: (*service).to_owned(),
        features: features.iter().map(|feature| (*feature).to_owned()).collect(),
    });
    SupportedMethods {
        methods: methods.collect(),
        event_store_server_version: SERVER_VERSION.to_owned(),
    }
}
