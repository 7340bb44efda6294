//! Streams, bytes and connections of an event store. Of orders this knows only the names of their
//! streams.

pub(crate) mod address;
pub(crate) mod append;
pub(crate) mod append_health;
mod append_probe;
pub(crate) mod batch_appender;
pub(crate) mod client;
pub(crate) mod client_sockets;
pub(crate) mod copy;
pub(crate) mod diagnosis;
pub(crate) mod error;
pub(crate) mod file_descriptors;
pub(crate) mod group;
pub(crate) mod inspection;
pub(crate) mod journal;
pub(crate) mod logged_event;
pub(crate) mod metadata;
pub(crate) mod read;
pub(crate) mod scavenge;
pub(crate) mod session;
pub(crate) mod stream_metadata;
pub(crate) mod subscription;
mod task_panic;
