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
    BackedUp, CopiedBytes, CopyError, LostRange, LostRevisions, Restored, Salvaged, Verified,
    VerifyError, backup, backup_to_stream, restore, restore_from_stream, salvage, verify,
};
pub use crate::node::{AppendFailure, Node, NodeConfig, NodeError};
