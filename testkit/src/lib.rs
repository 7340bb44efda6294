//! What tests of the workspace share: given/when/then for the order's rules, the real binary on
//! free ports, its HTTP API, and waiting without sleeping.

#![expect(clippy::expect_used, reason = "test support: a fixture that breaks ends its test")]

pub mod api;
pub mod contract;
pub mod grpc_proxy;
pub mod node;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod spec;
pub mod store;
pub mod stream_tool;
pub mod strict_store;
pub mod stub;
pub mod system;
pub mod wait;
pub mod warehouse;
