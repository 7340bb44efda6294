//! What tests of the workspace share: given/when/then for the order's rules.

pub mod spec;
