//! The methods that the node serves.

#[derive(Debug)]
pub(crate) struct Method {
    /// Full name of the service.
    pub service: &'static str,
    pub name: &'static str,
    pub requests: RequestCount,
    /// Features that `GetSupportedMethods` reports for the method.
    pub features: &'static [&'static str],
}

/// Number of request messages of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestCount {
    One,
    Many,
}

/// The method that a request's path names.
#[derive(Debug)]
pub(crate) enum RequestedMethod {
    Known(&'static Method),
    /// The service exists and has no such method.
    Unknown,
}

const STREAMS: &str = "event_store.client.streams.Streams";
const GROUPS: &str = "event_store.client.persistent_subscriptions.PersistentSubscriptions";
pub(crate) const GOSSIP: &str = "event_store.client.gossip.Gossip";
const OPERATIONS: &str = "event_store.client.operations.Operations";
const SERVER_FEATURES: &str = "event_store.client.server_features.ServerFeatures";

/// Features of the methods of groups: the kinds of sources.
const SOURCES: &[&str] = &["stream", "all"];

pub(crate) const METHODS: [Method; 17] = [
    method(STREAMS, "Read", RequestCount::One, &["position", "events"]),
    method(STREAMS, "Append", RequestCount::Many, &[]),
    method(STREAMS, "BatchAppend", RequestCount::Many, &["deadline_duration"]),
    method(STREAMS, "Delete", RequestCount::One, &[]),
    method(STREAMS, "Tombstone", RequestCount::One, &[]),
    method(GROUPS, "Create", RequestCount::One, SOURCES),
    method(GROUPS, "Update", RequestCount::One, SOURCES),
    method(GROUPS, "Delete", RequestCount::One, SOURCES),
    method(GROUPS, "Read", RequestCount::Many, SOURCES),
    method(GROUPS, "GetInfo", RequestCount::One, SOURCES),
    method(GROUPS, "ReplayParked", RequestCount::One, SOURCES),
    method(GROUPS, "List", RequestCount::One, SOURCES),
    method(GROUPS, "RestartSubsystem", RequestCount::One, SOURCES),
    method(GOSSIP, "Read", RequestCount::One, &[]),
    method(OPERATIONS, "StartScavenge", RequestCount::One, &[]),
    method(OPERATIONS, "StopScavenge", RequestCount::One, &[]),
    method(SERVER_FEATURES, "GetSupportedMethods", RequestCount::One, &[]),
];

const fn method(
    service: &'static str,
    name: &'static str,
    requests: RequestCount,
    features: &'static [&'static str],
) -> Method {
    Method { service, name, requests, features }
}

impl Method {
    pub(crate) fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }

    /// Finds the method with this path. As in EventStoreDB, case does not matter. Returns `None` if
    /// the service does not exist.
    pub(crate) fn find_by_path(path: &str) -> Option<RequestedMethod> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        if name.is_empty() || name.contains('/') {
            return None;
        }
        let mut methods =
            METHODS.iter().filter(|method| method.service.eq_ignore_ascii_case(service)).peekable();
        // Unknown services and unknown methods of a known service have different answers.
        methods.peek()?;
        let found = methods.find(|method| method.name.eq_ignore_ascii_case(name));
        Some(found.map_or(RequestedMethod::Unknown, RequestedMethod::Known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_lookup_ignores_case_and_tells_unknown_methods_from_services() {
        let found = |path: &str| match Method::find_by_path(path) {
            Some(RequestedMethod::Known(method)) => method.path(),
            Some(RequestedMethod::Unknown) => "unknown method".to_owned(),
            None => "nothing".to_owned(),
        };
        let read = "/event_store.client.streams.Streams/Read";
        assert_eq!(found(read), read);
        assert_eq!(found(&read.to_lowercase()), read);
        assert_eq!(found("/event_store.client.streams.Streams/Nope"), "unknown method");
        for path in ["/streams.Streams/Read", "/event_store.client.streams.Streams/", "/", "read"] {
            assert_eq!(found(path), "nothing", "{path}");
        }
    }
}
