//! The circuit breaker: while the gateway does not answer no work is taken, so that orders do not use
//! up their retries.

mod machine;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use domain::operations::BreakerPhase;
use domain::order::FailureClass;
use service_kit::mutex::lock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::gateway::{GatewayError, Outcome};
use machine::{CallResult, Decision, Machine};

/// The circuit breaker of one worker.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    inner: Mutex<Inner>,
    /// Counts changes, to wake tasks that wait for one.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    /// The gateway's last failure.
    error: Option<String>,
}

/// State of a circuit breaker.
#[derive(Debug, Clone)]
pub(crate) struct BreakerState {
    pub(crate) phase: BreakerPhase,
    pub(crate) since: Instant,
    /// The gateway's last failure.
    pub(crate) error: Option<String>,
    generation: u64,
}

/// Permission to call the gateway: any number of times while the breaker is closed, once as a probe.
/// A probe that is dropped without an outcome is given to the next caller.
#[derive(Debug)]
pub(crate) struct Admission {
    breaker: Arc<CircuitBreaker>,
    generation: u64,
    is_probe: bool,
    has_outcome: AtomicBool,
}

impl CircuitBreaker {
    /// Makes a closed breaker that opens for `open_for` after `max_failures` in a row; `None`: never.
    pub(crate) fn new(max_failures: Option<u32>, open_for: Duration) -> Self {
        let machine = Machine::new(max_failures, open_for, Instant::now());
        let inner = Mutex::new(Inner { machine, error: None });
        Self { inner, changes: watch::Sender::default() }
    }

    /// Returns the current state.
    pub(crate) fn state(&self) -> BreakerState {
        // Under one lock: the members describe one moment.
        let inner = self.inner();
        BreakerState {
            phase: inner.machine.phase(),
            since: inner.machine.since(),
            error: inner.error.clone(),
            generation: inner.machine.generation(),
        }
    }

    /// Waits until the state differs from `seen`.
    pub(crate) async fn wait_for_change(&self, seen: &BreakerState) {
        self.wait_for_generation_after(seen.generation).await;
    }

    /// Waits until the gateway may be called.
    pub(crate) async fn wait_for_admission(self: &Arc<Self>) -> Admission {
        loop {
            // Subscribed before the decision: a change in between would be missed otherwise.
            let mut changes = self.changes.subscribe();
            let decision = self.inner().machine.admit(Instant::now());
            match decision {
                Decision::Admitted { generation, is_probe } => {
                    // The breaker may have become half-open, which the worker reports.
                    self.notify_waiters();
                    let (breaker, has_outcome) = (Arc::clone(self), AtomicBool::new(false));
                    return Admission { breaker, generation, is_probe, has_outcome };
                }
                // `changed` cannot fail: the breaker owns the sender.
                Decision::NotBefore(then) => tokio::select! {
                    () = sleep_until(then) => {}
                    _ = changes.changed() => {}
                },
                Decision::AfterProbe => drop(changes.changed().await),
            }
        }
    }

    async fn wait_for_generation_after(&self, generation: u64) {
        // Subscribed before the first check: a change in between would be missed otherwise.
        let mut changes = self.changes.subscribe();
        while self.inner().machine.generation() == generation {
            drop(changes.changed().await);
        }
    }

    fn notify_waiters(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Admission {
    /// Returns whether this admits one call only, which decides whether the breaker closes.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Returns whether the breaker is still in the state in which it admitted the call.
    pub(crate) fn is_current(&self) -> bool {
        self.breaker.inner().machine.generation() == self.generation
    }

    /// Waits until this is no longer current.
    pub(crate) async fn wait_for_end(&self) {
        self.breaker.wait_for_generation_after(self.generation).await;
    }

    /// Notes the outcome of a call. Every response, also a permanent failure, shows that the gateway
    /// works.
    pub(crate) fn note_outcome(&self, outcome: &Result<Outcome, GatewayError>) {
        let mut inner = self.breaker.inner();
        let result = match outcome {
            Err(GatewayError { class: FailureClass::Transient, error, retry_after, .. }) => {
                inner.error = Some(error.clone());
                CallResult::Failure { retry_after: *retry_after }
            }
            Ok(_) | Err(_) => CallResult::Response,
        };
        inner.machine.note_result(self.generation, result, Instant::now());
        // Waiters take this lock when they wake.
        drop(inner);
        self.has_outcome.store(true, Ordering::Release);
        self.breaker.notify_waiters();
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.is_probe && !self.has_outcome.load(Ordering::Acquire) {
            self.breaker.inner().machine.return_probe(self.generation);
            self.breaker.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(5);

    fn failure() -> Result<Outcome, GatewayError> {
        Err(GatewayError::new(FailureClass::Transient, "no answer".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn open_breaker_admits_one_probe_and_all_calls_after_a_response() {
        let breaker = Arc::new(CircuitBreaker::new(Some(1), OPEN_FOR));
        let admission = breaker.wait_for_admission().await;
        admission.note_outcome(&failure());
        assert!(!admission.is_current());
        let state = breaker.state();
        assert_eq!((state.phase, state.error.as_deref()), (BreakerPhase::Open, Some("no answer")));

        let asked = Instant::now();
        let probe = breaker.wait_for_admission().await;
        assert!(probe.is_probe() && asked.elapsed() >= OPEN_FOR);
        assert!(
            timeout(OPEN_FOR * 10, breaker.wait_for_admission()).await.is_err(),
            "one at a time"
        );
        probe.note_outcome(&Ok(Outcome::Fulfilled { reference: String::new() }));
        assert!(!breaker.wait_for_admission().await.is_probe());
        assert!(!probe.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn unused_probe_is_given_to_the_next_caller() {
        let breaker = Arc::new(CircuitBreaker::new(Some(1), OPEN_FOR));
        breaker.wait_for_admission().await.note_outcome(&failure());
        drop(breaker.wait_for_admission().await);
        assert!(breaker.wait_for_admission().await.is_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failure_keeps_the_breaker_closed() {
        let breaker = Arc::new(CircuitBreaker::new(Some(1), OPEN_FOR));
        let permanent = GatewayError::new(FailureClass::Permanent, "no such product".to_owned());
        breaker.wait_for_admission().await.note_outcome(&Err(permanent));
        assert_eq!(breaker.state().phase, BreakerPhase::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_tasks_are_woken_by_a_change() {
        let breaker = Arc::new(CircuitBreaker::new(Some(1), OPEN_FOR));
        let admission = breaker.wait_for_admission().await;
        let seen = breaker.state();
        tokio::join!(breaker.wait_for_change(&seen), admission.wait_for_end(), async {
            admission.note_outcome(&failure());
        });
    }
}
