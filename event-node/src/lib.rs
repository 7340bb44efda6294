//! The embedded event store: EventStoreDB's gRPC protocol over durable storage.
//!
//! The crate knows nothing of orders. `log` stores events on disk. `persistent` delivers them to
//! groups of consumers. `access` knows users and their rights. `rpc` translates between these and the
//! protocol. `request_validation` rejects invalid requests. `node` runs everything.

mod access;
mod log;
#[cfg(feature = "measure")]
pub mod measure;
mod metrics;
mod metrics_sampler;
mod node;
mod node_config;
mod persistent;
mod request_validation;
mod rpc;
mod scavenge;
mod transport;
mod wire;

pub use crate::access::{UserSummary, UsersFile, UsersFileError};
pub use crate::log::{
    BackupSummary, CopiedBytes, CopyError, LostRange, LostRevisions, RestoreSummary,
    SalvageSummary, VerifyError, VerifySummary, backup_store, backup_to_stream,
    restore_from_stream, restore_store, salvage_store, verify_store,
};
pub use crate::metrics_sampler::MetricsSampler;
pub use crate::node::{AppendFailure, Node, NodeError};
pub use crate::node_config::{NodeConfig, NodeConfigError};
pub use crate::rpc::server_features::SERVER_VERSION;
