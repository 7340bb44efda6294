//! Whether the rows know more than the log, as they do once the event store was replaced by an
//! older backup of itself.
//!
//! Positions do not tell: a server may name the end of its log, where no event is yet, in a
//! checkpoint; and behind an older backup it soon writes events of its own beyond the checkpoint,
//! while the orders' new events are at positions that the projection has passed.

use domain::ids::OrderId;
use event_log::{EventLog, LogError};
use futures::future::try_join_all;

use crate::store::{OrderFilter, Page, ReadModel, StoreError};

/// How many of the newest orders are looked at: an older backup lacks the newest.
const NEWEST_ORDERS: u32 = 5;

/// An order whose row reflects events that its stream has not; `None` if none of the newest has.
pub(crate) async fn order_ahead_of_log<E: From<StoreError> + From<LogError>>(
    log: &EventLog,
    store: &dyn ReadModel,
) -> Result<Option<OrderId>, E> {
    let newest = Page { after: None, limit: NEWEST_ORDERS };
    // The rows first: what they reflect was in the log by then.
    let orders = match store.orders(&OrderFilter::default(), &newest).await {
        // Rows that cannot be read say nothing; a verification names them.
        Err(StoreError::Row { .. }) => return Ok(None),
        orders => orders?,
    };
    let histories = try_join_all(orders.iter().map(|it| log.history(it.order_id))).await?;
    let is_ahead = |revision, last: Option<u64>| last.is_none_or(|last| last < revision);
    let ahead = orders.iter().zip(histories).find(|(order, history)| {
        is_ahead(order.revision, history.last().map(|event| event.revision))
    });
    Ok(ahead.map(|(order, _)| order.order_id))
}
