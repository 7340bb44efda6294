//! The log line of a starting process.

use std::net::SocketAddr;
use std::time::Duration;

use event_log::EventLog;
use tokio::time::timeout;

use crate::cli::Role;
use crate::settings::Settings;
use crate::system::System;

/// Maximum time to wait for the store id, and for the schema version.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(1);

impl System {
    /// Logs the version, the roles and the stores of this process. Operators look for this line first
    /// in the log of an incident.
    pub(super) async fn log_startup(
        &self,
        log: Option<&EventLog>,
        roles: &[Role],
        listen: Option<SocketAddr>,
    ) {
        let Settings { api, event_store, read_model, fulfillment, auth, environment, .. } =
            &self.settings;
        let role_names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        let store_id = match log {
            Some(log) => timeout(IDENTIFY_TIMEOUT, log.store_id()).await.ok(),
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
}
