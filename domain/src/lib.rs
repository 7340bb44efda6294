//! The order: its events, its commands, the rules between them, and the codec of what is stored.
//!
//! Everything here is pure. Time and ids come in as arguments, nothing waits, nothing is read or
//! written: the whole of what an order may do can be read, and tested, without a server.

pub mod ids;
pub mod operations;
pub mod order;
