//! The filter and the rate of a redrive task: limits and defaults.

use std::collections::HashSet;

use domain::ids::OrderId;
use domain::operations::FailureFilter;
use domain::order::Stage;
use jiff::Timestamp;
use service_kit::problem::Problem;

use crate::operator_request::refuse_member;

/// Maximum number of orders that a filter can name.
const MAX_ORDER_IDS: usize = 1_000;
/// Maximum rate, in orders per second.
const MAX_RATE: u32 = 100_000;

/// Returns the filter of a task that starts now. By default it matches dead letters, unless it names
/// orders or another stage. It never matches orders that fail from now on: otherwise a task would redrive
/// its own failures again.
pub(super) fn to_filter(
    given: Option<&api_types::FailureFilter>,
    now: Timestamp,
) -> Result<FailureFilter, Problem> {
    let given = given.cloned().unwrap_or_default();
    if given.order_ids.as_ref().is_some_and(|ids| ids.is_empty() || ids.len() > MAX_ORDER_IDS) {
        let rule = format!("must have 1 to {MAX_ORDER_IDS} entries");
        return Err(refuse_member("filter/order_ids", &rule));
    }
    // Progress counts an order once, even if the filter names it twice.
    let mut seen = HashSet::new();
    let order_ids: Option<Vec<OrderId>> = given
        .order_ids
        .map(|ids| ids.into_iter().filter(|id| seen.insert(*id)).map(OrderId).collect());
    let stage = given.stage.map(Stage::from);
    if stage == Some(Stage::Validation) {
        let rule = "cannot be `validation`: orders that broke a business rule are placed anew";
        return Err(refuse_member("filter/stage", rule));
    }
    let names_no_orders = order_ids.is_none();
    Ok(FailureFilter {
        stage: stage.or(names_no_orders.then_some(Stage::DeadLetter)),
        code: given.code,
        failed_before: Some(given.older_than.map_or(now, |age| age.before(now))),
        order_ids,
        customer_id: given.customer_id,
    })
}

/// Checks the maximum number of orders per second.
pub(super) fn check_rate(given: Option<u32>) -> Result<Option<u32>, Problem> {
    match given {
        Some(rate) if !(1..=MAX_RATE).contains(&rate) => {
            Err(refuse_member("rate_per_second", &format!("must be 1 to {MAX_RATE}")))
        }
        rate => Ok(rate),
    }
}

#[cfg(test)]
mod tests {
    use api_types::StartRedriveRequest;
    use serde_json::{Value, json};

    use super::*;

    fn filter(body: Value) -> Option<FailureFilter> {
        let request: StartRedriveRequest = serde_json::from_value(body).ok()?;
        to_filter(request.filter.as_ref(), Timestamp::from_second(1_000).unwrap()).ok()
    }

    #[test]
    fn current_dead_letters_are_the_default() {
        let all = filter(json!({})).unwrap();
        assert_eq!(all.stage, Some(Stage::DeadLetter));
        assert_eq!(all.failed_before, Timestamp::from_second(1_000).ok());
        let old = filter(json!({"filter": {"older_than": "15m", "stage": "fulfillment"}})).unwrap();
        assert_eq!(old.stage, Some(Stage::Fulfillment));
        assert_eq!(old.failed_before, Timestamp::from_second(100).ok());
        let id = "00000000-0000-0000-0000-000000000001";
        let named = filter(json!({"filter": {"order_ids": [id, id]}})).unwrap();
        assert_eq!(named.stage, None);
        assert_eq!(
            named.order_ids.map(|ids| ids.len()),
            Some(1),
            "an order named twice is redriven once"
        );
    }

    #[test]
    fn invalid_filters_are_refused() {
        for wrong in [
            json!({"filter": {"stage": "validation"}}),
            json!({"filter": {"stage": "parked"}}),
            json!({"filter": {"older_then": "15m"}}),
            json!({"dryRun": true}),
            json!({"code": "x"}),
            json!({"filter": {"older_than": "soon"}}),
            json!({"filter": [null, null, null, null, null]}),
            json!({"filter": {"order_ids": []}}),
            json!({"filter": {"order_ids": ["7"]}}),
        ] {
            assert_eq!(filter(wrong.clone()), None, "{wrong}");
        }
    }
}
