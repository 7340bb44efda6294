//! Building a running system from settings: the only place that does.

mod start_line;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::Response;
use command_api::{CommandApi, Runner};
use event_log::{EventLog, LogError, Producer};
use event_node::{AppendFailure, Node, NodeError};
use fulfillment_worker::{
    FulfillmentConfig, GROUP, Gateway, GatewayKind, HttpGateway, SimulatedGateway,
};
use projectors::{Lookups, Owners, Projector, Queries, ReadModel, StoreError, Sweeper};
use service_kit::address::HostPort;
use service_kit::api_doc::without_keys;
use service_kit::auth::{Access, KeyRing, OperationScopes, Ownership};
use service_kit::clock::Clock;
use service_kit::health::{self, Check, Checks};
use service_kit::http::{self, Listener, Routes};
use service_kit::lifecycle::{LifecycleError, RoleError, Roles};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::cli::Role;
use crate::description::openapi;
use crate::error::CliError;
use crate::read_model::Known;
use crate::readiness::{
    EVENT_STORE, event_store_check, node_check, projector_check, read_model_check, worker_check,
};
use crate::rights::Rights;
use crate::settings::{AuthMode, Environment, Settings};
use crate::{keys, process};

/// How long roles may take to finish what is in progress when they are asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long open requests may take of that: less, so that a client that never finishes its request
/// does not make a clean stop a failed one.
const HTTP_DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the event store is still read for those who wait after the last of them, so that a
/// process in which somebody waits now and then does not begin anew each time.
const FOLLOW_LINGER: Duration = Duration::from_secs(10);

/// Files that a process has open beside its clients' connections, and some to spare.
const OWN_FILES: usize = 124;

/// What the pages that describe the API may load: what is served beside them. Swagger UI sets styles
/// in its elements, and has images in its style sheet.
const PAGES_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// Paths of Swagger UI that its declaration does not name.
const DOCUMENTATION_PATHS: [&str; 2] = ["/docs", "/docs/{*rest}"];

/// Every role.
pub(crate) const ALL_ROLES: [Role; 3] = [Role::Api, Role::Worker, Role::Projector];

/// A running system.
pub(crate) struct System {
    settings: Settings,
    clock: Clock,
    stop: CancellationToken,
    roles: Roles,
    node: Option<EmbeddedNode>,
    http: Option<SocketAddr>,
}

/// The embedded event store. It stops last, so that the roles can finish their work on it.
struct EmbeddedNode {
    address: SocketAddr,
    failure: AppendFailure,
    stop: CancellationToken,
    task: JoinSet<Result<(), NodeError>>,
}

impl System {
    /// Nothing runs yet.
    pub(crate) fn new(settings: Settings) -> Self {
        let stop = CancellationToken::new();
        let roles = Roles::new(stop.clone());
        Self { settings, clock: process::clock(), stop, roles, node: None, http: None }
    }

    /// The settings, with the addresses that were found out.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where HTTP is served.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where the embedded event store listens.
    pub(crate) fn node(&self) -> Option<SocketAddr> {
        self.node.as_ref().map(|it| it.address)
    }

    /// What ends the system.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts the embedded event store, and points the settings at it.
    pub(crate) async fn start_node(&mut self) -> Result<(), CliError> {
        let stop = CancellationToken::new();
        let node =
            Node::start(self.settings.node.clone(), self.clock.clone(), stop.clone()).await?;
        let (address, failure) = (node.address(), node.append_failure());
        tracing::info!(%address, data = %self.settings.node.data.display(), "Event store listens");
        self.settings.event_store.url = format!("esdb://{address}?tls=false").parse()?;

        let ended = CancellationToken::new();
        let mut task = JoinSet::new();
        let guard = ended.clone().drop_guard();
        task.spawn(async move {
            let outcome = node.wait_until_ended().await;
            drop(guard);
            outcome
        });
        let roles_stop = self.stop.clone();
        self.roles.spawn("event store", async move {
            tokio::select! {
                () = roles_stop.cancelled() => Ok(()),
                () = ended.cancelled() => Err("it ended by itself"),
            }
        });
        self.node = Some(EmbeddedNode { address, failure, stop, task });
        Ok(())
    }

    /// Brings the read model's tables to what this release knows.
    pub(crate) async fn migrate(&self) -> Result<(), CliError> {
        let applied = self.settings.read_model.url.migrate().await?;
        tracing::info!(n_applied = applied.len(), "Read model is up to date");
        Ok(())
    }

    /// Starts roles. With `listen`, HTTP is served: the API if it is among the roles, and health
    /// in any case.
    pub(crate) async fn start_roles(
        &mut self,
        roles: &[Role],
        listen: Option<&HostPort>,
    ) -> Result<(), CliError> {
        self.settings.api.check()?;
        let listener = match listen {
            Some(listen) => Some(Listener::bind(listen)?.with_tls(&self.settings.api)?),
            None => None,
        };
        let log = self.connect()?;
        self.watch_descriptors(log.as_ref());
        self.check_rights(log.as_ref(), roles).await?;
        self.say_what_starts(log.as_ref(), roles, listener.as_ref().map(Listener::address)).await;
        let owners = log.as_ref().map(|it| Owners::new(it.failing_fast()));
        let access = match listener {
            Some(_) => self.access(log.as_ref()),
            // Nobody can ask.
            None => Access::Open,
        };
        let mut routes = Router::new();
        let mut checks = Vec::new();
        if roles.contains(&Role::Api) {
            checks.push(event_store_check(log.clone()));
            self.watch_appends(log.as_ref());
        }
        if roles.contains(&Role::Api) || roles.contains(&Role::Projector) {
            let store = self.settings.read_model.url.open();
            check_schema(&*store).await?;
            checks.push(read_model_check(log.clone(), Arc::clone(&store), self.clock.clone()));
            if roles.contains(&Role::Api) {
                self.start_following(log.as_ref());
                routes = routes.merge(documentation(self.settings.auth.mode));
                let owned = log.clone().zip(owners.clone());
                routes = routes.merge(self.api_routes(Arc::clone(&store), owned, access.clone()));
            }
            if roles.contains(&Role::Projector) {
                checks.push(self.start_projector(store, log.as_ref())?);
            }
        }
        if roles.contains(&Role::Worker) {
            checks.push(self.start_worker(log.as_ref())?);
        }
        if let Some(listener) = listener {
            let routes = Routes {
                protected: http::refuse_unknown_parameters(routes, &openapi())
                    .fallback(http::not_found),
                ownership: owners.map(|it| Arc::new(it) as Arc<dyn Ownership>),
                health: health::routes(self.checks(roles, checks)).into(),
                draining: self.roles.delay_stop(self.settings.api.drain_delay()),
            };
            self.start_http(listener, routes, access);
        }
        Ok(())
    }

    /// What the process is asked about. Beside the API, other roles are no reason to send no orders.
    fn checks(&self, roles: &[Role], checks: Vec<Check>) -> Checks {
        let is_api = roles.contains(&Role::Api);
        let is_vital = |check: &Check| !is_api || check.name() == EVENT_STORE;
        let lessened = |it: Check| if is_vital(&it) { it } else { it.optional() };
        Checks {
            liveness: self.node.iter().map(|it| node_check(it.failure.clone())).collect(),
            readiness: checks.into_iter().map(lessened).collect(),
        }
    }

    /// Finds out whether orders can be taken.
    fn watch_appends(&mut self, log: Option<&EventLog>) {
        let Some(log) = log.cloned() else { return };
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        self.roles.spawn("event store probes", async move {
            log.watch_appends(|| clock.new_id(), stop).await;
            Ok::<_, RoleError>(())
        });
    }

    /// Waits until everything has ended; see [`Roles::finish`].
    pub(crate) async fn finish(self) -> Result<(), CliError> {
        let ended = self.roles.run_to_end(DRAIN_TIMEOUT).await;
        if let Some(mut node) = self.node {
            node.stop.cancel();
            match node.task.join_next().await {
                Some(Ok(outcome)) => outcome?,
                Some(Err(source)) => {
                    return Err(LifecycleError::Panicked { role: "event store", source }.into());
                }
                None => {}
            }
        }
        ended?;
        tracing::info!("Stopped");
        Ok(())
    }

    /// The order streams; `None` if no event store is configured. Making a client is expensive,
    /// so the roles of a process share one.
    fn connect(&self) -> Result<Option<EventLog>, CliError> {
        if self.settings.event_store.url.is_empty() {
            return Ok(None);
        }
        let name = format!("dofs-{}", self.clock.new_id());
        Ok(Some(EventLog::connect(&self.settings.event_store, producer(), &name)?))
    }

    /// Ends the process with a message if the event store denies what a role has to do: orders that
    /// no worker may read must not be accepted.
    async fn check_rights(
        &mut self,
        log: Option<&EventLog>,
        roles: &[Role],
    ) -> Result<(), CliError> {
        let Some(log) = log.cloned() else { return Ok(()) };
        let rights = Rights::new(log, roles);
        if !rights.look_first().await? {
            self.roles.spawn("event store rights", rights.look_until_answered(self.stop.clone()));
        }
        Ok(())
    }

    /// Ends the process with a message once no file descriptor is left to reach the event store.
    fn watch_descriptors(&mut self, log: Option<&EventLog>) {
        let Some(log) = log.cloned() else { return };
        let stop = self.stop.clone();
        self.roles.spawn("event store connection", async move {
            match stop.run_until_cancelled(log.out_of_descriptors()).await {
                Some(()) => Err(LogError::NoDescriptors),
                None => Ok(()),
            }
        });
    }

    fn api_routes(
        &mut self,
        store: Arc<dyn ReadModel>,
        log: Option<(EventLog, Owners)>,
        access: Access,
    ) -> Router {
        let accepted_status = match self.settings.api.accepted_status {
            200 => StatusCode::OK,
            _ => StatusCode::ACCEPTED,
        };
        let log = log.map(|(log, owners)| (log.on_behalf_of("dofs-api").failing_fast(), owners));
        let commands = CommandApi {
            log: log.as_ref().map(|(log, _)| log.clone()),
            clock: self.clock.clone(),
            environment: self.settings.environment.as_str().to_owned(),
            accepted_status,
            group: GROUP.to_owned(),
            failures: Arc::new(Known(Arc::clone(&store))),
            waiting: Arc::new(Known(Arc::clone(&store))),
            runner: Arc::new(Runner::new(&self.clock)),
        };
        let Some((log, owners)) = log else {
            return Router::from(command_api::routes(commands))
                .merge(projectors::routes_without_store());
        };
        let redrives = command_api::run_redrives(
            Arc::clone(&commands.runner),
            log.clone(),
            Arc::clone(&commands.failures),
            self.clock.clone(),
            self.stop.clone(),
        );
        self.roles.spawn("redrives", redrives);
        let queries = Queries {
            lookups: Lookups::new(Arc::clone(&store)),
            owners,
            access,
            store,
            log,
            group: GROUP.to_owned(),
            success_rate: self.settings.fulfillment.configured_success_rate(),
            store_folder: self.node.is_some().then(|| self.settings.node.data.clone()),
            clock: self.clock.clone(),
        };
        command_api::routes(commands).merge(projectors::routes(queries)).into()
    }

    /// Lets those who wait for an order, and the live feed, know what happens.
    fn start_following(&mut self, log: Option<&EventLog>) {
        let Some(log) = log.cloned() else { return };
        let stop = self.stop.clone();
        self.roles.spawn("event feed", async move {
            log.follow_live_events(FOLLOW_LINGER, stop).await;
            Ok::<_, RoleError>(())
        });
    }

    fn start_projector(
        &mut self,
        store: Arc<dyn ReadModel>,
        log: Option<&EventLog>,
    ) -> Result<Check, CliError> {
        let log = log.ok_or(CliError::NoEventStore)?.on_behalf_of("dofs-projector");
        let config = self.settings.projector.clone();
        let sweeper = Sweeper {
            log: log.clone(),
            store: Arc::clone(&store),
            group: GROUP.to_owned(),
            stale_after: self.settings.fulfillment.stale_after(),
            clock: self.clock.clone(),
        };
        self.roles.spawn("sweeper", sweeper.run(self.stop.clone()));
        let projector = Projector::new(log.clone(), Arc::clone(&store), config, self.clock.clone());
        let health = projector.health();
        self.roles.spawn("projector", projector.run(self.stop.clone()));
        tracing::info!("Projector started");
        Ok(projector_check(health, log, store, self.clock.clone()))
    }

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
                        "SIMULATED GATEWAY: orders are fulfilled or refused by dice, and nothing is \
                         shipped; set `fulfillment.gateway` to `http`"
                    );
                }
                self.spawn_worker(log, SimulatedGateway::new(&config), config);
            }
            GatewayKind::Http => {
                let gateway = HttpGateway::new(&config, self.clock.clone())?;
                tracing::info!(url = ?config.url, "Orders are sent to a gateway");
                if gateway.sends_in_the_clear() {
                    tracing::warn!(url = ?config.url, "Orders are sent to the gateway without TLS");
                }
                self.spawn_worker(log, gateway, config);
            }
        }
        Ok(check)
    }

    fn spawn_worker(&mut self, log: EventLog, gateway: impl Gateway, config: FulfillmentConfig) {
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        // The id by which `dofs worker status` shows it, in each of its log lines.
        let span = tracing::info_span!("worker", worker.id = log.connection_name());
        let work = fulfillment_worker::run_worker(log, gateway, config, clock, stop);
        self.roles.spawn("worker", work.instrument(span));
        tracing::info!("Worker started");
    }

    /// Who may use the API. Keys are followed from here on.
    fn access(&mut self, log: Option<&EventLog>) -> Access {
        if self.settings.auth.mode == AuthMode::None {
            return Access::Open;
        }
        let (sender, keys) = watch::channel(None);
        if let Some(log) = log.cloned() {
            let environment = self.settings.environment.as_str();
            let stop = self.stop.clone();
            self.roles.spawn("API keys", async move {
                let following = keys::follow(&log, environment, &sender);
                // It does not end by itself.
                let _: Option<()> = stop.run_until_cancelled(following).await;
                Ok::<_, LifecycleError>(())
            });
        }
        let scopes = DOCUMENTATION_PATHS
            .into_iter()
            .fold(OperationScopes::from_api(&openapi()), OperationScopes::with_public);
        Access::Keys(KeyRing::new(keys), Arc::new(scopes))
    }

    fn start_http(&mut self, listener: Listener, routes: Routes, access: Access) {
        let address = listener.address();
        let mut config = self.settings.api.clone();
        let n_files = process::allow_open_files();
        let n_connections = NonZeroUsize::new(n_files.saturating_sub(OWN_FILES));
        if let Some(most) = n_connections.filter(|it| *it < config.max_connections) {
            tracing::warn!(
                max_connections = most,
                wanted = config.max_connections,
                n_files,
                "This process may have too few files open for `api.max_connections`: `ulimit -n`"
            );
            config.max_connections = most;
        }
        let routes = http::with_edge(routes, &config, access, self.clock.clone());
        let stop = self.stop.clone();
        self.roles.spawn("HTTP", async move {
            listener.serve(routes, &config, stop, HTTP_DRAIN_TIMEOUT).await
        });
        self.http = Some(address);
        tracing::info!(%address, "HTTP listens");
    }
}

/// Refuses a schema that this release does not know. A database that is down is none: the roles
/// wait for it.
async fn check_schema(store: &dyn ReadModel) -> Result<(), StoreError> {
    match store.check_schema().await {
        Err(error @ (StoreError::Database(_) | StoreError::Timeout)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "Read model cannot be reached"
            );
            Ok(())
        }
        checked => checked,
    }
}

/// What describes the API, to programs and to people.
fn documentation(mode: AuthMode) -> Router {
    let mut described = openapi();
    if mode == AuthMode::None {
        without_keys(&mut described);
    }
    let config = Config::new(["/openapi.json"]).validator_url("none");
    let pages: Router =
        SwaggerUi::new("/docs").url("/openapi.json", described).config(config).into();
    pages.layer(middleware::map_response(async |mut page: Response| {
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGES_POLICY);
        page
    }))
}

/// This program, as it stands with what it writes.
pub(crate) fn producer() -> Producer {
    Producer { service: "dofs".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
