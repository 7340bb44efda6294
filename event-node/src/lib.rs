//! The embedded event store: EventStoreDB's gRPC protocol over durable storage.
//!
//! It knows nothing of orders. `log` keeps events on disk, `persistent` shares them out to groups
//! of consumers, `rpc` translates between them and the wire, `gate` lets through what may be carried
//! out, `node` runs it all.

mod gate;
mod log;
#[cfg(feature = "measure")]
pub mod measure;
mod node;
mod persistent;
mod rpc;
mod scavenge;
mod transport;
mod wire;

pub use crate::log::{
    BackupSummary, CopiedBytes, CopyError, LostRange, LostRevisions, RestoreSummary,
    SalvageSummary, VerifyError, VerifySummary, backup_store, backup_to_stream,
    restore_from_stream, restore_store, salvage_store, verify_store,
};
pub use crate::node::{AppendFailure, Node, NodeConfig, NodeError};
