//! Order streams on EventStoreDB: the only crate that names the client.
//!
//! [`EventLog`] is a struct, not a trait: the embedded node speaks the same protocol as the real
//! store, so there is one code path and two connection strings (docs/decisions/0001).

mod address;
mod appends;
mod audit;
mod chain;
mod change;
mod client;
mod copy;
mod descriptors;
mod diagnosis;
mod error;
mod group;
mod history;
mod journal;
mod metadata;
mod newest;
mod operations;
mod parked;
mod rights;
mod scan;
mod scavenge;
mod session;
mod sockets;
mod stream;
mod subscribe;
mod supervise;
mod tail;
mod together;

pub use address::EventStoreUrl;
pub use audit::{Audit, AuditSummary, Finding};
pub use chain::{EventHash, Head};
pub use client::{EventLog, EventStoreConfig, Position};
pub use copy::{Copied, CopyError, CopyProgress};
pub use diagnosis::UnreachableCause;
pub use error::LogError;
pub use group::{Delivery, Group, GroupInfo, GroupSettings, GroupStats, Member};
pub use history::HistoryReader;
pub use journal::{Entry, Journal, Last};
pub use metadata::{Cause, Metadata, Producer};
pub use operations::{FulfillmentStatus, Told, WorkerStatus};
pub use parked::Parked;
pub use rights::Right;
pub use scan::Scan;
pub use scavenge::{Scavenge, ScavengeReport};
pub use stream::{Expected, Loaded, LoggedEvent};
pub use subscribe::{Backlog, Feed, Subscription};
pub use tail::{Fed, OrderFeed, ResetReason, Waited};
