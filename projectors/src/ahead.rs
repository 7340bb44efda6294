//! Whether the rows know more than the log, as they do once the event store was replaced by an
//! older backup of itself.
//!
//! Positions do not tell: a server may name the end of its log, where no event is yet, in a
//! checkpoint; and behind an older backup it soon writes events of its own beyond the checkpoint,
//! while the orders' new events are at positions that the projection has passed.

use std::fmt::{self, Display, Formatter};

use domain::ids::OrderId;
use domain::order::Order;
use event_log::{EventLog, LogError};
use futures::future::try_join_all;

use crate::store::{OrderFilter, Page, Place, ReadModel, StoreError};

/// How many of the newest orders are looked at: an older backup lacks the newest. If one of them is
/// ahead, so many more at a time.
const PAGE_ORDERS: u32 = 5;
/// Beyond this many orders nothing is counted.
const MAX_ORDERS: u64 = 200;

/// Rows that reflect events which the event store does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The newest order of which it is so.
    pub order_id: OrderId,
    /// Events that the store lacks, of the newest 200 orders.
    pub n_events: u64,
}

impl Display for Ahead {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { order_id, n_events } = self;
        write!(
            f,
            "read model is ahead of the event store by {n_events} events (order {order_id}): the \
             store was restored from an older backup or replaced; run `dofs projections rebuild`"
        )
    }
}

/// How far the newest rows are ahead of the log; `None` if they are not.
pub(crate) async fn find_ahead<E: From<StoreError> + From<LogError>>(
    log: &EventLog,
    store: &dyn ReadModel,
) -> Result<Option<Ahead>, E> {
    let mut found: Option<Ahead> = None;
    let (mut after, mut n_orders) = (None, 0);
    while n_orders < MAX_ORDERS {
        // The rows first: what they reflect was in the log by then.
        let orders = newest_orders(store, after).await?;
        let missing = try_join_all(orders.iter().map(|order| n_missing(log, order))).await?;
        let n_missing = missing.iter().sum::<u64>();
        let Some(newest) = orders.iter().zip(&missing).find(|(_, n_events)| **n_events > 0) else {
            break;
        };
        let order_id = found.map_or(newest.0.order_id, |it| it.order_id);
        let n_events = found.map_or(0, |it| it.n_events) + n_missing;
        found = Some(Ahead { order_id, n_events });
        n_orders += orders.len() as u64;
        after = orders.last().map(Place::of_order);
    }
    Ok(found)
}

/// How many of the events that an order's row reflects its stream lacks.
async fn n_missing(log: &EventLog, order: &Order) -> Result<u64, LogError> {
    match log.newest_revision(order.order_id).await {
        Ok(Some(newest)) => Ok(order.revision.saturating_sub(newest)),
        Ok(None) => Ok(order.revision.saturating_add(1)),
        // The projection has not come to the deletion yet.
        Err(LogError::Deleted) => Ok(0),
        // A store that denies one stream says nothing of the others.
        Err(error) if error.is_refusal() => Ok(0),
        Err(error) => Err(error),
    }
}

/// The newest orders of the tables, behind `after`. Rows that cannot be read say nothing; a
/// verification names them.
pub(crate) async fn newest_orders(
    store: &dyn ReadModel,
    after: Option<Place>,
) -> Result<Vec<Order>, StoreError> {
    let newest = Page { after, limit: PAGE_ORDERS };
    match store.orders(&OrderFilter::default(), &newest).await {
        Err(StoreError::Row { .. }) => Ok(Vec::new()),
        orders => orders,
    }
}
