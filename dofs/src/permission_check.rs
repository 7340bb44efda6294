//! Check at startup that the event store grants each role the permissions it needs.

use std::time::Duration;

use event_log::{AccessRight, EventLog};
use fulfillment_worker::GROUP;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::Role;
use crate::error::CliError;

/// Maximum time that startup waits for the first check. A role must also start while the event
/// store is down.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two checks of an event store that does not respond.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the rights that roles need at the event store.
pub(crate) fn required_rights(roles: &[Role]) -> Vec<AccessRight> {
    let mut required = vec![AccessRight::ReadAll, AccessRight::UseOrders];
    if roles.contains(&Role::Worker) {
        required.push(AccessRight::ReadParked);
    }
    required
}

/// Check of the permissions that roles need at the event store.
pub(crate) struct PermissionCheck {
    log: EventLog,
    required: Vec<AccessRight>,
}

impl PermissionCheck {
    /// Creates a check of the permissions that `roles` need at the event store of `log`.
    pub(crate) fn new(log: EventLog, roles: &[Role]) -> Self {
        Self { log, required: required_rights(roles) }
    }

    /// Checks once, before anything is served. Returns whether the event store responded in time.
    ///
    /// # Errors
    /// [`CliError::Denied`] if a permission is missing.
    pub(crate) async fn check_at_startup(&self) -> Result<bool, CliError> {
        timeout(FIRST_CHECK_TIMEOUT, self.check_once()).await.unwrap_or(Ok(false))
    }

    /// Repeats the check until the event store responds, then waits for `stop`.
    ///
    /// # Errors
    /// [`CliError::Denied`] if a permission is missing.
    pub(crate) async fn check_until_answered(
        self,
        stop: CancellationToken,
    ) -> Result<(), CliError> {
        let checks = async {
            while !self.check_once().await? {
                sleep(RETRY_INTERVAL).await;
            }
            Ok(())
        };
        // A role that returns before `stop` counts as failed, so a passed check waits.
        match stop.run_until_cancelled(checks).await {
            Some(Ok(())) => stop.cancelled().await,
            Some(Err(denied)) => return Err(denied),
            None => {}
        }
        Ok(())
    }

    async fn check_once(&self) -> Result<bool, CliError> {
        match Box::pin(self.log.find_denied(&self.required, GROUP)).await {
            Ok(None) => Ok(true),
            Ok(Some(right)) => Err(CliError::Denied(right)),
            // Readiness and the roles report the outage.
            Err(error) if error.is_unavailable() => Ok(false),
            Err(error) => {
                // Not fatal: an unexpected response is no proof of a missing permission.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "Event store permission check failed");
                Ok(true)
            }
        }
    }
}
