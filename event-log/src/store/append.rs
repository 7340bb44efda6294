//! Appends to a stream of the event store.

use std::sync::Arc;

use eventstore::{AppendToStreamOptions, Client, CurrentRevision, EventData, StreamState};
use tokio::time::Instant;

use super::client::StoreClient;
use super::error::LogError;
use crate::metrics::{AppendOutcome, record_append};

impl StoreClient {
    /// Appends events, all or none, and returns the revision of the last. Uses the open batch call,
    /// and a call of its own if that gives no response.
    ///
    /// # Errors
    /// As [`append_alone`](Self::append_alone).
    pub(crate) async fn append_events(
        &self,
        stream: &str,
        expected: StreamState,
        events: Vec<EventData>,
    ) -> Result<u64, LogError> {
        let began = Instant::now();
        let outcome = self.append_batched(stream, expected, events).await;
        record_append(classify_append(&outcome), began.elapsed());
        outcome
    }

    async fn append_batched(
        &self,
        stream: &str,
        expected: StreamState,
        events: Vec<EventData>,
    ) -> Result<u64, LogError> {
        self.check_append_health()?;
        let session = self.session()?;
        let client = session.client();
        let batch = session.batch_appender.append(&client, stream, expected, events.clone());
        // Without a response the events may be stored. They are sent again below, with the same ids
        // and the same expected revision, so that the store recognises them.
        if let Some(appended) = batch.await {
            self.connection.append_health.note_success();
            if let Some(revision) = appended.current_revision() {
                return Ok(revision);
            }
        }
        self.append_alone(stream, expected, events).await
    }

    /// Appends events by a call of their own, all or none, and returns the revision of the last.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if the stream has another revision than expected;
    /// [`LogError::Unavailable`] if the store did not answer: the events may be stored;
    /// [`LogError::Failed`] if the client fails fast and the store has failed.
    pub(crate) async fn append_alone(
        &self,
        stream: &str,
        expected: StreamState,
        events: Vec<EventData>,
    ) -> Result<u64, LogError> {
        // Again: the store may have failed while the batch call waited for it.
        self.check_append_health()?;
        let options = AppendToStreamOptions::default().stream_state(expected);
        let append = |client: Client| {
            let (stream, options, events) = (stream.to_owned(), options.clone(), events.clone());
            let connection = Arc::clone(&self.connection);
            async move {
                let began = Instant::now();
                let outcome = client.append_to_stream(stream, &options, events).await;
                // Noted by the call, which runs to its end even if the caller stops waiting.
                connection.append_health.note_outcome(began, &outcome);
                outcome
            }
        };
        let began = Instant::now();
        let refused = match self.call_to_end(append).await {
            // The client's name is historic: it is the revision of the last event.
            Ok(written) => return Ok(written.next_expected_version),
            Err(LogError::Refused(refused)) => refused,
            Err(LogError::Unavailable(error)) => {
                // A call that hangs has not noted its outcome.
                self.connection.append_health.note_failure(began, &error);
                return Err(LogError::Unavailable(error));
            }
            Err(error) => return Err(error),
        };
        if let eventstore::Error::WrongExpectedVersion { current, .. } = &*refused {
            let current = match current {
                CurrentRevision::Current(revision) => Some(*revision),
                CurrentRevision::NoStream => None,
            };
            return Err(LogError::Conflict { stream: stream.to_owned(), current });
        }
        Err(LogError::Refused(refused))
    }
}

fn classify_append(outcome: &Result<u64, LogError>) -> AppendOutcome {
    match outcome {
        Ok(_) => AppendOutcome::Success,
        Err(LogError::Conflict { .. }) => AppendOutcome::Conflict,
        Err(LogError::Failed { .. }) => AppendOutcome::FailedFast,
        Err(error) if error.is_unavailable() => AppendOutcome::Unavailable,
        Err(_) => AppendOutcome::Refused,
    }
}
