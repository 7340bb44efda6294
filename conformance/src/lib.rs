//! What an event store that speaks EventStoreDB's protocol is held against: the checks that the
//! official Rust clients bring along (`tests`), [`protocol`], a client that sends what no official
//! client can, and [`replay`], which compares a server with the recording of a real EventStoreDB.

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
