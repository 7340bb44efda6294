//! Checks of any event store that serves EventStoreDB's protocol.
//!
//! `tests` runs the checks in the packages of the official Rust clients. [`protocol`] is a client
//! for messages that no official client sends. [`replay`] compares a server with the recording of a
//! real EventStoreDB.

pub mod replay;

/// Messages of the protocol and clients of its services, generated from `event-node/proto`.
#[expect(
    missing_docs,
    warnings,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod protocol {
    include!(concat!(env!("OUT_DIR"), "/client/protocol.rs"));
}
