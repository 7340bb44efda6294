//! Every method that this node serves.

/// A method of the protocol.
#[derive(Debug)]
pub(crate) struct Method {
    /// Full name of its service.
    pub service: &'static str,
    pub name: &'static str,
    pub requests: Requests,
    /// What clients may use of it, as `ServerFeatures` names it.
    pub features: &'static [&'static str],
}

/// How many messages a caller sends in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requests {
    One,
    Many,
}

/// What a request's path names.
#[derive(Debug)]
pub(crate) enum Called {
    Method(&'static Method),
    /// A method that a served service does not have.
    Unknown,
}

const STREAMS: &str = "event_store.client.streams.Streams";
const GROUPS: &str = "event_store.client.persistent_subscriptions.PersistentSubscriptions";
const GOSSIP: &str = "event_store.client.gossip.Gossip";
const OPERATIONS: &str = "event_store.client.operations.Operations";
const SERVER_FEATURES: &str = "event_store.client.server_features.ServerFeatures";

/// What the methods about groups can be asked about.
const SOURCES: &[&str] = &["stream", "all"];

pub(crate) const METHODS: [Method; 17] = [
    method(STREAMS, "Read", Requests::One, &["position", "events"]),
    method(STREAMS, "Append", Requests::Many, &[]),
    method(STREAMS, "BatchAppend", Requests::Many, &["deadline_duration"]),
    method(STREAMS, "Delete", Requests::One, &[]),
    method(STREAMS, "Tombstone", Requests::One, &[]),
    method(GROUPS, "Create", Requests::One, SOURCES),
    method(GROUPS, "Update", Requests::One, SOURCES),
    method(GROUPS, "Delete", Requests::One, SOURCES),
    method(GROUPS, "Read", Requests::Many, SOURCES),
    method(GROUPS, "GetInfo", Requests::One, SOURCES),
    method(GROUPS, "ReplayParked", Requests::One, SOURCES),
    method(GROUPS, "List", Requests::One, SOURCES),
    method(GROUPS, "RestartSubsystem", Requests::One, SOURCES),
    method(GOSSIP, "Read", Requests::One, &[]),
    method(OPERATIONS, "StartScavenge", Requests::One, &[]),
    method(OPERATIONS, "StopScavenge", Requests::One, &[]),
    method(SERVER_FEATURES, "GetSupportedMethods", Requests::One, &[]),
];

const fn method(
    service: &'static str,
    name: &'static str,
    requests: Requests,
    features: &'static [&'static str],
) -> Method {
    Method { service, name, requests, features }
}

impl Method {
    /// The path at which the method is called.
    pub(crate) fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }

    /// Finds what `path` names, in upper or lower case as with the original; `None` if it names
    /// neither a method nor a service of this node.
    pub(crate) fn called_by(path: &str) -> Option<Called> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        if name.is_empty() || name.contains('/') {
            return None;
        }
        let mut methods =
            METHODS.iter().filter(|method| method.service.eq_ignore_ascii_case(service)).peekable();
        methods.peek()?;
        let found = methods.find(|method| method.name.eq_ignore_ascii_case(name));
        Some(found.map_or(Called::Unknown, Called::Method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_any_case_and_unknown_methods_are_told_from_unknown_services() {
        let found = |path: &str| match Method::called_by(path) {
            Some(Called::Method(method)) => method.path(),
            Some(Called::Unknown) => "unknown method".to_owned(),
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
