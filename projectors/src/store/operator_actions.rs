//! The list of operators' actions on single orders, from the rows of the projection `orders`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::query::Query;
use super::{ReadModel, Result};
use crate::orders::{OrderAction, OrderActionKind};

/// The place of an action in a list of actions: actions may have equal times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActionPlace {
    pub at: Timestamp,
    pub event_id: Uuid,
}

/// Restricts a list of actions. Fields that are `None` do not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderActionFilter {
    pub kind: Option<OrderActionKind>,
    pub actor: Option<String>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
}

impl ReadModel {
    /// Lists actions, newest first. `after` is the last place of the page before.
    pub async fn order_actions(
        &self,
        filter: &OrderActionFilter,
        after: Option<ActionPlace>,
        limit: u32,
    ) -> Result<Vec<OrderAction>> {
        let mut query = Query::select::<OrderAction>("operator_actions.list");
        query.push(" where true");
        query.restrict(" and kind = ", filter.kind, "");
        query.restrict(" and actor = ", filter.actor.clone(), "");
        query.restrict(" and acted_at >= ", filter.from, "");
        query.restrict(" and acted_at < ", filter.to, "");
        if let Some(place) = after {
            query.push(" and (acted_at, event_id) < (");
            query.push_bind(place.at);
            query.push(", ");
            query.push_bind(place.event_id);
            query.push(")");
        }
        query.push(" order by acted_at desc, event_id desc limit ");
        query.push_bind(limit);
        self.fetch_rows(query).await
    }
}
