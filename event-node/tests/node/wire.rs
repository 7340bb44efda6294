//! The protocol's messages and clients for them, for tests that send what no official client can.

pub(crate) use conformance::protocol::event_store;
