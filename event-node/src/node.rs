//! The running node: one port, one store, everything that was started waited for.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use service_kit::address::HostPort;
use service_kit::clock::Clock;
use service_kit::http::AllowedHosts;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::{codec::CompressionEncoding, service::Routes, transport::Server};

use crate::{
    gate::{Gate, HEALTH_PATHS, MAX_REQUEST_BYTES},
    log::{Log, LogError, OpenError},
    persistent::{Hub, HubError},
    rpc::{
        Context,
        gossip::{Advertised, WithAuthority},
        services::Services,
    },
    scavenge::Scavenger,
    transport,
    wire::event_store::client::{
        gossip::gossip_server::GossipServer, operations::operations_server::OperationsServer,
        persistent_subscriptions::persistent_subscriptions_server::PersistentSubscriptionsServer,
        server_features::server_features_server::ServerFeaturesServer,
        streams::streams_server::StreamsServer,
    },
};

/// How often a quiet connection is asked whether it lives, and how long it has to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Calls that one connection may have open.
const MAX_CALLS_PER_CONNECTION: u32 = 10_000;

/// Bytes that a client may send on one call, and on one connection, before it is told to go on.
const CALL_WINDOW_BYTES: u32 = 1_024 * 1_024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1_024 * 1_024;

/// How long connections have to end after `stop`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of the embedded event store (`[node]` in the configuration).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Address and port to listen on, as in `127.0.0.1:2113`; port 0 takes a free one.
    pub listen: HostPort,
    /// Folder of the store; created if it is missing.
    pub data: PathBuf,
    /// Whether an empty store may be begun in a folder that holds files of a store and no
    /// `events.log`. Those files are removed.
    #[serde(default)]
    pub allow_empty: bool,
    /// MiB of the log that a scavenge reads in a second, at most, so that it leaves the disk to orders.
    #[serde(default = "default_scavenge_mib_per_second")]
    pub scavenge_mib_per_second: u32,
    /// `host:port` at which clients reach this node, for those that ask the cluster for it.
    /// Without it, they are told the address by which they asked.
    #[serde(default)]
    pub advertise: Option<HostPort>,
    /// The user that connections count as: the node knows no passwords. The default is what an
    /// EventStoreDB without security counts them as.
    #[serde(default = "default_user_name")]
    pub user_name: String,
}

impl NodeConfig {
    /// The defaults, for a store in `data`.
    pub fn new(listen: HostPort, data: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data: data.into(),
            allow_empty: false,
            scavenge_mib_per_second: default_scavenge_mib_per_second(),
            advertise: None,
            user_name: default_user_name(),
        }
    }
}

fn default_scavenge_mib_per_second() -> u32 {
    32
}

fn default_user_name() -> String {
    "system".to_owned()
}

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("the event store cannot be opened")]
    Open(#[from] OpenError),
    #[error("the event store cannot listen on {listen}: free the address or choose another one")]
    Listen {
        listen: HostPort,
        #[source]
        source: io::Error,
    },
    #[error("the stored persistent subscriptions cannot be started")]
    Groups(#[source] HubError),
    #[error("the scavenge that the last run did not finish cannot be read")]
    Scavenge(#[source] LogError),
    #[error("the event store cannot serve its port any longer")]
    Serve(#[source] tonic::transport::Error),
    #[error("the event store's writer ended by itself: see the log for its reason")]
    Writer,
    #[error("the event store's server panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// A running event store. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    failure: AppendFailure,
    serving: JoinSet<Result<(), NodeError>>,
    _stop: DropGuard,
}

/// Whether a node's store still takes appends. Outlives the node.
#[derive(Debug, Clone)]
pub struct AppendFailure(watch::Receiver<Option<LogError>>);

impl AppendFailure {
    /// Why nothing can be appended until the disk recovers or the node is started again; `None` while
    /// appends are taken.
    pub fn cause(&self) -> Option<String> {
        self.0.borrow().as_ref().map(ToString::to_string)
    }
}

impl Node {
    /// Opens the store, binds the port and serves until `stop`.
    pub async fn start(
        config: NodeConfig,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Self, NodeError> {
        let unusable = |source| NodeError::Listen { listen: config.listen.clone(), source };
        let listener = TcpListener::bind((config.listen.host(), config.listen.port()))
            .await
            .map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let configured = config.advertise.map(|it| (it.host().to_owned(), it.port()));
        let advertised = Advertised {
            instance: clock.new_id(),
            configured,
            listened: (address.ip().to_string(), address.port()),
        };

        let log = open(config.data, clock, config.allow_empty).await?;
        let stop = stop.child_token();
        let tasks = TaskTracker::new();
        let groups =
            match Hub::start(log.clone(), tasks.clone(), stop.clone(), config.user_name.clone())
                .await
            {
                Ok(groups) => groups,
                Err(error) => {
                    stop.cancel();
                    log.close().await;
                    return Err(NodeError::Groups(error));
                }
            };
        let scavenged_bytes = u64::from(config.scavenge_mib_per_second) * 1_024 * 1_024;
        let scavenges =
            Scavenger::new_and_resume(log.clone(), tasks.clone(), stop.clone(), scavenged_bytes)
                .await;
        let scavenges = match scavenges {
            Ok(scavenges) => scavenges,
            Err(error) => {
                stop.cancel();
                tasks.close();
                tasks.wait().await;
                log.close().await;
                return Err(NodeError::Scavenge(error));
            }
        };
        let context = Arc::new(Context {
            log,
            groups,
            scavenges,
            stop: stop.clone(),
            tasks,
            advertised,
            user_name: config.user_name,
        });
        let advertised = context.advertised.configured.iter().map(|(host, _)| host.clone());
        let gate = Gate::new(AllowedHosts::for_address(address.ip(), advertised.collect()));
        let failure = AppendFailure(context.log.watch_failure());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, gate, context));
        tracing::debug!(%address, "event store ready");
        Ok(Self { address, failure, serving, _stop: stop.drop_guard() })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the store still takes appends.
    pub fn append_failure(&self) -> AppendFailure {
        self.failure.clone()
    }

    /// Resolves when everything is stopped and the store is closed (after `stop`), or when it
    /// failed.
    pub async fn finished(mut self) -> Result<(), NodeError> {
        match self.serving.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(NodeError::Panicked(panic)),
            None => Ok(()),
        }
    }
}

async fn open(data: PathBuf, clock: Clock, allow_empty: bool) -> Result<Log, NodeError> {
    let opened = tokio::task::spawn_blocking(move || Log::open(&data, clock, allow_empty)).await;
    Ok(opened.map_err(NodeError::Panicked)??)
}

/// Serves until the stop, then closes the store.
async fn serve(listener: TcpListener, gate: Gate, context: Arc<Context>) -> Result<(), NodeError> {
    let stop = context.stop.clone();
    let result = {
        let serving = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .layer(gate)
            .add_routes(routes(&context))
            .serve_with_incoming_shutdown(
                transport::incoming(listener),
                stop.clone().cancelled_owned(),
            );
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(NodeError::Serve),
            () = drained => Ok(()),
            () = context.log.wait_closed() => Err(NodeError::Writer),
        }
    };
    stop.cancel();
    context.tasks.close();
    context.tasks.wait().await;
    context.log.close().await;
    tracing::info!("event store closed");
    result
}

fn routes(context: &Arc<Context>) -> Routes {
    /// What every service takes: messages of this size, compressed or not.
    macro_rules! served {
        ($service:expr) => {
            $service
                .max_decoding_message_size(MAX_REQUEST_BYTES)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
        };
    }
    let services = Services(Arc::clone(context));
    let failure = AppendFailure(context.log.watch_failure());
    let live = move || std::future::ready(liveness(&failure));
    let health = HEALTH_PATHS
        .into_iter()
        .fold(axum::Router::new(), |router, path| router.route(path, get(live.clone())));
    let grpc = Routes::default()
        .add_service(served!(StreamsServer::new(services.clone())))
        .add_service(served!(PersistentSubscriptionsServer::new(services.clone())))
        .add_service(served!(ServerFeaturesServer::new(services.clone())))
        .add_service(served!(OperationsServer::new(services.clone())))
        .add_service(WithAuthority(served!(GossipServer::new(services))));
    Routes::from(grpc.into_axum_router().merge(health))
}

/// The answer to a supervisor: a node whose store takes no appends has to be started again.
fn liveness(failure: &AppendFailure) -> Response {
    match failure.cause() {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(cause) => {
            let text = format!("The store takes no appends: {cause}.\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_whose_store_takes_no_appends_is_not_alive() {
        let (failed, failure) = watch::channel(None);
        let failure = AppendFailure(failure);
        assert_eq!(liveness(&failure).status(), StatusCode::NO_CONTENT);
        failed.send_replace(Some(LogError::Closed));
        assert_eq!(liveness(&failure).status(), StatusCode::SERVICE_UNAVAILABLE);
        failed.send_replace(None);
        assert_eq!(liveness(&failure).status(), StatusCode::NO_CONTENT);
    }

    #[test]
    fn connections_count_as_the_system_unless_a_user_is_set() {
        let config = r#"{"listen": "127.0.0.1:0", "data": "store"}"#;
        let config: NodeConfig = serde_json::from_str(config).unwrap();
        assert_eq!(config.user_name, "system");
    }
}
