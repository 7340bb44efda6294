//! Whether the event store lets each role do its work.

use std::time::Duration;

use event_log::{AccessRight, EventLog};
use fulfillment_worker::GROUP;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::Role;
use crate::error::CliError;

/// How long a start waits for the answer: the store may be away, and the start must not depend on it.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Between two looks at a store that did not answer.
const NEXT_LOOK: Duration = Duration::from_secs(1);

/// The rights that roles need at the event store.
pub(crate) struct Rights {
    log: EventLog,
    needed: Vec<AccessRight>,
}

impl Rights {
    /// What `roles` need of the store behind `log`.
    pub(crate) fn new(log: EventLog, roles: &[Role]) -> Self {
        let mut needed = vec![AccessRight::ReadAll, AccessRight::UseOrders];
        if roles.contains(&Role::Worker) {
            needed.push(AccessRight::ReadParked);
        }
        Self { log, needed }
    }

    /// Looks once, while nothing is served yet. Returns whether the store answered.
    ///
    /// # Errors
    /// [`CliError::Denied`] if it denies one of the rights.
    pub(crate) async fn look_first(&self) -> Result<bool, CliError> {
        timeout(FIRST_LOOK, self.look()).await.unwrap_or(Ok(false))
    }

    /// Looks until the store has answered, then waits for `stop`.
    ///
    /// # Errors
    /// As [`look_first`](Self::look_first).
    pub(crate) async fn look_until_answered(self, stop: CancellationToken) -> Result<(), CliError> {
        let looks = async {
            while !self.look().await? {
                sleep(NEXT_LOOK).await;
            }
            Ok(())
        };
        match stop.run_until_cancelled(looks).await {
            Some(Ok(())) => stop.cancelled().await,
            Some(Err(denied)) => return Err(denied),
            None => {}
        }
        Ok(())
    }

    async fn look(&self) -> Result<bool, CliError> {
        match Box::pin(self.log.find_denied(&self.needed, GROUP)).await {
            Ok(None) => Ok(true),
            Ok(Some(right)) => Err(CliError::Denied(right)),
            // Readiness and the roles themselves say what is the matter.
            Err(error) if error.is_unavailable() => Ok(false),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "Rights at the event store cannot be checked");
                Ok(true)
            }
        }
    }
}
