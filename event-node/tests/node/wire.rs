//! The protocol's messages and clients for them, generated from `proto/`, for tests that send what
//! no official client can.

#![expect(
    warnings,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::pedantic,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/raw_client/protocol.rs"));
