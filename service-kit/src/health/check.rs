//! A health check, which runs at most once a second.

use std::pin::Pin;
use std::time::Duration;

use api_types::HealthState;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// Maximum duration of a check; a slower one is unavailable.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an outcome is reused. Health routes need no key, so that requests must be cheap.
const HOLDS: Duration = Duration::from_secs(1);

/// Outcome of a check. Every client can read the reasons: they contain no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// The process works with reduced function.
    Degraded(String),
    /// The process cannot work.
    Unavailable(String),
}

impl Health {
    pub(super) fn state(&self) -> HealthState {
        match self {
            Self::Ok => HealthState::Ok,
            Self::Degraded(_) => HealthState::Degraded,
            Self::Unavailable(_) => HealthState::Unavailable,
        }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Degraded(reason) | Self::Unavailable(reason) => Some(reason),
        }
    }
}

type Checking = Pin<Box<dyn Future<Output = Health> + Send>>;

/// A check of something that the process needs.
pub struct Check {
    name: &'static str,
    run: Box<dyn Fn() -> Checking + Send + Sync>,
    /// Whether the process works without it: an unavailable outcome then counts as degraded.
    is_optional: bool,
    last: Mutex<Option<(Instant, Health)>>,
}

impl Check {
    /// Returns a check of something that the process cannot work without.
    pub fn new<F>(name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Health> + Send + 'static,
    {
        let run = Box::new(move || Box::pin(run()) as Checking);
        Self { name, run, is_optional: false, last: Mutex::default() }
    }

    /// Returns the check for something that the process can work without: at worst it is degraded.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// Returns the name in reports.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the outcome, which is at most a second old. A change is logged.
    pub(super) async fn outcome(&self) -> Health {
        // The lock is held while the check runs, so that concurrent requests share one run.
        let mut last = self.last.lock().await;
        if let Some((at, outcome)) = &*last
            && at.elapsed() < HOLDS
        {
            return outcome.clone();
        }
        let late = |_| Health::Unavailable("no answer in time".to_owned());
        let mut outcome = timeout(CHECK_TIMEOUT, (self.run)()).await.unwrap_or_else(late);
        if self.is_optional
            && let Health::Unavailable(reason) = outcome
        {
            outcome = Health::Degraded(reason);
        }
        // Before the first run counts as healthy, so that a process that starts unhealthy logs it.
        let before = last.as_ref().map_or(HealthState::Ok, |(_, outcome)| outcome.state());
        if outcome.state() != before {
            let (check, state) = (self.name, outcome.state().as_str());
            if let Some(reason) = outcome.reason() {
                tracing::warn!(check, state, reason, "Readiness changed");
            } else {
                tracing::info!(check, state, "Readiness changed");
            }
        }
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_one_run() {
        let n_runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&n_runs);
        let check = Check::new("disk", move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Health::Ok }
        });
        join_all((0..50).map(|_| check.outcome())).await;
        assert_eq!(n_runs.load(Ordering::Relaxed), 1);
        tokio::time::advance(HOLDS).await;
        check.outcome().await;
        assert_eq!(n_runs.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn check_that_times_out_is_unavailable() {
        let hanging = || Check::new("disk", std::future::pending::<Health>);
        assert_eq!(hanging().outcome().await.state(), HealthState::Unavailable);
        assert_eq!(hanging().optional().outcome().await.state(), HealthState::Degraded);
    }
}
