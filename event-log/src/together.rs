//! Appends of many callers over one call to the store that stays open: a call for each costs client
//! and store more than the append (`BENCHMARKS.md`).
//!
//! The client ends the open call with the first append that the store refuses, and whatever else
//! was under way in it has no answer then. So nothing that goes wrong here is reported: who gets
//! no revision appends alone, which is the same append, because the store knows its events by
//! their ids.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventstore::{BatchAppendClient, BatchAppendOptions, EventData, StreamState};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::EventLog;

/// How long to wait for an answer before the append is made alone.
const PATIENCE: Duration = Duration::from_secs(2);
/// The least time between two open calls: where appends are refused again and again, most go alone,
/// and few have to be made twice.
const INTERVAL: Duration = Duration::from_secs(1);

/// The open call, if there is one.
#[derive(Default)]
pub(crate) struct Together(Mutex<State>);

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    /// When the last one was asked for, and who asks.
    asked: Option<Instant>,
    opening: JoinSet<()>,
}

struct Open {
    call: BatchAppendClient,
    /// Of the client that made it.
    generation: u64,
}

impl Together {
    fn state(&self) -> MutexGuard<'_, State> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventLog {
    /// Appends over the open call, and returns the revision of the last event. `None`: there is no
    /// open call, or it gave no answer. The append has to be made alone, and may have happened.
    pub(crate) async fn append_together(
        &self,
        stream: &str,
        expected: StreamState,
        events: Vec<EventData>,
    ) -> Option<u64> {
        let open = self.open_call()?;
        let appending = open.call.append_to_stream(stream, expected, events);
        let appended = timeout(PATIENCE, appending).await;
        match appended.map(|it| it.map(|it| it.current_revision())) {
            Ok(Ok(revision)) => revision,
            Ok(Err(error)) => {
                tracing::debug!(%error, stream, "Append over the open call failed");
                self.give_up(&open);
                None
            }
            Err(_) => {
                tracing::debug!(stream, "Append over the open call took too long");
                self.give_up(&open);
                // The call stays open at the store as long as the connection.
                self.discard(open.generation);
                None
            }
        }
    }

    /// The open call of the client in use. Without one it is asked for, for those who come later.
    fn open_call(&self) -> Option<Arc<Open>> {
        let (client, generation) = self.client().ok()?;
        let mut state = self.together.state();
        if let Some(open) = state.open.as_ref().filter(|it| it.generation == generation) {
            return Some(Arc::clone(open));
        }
        state.open = None;
        if state.asked.is_some_and(|it| it.elapsed() < INTERVAL) {
            return None;
        }
        state.asked = Some(Instant::now());
        // Who asks goes with the last who could use the answer.
        let together = Arc::downgrade(&self.together);
        state.opening = JoinSet::new();
        state.opening.spawn(async move {
            match client.batch_append(&BatchAppendOptions::default()).await {
                Ok(call) => {
                    if let Some(together) = together.upgrade() {
                        together.state().open = Some(Arc::new(Open { call, generation }));
                    }
                }
                Err(error) => tracing::debug!(%error, "No call can be opened to append together"),
            }
        });
        None
    }

    fn give_up(&self, failed: &Arc<Open>) {
        let mut state = self.together.state();
        if state.open.as_ref().is_some_and(|it| Arc::ptr_eq(it, failed)) {
            state.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::store::Store;

    use super::*;
    use crate::client::EventStoreConfig;
    use crate::metadata::Producer;

    /// How long anything may take. Reached only when something is broken.
    const LONG: Duration = Duration::from_secs(30);

    /// A log of this very crate; the one of the tests' store is of another build of it.
    fn connect(store: &Store) -> EventLog {
        let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
        let config = EventStoreConfig { url: store.url() };
        EventLog::connect(&config, producer, "test").unwrap()
    }

    fn event(text: &str) -> Vec<EventData> {
        vec![EventData::json("Test", &text).unwrap()]
    }

    /// The open call, once there is one.
    async fn until_open(log: &EventLog) -> Arc<Open> {
        let opening = async {
            loop {
                if let Some(open) = log.open_call() {
                    return open;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, opening).await.unwrap()
    }

    #[tokio::test]
    async fn appends_go_over_one_call_until_one_is_refused() {
        let store = Store::start().await;
        let log = connect(&store);
        let open = until_open(&log).await;
        let append = |events| log.append_together("test-1", StreamState::NoStream, events);
        assert_eq!(append(event("a")).await, Some(0));
        assert!(Arc::ptr_eq(&open, &until_open(&log).await), "it stays open");
        assert_eq!(append(event("b")).await, None, "the stream is there");
        assert!(log.open_call().is_none(), "it has ended");
        assert!(!Arc::ptr_eq(&open, &until_open(&log).await), "and there is another in time");
    }
}
