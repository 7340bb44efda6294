//! Inspection of an event store for an operator: its hosts, version, and the members of its cluster.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use eventstore::operations::{Client as Operations, VNodeState};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::address::EventStoreUrl;
use super::client::StoreClient;
use super::diagnosis::{HostReport, examine_host};
use super::error::LogError;

/// Maximum time for the list of members. The client has no time-out of its own for it.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(3);

/// Version of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    pub major: usize,
    pub minor: usize,
    pub patch: usize,
}

impl Display for ServerVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A member of the store's cluster, as the store's gossip describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreMember {
    /// Host and port for clients.
    pub address: String,
    /// EventStoreDB's name of the role, e.g. `Leader`, `Follower` or `ReadOnlyReplica`.
    pub role: String,
    pub is_leader: bool,
    pub is_alive: bool,
}

impl EventStoreUrl {
    /// Connects to every host of the address, as the client does. Takes 6 s at most.
    pub async fn examine_hosts(&self) -> Vec<HostReport> {
        let Some(settings) = self.settings() else { return Vec::new() };
        let mut examinations = JoinSet::new();
        for (index, host) in settings.hosts().iter().enumerate() {
            let (host, settings) = (host.clone(), settings.clone());
            examinations.spawn(async move { (index, examine_host(&host, &settings).await) });
        }
        let mut reports = examinations.join_all().await;
        reports.sort_by_key(|(index, _)| *index);
        reports.into_iter().map(|(_, report)| report).collect()
    }
}

impl StoreClient {
    /// Returns the server's version; `0.0.0` if the server is older than 21.6.
    pub async fn server_version(&self) -> Result<ServerVersion, LogError> {
        let version = self.call(async |client| client.server_info().await).await?.version();
        let (major, minor, patch) = (version.major(), version.minor(), version.patch());
        Ok(ServerVersion { major, minor, patch })
    }

    /// Returns the members of the cluster; `None` if the store does not publish them over HTTP, or
    /// does not answer in time.
    pub async fn members(&self) -> Option<Vec<StoreMember>> {
        let operations = Operations::new(self.settings()).ok()?;
        let members = timeout(MEMBERS_TIMEOUT, operations.read_gossip()).await.ok()?.ok()?;
        let describe = |member: eventstore::operations::MemberInfo| StoreMember {
            address: format!("{}:{}", member.http_end_point.host, member.http_end_point.port),
            role: format!("{:?}", member.state),
            is_leader: member.state == VNodeState::Leader,
            is_alive: member.is_alive,
        };
        // A manager is no server: it stores no events.
        let servers = members.into_iter().filter(|member| member.state != VNodeState::Manager);
        Some(servers.map(describe).collect())
    }
}
