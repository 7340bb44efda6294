//! Whether the store takes appends: judged by the outcomes of appends, and by probes where there are
//! none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventstore::{Error as ClientError, EventData, StreamState};
use service_kit::outage::Outage;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::EventLog;
use crate::error::{LogError, is_store_failure, public_cause};

/// The store counts as failed once no append has succeeded for this long while some failed. A store
/// that restarts is back sooner.
const FAILED_AFTER: Duration = Duration::from_secs(2);
/// Failures that are further apart have nothing to do with each other: on a quiet system no append
/// succeeds in between.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);
/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// How long a store without appends is left alone before it is read.
const QUIET: Duration = Duration::from_secs(1);
/// How long the read of a probe may take.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The stream that probes append to, one event for each outage that they saw the end of.
const PROBE_STREAM: &str = "append-probes";
const PROBE_TYPE: &str = "AppendProbed";
/// As large as the events of an order with many items: a disk that has room for less is full.
const PROBE_BYTES: usize = 16 * 1024;

/// What is known of a store's appends. Shared by the parts of a process.
pub(crate) struct Appends {
    state: Mutex<State>,
    /// Whether the store is out of reach, which is logged by itself.
    outage: Arc<Outage>,
}

#[derive(Default)]
struct State {
    /// When the last append succeeded that is known of.
    succeeded: Option<Instant>,
    /// When the store last answered anything else.
    answered: Option<Instant>,
    /// Since when appends fail without one that succeeded, and when the last one did.
    failing: Option<(Instant, Instant)>,
    failed: Option<Failed>,
}

/// A store that takes no appends.
#[derive(Debug, Clone)]
struct Failed {
    since: Instant,
    cause: String,
    is_logged: bool,
}

impl Appends {
    /// Makes the record of a store of which nothing is known yet.
    pub(crate) fn new(outage: Arc<Outage>) -> Self {
        Self { state: Mutex::default(), outage }
    }

    /// An append succeeded.
    pub(crate) fn note_success(&self) {
        let mut state = self.state();
        state.succeeded = Some(Instant::now());
        state.failing = None;
        if let Some(failed) = state.failed.take().filter(|failed| failed.is_logged) {
            let duration_ms = u64::try_from(failed.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(duration_ms, "Event store takes appends again");
        }
    }

    /// The store answered something that says nothing about its disk.
    pub(crate) fn note_answer(&self) {
        self.state().answered = Some(Instant::now());
    }

    /// What an append came to that began then.
    pub(crate) fn note<T>(&self, began: Instant, outcome: &eventstore::Result<T>) {
        match outcome {
            Ok(_) => self.note_success(),
            Err(error) if is_store_failure(error) => self.note_failure(began, error),
            Err(_) => self.note_answer(),
        }
    }

    /// An append, or the read of a probe, that began then has failed.
    pub(crate) fn note_failure(&self, began: Instant, error: &ClientError) {
        let mut state = self.state();
        // A success beside a call that hangs counts: the call may have met a broken connection.
        let since = state.succeeded.map_or(began, |at| at.max(began));
        let since = match state.failing {
            Some((first, last)) if last.elapsed() < FORGOTTEN_AFTER => first,
            Some(_) | None => since,
        };
        state.failing = Some((since, Instant::now()));
        if state.failed.is_none() && since.elapsed() < FAILED_AFTER {
            return;
        }
        let was_logged = state.failed.as_ref().is_some_and(|failed| failed.is_logged);
        // A store that cannot be reached takes no appends either: one line is enough.
        let is_logged = was_logged || !self.outage.is_ongoing();
        if is_logged && !was_logged {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "Event store takes no appends: new orders are refused");
        }
        state.failed = Some(Failed { since, cause: public_cause(error), is_logged });
    }

    /// Why the store takes no appends.
    fn failure(&self) -> Option<String> {
        let state = self.state();
        if let Some(failed) = &state.failed {
            return Some(failed.cause.clone());
        }
        let is_known = state.succeeded.is_some() || state.answered.is_some();
        (!is_known).then(|| "it has not answered yet".to_owned())
    }

    /// The refusal of an append to a store that has failed.
    fn refusal(&self) -> Option<LogError> {
        let failed = self.state().failed.clone()?;
        Some(LogError::Failed { cause: failed.cause })
    }

    fn is_quiet(&self) -> bool {
        let state = self.state();
        state.succeeded.max(state.answered).is_none_or(|at| at.elapsed() >= QUIET)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventLog {
    /// Why the store takes no appends, without addresses; `None` while it takes them.
    pub fn append_failure(&self) -> Option<String> {
        self.appends.failure()
    }

    /// Probes the store until `stop`: reads it while nothing is appended, and appends while it is
    /// known to have failed. A store without the right to append to the stream `append-probes`
    /// counts as back once it says so.
    pub async fn watch_appends(&self, new_id: impl Fn() -> Uuid, stop: CancellationToken) {
        let log = self.waiting_long();
        let probing = async {
            loop {
                Box::pin(log.probe(&new_id)).await;
                sleep(PROBE_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(probing).await;
    }

    async fn probe(&self, new_id: &impl Fn() -> Uuid) {
        if self.appends.refusal().is_some() {
            // A read would say nothing: a store whose disk is full can be read.
            let probe = EventData::binary(PROBE_TYPE, vec![0; PROBE_BYTES].into()).id(new_id());
            let appended = self.append_alone(PROBE_STREAM, StreamState::Any, vec![probe]).await;
            if let Err(LogError::Refused(refused)) = appended
                && matches!(*refused, ClientError::AccessDenied)
            {
                self.appends.note_success();
            }
            return;
        }
        if !self.appends.is_quiet() {
            return;
        }
        let began = Instant::now();
        match timeout(READ_TIMEOUT, self.head()).await {
            Ok(Ok(_)) => self.appends.note_answer(),
            Ok(Err(LogError::Unavailable(error))) => self.appends.note_failure(began, &error),
            Ok(Err(error)) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "Event store cannot be read"
            ),
            Err(_) => self.appends.note_failure(began, &ClientError::DeadlineExceeded),
        }
    }

    /// Refuses an append at once if the store is known to have failed.
    pub(crate) fn check_appends(&self) -> Result<(), LogError> {
        self.appends.refusal().filter(|_| self.fails_fast).map_or(Ok(()), Err)
    }

    /// Whether the caller is not to wait long: the store is known to have failed.
    pub(crate) fn is_failing_fast(&self) -> bool {
        self.fails_fast && self.appends.refusal().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    fn fail(appends: &Appends) {
        appends.note_failure(Instant::now(), &ClientError::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn store_has_failed_once_appends_have_failed_for_a_while_and_none_succeeded() {
        let appends = Appends::new(Arc::new(Outage::new("Event store", String::new())));
        assert!(appends.failure().is_some(), "it has not answered yet");
        appends.note_answer();
        assert_eq!(appends.failure(), None);

        fail(&appends);
        pass(FAILED_AFTER / 2).await;
        fail(&appends);
        assert!(appends.refusal().is_none(), "it may be starting again");
        appends.note_success();
        pass(FAILED_AFTER).await;
        fail(&appends);
        assert!(appends.refusal().is_none(), "one has succeeded in between");
        pass(FAILED_AFTER).await;
        fail(&appends);
        assert!(appends.refusal().is_some());
        appends.note_answer();
        assert!(appends.failure().is_some(), "a store with a full disk answers, too");
        appends.note_success();
        assert_eq!(appends.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_are_no_outage_and_a_call_that_hangs_is_one() {
        let appends = Appends::new(Arc::new(Outage::new("Event store", String::new())));
        appends.note_success();
        fail(&appends);
        pass(FORGOTTEN_AFTER).await;
        fail(&appends);
        assert!(appends.refusal().is_none());
        appends.note_success();

        let began = Instant::now();
        pass(FAILED_AFTER).await;
        appends.note_success();
        appends.note_failure(began, &ClientError::DeadlineExceeded);
        assert!(appends.refusal().is_none(), "others succeed meanwhile");
        let began = Instant::now();
        pass(FAILED_AFTER).await;
        appends.note_failure(began, &ClientError::DeadlineExceeded);
        assert!(appends.refusal().is_some());
    }
}
