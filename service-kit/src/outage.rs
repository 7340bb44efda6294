//! Outages of a neighbour of this process, as its log tells them: one line when an outage begins, one
//! when it ends, and few in between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Least time between two lines about the same cause.
const REPEAT_INTERVAL: Duration = Duration::from_mins(1);

/// A neighbour that this process depends on, and whether it is away.
#[derive(Debug)]
pub struct Outage {
    /// What the lines begin with, e.g. `Event store`.
    neighbour: &'static str,
    /// Of the neighbour, without what is secret.
    address: String,
    is_ongoing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    /// When a cause was logged last, also in an outage before.
    logged: HashMap<String, Instant>,
}

#[derive(Debug)]
struct Current {
    begun: Instant,
    /// Whether a line says that it has begun; the end of one that none tells of is not told either.
    is_logged: bool,
}

impl Outage {
    /// Makes a record of a neighbour that is there.
    pub fn new(neighbour: &'static str, address: String) -> Self {
        Self { neighbour, address, is_ongoing: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Returns whether the neighbour is away.
    pub fn is_ongoing(&self) -> bool {
        self.is_ongoing.load(Ordering::Acquire)
    }

    /// Notes that the neighbour cannot be reached, and why.
    pub fn note_failure(&self, cause: &str, hint: &str) {
        let now = Instant::now();
        let mut state = self.state();
        self.is_ongoing.store(true, Ordering::Release);
        let State { current, logged } = &mut *state;
        let current = current.get_or_insert(Current { begun: now, is_logged: false });
        logged.retain(|_, at| now - *at < REPEAT_INTERVAL);
        if logged.contains_key(cause) {
            return;
        }
        logged.insert(cause.to_owned(), now);
        let (neighbour, address) = (self.neighbour, &self.address);
        if current.is_logged {
            let duration_ms = millis(now - current.begun);
            tracing::warn!(address, cause, hint, duration_ms, "{neighbour} still unreachable");
        } else {
            current.is_logged = true;
            tracing::warn!(address, cause, hint, "{neighbour} unreachable");
        }
    }

    /// Notes that the neighbour has answered.
    pub fn note_success(&self) {
        // Almost always there is nothing to end, and then nothing to wait for.
        if !self.is_ongoing() {
            return;
        }
        let mut state = self.state();
        self.is_ongoing.store(false, Ordering::Release);
        if let Some(current) = state.current.take().filter(|it| it.is_logged) {
            let duration_ms = millis(current.begun.elapsed());
            tracing::info!(
                address = self.address,
                duration_ms,
                "{} reachable again",
                self.neighbour
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile: level and message.
    fn logged(run: impl FnOnce()) -> Vec<(String, String)> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, run);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["address"], "esdb://store:2113");
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("level"), text("message"))
        };
        text.lines().map(line).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(level, it)| ((*level).to_owned(), (*it).to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn outage_is_told_once_at_its_begin_and_once_at_its_end() {
        let outage = Outage::new("Event store", "esdb://store:2113".to_owned());
        let lines = logged(|| {
            outage.note_success();
            for _ in 0..100 {
                outage.note_failure("connection refused", "start it");
            }
            assert!(outage.is_ongoing());
            outage.note_success();
            outage.note_success();
        });
        let expected =
            [("WARN", "Event store unreachable"), ("INFO", "Event store reachable again")];
        assert_eq!(lines, pairs(&expected));
    }

    #[tokio::test(start_paused = true)]
    async fn each_cause_is_told_at_most_once_a_minute_however_often_it_begins() {
        let outage = Outage::new("Event store", "esdb://store:2113".to_owned());
        let fail = |cause| logged(|| outage.note_failure(cause, "start it"));
        assert_eq!(fail("a"), pairs(&[("WARN", "Event store unreachable")]));
        assert_eq!(fail("a"), []);
        assert_eq!(fail("b"), pairs(&[("WARN", "Event store still unreachable")]));
        assert_eq!(logged(|| outage.note_success()).len(), 1);
        // It flaps.
        assert_eq!(fail("a"), []);
        assert_eq!(logged(|| outage.note_success()), []);
        tokio::time::advance(REPEAT_INTERVAL).await;
        assert_eq!(fail("a"), pairs(&[("WARN", "Event store unreachable")]));
        tokio::time::advance(REPEAT_INTERVAL).await;
        assert_eq!(fail("a"), pairs(&[("WARN", "Event store still unreachable")]));
    }
}
