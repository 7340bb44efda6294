//! Composition root: builds and runs the roles of a process from its settings.

mod http_server;
pub(crate) mod operations;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use event_log::{EventLog, LogError, Producer};
use event_node::{AppendFailure, Node, NodeError};
use fulfillment_worker::{
    FulfillmentConfig, GROUP, Gateway, GatewayKind, HttpGateway, SimulatedGateway,
};
use jiff::Timestamp;
use projectors::{Owners, Projector, ReadModel, StoreError, Sweeper};
use service_kit::address::HostPort;
use service_kit::auth::Access;
use service_kit::clock::Clock;
use service_kit::health::Check;
use service_kit::http::Listener;
use service_kit::lifecycle::{LifecycleError, RoleError, Roles};
use service_kit::metrics::Recorder;
use service_kit::ops::OpsListen;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::cli::Role;
use crate::error::CliError;
use crate::health_checks::{event_store_check, projector_check, read_model_check, worker_check};
use crate::permission_check::PermissionCheck;
use crate::process;
use crate::settings::{Environment, Settings};
pub(crate) use http_server::RESERVED_FILES;
use http_server::documentation_routes;
use operations::{Sampled, bind_listener, describe_metrics};

/// Maximum time for the roles to finish work in progress after the signal to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Time to keep reading the event store after the last client stopped waiting for an order. Without
/// it, a process with an occasional waiting client would open a new subscription for each.
const FOLLOW_LINGER: Duration = Duration::from_secs(10);

/// Maximum time to wait for the store id, and for the schema version.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) const ALL_ROLES: [Role; 3] = [Role::Api, Role::Worker, Role::Projector];

pub(crate) struct System {
    settings: Settings,
    started_at: Timestamp,
    clock: Clock,
    stop: CancellationToken,
    roles: Roles,
    node: Option<EmbeddedNode>,
    http_address: Option<SocketAddr>,
    ops_address: Option<SocketAddr>,
    /// Recorder of the metrics; `None` if the operations listener is off.
    recorder: Option<Recorder>,
}

/// The embedded event store. It stops after the roles, so that they can finish their work on it.
struct EmbeddedNode {
    address: SocketAddr,
    failure: AppendFailure,
    stop: CancellationToken,
    task: JoinSet<Result<(), NodeError>>,
}

impl System {
    /// Creates a system without running roles.
    pub(crate) fn new(settings: Settings) -> Self {
        let stop = CancellationToken::new();
        let roles = Roles::new(stop.clone());
        let clock = process::system_clock();
        let recorder = (settings.ops.listen != OpsListen::Off).then(operations::install_recorder);
        let started_at = clock.now();
        Self {
            settings,
            started_at,
            clock,
            stop,
            roles,
            node: None,
            http_address: None,
            ops_address: None,
            recorder,
        }
    }

    /// Returns the settings. After [`start_node`](Self::start_node), they contain the address of the
    /// embedded event store.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the address of the HTTP server, if one is running.
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Returns the address of the operations listener, if one is running.
    pub(crate) fn ops_address(&self) -> Option<SocketAddr> {
        self.ops_address
    }

    /// Returns the address of the embedded event store, if one is running.
    pub(crate) fn node_address(&self) -> Option<SocketAddr> {
        self.node.as_ref().map(|node| node.address)
    }

    /// Returns the token that stops the system when cancelled.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts the embedded event store and sets `event_store.url` to its address.
    pub(crate) async fn start_node(&mut self) -> Result<(), CliError> {
        self.settings.check_node_for_environment()?;
        let stop = CancellationToken::new();
        let node =
            Node::start(self.settings.node.clone(), self.clock.clone(), stop.clone()).await?;
        let (address, failure) = (node.address(), node.append_failure());
        if self.recorder.is_some() {
            self.spawn_sampler(node.metrics_sampler().run(self.stop.clone()));
        }
        let config = &self.settings.node;
        tracing::info!(
            %address,
            data = %config.data.display(),
            tls = config.has_tls(),
            users = config.has_users(),
            "Event store listening"
        );
        self.settings.event_store.url = format!("esdb://{address}?tls=false").parse()?;

        let ended = CancellationToken::new();
        let mut task = JoinSet::new();
        // Dropped also if the node panics.
        let guard = ended.clone().drop_guard();
        task.spawn(async move {
            let outcome = node.wait_until_ended().await;
            drop(guard);
            outcome
        });
        // The node itself is not a role, because it must outlive them. This role fails when the node
        // ends early, and so stops the process.
        let roles_stop = self.stop.clone();
        self.roles.spawn("event store", async move {
            tokio::select! {
                () = roles_stop.cancelled() => Ok(()),
                () = ended.cancelled() => Err("ended unexpectedly"),
            }
        });
        self.node = Some(EmbeddedNode { address, failure, stop, task });
        Ok(())
    }

    /// Updates the tables of the read model to the schema of this release.
    pub(crate) async fn migrate_read_model(&self) -> Result<(), CliError> {
        let applied = self.settings.read_model.url.migrate().await?;
        tracing::info!(n_applied = applied.len(), "Read model schema is up to date");
        Ok(())
    }

    /// Starts roles. With `listen`, also starts the HTTP server: it serves the API if that is among
    /// the roles, and the health checks in any case.
    pub(crate) async fn start_roles(
        &mut self,
        roles: &[Role],
        listen: Option<&HostPort>,
    ) -> Result<(), CliError> {
        self.settings.api.check()?;
        self.settings.console.check()?;
        // Bound first: an address that is in use prevents the start before anything runs.
        let listener = match listen {
            Some(listen) => Some(Listener::bind(listen)?.with_tls(&self.settings.api)?),
            None => None,
        };
        let ops_listener = bind_listener(&self.settings.ops.listen, roles)?;
        if ops_listener.is_some() {
            describe_metrics(roles);
        }
        let log = self.connect_event_log()?;
        self.watch_file_descriptors(log.as_ref());
        // Before anything is served: a missing permission must prevent the start.
        self.check_permissions(log.as_ref(), roles).await?;
        self.log_startup(log.as_ref(), roles, listener.as_ref().map(Listener::address)).await;
        // Owners are read while a client waits for the response.
        let owners = log.as_ref().map(|log| Owners::new(log.failing_fast()));
        let access = match listener {
            Some(_) => self.start_access_control(log.as_ref()),
            // Without a listener there are no requests to authenticate.
            None => Access::Open,
        };
        let mut routes = Router::new();
        let mut checks = Vec::new();
        let mut sampled = Sampled { log: log.clone(), store: None };
        if roles.contains(&Role::Api) {
            checks.push(event_store_check(log.clone()));
            self.start_append_probes(log.as_ref());
        }
        if roles.contains(&Role::Api) || roles.contains(&Role::Projector) {
            // One set of connections for the API and all projectors of the process.
            let store = self.settings.read_model.url.open();
            check_schema(&store).await?;
            sampled.store = Some(Arc::clone(&store));
            checks.push(read_model_check(log.clone(), Arc::clone(&store), self.clock.clone()));
            if roles.contains(&Role::Api) {
                self.start_event_feed(log.as_ref());
                routes = routes.merge(documentation_routes(self.settings.auth.mode));
                let owned = log.clone().zip(owners.clone());
                let api = self.api_routes(Arc::clone(&store), owned, access.clone(), roles);
                routes = routes.merge(api);
            }
            if roles.contains(&Role::Projector) {
                checks.push(self.start_projector(&store, log.as_ref())?);
            }
        }
        if roles.contains(&Role::Worker) {
            checks.push(self.start_worker(log.as_ref())?);
        }
        let checks = Arc::new(self.health_checks(roles, checks));
        if let Some(listener) = ops_listener {
            self.start_operations(listener, Arc::clone(&checks), roles, sampled);
        }
        if let Some(listener) = listener {
            let routes = self.complete_routes(routes, owners, checks);
            self.start_http_server(listener, routes, access, roles);
        }
        Ok(())
    }

    /// Waits until all roles and then the embedded event store have ended; see [`Roles::run_to_end`].
    pub(crate) async fn wait_until_stopped(self) -> Result<(), CliError> {
        // The node stops after the roles, even if one of them failed: they append while draining.
        let outcome = self.roles.run_to_end(DRAIN_TIMEOUT).await;
        if let Some(mut node) = self.node {
            node.stop.cancel();
            match node.task.join_next().await {
                Some(Ok(outcome)) => outcome?,
                // A panic of the store is reported even if a role has failed as well.
                Some(Err(source)) => {
                    return Err(LifecycleError::Panicked { role: "event store", source }.into());
                }
                None => {}
            }
        }
        outcome?;
        tracing::info!("Stopped");
        Ok(())
    }

    /// Connects to the event store; `None` if none is configured. A client is expensive to create, so
    /// the roles of a process share one.
    fn connect_event_log(&self) -> Result<Option<EventLog>, CliError> {
        if self.settings.event_store.url.is_empty() {
            return Ok(None);
        }
        // Unique: the store's statistics tell the members of a group apart by it.
        let name = format!("dofs-{}", self.clock.new_id());
        Ok(Some(EventLog::connect(&self.settings.event_store, event_producer(), &name)?))
    }

    /// Logs the version, the roles and the stores of this process. Operators look for this line first
    /// in the log of an incident.
    async fn log_startup(
        &self,
        log: Option<&EventLog>,
        roles: &[Role],
        listen: Option<SocketAddr>,
    ) {
        let Settings { api, event_store, read_model, fulfillment, auth, environment, .. } =
            &self.settings;
        let role_names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        let store_id = match log {
            Some(log) => timeout(IDENTIFY_TIMEOUT, log.store().store_id()).await.ok(),
            None => None,
        };
        // A worker does not use the read model, and its network may not reach it.
        let uses_read_model = roles.iter().any(|role| matches!(role, Role::Api | Role::Projector));
        let schema_version = match uses_read_model.then(|| read_model.url.open()) {
            Some(store) => timeout(IDENTIFY_TIMEOUT, store.schema_version()).await.ok(),
            None => None,
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            environment = environment.as_str(),
            roles = role_names.join(","),
            listen = listen.map(tracing::field::display),
            tls = api.has_tls(),
            auth = auth.mode.as_str(),
            event_store = %event_store.url,
            store_id = store_id.and_then(Result::ok).flatten().map(tracing::field::display),
            read_model = uses_read_model.then(|| tracing::field::display(&read_model.url)),
            schema_version = schema_version.and_then(Result::ok).flatten(),
            gateway = %fulfillment.gateway_name(),
            "DOFS starting"
        );
    }

    /// Checks that the event store grants the permissions that the roles need. An event store that is
    /// down is checked by a task once it responds; a missing permission then ends the process, because
    /// the API must not accept orders that no worker may read.
    async fn check_permissions(
        &mut self,
        log: Option<&EventLog>,
        roles: &[Role],
    ) -> Result<(), CliError> {
        let Some(log) = log.cloned() else { return Ok(()) };
        let check = PermissionCheck::new(log, roles);
        if !check.check_at_startup().await? {
            let checking = check.check_until_answered(self.stop.clone());
            self.roles.spawn("event store permissions", checking);
        }
        Ok(())
    }

    /// Starts a task that ends the process when connecting to the event store fails for lack of file
    /// descriptors: a restart frees them.
    fn watch_file_descriptors(&mut self, log: Option<&EventLog>) {
        let Some(log) = log.cloned() else { return };
        let stop = self.stop.clone();
        self.roles.spawn("event store connection", async move {
            match stop.run_until_cancelled(log.store().out_of_descriptors()).await {
                Some(()) => Err(LogError::NoDescriptors),
                None => Ok(()),
            }
        });
    }

    /// Starts a task that finds out whether the event store accepts appends.
    fn start_append_probes(&mut self, log: Option<&EventLog>) {
        let Some(log) = log.cloned() else { return };
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        self.roles.spawn("event store probes", async move {
            log.store().watch_appends(|| clock.new_id(), stop).await;
            Ok::<_, RoleError>(())
        });
    }

    /// Starts the task that reads new events for clients that wait for an order and for the live feed.
    fn start_event_feed(&mut self, log: Option<&EventLog>) {
        let Some(log) = log.cloned() else { return };
        let stop = self.stop.clone();
        self.roles.spawn("event feed", async move {
            log.follow_live_events(FOLLOW_LINGER, stop).await;
            Ok::<_, RoleError>(())
        });
    }

    /// Starts the projector and the sweeper of stale orders. Returns the projector's health check.
    fn start_projector(
        &mut self,
        store: &Arc<ReadModel>,
        log: Option<&EventLog>,
    ) -> Result<Check, CliError> {
        let log = log.ok_or(CliError::NoEventStore)?.on_behalf_of("dofs-projector");
        let config = self.settings.projector.clone();
        let sweeper = Sweeper {
            log: log.clone(),
            store: Arc::clone(store),
            group: GROUP.to_owned(),
            stale_after: self.settings.fulfillment.stale_after(),
            clock: self.clock.clone(),
        };
        // With the projector, because it reads the read model. Several may run: an order is queued
        // again only at the revision at which it was found.
        self.roles.spawn("sweeper", sweeper.run(self.stop.clone()));
        let mut projected = Vec::new();
        for projection in projectors::PROJECTIONS {
            let store = store.for_projection(projection);
            let (config, clock) = (config.clone(), self.clock.clone());
            let projector = Projector::new(log.clone(), Arc::clone(&store), config, clock);
            projected.push((projector.health(), store));
            let span = tracing::info_span!("projector", projection = projection.name);
            self.roles.spawn("projector", projector.run(self.stop.clone()).instrument(span));
        }
        tracing::info!("Projector started");
        Ok(projector_check(projected, log, self.clock.clone()))
    }

    /// Starts the fulfillment worker with the configured gateway. Returns its health check.
    fn start_worker(&mut self, log: Option<&EventLog>) -> Result<Check, CliError> {
        let config = self.settings.fulfillment.clone();
        config.check()?;
        let log = log.ok_or(CliError::NoEventStore)?.on_behalf_of("dofs-worker");
        let check = worker_check(log.clone());
        match config.gateway {
            GatewayKind::Simulated => {
                if self.settings.environment != Environment::Dev {
                    tracing::warn!(
                        success_rate = config.success_rate,
                        "SIMULATED GATEWAY: order outcomes are random and nothing is shipped; set \
                         `fulfillment.gateway` to `http`"
                    );
                }
                self.spawn_worker(log, SimulatedGateway::new(&config), config);
            }
            GatewayKind::Http => {
                let gateway = HttpGateway::new(&config, self.clock.clone())?;
                tracing::info!(url = %config.url, "HTTP gateway configured");
                if gateway.sends_in_the_clear() {
                    tracing::warn!(url = %config.url, "HTTP gateway is used without TLS");
                }
                self.spawn_worker(log, gateway, config);
            }
        }
        Ok(check)
    }

    fn spawn_worker(&mut self, log: EventLog, gateway: impl Gateway, config: FulfillmentConfig) {
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        // `dofs worker status` shows the worker by this id: each of its log lines contains it.
        let span = tracing::info_span!("worker", worker.id = log.store().connection_name());
        let work = fulfillment_worker::run_worker(log, gateway, config, clock, stop);
        self.roles.spawn("worker", work.instrument(span));
        tracing::info!("Worker started");
    }
}

/// Checks that this release knows the schema of the read model. An unreachable database passes: the
/// roles start and retry until it responds.
async fn check_schema(store: &ReadModel) -> Result<(), StoreError> {
    match store.check_schema().await {
        Err(error @ (StoreError::Database(_) | StoreError::Timeout)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "Read model schema check failed: read model unreachable");
            Ok(())
        }
        checked => checked,
    }
}

/// Returns the producer that the metadata of this program's events names.
pub(crate) fn event_producer() -> Producer {
    Producer { service: "dofs".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
