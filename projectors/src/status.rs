//! The status of a projection: position, lag, lease, and the event store that its rows come from.

use event_log::{EventLog, LogError};
use jiff::Timestamp;

use crate::ahead::{Ahead, find_ahead};
use crate::lag::{Lag, MAX_LAG_EVENTS, compute_lag};
use crate::replay::ReplayError;
use crate::runner::check_origin;
use crate::store::{Checkpoint, Lease, ReadModel, StoreError};

/// The status of a projection.
#[derive(Debug, Clone)]
pub struct ProjectionStatus {
    pub checkpoint: Checkpoint,
    pub lease: Lease,
    pub lag: Lag,
    /// How far the newest rows are ahead of the event store; `None` if they are not.
    pub ahead: Option<Ahead>,
}

/// Why the status cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads the current status of the projection of `store`.
pub async fn projection_status(
    log: &EventLog,
    store: &ReadModel,
    now: Timestamp,
) -> Result<ProjectionStatus, StatusError> {
    // The checkpoint before the log: events in between count as lag, never as progress.
    let (lease, checkpoint) = (store.lease().await?, store.checkpoint().await?);
    let backlog = log.store().count_backlog(checkpoint.position, MAX_LAG_EVENTS).await?;
    let ahead = find_ahead::<StatusError>(log, store).await?;
    Ok(ProjectionStatus { lag: compute_lag(&checkpoint, backlog, now), checkpoint, lease, ahead })
}

/// Checks that the rows of `store` come from the event store of `log`.
///
/// # Errors
/// [`ReplayError::Origin`] if they come from another event store.
pub async fn check_event_store(log: &EventLog, store: &ReadModel) -> Result<(), ReplayError> {
    let checkpoint = store.checkpoint().await?;
    check_origin::<ReplayError>(log, store, &checkpoint).await.map(drop)
}
