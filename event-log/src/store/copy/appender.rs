//! Appends missing events to the target in the source's order, many appends at a time.
//!
//! **Invariant:** the events reach the target's log in the order in which they were added. So an
//! interrupted copy holds a prefix of the source, and can resume behind it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use eventstore::{
    BatchAppendClient, BatchAppendOptions, Client, EventData, StreamState, TombstoneStreamOptions,
};
use tokio::time::timeout;

use super::CopyError;
use super::reader::CopiedEvent;
use crate::store::client::StoreClient;
use crate::store::error::LogError;

/// Maximum number of events and bytes in one append: half of EventStoreDB's limit.
const MAX_BATCH_EVENTS: usize = 500;
const MAX_BATCH_BYTES: usize = 512 * 1_024;

/// Maximum number of appends in flight, and their maximum duration.
const MAX_IN_FLIGHT: usize = 64;
const BATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Writer of the target.
pub(super) struct Appender<'a> {
    target: &'a StoreClient,
    /// Consecutive events of one stream.
    batch: Vec<CopiedEvent>,
    /// Full batches that are not sent yet.
    pending: Vec<Vec<CopiedEvent>>,
    /// One call for the whole copy: the client ends a call only if an append on it fails, and a
    /// store accepts only so many calls at a time.
    call: Option<BatchAppendClient>,
}

impl<'a> Appender<'a> {
    pub(super) fn new(target: &'a StoreClient) -> Self {
        Self { target, batch: Vec::new(), pending: Vec::new(), call: None }
    }

    /// Adds an event. Returns whether every event before it is stored in the target.
    pub(super) async fn add(&mut self, event: CopiedEvent) -> Result<bool, CopyError> {
        let mut is_sent = false;
        if !fits_into_batch(&self.batch, &event) {
            self.pending.push(std::mem::take(&mut self.batch));
            // An event that the store may refuse or write by itself is sent alone. Otherwise events
            // behind it could be stored while it is refused.
            let is_alone = self.pending.iter().flatten().any(CopiedEvent::is_special);
            if is_alone || event.is_special() || self.pending.len() == MAX_IN_FLIGHT {
                self.send_pending().await?;
                is_sent = true;
            }
        }
        self.batch.push(event);
        Ok(is_sent)
    }

    pub(super) async fn finish(mut self) -> Result<(), CopyError> {
        self.pending.push(std::mem::take(&mut self.batch));
        self.send_pending().await
    }

    async fn send_pending(&mut self) -> Result<(), CopyError> {
        let pending = std::mem::take(&mut self.pending);
        if pending.len() > 1 {
            match timeout(BATCH_TIMEOUT, self.append_in_flight(&pending)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => tracing::debug!(%error, "Batched appends failed"),
                Err(_) => tracing::debug!("Batched appends timed out"),
            }
            // The client has ended the call, or appends on it are still in flight.
            self.call = None;
        }
        // Single appends tell which one fails. The store recognises events that are already stored.
        for batch in &pending {
            append_batch(self.target, batch).await?;
        }
        Ok(())
    }

    /// Sends all appends over one call, which keeps their order.
    async fn append_in_flight(&mut self, batches: &[Vec<CopiedEvent>]) -> Result<(), CopyError> {
        let refused = |error| CopyError::from(LogError::from_client(error));
        let call = match &mut self.call {
            Some(call) => call,
            none => {
                let client = self.target.session()?.client();
                let options = BatchAppendOptions::default();
                none.insert(client.batch_append(&options).await.map_err(refused)?)
            }
        };
        let mut sent = Vec::new();
        for batch in batches {
            let Some(first) = batch.first() else { continue };
            let mut append = Box::pin(call.append_to_stream(
                &first.stream,
                state_before(first),
                to_proposals(batch)?,
            ));
            // The first poll sends the append, which fixes the order; the response is awaited later.
            match poll_fn(|task| Poll::Ready(append.as_mut().poll(task))).await {
                Poll::Ready(appended) => drop(appended.map_err(refused)?),
                Poll::Pending => sent.push(append),
            }
        }
        for append in sent {
            append.await.map_err(refused)?;
        }
        Ok(())
    }
}

/// Returns whether the event can be part of the same append as the batch.
fn fits_into_batch(batch: &[CopiedEvent], event: &CopiedEvent) -> bool {
    let n_bytes: usize = batch.iter().map(CopiedEvent::n_bytes).sum();
    batch.last().is_none_or(|last| {
        last.stream == event.stream
            && last.revision.checked_add(1) == Some(event.revision)
            && !event.is_special()
            && batch.len() < MAX_BATCH_EVENTS
            && n_bytes + event.n_bytes() <= MAX_BATCH_BYTES
    })
}

/// Appends consecutive events of one stream.
async fn append_batch(target: &StoreClient, batch: &[CopiedEvent]) -> Result<(), CopyError> {
    let Some(first) = batch.first() else { return Ok(()) };
    let stream = first.stream.as_str();
    if first.is_tombstone() {
        let options = TombstoneStreamOptions::default().stream_state(StreamState::Any);
        let tombstone = |client: Client| {
            let (stream, options) = (stream.to_owned(), options.clone());
            async move { client.tombstone_stream(stream, &options).await }
        };
        target.call_to_end(tombstone).await?;
        return Ok(());
    }
    match target.append_alone(stream, state_before(first), to_proposals(batch)?).await {
        Ok(_) => Ok(()),
        Err(LogError::Conflict { current, .. }) => judge_conflict(first, current),
        Err(error) => Err(error.into()),
    }
}

/// Returns the expected state of the stream before the event.
fn state_before(event: &CopiedEvent) -> StreamState {
    event.revision.checked_sub(1).map_or(StreamState::NoStream, StreamState::StreamRevision)
}

fn to_proposals(batch: &[CopiedEvent]) -> Result<Vec<EventData>, CopyError> {
    batch.iter().map(CopiedEvent::to_proposal).collect()
}

/// Converts a conflict: the target's stream has another revision than the events need.
fn judge_conflict(first: &CopiedEvent, current: Option<u64>) -> Result<(), CopyError> {
    let (stream, revision) = (first.stream.clone(), first.revision);
    match current {
        // A store writes the metadata by itself when events are appended to a deleted stream. The
        // final comparison checks its content.
        Some(at) if first.is_metadata() && at >= revision => Ok(()),
        None if revision > 0 => Err(CopyError::Truncated { stream, revision }),
        Some(_) | None => Err(CopyError::Differs { stream, revision }),
    }
}
