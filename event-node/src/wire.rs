//! The protocol's messages and service traits, generated from `proto/`. The test
//! `committed_code_is_what_the_protocol_definition_generates` of `conformance` says how to make them
//! anew.

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
