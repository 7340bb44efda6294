//! What tests of the workspace share: given/when/then for the order's rules, the real binary on
//! free ports, its HTTP API, and waiting without sleeping.

pub mod api;
pub mod process;
pub mod spec;
pub mod wait;
