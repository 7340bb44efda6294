//! Test support of the workspace: given/when/then for the order's rules, the `dofs` binary on free
//! ports, a client of its HTTP API, stores, fault proxies, and waiting for conditions.

#![expect(clippy::expect_used, reason = "test support: a failing fixture fails its test")]

pub mod api;
pub mod certificates;
mod clock;
pub mod command;
pub mod contract;
pub mod grpc_proxy;
pub mod histories;
mod http_server;
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
pub mod trace_receiver;
pub mod variation;
pub mod wait;
pub mod warehouse;
