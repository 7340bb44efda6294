//! Appends of many callers over one `BatchAppend` call that stays open: a call per append costs
//! client and store more than the append itself (`BENCHMARKS.md`).
//!
//! The client ends the open call with the first append that the store refuses, and all other appends
//! in flight on it get no response. So failures here are not reported: the caller repeats the append
//! by a call of its own, and the store recognises its events by their ids.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use eventstore::{
    BatchAppendClient, BatchAppendOptions, BatchWriteResult, Client, EventData, StreamState,
};
use service_kit::mutex::lock;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How long to wait for a response before the caller appends by a call of its own.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time between two attempts to open a call. While the store keeps refusing appends, most of
/// them use calls of their own, and few are sent twice.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The open `BatchAppend` call of a session, if there is one.
#[derive(Default)]
pub(crate) struct BatchAppender(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    open: Option<Arc<BatchAppendClient>>,
    /// Whether a call is open whose response is late. The client never ends it by itself, and the
    /// store accepts only so many: no other call is opened until this one answers or fails.
    is_late: bool,
    /// When a call was last requested.
    requested_at: Option<Instant>,
    /// The task that opens a call.
    opening: JoinSet<()>,
    /// The task that waits for a late response.
    late: JoinSet<()>,
}

/// A late call. When dropped, also by a panic of the client, the appender may open a call again.
struct LateCall {
    appender: Weak<Mutex<State>>,
    /// The call, once it has answered.
    answered: Option<Arc<BatchAppendClient>>,
}

impl Drop for LateCall {
    fn drop(&mut self) {
        if let Some(appender) = self.appender.upgrade() {
            let mut state = lock(&appender);
            state.is_late = false;
            state.open = self.answered.take();
        }
    }
}

impl BatchAppender {
    /// Appends over the open call. `None` if there is no open call, or if it gave no response: then
    /// the caller must append by a call of its own, and the events may already be stored.
    pub(crate) async fn append(
        &self,
        client: &Client,
        stream: &str,
        expected: StreamState,
        events: Vec<EventData>,
    ) -> Option<BatchWriteResult> {
        let open = self.open_call(client)?;
        let (call, name) = (Arc::clone(&open), stream.to_owned());
        let mut appending =
            Box::pin(async move { call.append_to_stream(name, expected, events).await });
        // By reference: a late append goes on, and its response shows that the call still works.
        match timeout(RESPONSE_TIMEOUT, &mut appending).await {
            Ok(Ok(appended)) => Some(appended),
            Ok(Err(error)) => {
                tracing::debug!(%error, stream, "Append over the batch call failed");
                self.close(&open);
                None
            }
            Err(_) => {
                tracing::debug!(stream, "Append over the batch call timed out");
                if self.close(&open) {
                    self.wait_for_late_response(open, appending);
                }
                None
            }
        }
    }

    /// Stops using this call. Returns `false` if it is no longer the open call: another append has
    /// closed it.
    fn close(&self, call: &Arc<BatchAppendClient>) -> bool {
        lock(&self.0).open.take_if(|open| Arc::ptr_eq(open, call)).is_some()
    }

    /// Uses the call again once its late append has succeeded.
    fn wait_for_late_response(
        &self,
        call: Arc<BatchAppendClient>,
        appending: impl Future<Output = eventstore::Result<BatchWriteResult>> + Send + 'static,
    ) {
        // The state owns the task: a strong reference in the task would keep both for ever.
        let appender = Arc::downgrade(&self.0);
        let mut state = lock(&self.0);
        state.is_late = true;
        state.late = JoinSet::new();
        state.late.spawn(async move {
            let mut late = LateCall { appender, answered: None };
            late.answered = appending.await.is_ok().then_some(call);
        });
    }

    /// Returns the open call. Without one, requests it for later appends and returns `None`.
    fn open_call(&self, client: &Client) -> Option<Arc<BatchAppendClient>> {
        let mut state = lock(&self.0);
        if state.open.is_some()
            || state.is_late
            || state.requested_at.is_some_and(|at| at.elapsed() < OPEN_INTERVAL)
        {
            return state.open.clone();
        }
        // Before the task runs: concurrent appends must not open further calls.
        state.requested_at = Some(Instant::now());
        let client = client.clone();
        // The state owns the task: a strong reference in the task would keep both for ever.
        let appender = Arc::downgrade(&self.0);
        let opening = async move {
            match client.batch_append(&BatchAppendOptions::default()).await {
                Ok(call) => {
                    if let Some(appender) = appender.upgrade() {
                        lock(&appender).open = Some(Arc::new(call));
                    }
                }
                Err(error) => tracing::debug!(%error, "Batch call cannot be opened"),
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

    /// Maximum duration of any wait. Reached only when something is broken.
    const TEST_TIMEOUT: Duration = Duration::from_secs(30);

    fn events(text: &str) -> Vec<EventData> {
        vec![EventData::json("Test", &text).unwrap()]
    }

    async fn wait_until_open(appender: &BatchAppender, client: &Client) -> Arc<BatchAppendClient> {
        let opening = async {
            loop {
                if let Some(open) = appender.open_call(client) {
                    return open;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(TEST_TIMEOUT, opening).await.unwrap()
    }

    #[tokio::test]
    async fn appends_share_one_call_until_one_is_refused() {
        let store = Store::start().await;
        let client = Client::new(store.url().parse().unwrap()).unwrap();
        let appender = BatchAppender::default();
        let open = wait_until_open(&appender, &client).await;
        let append = async |events| {
            let result = appender.append(&client, "test-1", StreamState::NoStream, events).await?;
            result.current_revision()
        };
        assert_eq!(append(events("a")).await, Some(0));
        assert!(Arc::ptr_eq(&open, &wait_until_open(&appender, &client).await), "it stays open");
        assert_eq!(append(events("b")).await, None, "the stream exists");
        assert!(appender.open_call(&client).is_none(), "the call has ended");
        assert!(!Arc::ptr_eq(&open, &wait_until_open(&appender, &client).await), "another call");
    }
}
