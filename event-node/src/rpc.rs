//! The gRPC surface: one file per rpc, which translates and nothing more.

pub(crate) mod append;
pub(crate) mod batch_append;
pub(crate) mod convert;
pub(crate) mod delete;
pub(crate) mod gossip;
pub(crate) mod methods;
pub(crate) mod persistent;
pub(crate) mod read;
pub(crate) mod responses;
pub(crate) mod scavenge;
pub(crate) mod server_features;
pub(crate) mod services;
pub(crate) mod skipped;
pub(crate) mod status;
pub(crate) mod subscribe;
pub(crate) mod tombstone;

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{
    log::{Event, Log, LogError, ResolvedEvent, WriteOutcome, WriteRequest},
    persistent::Hub,
    rpc::{gossip::Advertised, read::Format},
    scavenge::Scavenger,
};

/// How long a write may wait for its commit before the caller is told that the outcome is open.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What every rpc works with.
pub(crate) struct Context {
    pub log: Log,
    pub groups: Hub,
    pub scavenges: Scavenger,
    /// Cancelled when the node stops: response streams end with UNAVAILABLE.
    pub stop: CancellationToken,
    /// Everything that is spawned for a call.
    pub tasks: TaskTracker,
    pub advertised: Advertised,
    /// The user that connections without credentials count as.
    pub user_name: String,
}

impl Context {
    /// Writes within [`WRITE_TIMEOUT`].
    async fn write(&self, write: WriteRequest) -> Result<WriteOutcome, Status> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.log.write(write)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Status::aborted("Operation timed out: the write was not confirmed.")),
        }
    }

    async fn resolve(
        &self,
        events: Vec<Arc<Event>>,
        format: Format,
    ) -> Result<Vec<ResolvedEvent>, LogError> {
        if format.resolve_links {
            return self.log.resolve_links(events).await;
        }
        Ok(events.into_iter().map(ResolvedEvent::without_link).collect())
    }
}
