//! One thing that is checked, at most once a second whoever asks.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long a check may take before the thing checked counts as down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an outcome holds: nobody has to say who asks, so asking must cost nothing.
const HOLDS: Duration = Duration::from_secs(1);

/// What a check found. Reasons are shown to whoever asks: they name no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// The work can be done, with less than all.
    Degraded(String),
    /// The work cannot be done.
    Unavailable(String),
}

impl Health {
    /// The name in answers.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded(_) => "degraded",
            Self::Unavailable(_) => "unavailable",
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

/// One thing that must work before work is sent here.
pub struct Check {
    name: &'static str,
    run: Box<dyn Fn() -> Checking + Send + Sync>,
    /// Whether the work can be done without it: the worst that it finds is then degraded.
    is_optional: bool,
    last: Mutex<Option<(Instant, Health)>>,
}

impl Check {
    /// A check of what the work cannot be done without. `run` is made when somebody asks, at most
    /// once a second.
    pub fn new<F>(name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Health> + Send + 'static,
    {
        let run = Box::new(move || Box::pin(run()) as Checking);
        Self { name, run, is_optional: false, last: Mutex::default() }
    }

    /// The same check of what the work can be done without: the worst that it finds is degraded.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// The name in answers.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What is found now, or was found less than a second ago. A change is logged.
    pub(super) async fn outcome(&self) -> Health {
        // Held while it runs: those who ask meanwhile get the same outcome.
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
        let before = last.as_ref().map_or("ok", |(_, outcome)| outcome.name());
        if outcome.name() != before {
            let (check, state) = (self.name, outcome.name());
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
    async fn check_runs_once_a_second_however_many_ask() {
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
    async fn check_that_does_not_end_is_as_bad_as_one_that_fails() {
        let hanging = || Check::new("disk", std::future::pending::<Health>);
        assert_eq!(hanging().outcome().await.name(), "unavailable");
        assert_eq!(hanging().optional().outcome().await.name(), "degraded");
    }
}
