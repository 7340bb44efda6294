//! Copy of a whole store to another, through the client protocol.
//!
//! Events that the target has are compared, missing ones are appended in the source's order, and at
//! the end everything is compared once more. So an interrupted copy resumes where it stopped, and a
//! repeated copy is a check.

mod appender;
mod reader;

use super::client::{Position, StoreClient};
use super::error::LogError;
use appender::Appender;
use reader::{CopiedEvent, StoreReader};

/// Progress of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// The copy's position in the source's log.
    pub position: Position,
    /// The source's newest event when the copy began.
    pub head: Position,
}

/// Result of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopySummary {
    /// Events that both stores now have, equal in every respect.
    pub n_events: u64,
    /// The part of `n_events` that this copy appended.
    pub n_copied: u64,
}

/// Why a copy ended before both stores were equal.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The copied events are stored: a repeated copy resumes behind them.
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("event {revision} of stream `{stream}` differs between source and target")]
    Differs { stream: String, revision: u64 },
    #[error("the target has event {revision} of stream `{stream}`, which the source lacks")]
    Unexpected { stream: String, revision: u64 },
    #[error(
        "stream `{stream}` begins at event {revision} in the source: its revisions cannot be kept"
    )]
    Truncated { stream: String, revision: u64 },
    #[error("event {revision} of stream `{stream}` is marked as JSON and is invalid JSON")]
    NotJson {
        stream: String,
        revision: u64,
        #[source]
        source: serde_json::Error,
    },
}

impl StoreClient {
    /// Copies every stream of this store to `target`, with ids, metadata and revisions. Excludes the
    /// store's own streams (`$...`), but not the streams' metadata (`$$...`). No other program may
    /// append to either store meanwhile.
    ///
    /// # Errors
    /// [`CopyError::Differs`] and [`CopyError::Unexpected`] if the target holds other events.
    pub async fn copy_to(
        &self,
        target: &Self,
        mut progress: impl FnMut(CopyProgress),
    ) -> Result<CopySummary, CopyError> {
        let start = Position { commit: 0, prepare: 0 };
        let head = self.head().await?.unwrap_or(start);
        let mut source = StoreReader::open(self).await?;
        let compared = compare(&mut source, &mut StoreReader::open(target).await?).await?;

        let mut n_copied = 0;
        let mut appender = Appender::new(target);
        // The source's reader continues directly behind this event.
        let mut next = compared.missing;
        while let Some(event) = next {
            n_copied += 1;
            let position = event.position;
            if appender.add(event).await? {
                progress(CopyProgress { position, head });
            }
            next = source.next().await?;
        }
        appender.finish().await?;

        // From the beginning: the check relies on nothing that this copy has read or appended.
        let mut source = StoreReader::open(self).await?;
        let compared = compare(&mut source, &mut StoreReader::open(target).await?).await?;
        match compared.missing {
            None => Ok(CopySummary { n_events: compared.n_equal, n_copied }),
            Some(CopiedEvent { stream, revision, .. }) => {
                Err(CopyError::Differs { stream, revision })
            }
        }
    }
}

struct Comparison {
    n_equal: u64,
    /// The source's first event that the target lacks.
    missing: Option<CopiedEvent>,
}

/// Compares both stores up to the end of the target.
async fn compare(
    source: &mut StoreReader,
    target: &mut StoreReader,
) -> Result<Comparison, CopyError> {
    let mut n_equal = 0;
    loop {
        match (source.next().await?, target.next().await?) {
            (missing, None) => return Ok(Comparison { n_equal, missing }),
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
