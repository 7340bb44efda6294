//! Whether a redrive task takes an order.

use domain::operations::FailureFilter;
use domain::order::{Order, OrderCommand, Redrive, decide};

/// Returns why a task skips the order; `None` if it redrives the order. The read model may be behind: only
/// the order's stream decides.
pub(super) fn reason_to_skip(order: Option<&Order>, filter: &FailureFilter) -> Option<String> {
    let Some(order) = order else { return Some("there is no such order".to_owned()) };
    // The domain decides, so that a task and a single redrive follow the same rules.
    let redrive = Redrive { reason: String::new(), customer_id: None, items: None };
    if let Err(refused) = decide(Some(order), OrderCommand::Redrive(redrive)) {
        return Some(refused.to_string());
    }
    if order.is_discarded {
        return Some("it was discarded: redrive it by itself if that was wrong".to_owned());
    }
    if let Some(stage) = filter.stage.filter(|stage| order.stage != Some(*stage)) {
        return Some(format!("it did not fail at stage {}", stage.as_str()));
    }
    if let Some(code) =
        filter.code.as_ref().filter(|code| order.failure_code.as_ref() != Some(*code))
    {
        let found = order.failure_code.as_deref().unwrap_or("none");
        return Some(format!("its failure has code {found}, not {code}"));
    }
    if let Some(customer) =
        filter.customer_id.as_ref().filter(|customer| order.customer_id != **customer)
    {
        return Some(format!("it is not of customer {customer}"));
    }
    let is_younger = |before| order.failed_at.is_none_or(|at| at >= before);
    if let Some(before) = filter.failed_before.filter(|before| is_younger(*before)) {
        return Some(format!("it did not fail before {before}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use domain::order::{Stage, Status, fold};
    use testkit::spec::{at, recorded};
    use uuid::Uuid;

    use super::*;

    fn dead_letter() -> Order {
        let placed = testkit::store::placed(OrderId(Uuid::from_u128(1)));
        let order = fold(&recorded(placed)).unwrap();
        Order {
            status: Status::Failed,
            stage: Some(Stage::DeadLetter),
            failure_code: Some("retries_exhausted".to_owned()),
            failed_at: Some(at(5)),
            ..order
        }
    }

    #[test]
    fn order_that_matches_the_filter_is_redriven() {
        let filter = FailureFilter {
            stage: Some(Stage::DeadLetter),
            code: Some("retries_exhausted".to_owned()),
            failed_before: Some(at(6)),
            order_ids: None,
            customer_id: Some("cust-1".to_owned()),
        };
        assert_eq!(reason_to_skip(Some(&dead_letter()), &filter), None);
    }

    #[test]
    fn order_that_does_not_match_is_skipped_with_a_reason() {
        let any = FailureFilter::default;
        let cases = [
            (None, any(), "no such order"),
            (Some(Order { status: Status::Fulfilled, ..dead_letter() }), any(), "FULFILLED"),
            (Some(Order { is_discarded: true, ..dead_letter() }), any(), "discarded"),
            (
                Some(dead_letter()),
                FailureFilter { stage: Some(Stage::Fulfillment), ..any() },
                "stage fulfillment",
            ),
            (
                Some(dead_letter()),
                FailureFilter { code: Some("poison".to_owned()), ..any() },
                "code retries_exhausted, not poison",
            ),
            (
                Some(dead_letter()),
                FailureFilter { customer_id: Some("cust-2".to_owned()), ..any() },
                "customer cust-2",
            ),
            (
                Some(dead_letter()),
                FailureFilter { failed_before: Some(at(5)), ..any() },
                "did not fail before",
            ),
        ];
        for (order, filter, expected) in cases {
            let why = reason_to_skip(order.as_ref(), &filter).unwrap();
            assert!(why.contains(expected), "{why}");
        }
    }
}
