//! A whole store, copied to another through the client protocol.
//!
//! What is there already is compared, what is missing is appended in the source's order, and at
//! the end everything is compared once more. So a copy that was interrupted goes on where it
//! stopped, and one that is done again is a check.

mod appender;
mod walk;

use crate::client::{EventLog, Position};
use crate::error::LogError;
use appender::Appender;
use walk::{CopiedEvent, Walk};

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
        let mut appender = Appender::new(target);
        let mut next = missing;
        while let Some(event) = next {
            n_copied += 1;
            let position = event.position;
            if appender.add(event).await? {
                progress(CopyProgress { position, head });
            }
            next = source.next().await?;
        }
        appender.finish().await?;

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
