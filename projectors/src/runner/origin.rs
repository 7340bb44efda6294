//! Check that the rows come from this event store: positions of another event store mean nothing.

use event_log::{EventLog, LogError};
use uuid::Uuid;

use crate::ahead::PAGE_ORDERS;
use crate::store::{Checkpoint, ReadModel, StoreError};

/// The event store is not the one that the rows come from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its rows come from another event store: there the first event of all orders is {expected}, \
     here {}. If `event_store.url` is right and the store was replaced, build the tables anew with \
     `dofs projections rebuild`, or give the read model an empty database and run `dofs migrate`",
    .found.map_or_else(|| "there is none".to_owned(), |id| format!("it is {id}"))
)]
pub struct OtherEventStore {
    pub expected: Uuid,
    pub found: Option<Uuid>,
}

/// Returns the first event of the log, if the rows at the checkpoint come from this log.
pub(crate) async fn check_origin<E>(
    log: &EventLog,
    store: &ReadModel,
    checkpoint: &Checkpoint,
) -> Result<Option<Uuid>, E>
where
    E: From<LogError> + From<StoreError> + From<OtherEventStore>,
{
    let found = log.store().first_event_id().await?;
    match checkpoint.first_event_id {
        // A scavenge may have removed the first event. Then the newest orders decide.
        Some(expected) if found != Some(expected) && !has_orders_of::<E>(log, store).await? => {
            Err(OtherEventStore { expected, found }.into())
        }
        Some(_) | None => Ok(found),
    }
}

/// Returns whether the log has or had one of the newest orders of the tables. Ids of orders are unique,
/// so such a log is the one that the rows come from.
async fn has_orders_of<E>(log: &EventLog, store: &ReadModel) -> Result<bool, E>
where
    E: From<LogError> + From<StoreError>,
{
    let orders = store.newest(None, PAGE_ORDERS).await?;
    for order in orders {
        match log.newest_revision(order.order_id).await {
            Ok(Some(_)) | Err(LogError::Deleted) => return Ok(true),
            Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
