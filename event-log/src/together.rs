//! Appends of many callers over one call to the store that stays open: a call for each costs client
//! and store more than the append (`BENCHMARKS.md`).
//!
//! The client ends the open call with the first append that the store refuses, and whatever else
//! was under way in it has no answer then. So nothing that goes wrong here is reported: who gets
//! no revision appends alone, which is the same append, because the store knows its events by
//! their ids.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use eventstore::{BatchAppendClient, BatchAppendOptions, EventData, StreamState};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::EventLog;
use crate::session::Session;

/// How long to wait for an answer before the append is made alone.
const PATIENCE: Duration = Duration::from_secs(2);
/// The least time between two open calls: where appends are refused again and again, most go alone,
/// and few have to be made twice.
const INTERVAL: Duration = Duration::from_secs(1);

/// The open call of a session, if there is one.
#[derive(Default)]
pub(crate) struct Together(Mutex<State>);

#[derive(Default)]
struct State {
    open: Option<Arc<BatchAppendClient>>,
    /// Whether a call is open that has not answered for too long. The client never ends it by
    /// itself, and the store takes only so many: there is no other until it answers or fails.
    is_late: bool,
    /// When the last one was asked for, and the task that asks.
    asked: Option<Instant>,
    opening: JoinSet<()>,
}

impl Together {
    fn state(&self) -> MutexGuard<'_, State> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends no longer go over this call. `false` if they did not any more.
    fn give_up(&self, failed: &Arc<BatchAppendClient>) -> bool {
        self.state().open.take_if(|it| Arc::ptr_eq(it, failed)).is_some()
    }

    /// A call that was late has answered, or failed (`None`).
    fn end_lateness(&self, open: Option<Arc<BatchAppendClient>>) {
        let mut state = self.state();
        state.is_late = false;
        state.open = open;
    }
}

/// A call that is late, until it is dropped: by a panic of the client too.
struct Lateness {
    session: Weak<Session>,
    /// The call, once it has answered.
    answered: Option<Arc<BatchAppendClient>>,
}

impl Drop for Lateness {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.together.end_lateness(self.answered.take());
        }
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
        let session = self.session().ok()?;
        let open = session.open_call()?;
        let (call, name) = (Arc::clone(&open), stream.to_owned());
        let mut appending =
            Box::pin(async move { call.append_to_stream(name, expected, events).await });
        match timeout(PATIENCE, &mut appending).await {
            Ok(Ok(appended)) => {
                self.appends.note_success();
                appended.current_revision()
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, stream, "Append over the open call failed");
                session.together.give_up(&open);
                None
            }
            Err(_) => {
                tracing::debug!(stream, "Append over the open call takes too long");
                if session.together.give_up(&open) {
                    session.together.state().is_late = true;
                    // The session owns the task: a strong reference would keep both for ever.
                    let late = Arc::downgrade(&session);
                    session.spawn(async move {
                        let mut lateness = Lateness { session: late, answered: None };
                        lateness.answered = appending.await.is_ok().then_some(open);
                    });
                }
                None
            }
        }
    }
}

impl Session {
    /// The open call. Without one it is asked for, for the appends that come later.
    fn open_call(self: &Arc<Self>) -> Option<Arc<BatchAppendClient>> {
        let mut state = self.together.state();
        if state.open.is_some()
            || state.is_late
            || state.asked.is_some_and(|it| it.elapsed() < INTERVAL)
        {
            return state.open.clone();
        }
        state.asked = Some(Instant::now());
        let client = self.client();
        // The session owns the task: a strong reference would keep both for ever.
        let session = Arc::downgrade(self);
        let opening = async move {
            match client.batch_append(&BatchAppendOptions::default()).await {
                Ok(call) => {
                    if let Some(session) = session.upgrade() {
                        session.together.state().open = Some(Arc::new(call));
                    }
                }
                Err(error) => tracing::debug!(%error, "No call can be opened to append together"),
            }
        };
        state.opening = JoinSet::new();
        state.opening.spawn(opening);
        None
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
        let config = EventStoreConfig { url: store.url().parse().unwrap() };
        EventLog::connect(&config, producer, "test").unwrap()
    }

    fn event(text: &str) -> Vec<EventData> {
        vec![EventData::json("Test", &text).unwrap()]
    }

    /// The open call, once there is one.
    async fn until_open(log: &EventLog) -> Arc<BatchAppendClient> {
        let opening = async {
            loop {
                if let Some(open) = log.session().unwrap().open_call() {
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
        assert!(log.session().unwrap().open_call().is_none(), "it has ended");
        assert!(!Arc::ptr_eq(&open, &until_open(&log).await), "and there is another in time");
    }
}
