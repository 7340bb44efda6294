//! A whole store, copied to another through the client protocol.
//!
//! What is there already is compared, what is missing is appended in the source's order, and at
//! the end everything is compared once more. So a copy that was interrupted goes on where it
//! stopped, and one that is done again is a check.

mod walk;

use eventstore::{
    AppendToStreamOptions, CurrentRevision, EventData, StreamState, TombstoneStreamOptions,
};

use crate::client::{EventLog, Position};
use crate::error::LogError;
use walk::{CopiedEvent, Walk};

/// The most events in one append, and the most bytes of theirs: half of what EventStoreDB takes.
const MAX_BATCH_EVENTS: usize = 500;
const MAX_BATCH_BYTES: usize = 512 * 1_024;

/// How far a copy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// Where in the source's log it is.
    pub position: Position,
    /// The source's newest event when the copy began.
    pub head: Position,
}

/// What a copy found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Events that both stores now have, equal in every respect.
    pub n_events: u64,
    /// Those of them that this copy appended.
    pub n_copied: u64,
}

/// Why a copy ended before both stores were equal.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What was copied is there: the same copy made again goes on behind it.
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("event {revision} of stream `{stream}` is not the same in both stores")]
    Differs { stream: String, revision: u64 },
    #[error("the target has event {revision} of stream `{stream}`, which the source has not")]
    Unexpected { stream: String, revision: u64 },
    #[error(
        "stream `{stream}` begins at event {revision} in the source: its revisions cannot be kept"
    )]
    Truncated { stream: String, revision: u64 },
    #[error("event {revision} of stream `{stream}` is marked as JSON and is none")]
    NotJson {
        stream: String,
        revision: u64,
        #[source]
        source: serde_json::Error,
    },
}

impl EventLog {
    /// Makes `target` hold every stream of this store, with ids, metadata and revisions. Streams
    /// of the store itself (`$...`) are left out, streams' metadata (`$$...`) is not. Nobody may
    /// append to either store meanwhile.
    ///
    /// # Errors
    /// [`CopyError::Differs`] and [`CopyError::Unexpected`] if the target holds anything else.
    pub async fn copy_to(
        &self,
        target: &Self,
        mut progress: impl FnMut(CopyProgress),
    ) -> Result<Copied, CopyError> {
        let start = Position { commit: 0, prepare: 0 };
        let head = self.head().await?.unwrap_or(start);
        let mut source = Walk::start(self).await?;
        let missing = compare(&mut source, &mut Walk::start(target).await?).await?.missing;

        let mut n_copied = 0;
        let mut batch: Vec<CopiedEvent> = Vec::new();
        let mut next = missing;
        while let Some(event) = next {
            if !belongs(&batch, &event) {
                progress(CopyProgress { position: event.position, head });
                append(target, &batch).await?;
                batch.clear();
            }
            n_copied += 1;
            batch.push(event);
            next = source.next().await?;
        }
        append(target, &batch).await?;

        let mut source = Walk::start(self).await?;
        let compared = compare(&mut source, &mut Walk::start(target).await?).await?;
        match compared.missing {
            None => Ok(Copied { n_events: compared.n_equal, n_copied }),
            Some(CopiedEvent { stream, revision, .. }) => {
                Err(CopyError::Differs { stream, revision })
            }
        }
    }
}

struct Compared {
    n_equal: u64,
    /// The source's first event that the target does not have.
    missing: Option<CopiedEvent>,
}

/// Walks both stores until the target ends.
async fn compare(source: &mut Walk, target: &mut Walk) -> Result<Compared, CopyError> {
    let mut n_equal = 0;
    loop {
        match (source.next().await?, target.next().await?) {
            (missing, None) => return Ok(Compared { n_equal, missing }),
            (Some(one), Some(other)) if one.is_same(&other) => n_equal += 1,
            (Some(CopiedEvent { stream, revision, .. }), Some(_)) => {
                return Err(CopyError::Differs { stream, revision });
            }
            (None, Some(CopiedEvent { stream, revision, .. })) => {
                return Err(CopyError::Unexpected { stream, revision });
            }
        }
    }
}

/// Whether the event can be appended together with those before it.
fn belongs(batch: &[CopiedEvent], event: &CopiedEvent) -> bool {
    let n_bytes: usize = batch.iter().map(CopiedEvent::n_bytes).sum();
    batch.last().is_none_or(|last| {
        last.stream == event.stream
            && last.revision.checked_add(1) == Some(event.revision)
            && !event.is_metadata()
            && !event.is_tombstone()
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
        target.call(async |client| client.tombstone_stream(stream, &options).await).await?;
        return Ok(());
    }
    let expected = match first.revision.checked_sub(1) {
        Some(before) => StreamState::StreamRevision(before),
        None => StreamState::NoStream,
    };
    let options = AppendToStreamOptions::default().stream_state(expected);
    let proposed =
        batch.iter().map(CopiedEvent::proposed).collect::<Result<Vec<EventData>, _>>()?;
    let appended = target
        .call(async |client| client.append_to_stream(stream, &options, proposed.clone()).await)
        .await;
    match appended {
        Ok(_) => Ok(()),
        Err(LogError::Refused(refused)) => refusal(first, refused),
        Err(error) => Err(error.into()),
    }
}

/// What it means that the target did not take the events.
fn refusal(first: &CopiedEvent, refused: Box<eventstore::Error>) -> Result<(), CopyError> {
    let (stream, revision) = (first.stream.clone(), first.revision);
    let eventstore::Error::WrongExpectedVersion { current, .. } = &*refused else {
        return Err(LogError::Refused(refused).into());
    };
    match current {
        // A store that appends to a deleted stream writes the stream's metadata by itself. Whether
        // it wrote the same is compared in the end.
        CurrentRevision::Current(at) if first.is_metadata() && *at >= revision => Ok(()),
        CurrentRevision::NoStream if revision > 0 => Err(CopyError::Truncated { stream, revision }),
        CurrentRevision::Current(_) | CurrentRevision::NoStream => {
            Err(CopyError::Differs { stream, revision })
        }
    }
}
