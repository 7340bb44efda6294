//! Whether the rows come from this event store: a checkpoint says nothing about another one.

use event_log::{EventLog, Feed, LogError};
use uuid::Uuid;

use crate::store::Checkpoint;

/// The event store is not the one that the rows come from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its rows come from another event store: there the first event of all orders is {expected}, \
     here {}. If `event_store.url` is right and the store was replaced, build the tables anew with \
     `dofs projections rebuild`, or give the read model an empty database and run `dofs migrate`",
    .found.map_or_else(|| "there is none".to_owned(), |it| format!("it is {it}"))
)]
pub struct OtherEventStore {
    pub expected: Uuid,
    pub found: Option<Uuid>,
}

/// The log's first event, if the checkpoint is of this log.
pub(crate) async fn check_origin<E: From<LogError> + From<OtherEventStore>>(
    log: &EventLog,
    checkpoint: &Checkpoint,
) -> Result<Option<Uuid>, E> {
    let found = first_event_id(log).await?;
    match checkpoint.first_event_id {
        Some(expected) if found != Some(expected) => {
            Err(OtherEventStore { expected, found }.into())
        }
        Some(_) | None => Ok(found),
    }
}

/// The id of the first event of any order; `None` if there is no order.
pub(crate) async fn first_event_id(log: &EventLog) -> Result<Option<Uuid>, LogError> {
    // A read says that there is none; a subscription would wait for one.
    if log.backlog(None, 0).await?.n_events == 0 {
        return Ok(None);
    }
    let mut subscription = log.subscribe(None);
    loop {
        match subscription.next().await {
            Feed::Event(event) => return Ok(Some(event.event_id)),
            Feed::Checkpoint(_) | Feed::CaughtUp => {}
        }
    }
}
