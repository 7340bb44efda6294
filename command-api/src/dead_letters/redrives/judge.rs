//! Whether a redrive of many takes an order. Pure: everything that decides is an argument.

use domain::operations::RedriveFilter;
use domain::order::{Order, OrderCommand, Redrive, decide};

/// Why the order is left alone; `None` if it is redriven. What the filter found may have changed
/// since: only the order as its stream tells it decides.
pub(super) fn why_not(order: Option<&Order>, filter: &RedriveFilter) -> Option<String> {
    let Some(order) = order else { return Some("there is no such order".to_owned()) };
    let redrive = Redrive { reason: String::new(), customer_id: None, items: None };
    if let Err(refused) = decide(Some(order), OrderCommand::Redrive(redrive)) {
        return Some(refused.to_string());
    }
    if order.is_discarded {
        return Some("it was discarded: redrive it by itself if that was wrong".to_owned());
    }
    if let Some(stage) = filter.stage.filter(|it| order.stage != Some(*it)) {
        return Some(format!("it did not fail at stage {}", stage.as_str()));
    }
    if let Some(code) = filter.code.as_ref().filter(|it| order.failure_code.as_ref() != Some(*it)) {
        let found = order.failure_code.as_deref().unwrap_or("none");
        return Some(format!("its failure has code {found}, not {code}"));
    }
    if let Some(customer) = filter.customer_id.as_ref().filter(|it| order.customer_id != **it) {
        return Some(format!("it is not of customer {customer}"));
    }
    let is_younger = |before| order.failed_at.is_none_or(|at| at >= before);
    if let Some(before) = filter.failed_before.filter(|it| is_younger(*it)) {
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
    fn order_that_is_as_the_filter_says_is_redriven() {
        let filter = RedriveFilter {
            stage: Some(Stage::DeadLetter),
            code: Some("retries_exhausted".to_owned()),
            failed_before: Some(at(6)),
            order_ids: None,
            customer_id: Some("cust-1".to_owned()),
        };
        assert_eq!(why_not(Some(&dead_letter()), &filter), None);
    }

    #[test]
    fn order_that_is_not_is_left_alone_and_the_reason_says_why() {
        let any = RedriveFilter::default;
        let cases = [
            (None, any(), "no such order"),
            (Some(Order { status: Status::Fulfilled, ..dead_letter() }), any(), "FULFILLED"),
            (Some(Order { is_discarded: true, ..dead_letter() }), any(), "discarded"),
            (
                Some(dead_letter()),
                RedriveFilter { stage: Some(Stage::Fulfillment), ..any() },
                "stage fulfillment",
            ),
            (
                Some(dead_letter()),
                RedriveFilter { code: Some("poison".to_owned()), ..any() },
                "code retries_exhausted, not poison",
            ),
            (
                Some(dead_letter()),
                RedriveFilter { customer_id: Some("cust-2".to_owned()), ..any() },
                "customer cust-2",
            ),
            (
                Some(dead_letter()),
                RedriveFilter { failed_before: Some(at(5)), ..any() },
                "did not fail before",
            ),
        ];
        for (order, filter, expected) in cases {
            let why = why_not(order.as_ref(), &filter).unwrap();
            assert!(why.contains(expected), "{why}");
        }
    }
}
