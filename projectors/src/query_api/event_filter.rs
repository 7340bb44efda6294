//! Filter of events, and the events that a tenant's key may read.

use std::collections::BTreeSet;

use api_types::StreamEventsQuery;
use domain::ids::OrderId;
use domain::order::EVENT_TYPES;
use event_log::{LogError, LoggedEvent};
use service_kit::problem::Problem;

use super::owners::Owners;

/// Restricts the events that a client gets.
pub(super) struct EventFilter {
    /// Only orders of this tenant.
    tenant: Option<String>,
    pub(super) order_id: Option<OrderId>,
    types: Option<BTreeSet<String>>,
}

impl EventFilter {
    /// Makes the filter of a query, for the events that a key of this tenant may read.
    pub(super) fn new(query: StreamEventsQuery, tenant: Option<String>) -> Result<Self, Problem> {
        let order_id = query.order_id.map(|id| super::parse_order_id(&id)).transpose()?;
        let types: Option<BTreeSet<String>> =
            query.types.map(|types| types.split(',').map(str::to_owned).collect());
        let mut names = types.iter().flatten();
        if names.any(|name| !EVENT_TYPES.contains(&name.as_str())) {
            let reason = format!("must be of: {}", EVENT_TYPES.join(", "));
            return Err(Problem::invalid_parameter("types", reason));
        }
        Ok(Self { tenant, order_id, types })
    }

    /// Returns whether the client gets the event. The owner of its order may be read from the store.
    pub(super) async fn matches(
        &self,
        event: &LoggedEvent,
        owners: &Owners,
    ) -> Result<bool, LogError> {
        let is_wanted = self.order_id.is_none_or(|wanted| wanted == event.order_id)
            && self.types.as_ref().is_none_or(|types| types.contains(&event.event_type));
        match &self.tenant {
            // Only for wanted events: the owner may have to be read from the store.
            Some(tenant) if is_wanted => {
                Ok(owners.owner_of_event(event).await?.as_deref() == Some(tenant.as_str()))
            }
            Some(_) | None => Ok(is_wanted),
        }
    }
}
