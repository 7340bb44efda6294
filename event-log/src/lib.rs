//! Order streams on EventStoreDB: the only crate that names the client.
//!
//! [`store`] knows streams, bytes and connections; [`orders`] knows what the events mean, and
//! builds on `store`, never the other way round. [`EventLog`] is a struct, not a trait: the embedded
//! node speaks the same protocol as the real store, so there is one code path and two connection
//! strings (docs/decisions/0001).

pub mod metrics;
mod orders;
mod store;

pub use orders::access_rights::AccessRight;
pub use orders::audit::{Audit, AuditSummary};
pub use orders::continuous_audit::ContinuousAudit;
pub use orders::event_log::EventLog;
pub use orders::fulfillment_status::{FulfillmentStatus, LatestControl, WorkerStatus};
pub use orders::hash_chain::{ChainCheck, ChainLink, EventHash, StreamHead};
pub use orders::history::HistoryReader;
pub use orders::newest_events::{EventPlace, EventsPortion};
pub use orders::order_audit::Finding;
pub use orders::order_feed::{FeedItem, OrderFeed, ResetReason};
pub use orders::order_stream::{Expected, LoadedOrder};
pub use orders::parked_messages::ParkedMessage;
pub use orders::scan::Scan;
pub use orders::wait_for_order::WaitOutcome;
pub use store::address::EventStoreUrl;
pub use store::client::{EventStoreConfig, Position, StoreClient};
pub use store::copy::{CopyError, CopyProgress, CopySummary};
pub use store::diagnosis::{HostReport, UnreachableCause};
pub use store::error::LogError;
pub use store::group::{
    Delivery, GroupInfo, GroupMember, GroupMembership, GroupSettings, GroupStats, SettingDrift,
};
pub use store::inspection::{ServerVersion, StoreMember};
pub use store::journal::{ExpectedLast, Journal, JournalEntry};
pub use store::logged_event::LoggedEvent;
pub use store::metadata::{Cause, Metadata, Producer};
pub use store::scavenge::{Scavenge, ScavengeReport};
pub use store::subscription::{Backlog, Subscription, SubscriptionItem};
