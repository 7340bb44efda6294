//! Appends to the target what it lacks, in the source's order, many appends at a time.
//!
//! **Invariant:** the events reach the target's log in the order in which they were added, so that
//! a copy that is interrupted anywhere has a beginning of the source, and can go on behind it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use eventstore::{
    BatchAppendClient, BatchAppendOptions, Client, EventData, StreamState, TombstoneStreamOptions,
};
use tokio::time::timeout;

use super::CopyError;
use super::walk::CopiedEvent;
use crate::client::EventLog;
use crate::error::LogError;

/// The most events in one append, and the most bytes of theirs: half of what EventStoreDB takes.
const MAX_BATCH_EVENTS: usize = 500;
const MAX_BATCH_BYTES: usize = 512 * 1_024;

/// Appends that are sent together, and how long they may take.
const MAX_APPENDS: usize = 64;
const TOGETHER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Appender<'a> {
    target: &'a EventLog,
    /// Consecutive events of one stream.
    batch: Vec<CopiedEvent>,
    /// Full batches that were not sent yet.
    waiting: Vec<Vec<CopiedEvent>>,
    /// One call for the whole copy: the client never ends one by itself, unless an append in it
    /// fails, and a store takes only so many at a time.
    call: Option<BatchAppendClient>,
}

impl<'a> Appender<'a> {
    pub(super) fn new(target: &'a EventLog) -> Self {
        Self { target, batch: Vec::new(), waiting: Vec::new(), call: None }
    }

    /// Answers whether everything before the event is in the target now.
    pub(super) async fn add(&mut self, event: CopiedEvent) -> Result<bool, CopyError> {
        let mut is_sent = false;
        if !belongs(&self.batch, &event) {
            self.waiting.push(std::mem::take(&mut self.batch));
            // What a store may refuse or write by itself has nothing beside it, which could be
            // taken when it is not.
            let stands_alone = self.waiting.iter().flatten().any(CopiedEvent::is_special);
            if stands_alone || event.is_special() || self.waiting.len() == MAX_APPENDS {
                self.send().await?;
                is_sent = true;
            }
        }
        self.batch.push(event);
        Ok(is_sent)
    }

    pub(super) async fn finish(mut self) -> Result<(), CopyError> {
        self.waiting.push(std::mem::take(&mut self.batch));
        self.send().await
    }

    async fn send(&mut self) -> Result<(), CopyError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.len() > 1 {
            match timeout(TOGETHER_TIMEOUT, self.append_together(&waiting)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => tracing::debug!(%error, "Appends together failed"),
                Err(_) => tracing::debug!("Appends together took too long"),
            }
            self.call = None;
        }
        // One after the other says what is wrong. What is there already is recognised.
        for batch in &waiting {
            append(self.target, batch).await?;
        }
        Ok(())
    }

    /// Makes all appends over one call, which keeps their order.
    async fn append_together(&mut self, batches: &[Vec<CopiedEvent>]) -> Result<(), CopyError> {
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
            let mut append =
                Box::pin(call.append_to_stream(&first.stream, before(first), proposed(batch)?));
            // The client sends it when it is polled first; its answer can wait.
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

/// Whether the event can be appended together with those before it.
fn belongs(batch: &[CopiedEvent], event: &CopiedEvent) -> bool {
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
async fn append(target: &EventLog, batch: &[CopiedEvent]) -> Result<(), CopyError> {
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
    match target.append_alone(stream, before(first), proposed(batch)?).await {
        Ok(_) => Ok(()),
        Err(LogError::Conflict { current, .. }) => judge_conflict(first, current),
        Err(error) => Err(error.into()),
    }
}

/// The state of the stream that the event follows.
fn before(event: &CopiedEvent) -> StreamState {
    event.revision.checked_sub(1).map_or(StreamState::NoStream, StreamState::StreamRevision)
}

fn proposed(batch: &[CopiedEvent]) -> Result<Vec<EventData>, CopyError> {
    batch.iter().map(CopiedEvent::proposed).collect()
}

/// What it means that the target's stream is elsewhere than the events were expected.
fn judge_conflict(first: &CopiedEvent, current: Option<u64>) -> Result<(), CopyError> {
    let (stream, revision) = (first.stream.clone(), first.revision);
    match current {
        // A store that appends to a deleted stream writes the stream's metadata by itself. Whether
        // it wrote the same is compared in the end.
        Some(at) if first.is_metadata() && at >= revision => Ok(()),
        None if revision > 0 => Err(CopyError::Truncated { stream, revision }),
        Some(_) | None => Err(CopyError::Differs { stream, revision }),
    }
}
