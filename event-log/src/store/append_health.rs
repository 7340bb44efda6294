//! Whether the store accepts appends, judged by the outcomes of appends and of probes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventstore::Error as ClientError;
use service_kit::mutex::lock;
use service_kit::outage::Outage;
use tokio::time::Instant;

use super::error::{LogError, is_store_failure, public_cause};

/// The store counts as failed when appends have failed for this long and none has succeeded. A store
/// that restarts is back sooner.
const FAILED_AFTER: Duration = Duration::from_secs(2);
/// Failures that are further apart count separately: on an idle system no append succeeds in
/// between.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);
/// How long the store may be without appends before a probe reads it.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// Record of a store's appends. Shared by the parts of a process.
pub(crate) struct AppendHealth {
    state: Mutex<State>,
    /// The outage of the store, which is logged separately.
    outage: Arc<Outage>,
}

#[derive(Default)]
struct State {
    /// When an append last succeeded.
    last_success: Option<Instant>,
    /// When the store last sent any other response.
    last_response: Option<Instant>,
    /// The first and the last failure since the last success.
    failing: Option<(Instant, Instant)>,
    failure: Option<StoreFailure>,
}

/// A store that accepts no appends.
#[derive(Debug, Clone)]
struct StoreFailure {
    since: Instant,
    cause: String,
    is_logged: bool,
}

impl AppendHealth {
    /// Makes the record of a store that has not answered yet.
    pub(crate) fn new(outage: Arc<Outage>) -> Self {
        Self { state: Mutex::default(), outage }
    }

    /// Notes that an append has succeeded.
    pub(crate) fn note_success(&self) {
        let mut state = lock(&self.state);
        state.last_success = Some(Instant::now());
        state.failing = None;
        if let Some(failure) = state.failure.take().filter(|failure| failure.is_logged) {
            let elapsed = failure.since.elapsed();
            let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(duration_ms, "Event store accepts appends again");
        }
    }

    /// Notes a response that says nothing about the store's disk.
    pub(crate) fn note_response(&self) {
        lock(&self.state).last_response = Some(Instant::now());
    }

    /// Notes the outcome of an append that began at `began`.
    pub(crate) fn note_outcome<T>(&self, began: Instant, outcome: &eventstore::Result<T>) {
        match outcome {
            Ok(_) => self.note_success(),
            Err(error) if is_store_failure(error) => self.note_failure(began, error),
            Err(_) => self.note_response(),
        }
    }

    /// Notes the failure of an append, or of a probe's read, that began at `began`.
    pub(crate) fn note_failure(&self, began: Instant, error: &ClientError) {
        let mut state = lock(&self.state);
        // A success during a call that hangs counts: the call may have used a broken connection.
        let since = state.last_success.map_or(began, |at| at.max(began));
        let since = match state.failing {
            Some((first, last)) if last.elapsed() < FORGOTTEN_AFTER => first,
            Some(_) | None => since,
        };
        state.failing = Some((since, Instant::now()));
        if state.failure.is_none() && since.elapsed() < FAILED_AFTER {
            return;
        }
        let was_logged = state.failure.as_ref().is_some_and(|failure| failure.is_logged);
        // An unreachable store accepts no appends either: the line about the outage is enough.
        let is_logged = was_logged || !self.outage.is_ongoing();
        if is_logged && !was_logged {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "Event store accepts no appends: new orders are refused");
        }
        state.failure = Some(StoreFailure { since, cause: public_cause(error), is_logged });
    }

    /// Returns why the store accepts no appends; `None` while it accepts them.
    pub(crate) fn failure_cause(&self) -> Option<String> {
        let state = lock(&self.state);
        if let Some(failure) = &state.failure {
            return Some(failure.cause.clone());
        }
        let has_answered = state.last_success.is_some() || state.last_response.is_some();
        (!has_answered).then(|| "it has not answered yet".to_owned())
    }

    /// Returns whether the store is known to have failed.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.state).failure.is_some()
    }

    /// Returns the error of an append to a store that is known to have failed.
    pub(crate) fn refusal(&self) -> Option<LogError> {
        let cause = lock(&self.state).failure.as_ref()?.cause.clone();
        Some(LogError::Failed { cause })
    }

    /// Returns whether the store has answered nothing for [`QUIET_AFTER`].
    pub(crate) fn is_quiet(&self) -> bool {
        let state = lock(&self.state);
        let last = state.last_success.max(state.last_response);
        last.is_none_or(|at| at.elapsed() >= QUIET_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn new_health() -> AppendHealth {
        AppendHealth::new(Arc::new(Outage::new("Event store", String::new())))
    }

    fn fail(health: &AppendHealth) {
        health.note_failure(Instant::now(), &ClientError::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn store_has_failed_after_failures_without_a_success() {
        let health = new_health();
        assert!(health.failure_cause().is_some(), "it has not answered yet");
        health.note_response();
        assert_eq!(health.failure_cause(), None);

        fail(&health);
        advance(FAILED_AFTER / 2).await;
        fail(&health);
        assert!(!health.has_failed(), "it may be restarting");
        health.note_success();
        advance(FAILED_AFTER).await;
        fail(&health);
        assert!(!health.has_failed(), "one has succeeded in between");
        advance(FAILED_AFTER).await;
        fail(&health);
        assert!(health.has_failed() && health.refusal().is_some());
        health.note_response();
        assert!(health.failure_cause().is_some(), "a store with a full disk answers, too");
        health.note_success();
        assert_eq!(health.failure_cause(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_are_no_outage_and_a_hanging_call_is_one() {
        let health = new_health();
        health.note_success();
        fail(&health);
        advance(FORGOTTEN_AFTER).await;
        fail(&health);
        assert!(!health.has_failed());
        health.note_success();

        let began = Instant::now();
        advance(FAILED_AFTER).await;
        health.note_success();
        health.note_failure(began, &ClientError::DeadlineExceeded);
        assert!(!health.has_failed(), "another append succeeded meanwhile");
        let began = Instant::now();
        advance(FAILED_AFTER).await;
        health.note_failure(began, &ClientError::DeadlineExceeded);
        assert!(health.has_failed());
    }
}
