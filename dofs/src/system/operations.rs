//! The operations listener of a process, and the tasks that sample its metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use event_log::EventLog;
use fulfillment_worker::GROUP;
use projectors::{PROJECTIONS, ReadModel};
use service_kit::address::HostPort;
use service_kit::health::{Checks, sample_readiness};
use service_kit::http::{ApiConfig, HttpError, Listener};
use service_kit::lifecycle::RoleError;
use service_kit::metrics::{Recorder, sample_runtime, set_build_info};
use service_kit::ops::{self, OpsListen};

use super::System;
use crate::cli::Role;
use crate::error::CliError;
use crate::health_checks::node_check;
use crate::process::COMMIT;

/// Setting with the address of the listener.
const SETTING: &str = "ops.listen";
/// Default ports. A process with several roles has the port of the first of them.
const ROLE_PORTS: [(Role, u16); 3] =
    [(Role::Api, 9610), (Role::Worker, 9611), (Role::Projector, 9612)];
const NODE_PORT: u16 = 9613;
/// Maximum time for open requests after the signal to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What the sampled metrics are read from; `None` for what the process does not use.
#[derive(Default)]
pub(super) struct Sampled {
    pub(super) log: Option<EventLog>,
    pub(super) store: Option<Arc<ReadModel>>,
}

/// Installs the recorder of this process. It comes before every instrument: an instrument that is
/// created earlier never records.
pub(super) fn install_recorder() -> Recorder {
    let recorder = Recorder::install(&[fulfillment_worker::metrics::COMPLETION]);
    set_build_info(env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("unknown"));
    recorder
}

/// Describes the metrics of the roles, and gives those their first values that have one. It comes before
/// the roles start: a later first value would replace theirs.
pub(super) fn describe_metrics(roles: &[Role]) {
    event_log::metrics::describe();
    if roles.contains(&Role::Api) {
        command_api::metrics::describe();
    }
    if roles.contains(&Role::Worker) {
        fulfillment_worker::metrics::describe();
    }
    if roles.contains(&Role::Projector) {
        projectors::metrics::describe();
    }
    if roles.contains(&Role::Api) || roles.contains(&Role::Projector) {
        projectors::metrics::describe_pools();
    }
}

/// Returns the default port of a process with these roles; that of `dofs node` if there are none.
pub(crate) fn default_port(roles: &[Role]) -> u16 {
    let port = ROLE_PORTS.iter().find(|(role, _)| roles.contains(role));
    port.map_or(NODE_PORT, |(_, port)| *port)
}

/// Binds the configured address; `None` if the listener is off. Only an address that the settings
/// name must be free: several processes with the same role may run on one machine.
pub(super) fn bind_listener(
    listen: &OpsListen,
    roles: &[Role],
) -> Result<Option<Listener>, HttpError> {
    let loopback = |port: u16| HostPort::from(SocketAddr::from(([127, 0, 0, 1], port)));
    match listen {
        OpsListen::Off => Ok(None),
        OpsListen::At(address) => Listener::bind_for(SETTING, address).map(Some),
        OpsListen::Auto => {
            let default = loopback(default_port(roles));
            let bound = Listener::bind_for(SETTING, &default).or_else(|_| {
                tracing::warn!(
                    address = %default,
                    "Operations listener takes a free port: its default port is in use"
                );
                Listener::bind_for(SETTING, &loopback(0))
            });
            bound.map(Some)
        }
    }
}

impl System {
    /// Serves the operations listener of `dofs node`.
    pub(crate) fn start_node_operations(&mut self) -> Result<(), CliError> {
        let Some(listener) = bind_listener(&self.settings.ops.listen, &[])? else { return Ok(()) };
        let check = || self.node.iter().map(|node| node_check(node.failure.clone())).collect();
        let checks = Checks { liveness: check(), readiness: check() };
        self.start_operations(listener, Arc::new(checks), &[], Sampled::default());
        Ok(())
    }

    /// Serves the operations listener, and samples the metrics of the roles.
    pub(super) fn start_operations(
        &mut self,
        listener: Listener,
        checks: Arc<Checks>,
        roles: &[Role],
        sampled: Sampled,
    ) {
        let Some(recorder) = self.recorder.clone() else { return };
        let address = listener.address();
        let draining = self.roles.draining();
        let config = self.ops_http_config(address.into());
        let routes = ops::routes(
            recorder.clone(),
            Arc::clone(&checks),
            draining.clone(),
            &config,
            self.clock.clone(),
        );
        let stop = self.stop.clone();
        self.roles.spawn("operations listener", async move {
            listener.serve(routes, &config, stop, DRAIN_TIMEOUT).await
        });
        self.spawn_sampler(sample_runtime(recorder, self.stop.clone()));
        self.spawn_sampler(sample_readiness(checks, draining, self.stop.clone()));
        self.sample_roles(roles, sampled);
        self.ops_address = Some(address);
        tracing::info!(%address, "Operations listener started");
    }

    /// Samples the metrics of the roles that are not counted as they happen.
    fn sample_roles(&mut self, roles: &[Role], Sampled { log, store }: Sampled) {
        let has = |role| roles.contains(&role);
        if let Some(log) = &log {
            // Its owner is the worker; the projector shows the group while no worker runs.
            let group = (has(Role::Worker) || has(Role::Projector)).then_some(GROUP);
            let sampling = log.clone().sample_metrics(group, self.clock.clone(), self.stop.clone());
            self.spawn_sampler(sampling);
        }
        if let Some(store) = &store {
            self.spawn_sampler(projectors::sample_pools(Arc::clone(store), self.stop.clone()));
        }
        if let (Some(log), Some(store)) = (log, store)
            && has(Role::Projector)
        {
            let (clock, stop) = (self.clock.clone(), self.stop.clone());
            self.spawn_sampler(projectors::sample_metrics(&PROJECTIONS, log, store, clock, stop));
        }
    }

    pub(super) fn spawn_sampler(&mut self, sampling: impl Future<Output = ()> + Send + 'static) {
        self.roles.spawn("metrics", async move {
            sampling.await;
            Ok::<_, RoleError>(())
        });
    }

    /// Returns the settings of the listener's HTTP server: those of the API, except for TLS, limits
    /// that need a key, and the access log.
    fn ops_http_config(&self, listen: HostPort) -> ApiConfig {
        ApiConfig {
            listen,
            rate_per_second: 0,
            cors_origins: Vec::new(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            access_log: false,
            ..self.settings.api.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_port_is_that_of_the_first_role() {
        assert_eq!(default_port(&[Role::Projector, Role::Api]), 9610);
        assert_eq!(default_port(&[Role::Worker]), 9611);
        assert_eq!(default_port(&[Role::Projector, Role::Worker]), 9611);
        assert_eq!(default_port(&[]), NODE_PORT);
    }

    #[test]
    fn only_a_default_port_may_be_taken() {
        let taken = bind_listener(&"127.0.0.1:0".parse().unwrap(), &[]).unwrap().unwrap();
        let configured = taken.address().to_string().parse().unwrap();
        let error = bind_listener(&configured, &[]).err().unwrap();
        assert!(error.to_string().ends_with("the address in setting `ops.listen`"), "{error}");
        // The default port may be taken or not: another process may run on this machine.
        let first = bind_listener(&OpsListen::Auto, &[Role::Worker]).unwrap().unwrap();
        let second = bind_listener(&OpsListen::Auto, &[Role::Worker]).unwrap().unwrap();
        assert_ne!(first.address(), second.address());
        assert!(bind_listener(&OpsListen::Off, &[]).unwrap().is_none());
    }
}
