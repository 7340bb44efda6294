//! The protocol's messages and service traits, generated from `proto/`. After a change of `proto/`,
//! the test `committed_code_matches_protocol_definition` of `conformance` prints the command that
//! updates them.

#![expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::enum_variant_names,
    clippy::large_enum_variant,
    clippy::pedantic,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

include!("wire/generated/protocol.rs");
