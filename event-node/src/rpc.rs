//! The rpcs of the protocol. Each file translates between one rpc and `log` or `persistent`.

pub(crate) mod append;
pub(crate) mod authorization;
pub(crate) mod batch_append;
pub(crate) mod convert;
pub(crate) mod delete;
pub(crate) mod gossip;
pub(crate) mod methods;
pub(crate) mod persistent;
pub(crate) mod read;
pub(crate) mod response_stream;
pub(crate) mod scavenge;
pub(crate) mod server_features;
pub(crate) mod services;
pub(crate) mod skipped_revisions;
pub(crate) mod status;
pub(crate) mod subscribe;

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{
    access::AclCache,
    log::{Log, WriteOutcome, WriteRequest},
    persistent::GroupRegistry,
    rpc::gossip::AdvertisedAddress,
    scavenge::Scavenger,
};

/// Maximum time for a write. After it the caller gets ABORTED, and the outcome is unknown.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Dependencies of all rpcs.
pub(crate) struct Context {
    pub log: Log,
    pub groups: GroupRegistry,
    pub scavenges: Scavenger,
    /// Cancelled when the node stops. Response streams then end with UNAVAILABLE.
    pub stop: CancellationToken,
    /// Tasks that calls have spawned.
    pub tasks: TaskTracker,
    pub advertised: AdvertisedAddress,
    /// Name of the user of all connections, if the node has no users.
    pub user_name: String,
    pub has_users: bool,
    pub acls: AclCache,
}

impl Context {
    /// Writes to the log. Fails with ABORTED after [`WRITE_TIMEOUT`].
    async fn write_within_limit(&self, write: WriteRequest) -> Result<WriteOutcome, Status> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.log.write(write)).await {
            Ok(written) => Ok(written?),
            // The writer may still commit the write. ABORTED tells the client that the outcome is
            // unknown.
            Err(_) => Err(Status::aborted("Operation timed out: the write was not confirmed.")),
        }
    }
}
