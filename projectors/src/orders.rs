//! The projection of the order streams: its rows, and the pure function that makes them.

pub(crate) mod apply;
pub(crate) mod row;
pub(crate) mod statistics;
