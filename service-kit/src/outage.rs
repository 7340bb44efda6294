//! Log lines about outages of a dependency: one when an outage begins, one when it ends, and at most
//! one per cause and minute in between.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::mutex::lock;

/// Minimum time between two lines with the same cause.
const REPEAT_INTERVAL: Duration = Duration::from_mins(1);

/// A dependency of this process (event store, read model), and whether it is unreachable.
#[derive(Debug)]
pub struct Outage {
    /// Start of each log line, e.g. `Event store`.
    dependency: &'static str,
    /// Address of the dependency, without its password.
    address: String,
    is_ongoing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    /// Time of the last line per cause, earlier outages included.
    last_logged: HashMap<String, Instant>,
}

#[derive(Debug)]
struct Current {
    begun: Instant,
    /// Whether the start was logged. The end is logged only if the start was.
    is_logged: bool,
}

impl Outage {
    /// Creates the record of a dependency that is reachable.
    pub fn new(dependency: &'static str, address: String) -> Self {
        Self { dependency, address, is_ongoing: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Returns whether the dependency is unreachable.
    pub fn is_ongoing(&self) -> bool {
        self.is_ongoing.load(Ordering::Acquire)
    }

    /// Notes a failed attempt to reach the dependency. Logs it unless `cause` was logged recently.
    pub fn note_failure(&self, cause: &str, hint: &str) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        self.is_ongoing.store(true, Ordering::Release);
        let State { current, last_logged } = &mut *state;
        let current = current.get_or_insert(Current { begun: now, is_logged: false });
        last_logged.retain(|_, time| now - *time < REPEAT_INTERVAL);
        // Also across outages: a connection that comes and goes does not fill the log.
        if last_logged.contains_key(cause) {
            return;
        }
        last_logged.insert(cause.to_owned(), now);
        let (dependency, address) = (self.dependency, &self.address);
        if current.is_logged {
            let duration_ms = to_millis(now - current.begun);
            tracing::warn!(address, cause, hint, duration_ms, "{dependency} still unreachable");
        } else {
            current.is_logged = true;
            tracing::warn!(address, cause, hint, "{dependency} unreachable");
        }
    }

    /// Notes a response of the dependency, which ends the outage.
    pub fn note_success(&self) {
        // Called for every response, so the usual case must not take the lock.
        if !self.is_ongoing() {
            return;
        }
        let mut state = lock(&self.state);
        self.is_ongoing.store(false, Ordering::Release);
        if let Some(current) = state.current.take().filter(|outage| outage.is_logged) {
            let duration_ms = to_millis(current.begun.elapsed());
            tracing::info!(
                address = self.address,
                duration_ms,
                "{} reachable again",
                self.dependency
            );
        }
    }
}

fn to_millis(duration: Duration) -> u64 {
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

    /// Returns level and message of each line that `run` logs.
    fn capture_lines(run: impl FnOnce()) -> Vec<(String, String)> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, run);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let parse_line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["address"], "esdb://store:2113");
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("level"), text("message"))
        };
        text.lines().map(parse_line).collect()
    }

    fn owned_pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(level, text)| ((*level).to_owned(), (*text).to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn outage_is_logged_when_it_begins_and_ends() {
        let outage = Outage::new("Event store", "esdb://store:2113".to_owned());
        let lines = capture_lines(|| {
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
        assert_eq!(lines, owned_pairs(&expected));
    }

    #[tokio::test(start_paused = true)]
    async fn each_cause_is_logged_at_most_once_per_minute() {
        let outage = Outage::new("Event store", "esdb://store:2113".to_owned());
        let fail = |cause| capture_lines(|| outage.note_failure(cause, "start it"));
        assert_eq!(fail("a"), owned_pairs(&[("WARN", "Event store unreachable")]));
        assert_eq!(fail("a"), []);
        assert_eq!(fail("b"), owned_pairs(&[("WARN", "Event store still unreachable")]));
        assert_eq!(capture_lines(|| outage.note_success()).len(), 1);
        // A short outage after another is not logged.
        assert_eq!(fail("a"), []);
        assert_eq!(capture_lines(|| outage.note_success()), []);
        tokio::time::advance(REPEAT_INTERVAL).await;
        assert_eq!(fail("a"), owned_pairs(&[("WARN", "Event store unreachable")]));
        tokio::time::advance(REPEAT_INTERVAL).await;
        assert_eq!(fail("a"), owned_pairs(&[("WARN", "Event store still unreachable")]));
    }
}
