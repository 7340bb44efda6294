//! The running node: one port and one store. A stop waits for every task that the node has started.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use service_kit::address::HostPort;
use service_kit::clock::Clock;
use service_kit::http::AllowedHosts;
use service_kit::tls::{ServerTls, TlsError};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::{codec::CompressionEncoding, service::Routes, transport::Server};

use crate::{
    access::{AclCache, Authenticator, UsersFileError},
    log::{Log, LogError, OpenError},
    metrics_sampler::MetricsSampler,
    node_config::{NodeConfig, NodeConfigError},
    persistent::{GroupError, GroupRegistry},
    request_validation::{HEALTH_PATHS, MAX_MESSAGE_BYTES, ValidationLayer},
    rpc::{Context, gossip::AdvertisedAddress, services::Services},
    scavenge::Scavenger,
    transport::{Connections, accept_connections, accept_tls_connections},
    wire::event_store::client::{
        gossip::gossip_server::GossipServer, operations::operations_server::OperationsServer,
        persistent_subscriptions::persistent_subscriptions_server::PersistentSubscriptionsServer,
        server_features::server_features_server::ServerFeaturesServer,
        streams::streams_server::StreamsServer,
    },
};

/// Interval of HTTP/2 pings on an idle connection, and time-out of their answers.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Maximum number of open calls per connection.
const MAX_CALLS_PER_CONNECTION: u32 = 10_000;

/// Flow-control windows of HTTP/2: bytes that a client may send before the node has read them.
const CALL_WINDOW_BYTES: u32 = 1_024 * 1_024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1_024 * 1_024;

/// Maximum time for connections to end after `stop`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a node did not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Config(#[from] NodeConfigError),
    #[error("the certificate of the event store cannot be served")]
    Tls(#[from] TlsError),
    #[error("the users of the event store cannot be read")]
    Users(#[from] UsersFileError),
    #[error("the event store cannot be opened")]
    Open(#[from] OpenError),
    #[error("the event store cannot listen on {listen}: free the address or choose another one")]
    Listen { listen: HostPort, source: io::Error },
    #[error("the stored persistent subscription groups cannot be started")]
    Groups(#[source] GroupError),
    #[error("the state of the interrupted scavenge cannot be read")]
    Scavenge(#[source] LogError),
    #[error("the event store cannot serve its port any longer")]
    Serve(#[source] tonic::transport::Error),
    #[error("the event store's writer ended unexpectedly: see the log for the reason")]
    Writer,
    #[error("the event store's server panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// A running event store. Dropping it stops the store without waiting for the end.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    append_failure: AppendFailure,
    metrics_sampler: MetricsSampler,
    serving: JoinSet<Result<(), NodeError>>,
    _stop: DropGuard,
}

/// Tells whether the node's store accepts appends. Stays valid after the node has ended.
#[derive(Debug, Clone)]
pub struct AppendFailure(watch::Receiver<Option<LogError>>);

impl AppendFailure {
    /// Returns why appends fail, or `None` while the store accepts them. A failure lasts until the
    /// disk recovers or the node restarts.
    pub fn cause(&self) -> Option<String> {
        self.0.borrow().as_ref().map(ToString::to_string)
    }
}

impl Node {
    /// Opens the store, binds the port and serves until `stop` is cancelled.
    pub async fn start(
        config: NodeConfig,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Self, NodeError> {
        config.check()?;
        let security = Security::load(&config)?;
        // The port is bound before the store is opened. A second node with the same settings fails
        // here and does not touch the folder.
        let unusable = |source| NodeError::Listen { listen: config.listen.clone(), source };
        let listener = TcpListener::bind((config.listen.host(), config.listen.port()))
            .await
            .map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let configured =
            config.advertise.map(|address| (address.host().to_owned(), address.port()));
        let advertised = AdvertisedAddress {
            instance_id: clock.new_id(),
            configured,
            listened: (address.ip().to_string(), address.port()),
        };

        let folder = config.data.clone();
        // Clients that connect from here on wait in the listener's backlog until the store is open.
        let log = open_log(config.data, clock, config.allow_empty).await?;
        // A child token, so that a failure of the node stops its own tasks and not those of the
        // caller.
        let stop = stop.child_token();
        let tasks = TaskTracker::new();
        let scavenged_bytes = u64::from(config.scavenge_mib_per_second) * 1_024 * 1_024;
        let started = async {
            let groups = GroupRegistry::start(log.clone(), tasks.clone(), stop.clone()).await;
            let groups = groups.map_err(NodeError::Groups)?;
            let (log, tasks, stop) = (log.clone(), tasks.clone(), stop.clone());
            let scavenges = Scavenger::new_and_resume(log, tasks, stop, scavenged_bytes).await;
            Ok((groups, scavenges.map_err(NodeError::Scavenge)?))
        };
        let (groups, scavenges) = match started.await {
            Ok(started) => started,
            Err(error) => {
                // Closing the store releases the lock on its folder, so that the caller can retry.
                stop.cancel();
                close_store(&tasks, &log).await;
                return Err(error);
            }
        };
        let context = Arc::new(Context {
            acls: AclCache::new(log.clone()),
            has_users: security.authenticator.is_some(),
            log,
            groups,
            scavenges,
            stop: stop.clone(),
            tasks,
            advertised,
            user_name: config.user_name,
        });
        let advertised = context.advertised.configured.iter().map(|(host, _)| host.clone());
        let hosts = AllowedHosts::for_address(address.ip(), advertised.collect());
        let validation = ValidationLayer::new(hosts, security.authenticator.clone());
        let append_failure = AppendFailure(context.log.watch_failure());
        let (log, groups) = (context.log.clone(), context.groups.clone());
        let metrics_sampler = MetricsSampler { log, groups, folder };
        let mut serving = JoinSet::new();
        let connections = security.accept_connections(listener, &context);
        serving.spawn(serve_until_stopped(connections, validation, context));
        tracing::debug!(%address, "Event store started");
        Ok(Self { address, append_failure, metrics_sampler, serving, _stop: stop.drop_guard() })
    }

    /// Returns the address that the node listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether the store accepts appends, as a value that stays up to date.
    pub fn append_failure(&self) -> AppendFailure {
        self.append_failure.clone()
    }

    /// Returns the sampler of the metrics, for a caller that records metrics.
    pub fn metrics_sampler(&self) -> MetricsSampler {
        self.metrics_sampler.clone()
    }

    /// Waits until the node has ended: after a stop, with the store closed, or with an error.
    pub async fn wait_until_ended(mut self) -> Result<(), NodeError> {
        match self.serving.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(NodeError::Panicked(panic)),
            None => Ok(()),
        }
    }
}

/// The certificate and the users of a node, if it has them.
struct Security {
    tls: Option<ServerTls>,
    authenticator: Option<Arc<Authenticator>>,
}

impl Security {
    fn load(config: &NodeConfig) -> Result<Self, NodeError> {
        let tls = config.tls_files().map(ServerTls::load).transpose()?;
        let users = config.users_file();
        let authenticator = users.map(Authenticator::load).transpose()?.map(Arc::new);
        Ok(Self { tls, authenticator })
    }

    /// Returns the connections that the listener accepts. Starts the tasks that accept them and that
    /// follow replaced files, until the node stops.
    fn accept_connections(self, listener: TcpListener, context: &Context) -> Connections {
        if let Some(authenticator) = self.authenticator {
            let stop = context.stop.clone();
            context.tasks.spawn(async move {
                stop.run_until_cancelled(authenticator.reload_on_change()).await;
            });
        }
        let Some(tls) = self.tls else { return accept_connections(listener) };
        let (replaced, config) = watch::channel(tls.server_config());
        let (connections, accepting) = accept_tls_connections(listener, config);
        let stop = context.stop.clone();
        context.tasks.spawn(async move {
            let reloading = tls.reload_on_change(|config| drop(replaced.send_replace(config)));
            tokio::select! {
                () = accepting => {}
                () = reloading => {}
                () = stop.cancelled() => {}
            }
        });
        connections
    }
}

async fn open_log(data: PathBuf, clock: Clock, allow_empty: bool) -> Result<Log, NodeError> {
    let opened = tokio::task::spawn_blocking(move || Log::open(&data, clock, allow_empty)).await;
    Ok(opened.map_err(NodeError::Panicked)??)
}

/// Waits for the tasks, which must have been stopped, and closes the store.
async fn close_store(tasks: &TaskTracker, log: &Log) {
    tasks.close();
    tasks.wait().await;
    log.close().await;
}

/// Serves until the node stops, then waits for all tasks and closes the store.
async fn serve_until_stopped(
    connections: Connections,
    validation: ValidationLayer,
    context: Arc<Context>,
) -> Result<(), NodeError> {
    let stop = context.stop.clone();
    let result = {
        let serving = Server::builder()
            // For liveness probes. Validation rejects gRPC over HTTP/1.1.
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .layer(validation)
            .add_routes(build_routes(&context))
            .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
        let drain_timeout = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(NodeError::Serve),
            () = drain_timeout => Ok(()),
            // The writer thread has ended without a stop. Serving on would answer reads and fail
            // every append.
            () = context.log.wait_closed() => Err(NodeError::Writer),
        }
    };
    // The store closes last: ending groups still write their checkpoints to it.
    stop.cancel();
    close_store(&context.tasks, &context.log).await;
    tracing::info!("Event store stopped");
    result
}

fn build_routes(context: &Arc<Context>) -> Routes {
    /// Sets what every service accepts: the message size and the compressions.
    macro_rules! configured {
        ($service:expr) => {
            $service
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
        };
    }
    let services = Services(Arc::clone(context));
    let failure = AppendFailure(context.log.watch_failure());
    let live = move || std::future::ready(liveness_response(&failure));
    let health = HEALTH_PATHS
        .into_iter()
        .fold(axum::Router::new(), |router, path| router.route(path, get(live.clone())));
    let grpc = Routes::default()
        .add_service(configured!(StreamsServer::new(services.clone())))
        .add_service(configured!(PersistentSubscriptionsServer::new(services.clone())))
        .add_service(configured!(ServerFeaturesServer::new(services.clone())))
        .add_service(configured!(OperationsServer::new(services.clone())))
        .add_service(configured!(GossipServer::new(services)));
    Routes::from(grpc.into_axum_router().merge(health))
}

/// Returns the response to a liveness probe. A node whose store rejects appends is not alive, so
/// that the supervisor restarts it.
fn liveness_response(failure: &AppendFailure) -> Response {
    match failure.cause() {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(cause) => {
            let text = format!("The store rejects appends: {cause}.\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_whose_store_rejects_appends_is_not_alive() {
        let (failed, failure) = watch::channel(None);
        let failure = AppendFailure(failure);
        assert_eq!(liveness_response(&failure).status(), StatusCode::NO_CONTENT);
        failed.send_replace(Some(LogError::Closed));
        assert_eq!(liveness_response(&failure).status(), StatusCode::SERVICE_UNAVAILABLE);
        failed.send_replace(None);
        assert_eq!(liveness_response(&failure).status(), StatusCode::NO_CONTENT);
    }
}
