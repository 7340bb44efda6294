//! The log line that says what starts.

use std::net::SocketAddr;
use std::time::Duration;

use event_log::EventLog;
use tokio::time::timeout;

use crate::cli::Role;
use crate::settings::Settings;
use crate::system::System;

/// How long a start waits to be told which store and which schema it works on, each.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(1);

impl System {
    /// Logs which installation this is: what an operator looks for first in the log of an incident.
    pub(super) async fn say_what_starts(
        &self,
        log: Option<&EventLog>,
        roles: &[Role],
        listens: Option<SocketAddr>,
    ) {
        let Settings { api, event_store, read_model, fulfillment, auth, environment, .. } =
            &self.settings;
        let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        let store_id = match log {
            Some(log) => timeout(IDENTIFY_TIMEOUT, log.store_id()).await.ok(),
            None => None,
        };
        // A worker has no business with the read model, and perhaps no way to it.
        let has_rows = roles.iter().any(|role| matches!(role, Role::Api | Role::Projector));
        let schema_version = match has_rows.then(|| read_model.url.open()) {
            Some(store) => timeout(IDENTIFY_TIMEOUT, store.schema_version()).await.ok(),
            None => None,
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            environment = environment.as_str(),
            roles = names.join(","),
            listen = listens.map(tracing::field::display),
            tls = api.has_tls(),
            auth = auth.mode.as_str(),
            event_store = %event_store.url,
            store_id = store_id.and_then(Result::ok).flatten().map(tracing::field::display),
            read_model = has_rows.then(|| tracing::field::display(&read_model.url)),
            schema_version = schema_version.and_then(Result::ok).flatten(),
            gateway = %fulfillment.gateway_name(),
            "DOFS starts"
        );
    }
}
