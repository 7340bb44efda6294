//! The circuit breaker: while the gateway gives no answers, no work is taken, instead of burning
//! the retries of one order after another.

mod machine;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::operations::BreakerPhase;
use domain::order::FailureClass;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::gateway::{GatewayError, Outcome};
use machine::{Admit, Machine, Noted};

/// The breaker of one worker.
#[derive(Debug)]
pub(crate) struct Breaker {
    inner: Mutex<Inner>,
    /// Counts what may concern somebody who waits.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    /// The last failure.
    error: Option<String>,
}

/// How a breaker stands.
#[derive(Debug, Clone)]
pub(crate) struct BreakerState {
    pub(crate) phase: BreakerPhase,
    pub(crate) since: Instant,
    /// The gateway's last failure.
    pub(crate) error: Option<String>,
    generation: u64,
}

/// Leave to call the gateway: any number of times while the breaker is closed, once as a probe.
#[derive(Debug)]
pub(crate) struct Admission {
    breaker: Arc<Breaker>,
    generation: u64,
    is_probe: bool,
    is_noted: AtomicBool,
}

impl Breaker {
    /// One that opens after so many failures in a row, for a time; `None`: it never opens.
    pub(crate) fn new(max_failures: Option<u32>, open_for: Duration) -> Self {
        let machine = Machine::new(max_failures, open_for, Instant::now());
        let inner = Mutex::new(Inner { machine, error: None });
        Self { inner, changes: watch::Sender::default() }
    }

    /// How it stands.
    pub(crate) fn state(&self) -> BreakerState {
        let inner = self.inner();
        BreakerState {
            phase: inner.machine.phase(),
            since: inner.machine.since(),
            error: inner.error.clone(),
            generation: inner.machine.generation(),
        }
    }

    /// Waits until it does not stand any more as it was seen.
    pub(crate) async fn changed(&self, seen: &BreakerState) {
        self.until(|machine| machine.generation() != seen.generation).await;
    }

    /// Waits until the gateway may be called.
    pub(crate) async fn admission(self: &Arc<Self>) -> Admission {
        loop {
            let mut changes = self.changes.subscribe();
            let admit = self.inner().machine.admit(Instant::now());
            match admit {
                Admit::Yes { generation, is_probe } => {
                    self.tell();
                    let (breaker, is_noted) = (Arc::clone(self), AtomicBool::new(false));
                    return Admission { breaker, generation, is_probe, is_noted };
                }
                // The breaker holds the sender: it cannot be gone.
                Admit::NotBefore(then) => tokio::select! {
                    () = sleep_until(then) => {}
                    _ = changes.changed() => {}
                },
                Admit::AfterProbe => drop(changes.changed().await),
            }
        }
    }

    async fn until(&self, is_it: impl Fn(&Machine) -> bool) {
        let mut changes = self.changes.subscribe();
        while !is_it(&self.inner().machine) {
            drop(changes.changed().await);
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|it| *it += 1);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Whether it is to be found out with one order whether the gateway is back.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Whether the breaker is still in the state in which it gave leave.
    pub(crate) fn is_current(&self) -> bool {
        self.breaker.inner().machine.generation() == self.generation
    }

    /// Waits until it is not current any more.
    pub(crate) async fn ended(&self) {
        self.breaker.until(|machine| machine.generation() != self.generation).await;
    }

    /// Notes what came of a call. Any answer, even that it failed for good, says that the gateway
    /// is there.
    pub(crate) fn note(&self, outcome: &Result<Outcome, GatewayError>) {
        let mut inner = self.breaker.inner();
        let noted = match outcome {
            Err(GatewayError { class: FailureClass::Transient, error, retry_after, .. }) => {
                inner.error = Some(error.clone());
                Noted::Failure { retry_after: *retry_after }
            }
            Ok(_) | Err(_) => Noted::Answer,
        };
        inner.machine.note(self.generation, noted, Instant::now());
        drop(inner);
        self.is_noted.store(true, Ordering::Release);
        self.breaker.tell();
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.is_probe && !self.is_noted.load(Ordering::Acquire) {
            self.breaker.inner().machine.give_back(self.generation);
            self.breaker.tell();
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
    async fn open_breaker_admits_one_after_its_time_and_all_after_an_answer() {
        let breaker = Arc::new(Breaker::new(Some(1), OPEN_FOR));
        let admission = breaker.admission().await;
        admission.note(&failure());
        assert!(!admission.is_current());
        let state = breaker.state();
        assert_eq!((state.phase, state.error.as_deref()), (BreakerPhase::Open, Some("no answer")));

        let asked = Instant::now();
        let probe = breaker.admission().await;
        assert!(probe.is_probe() && asked.elapsed() >= OPEN_FOR);
        assert!(timeout(OPEN_FOR * 10, breaker.admission()).await.is_err(), "one at a time");
        probe.note(&Ok(Outcome::Fulfilled { reference: String::new() }));
        assert!(!breaker.admission().await.is_probe());
        assert!(!probe.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn probe_that_was_not_made_goes_to_the_next() {
        let breaker = Arc::new(Breaker::new(Some(1), OPEN_FOR));
        breaker.admission().await.note(&failure());
        drop(breaker.admission().await);
        assert!(breaker.admission().await.is_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failure_is_an_answer() {
        let breaker = Arc::new(Breaker::new(Some(1), OPEN_FOR));
        let permanent = GatewayError::new(FailureClass::Permanent, "no such product".to_owned());
        breaker.admission().await.note(&Err(permanent));
        assert_eq!(breaker.state().phase, BreakerPhase::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_change_hears_of_it() {
        let breaker = Arc::new(Breaker::new(Some(1), OPEN_FOR));
        let admission = breaker.admission().await;
        let seen = breaker.state();
        tokio::join!(breaker.changed(&seen), admission.ended(), async {
            admission.note(&failure());
        });
    }
}
