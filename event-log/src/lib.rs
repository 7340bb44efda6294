//! Order streams on EventStoreDB: the only crate that names the client.
//!
//! [`EventLog`] is a struct, not a trait: the embedded node speaks the same protocol as the real
//! store, so there is one code path and two connection strings (docs/decisions/0001).

mod client;
mod copy;
mod error;
mod group;
mod metadata;
mod stream;
mod subscribe;

pub use client::{EventLog, EventStoreConfig, Position};
pub use copy::{Copied, CopyError, CopyProgress};
pub use error::LogError;
pub use group::{Answers, Delivery, Group, GroupSettings, GroupStats};
pub use metadata::{Cause, Metadata, Producer};
pub use stream::{Expected, Loaded, LoggedEvent};
pub use subscribe::{Backlog, Feed, Subscription};
