//! The HTTP server of a process: routes, authentication, health checks and API documentation.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::Response;
use command_api::{CommandApi, Runner};
use console::{Console, CookieSecret};
use event_log::EventLog;
use fulfillment_worker::GROUP;
use projectors::{Lookups, Owners, Queries, ReadModel};
use service_kit::api_doc::without_keys;
use service_kit::auth::{Access, KeyRing, OperationScopes, Ownership};
use service_kit::health::{self, Check, Checks};
use service_kit::http::{self, Listener, Routes};
use service_kit::lifecycle::LifecycleError;
use tokio::sync::watch;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::System;
use crate::cli::Role;
use crate::description::openapi;
use crate::health_checks::{EVENT_STORE, node_check};
use crate::installation_api::{self, InstallationApi};
use crate::read_model_adapter::ReadModelAdapter;
use crate::settings::AuthMode;
use crate::{api_keys, process};

/// Maximum time for open requests after the signal to stop. It is shorter than the drain time of the
/// roles, so that a client that never finishes its request does not turn a clean stop into a failure.
const HTTP_DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// Number of files that a process has open besides its HTTP connections, with a reserve.
pub(crate) const RESERVED_FILES: usize = 124;

/// Content security policy of the API documentation: everything is loaded from the same origin.
/// Swagger UI sets inline styles, and its style sheet contains images.
const DOCUMENTATION_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// Paths of Swagger UI that its declaration does not name.
const DOCUMENTATION_PATHS: [&str; 2] = ["/docs", "/docs/{*rest}"];

impl System {
    pub(super) fn start_http_server(
        &mut self,
        listener: Listener,
        routes: Routes,
        access: Access,
        roles: &[Role],
    ) {
        let address = listener.address();
        let mut config = self.settings.api.clone();
        // At the limit, the process could open neither log nor store files any more.
        let n_files = process::raise_open_file_limit();
        let n_connections = NonZeroUsize::new(n_files.saturating_sub(RESERVED_FILES));
        if let Some(limit) = n_connections.filter(|limit| *limit < config.max_connections) {
            tracing::warn!(
                max_connections = limit,
                wanted = config.max_connections,
                n_files,
                "Too few open files allowed for `api.max_connections`: raise `ulimit -n`"
            );
            config.max_connections = limit;
        }
        let mut routes = http::with_edge(routes, &config, access, self.clock.clone());
        if roles.contains(&Role::Api) && self.settings.console.enabled {
            let pages = self.console_pages(routes.clone());
            routes = routes.merge(http::with_page_edge(pages, &config, self.clock.clone()));
        }
        let stop = self.stop.clone();
        self.roles.spawn("HTTP", async move {
            listener.serve(routes, &config, stop, HTTP_DRAIN_TIMEOUT).await
        });
        self.http_address = Some(address);
        tracing::info!(%address, "HTTP server listening");
    }

    /// Returns the pages of the console, which call `api` in this process.
    fn console_pages(&self, api: Router) -> Router {
        let config = self.settings.console.clone();
        let secret = if config.session_secret.is_empty() {
            CookieSecret::derive_from(&process::random_bytes::<64>())
        } else {
            CookieSecret::derive_from(config.session_secret.as_bytes())
        };
        let api_config = &self.settings.api;
        let has_tls = api_config.has_tls() || api_config.behind_tls_proxy;
        console::routes(Console {
            config,
            api,
            clock: self.clock.clone(),
            secret,
            has_tls,
            stop: self.stop.clone(),
        })
    }

    /// Completes the routes of the roles with the health checks and the owner checks of orders.
    pub(super) fn complete_routes(
        &mut self,
        routes: Router,
        owners: Option<Owners>,
        checks: Arc<Checks>,
    ) -> Routes {
        Routes {
            protected: http::refuse_unknown_parameters(routes, &openapi())
                .fallback(http::not_found),
            ownership: owners.map(|owners| Arc::new(owners) as Arc<dyn Ownership>),
            health: health::routes(checks).into(),
            draining: self.roles.delay_stop(self.settings.api.drain_delay()),
        }
    }

    /// Returns the routes of the `api` role. Without an event store, every route responds that none is
    /// configured.
    pub(super) fn api_routes(
        &mut self,
        store: Arc<ReadModel>,
        log: Option<(EventLog, Owners)>,
        access: Access,
        roles: &[Role],
    ) -> Router {
        let accepted_status = match self.settings.api.accepted_status {
            200 => StatusCode::OK,
            // The settings were checked: 202 is the only other value.
            _ => StatusCode::ACCEPTED,
        };
        // Clients wait for these calls: while the store fails, they get an error at once.
        let log = log.map(|(log, owners)| (log.on_behalf_of("dofs-api").failing_fast(), owners));
        let commands = CommandApi {
            log: log.as_ref().map(|(log, _)| log.clone()),
            clock: self.clock.clone(),
            environment: self.settings.environment.as_str().to_owned(),
            accepted_status,
            group: GROUP.to_owned(),
            failures: Arc::new(ReadModelAdapter(Arc::clone(&store))),
            waiting: Arc::new(ReadModelAdapter(Arc::clone(&store))),
            runner: Arc::new(Runner::new(&self.clock)),
        };
        let installation = installation_api::routes(InstallationApi {
            settings: self.settings.clone(),
            roles: roles.to_vec(),
            started_at: self.started_at,
            log: commands.log.clone(),
        });
        let Some((log, owners)) = log else {
            return Router::from(command_api::routes(commands).merge(installation))
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
        let routes = command_api::routes(commands).merge(projectors::routes(queries));
        routes.merge(installation).into()
    }

    /// Returns the access rule of the API. With API keys, starts a task that keeps them current.
    pub(super) fn start_access_control(&mut self, log: Option<&EventLog>) -> Access {
        if self.settings.auth.mode == AuthMode::None {
            return Access::Open;
        }
        let (sender, keys) = watch::channel(None);
        if let Some(log) = log.cloned() {
            let environment = self.settings.environment.as_str();
            let stop = self.stop.clone();
            self.roles.spawn("API keys", async move {
                let publishing = api_keys::publish_changes(&log, environment, &sender);
                // `publish_changes` never returns: only the stop ends it.
                let _: Option<()> = stop.run_until_cancelled(publishing).await;
                Ok::<_, LifecycleError>(())
            });
        }
        let scopes = DOCUMENTATION_PATHS
            .into_iter()
            .fold(OperationScopes::from_api(&openapi()), OperationScopes::with_public);
        Access::Keys(KeyRing::new(keys), Arc::new(scopes))
    }

    /// Returns the health checks of the process.
    pub(super) fn health_checks(&self, roles: &[Role], checks: Vec<Check>) -> Checks {
        // A failure of another role is no reason to stop sending orders to the API.
        let is_api = roles.contains(&Role::Api);
        let is_vital = |check: &Check| !is_api || check.name() == EVENT_STORE;
        let with_weight = |check: Check| if is_vital(&check) { check } else { check.optional() };
        Checks {
            liveness: self.node.iter().map(|node| node_check(node.failure.clone())).collect(),
            readiness: checks.into_iter().map(with_weight).collect(),
        }
    }
}

/// Returns the routes of the API documentation: `openapi.json` and Swagger UI.
pub(super) fn documentation_routes(mode: AuthMode) -> Router {
    let mut description = openapi();
    if mode == AuthMode::None {
        without_keys(&mut description);
    }
    let config = Config::new(["/openapi.json"]).validator_url("none");
    let pages: Router =
        SwaggerUi::new("/docs").url("/openapi.json", description).config(config).into();
    pages.layer(middleware::map_response(async |mut page: Response| {
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, DOCUMENTATION_POLICY);
        page
    }))
}
