//! How the projection is: how far, how fast, and who keeps it.

use event_log::{EventLog, LogError};
use jiff::Timestamp;

use crate::ahead::{Ahead, find_ahead};
use crate::lag::{Lag, MAX_LAG_EVENTS, lag};
use crate::store::{Checkpoint, Lease, ReadModel, StoreError};

/// How the projection is.
#[derive(Debug, Clone)]
pub struct ProjectionStatus {
    pub checkpoint: Checkpoint,
    pub lease: Lease,
    pub lag: Lag,
    /// How far the newest rows are ahead of the event store; `None` if they are not.
    pub ahead: Option<Ahead>,
}

/// Why nobody can say how the projection is.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// How the projection is now.
pub async fn projection_status(
    log: &EventLog,
    store: &dyn ReadModel,
    now: Timestamp,
) -> Result<ProjectionStatus, StatusError> {
    let (lease, checkpoint) = (store.lease().await?, store.checkpoint().await?);
    let backlog = log.count_backlog(checkpoint.position, MAX_LAG_EVENTS).await?;
    let ahead = find_ahead::<StatusError>(log, store).await?;
    Ok(ProjectionStatus { lag: lag(&checkpoint, backlog, now), checkpoint, lease, ahead })
}
