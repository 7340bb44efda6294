//! The rules of an order: every row of the (state, command) table.

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{
    BrokenRule, DeadLetterDiscarded, Discard, FailureClass, FulfillmentDeliveryFailed,
    FulfillmentDeliveryStarted, Item, OrderCommand, OrderError, OrderEvent, OrderFailed,
    OrderFulfilled, OrderQueued, OrderReceived, OrderStored, OrderValidated, PlaceOrder,
    RecordDeliveryFailed, RecordDeliveryStarted, RecordFailed, RecordFulfilled, Redrive, Requeue,
    Stage, Status, fold,
};
use testkit::spec::{at, given, recorded};
use uuid::Uuid;

const ORDER: OrderId = OrderId(Uuid::from_u128(1));

fn items(quantity: u64) -> Vec<Item> {
    vec![Item { product_id: "prod-1".to_owned(), quantity }]
}

fn place(customer_id: &str, quantity: u64) -> OrderCommand {
    OrderCommand::Place(PlaceOrder {
        order_id: ORDER,
        customer_id: customer_id.to_owned(),
        items: items(quantity),
        at: at(0),
    })
}

fn received(customer_id: &str, quantity: u64) -> OrderEvent {
    OrderEvent::Received(OrderReceived {
        order_id: ORDER,
        customer_id: customer_id.to_owned(),
        items: items(quantity),
        received_at: at(0),
    })
}

fn queued(attempt: u32) -> OrderEvent {
    OrderEvent::Queued(OrderQueued {
        order_id: ORDER,
        attempt,
        customer_id: "cust-1".to_owned(),
        items: items(2),
        reason: (attempt > 1).then(|| "gateway was down".to_owned()),
        deliveries: 0,
    })
}

fn placed() -> Vec<OrderEvent> {
    vec![
        received("cust-1", 2),
        OrderEvent::Validated(OrderValidated {
            order_id: ORDER,
            total_quantity: 2,
            rules_version: 1,
        }),
        OrderEvent::Stored(OrderStored { order_id: ORDER, stored_at: at(0) }),
        queued(1),
    ]
}

fn fulfilled(attempt: u32) -> OrderEvent {
    OrderEvent::Fulfilled(OrderFulfilled {
        order_id: ORDER,
        attempt,
        deliveries: 1,
        reference: "r-1".to_owned(),
        fulfilled_at: at(9),
    })
}

fn failed(stage: Stage, attempt: u32) -> OrderEvent {
    OrderEvent::Failed(OrderFailed {
        order_id: ORDER,
        stage,
        code: "code".to_owned(),
        reason: "reason".to_owned(),
        attempt,
        deliveries: 1,
        failed_at: at(9),
        broken_rules: Vec::new(),
    })
}

fn delivery_failed(delivery: u32) -> OrderEvent {
    OrderEvent::DeliveryFailed(FulfillmentDeliveryFailed {
        order_id: ORDER,
        attempt: 1,
        delivery,
        class: FailureClass::Transient,
        error: "no answer".to_owned(),
        retry_in_ms: 200,
    })
}

fn delivery_started(delivery: u32) -> OrderEvent {
    OrderEvent::DeliveryStarted(FulfillmentDeliveryStarted {
        order_id: ORDER,
        attempt: 1,
        delivery,
    })
}

fn record_fulfilled(attempt: u32) -> OrderCommand {
    OrderCommand::RecordFulfilled(RecordFulfilled {
        attempt,
        deliveries: 1,
        reference: "r-1".to_owned(),
        at: at(9),
    })
}

fn record_failed(attempt: u32) -> OrderCommand {
    OrderCommand::RecordFailed(RecordFailed {
        attempt,
        deliveries: 1,
        stage: Stage::Fulfillment,
        code: "code".to_owned(),
        reason: "reason".to_owned(),
        at: at(9),
    })
}

fn record_delivery_failed(delivery: u32) -> OrderCommand {
    OrderCommand::RecordDeliveryFailed(RecordDeliveryFailed {
        attempt: 1,
        delivery,
        class: FailureClass::Transient,
        error: "no answer".to_owned(),
        retry_in_ms: 200,
    })
}

fn record_delivery_started(delivery: u32) -> OrderCommand {
    OrderCommand::RecordDeliveryStarted(RecordDeliveryStarted { attempt: 1, delivery })
}

fn redrive() -> OrderCommand {
    corrected(None, None)
}

fn corrected(customer_id: Option<&str>, items: Option<Vec<Item>>) -> OrderCommand {
    let reason = "gateway was down".to_owned();
    let customer_id = customer_id.map(str::to_owned);
    OrderCommand::Redrive(Redrive { reason, customer_id, items })
}

fn requeue(revision: u64) -> OrderCommand {
    OrderCommand::Requeue(Requeue { revision, reason: "message was lost".to_owned() })
}

fn discard() -> OrderCommand {
    OrderCommand::Discard(Discard { reason: "bought elsewhere".to_owned(), at: at(10) })
}

fn discarded(attempt: u32) -> OrderEvent {
    OrderEvent::Discarded(DeadLetterDiscarded {
        order_id: ORDER,
        attempt,
        reason: "bought elsewhere".to_owned(),
        discarded_at: at(10),
    })
}

fn processing_commands() -> [OrderCommand; 4] {
    [record_fulfilled(1), record_failed(1), record_delivery_failed(1), record_delivery_started(2)]
}

fn after(event: OrderEvent) -> Vec<OrderEvent> {
    placed().into_iter().chain([event]).collect()
}

#[test]
fn valid_new_order_is_queued() {
    given([]).when(place("cust-1", 2)).then(placed());
}

#[test]
fn new_order_with_a_short_customer_id_is_recorded_as_failed() {
    let failed = OrderEvent::Failed(OrderFailed {
        order_id: ORDER,
        stage: Stage::Validation,
        code: "invalid_customer_id".to_owned(),
        reason: "Invalid customer_id format".to_owned(),
        attempt: 0,
        deliveries: 0,
        failed_at: at(0),
        broken_rules: vec![BrokenRule {
            code: "invalid_customer_id".to_owned(),
            member: "customer_id".to_owned(),
            reason: "Invalid customer_id format".to_owned(),
        }],
    });
    given([]).when(place("ab", 2)).then([received("ab", 2), failed]);
}

#[test]
fn new_order_above_the_quantity_limit_is_recorded_as_failed() {
    let failed = OrderEvent::Failed(OrderFailed {
        order_id: ORDER,
        stage: Stage::Validation,
        code: "total_quantity_exceeded".to_owned(),
        reason: "Order total quantity cannot exceed 100 items".to_owned(),
        attempt: 0,
        deliveries: 0,
        failed_at: at(0),
        broken_rules: vec![BrokenRule {
            code: "total_quantity_exceeded".to_owned(),
            member: "items".to_owned(),
            reason: "Order total quantity cannot exceed 100 items".to_owned(),
        }],
    });
    given([]).when(place("cust-1", 101)).then([received("cust-1", 101), failed]);
}

#[test]
fn order_fails_for_the_customer_id_first_and_records_both_rules() {
    let outcome = domain::order::decide(None, place("ab", 101)).unwrap();
    let Some(OrderEvent::Failed(failed)) = outcome.last() else { panic!("{outcome:?}") };
    assert_eq!(failed.code, "invalid_customer_id");
    let members: Vec<_> = failed.broken_rules.iter().map(|it| it.member.as_str()).collect();
    assert_eq!(members, ["customer_id", "items"]);
}

#[test]
fn order_at_both_limits_is_accepted() {
    let outcome = domain::order::decide(None, place("äbc", 100)).unwrap();
    assert_eq!(outcome.len(), 4, "{outcome:?}");
}

#[test]
fn order_can_be_placed_only_once() {
    let ends = [queued(1), fulfilled(1), failed(Stage::DeadLetter, 1)];
    for end in ends {
        given(after(end)).when(place("cust-1", 2)).then_refused(OrderError::AlreadyPlaced);
    }
}

#[test]
fn missing_order_accepts_only_placing() {
    for command in processing_commands().into_iter().chain([redrive(), requeue(3), discard()]) {
        given([]).when(command).then_refused(OrderError::NotPlaced);
    }
}

#[test]
fn processing_order_is_fulfilled() {
    given(placed()).when(record_fulfilled(1)).then([fulfilled(1)]);
}

#[test]
fn processing_order_fails() {
    given(placed()).when(record_failed(1)).then([failed(Stage::Fulfillment, 1)]);
}

#[test]
fn repeated_outcome_adds_no_event() {
    given(after(fulfilled(1))).when(record_fulfilled(1)).then_nothing();
    given(after(failed(Stage::Fulfillment, 1))).when(record_failed(1)).then_nothing();
}

#[test]
fn ended_attempt_accepts_no_other_outcome() {
    let ended = |status| OrderError::AttemptEnded { attempt: 1, status };
    given(after(fulfilled(1))).when(record_failed(1)).then_refused(ended(Status::Fulfilled));
    given(after(failed(Stage::Fulfillment, 1)))
        .when(record_fulfilled(1))
        .then_refused(ended(Status::Failed));
}

#[test]
fn outcome_of_another_attempt_is_refused() {
    let other = |asked, current| OrderError::OtherAttempt { asked, current };
    let redriven = after(failed(Stage::DeadLetter, 1)).into_iter().chain([queued(2)]);
    for command in processing_commands() {
        given(redriven.clone()).when(command).then_refused(other(1, 2));
    }
    given(placed()).when(record_fulfilled(2)).then_refused(other(2, 1));
}

#[test]
fn failed_delivery_is_recorded_once() {
    given(placed()).when(record_delivery_failed(1)).then([delivery_failed(1)]);
    given(after(delivery_failed(1))).when(record_delivery_failed(1)).then_nothing();
    given(after(delivery_started(2))).when(record_delivery_failed(2)).then([delivery_failed(2)]);
}

#[test]
fn started_delivery_is_recorded_once() {
    given(placed()).when(record_delivery_started(2)).then([delivery_started(2)]);
    given(after(delivery_started(2))).when(record_delivery_started(2)).then_nothing();
    given(after(delivery_failed(2))).when(record_delivery_started(2)).then_nothing();
}

#[test]
fn delivery_after_the_end_is_refused() {
    let ends = [(fulfilled(1), Status::Fulfilled), (failed(Stage::DeadLetter, 1), Status::Failed)];
    for (end, status) in ends {
        for command in [record_delivery_failed(2), record_delivery_started(2)] {
            let expected = OrderError::AttemptEnded { attempt: 1, status };
            given(after(end.clone())).when(command).then_refused(expected);
        }
    }
}

#[test]
fn failed_order_is_redriven_as_the_next_attempt() {
    for stage in [Stage::Fulfillment, Stage::DeadLetter] {
        given(after(failed(stage, 1))).when(redrive()).then([queued(2)]);
    }
}

#[test]
fn order_that_broke_a_business_rule_is_not_redriven() {
    given([received("ab", 2), failed(Stage::Validation, 0)])
        .when(redrive())
        .then_refused(OrderError::FailedValidation { code: "code".to_owned() });
}

#[test]
fn order_that_has_not_failed_is_not_redriven() {
    given(placed()).when(redrive()).then_refused(OrderError::NotFailed(Status::Processing));
    given(after(fulfilled(1)))
        .when(redrive())
        .then_refused(OrderError::NotFailed(Status::Fulfilled));
}

#[test]
fn redrive_may_correct_the_order() {
    let (given_after, items) = (after(failed(Stage::DeadLetter, 1)), items(3));
    given(given_after.clone()).when(corrected(Some("cust-2"), Some(items.clone()))).then([
        OrderEvent::Queued(OrderQueued {
            order_id: ORDER,
            attempt: 2,
            customer_id: "cust-2".to_owned(),
            items,
            reason: Some("gateway was down".to_owned()),
            deliveries: 0,
        }),
    ]);
    given(given_after).when(corrected(Some("ab"), None)).then_refused(
        OrderError::CorrectionRefused {
            code: "invalid_customer_id".to_owned(),
            reason: "Invalid customer_id format".to_owned(),
        },
    );
}

#[test]
fn requeued_order_stays_at_the_same_attempt() {
    let again = |deliveries| {
        OrderEvent::Queued(OrderQueued {
            order_id: ORDER,
            attempt: 1,
            customer_id: "cust-1".to_owned(),
            items: items(2),
            reason: Some("message was lost".to_owned()),
            deliveries,
        })
    };
    given(placed()).when(requeue(3)).then([again(0)]);
    given(after(delivery_failed(1))).when(requeue(4)).then([again(1)]);
}

#[test]
fn requeued_attempt_continues_to_count_deliveries() {
    let requeued = OrderEvent::Queued(OrderQueued {
        order_id: ORDER,
        attempt: 1,
        customer_id: "cust-1".to_owned(),
        items: items(2),
        reason: Some("the gateway asked for 60 s".to_owned()),
        deliveries: 1,
    });
    let history = || after(delivery_failed(1)).into_iter().chain([requeued.clone()]);
    let order = fold(&recorded(history())).unwrap();
    assert_eq!((order.deliveries, order.failed_delivery, order.retry_at), (1, 1, None));
    given(history()).when(record_delivery_failed(1)).then_nothing();
    given(history()).when(record_delivery_failed(2)).then([delivery_failed(2)]);
}

#[test]
fn failed_delivery_sets_the_time_of_the_retry() {
    let retry_at = |history| fold(&recorded(history)).unwrap().retry_at;
    assert_eq!(retry_at(placed()), None);
    // The fifth event, at the fourth second.
    let waits_until = at(4).checked_add(Duration::from_millis(200)).unwrap();
    assert_eq!(retry_at(after(delivery_failed(1))), Some(waits_until));
    let started = after(delivery_failed(1)).into_iter().chain([delivery_started(2)]).collect();
    assert_eq!(retry_at(started), None);
}

#[test]
fn changed_or_ended_order_is_not_requeued() {
    given(after(delivery_failed(1))).when(requeue(3)).then_nothing();
    let status = Status::Fulfilled;
    given(after(fulfilled(1)))
        .when(requeue(4))
        .then_refused(OrderError::AttemptEnded { attempt: 1, status });
}

#[test]
fn dead_letter_is_discarded_once_and_can_still_be_redriven() {
    let dead = after(failed(Stage::DeadLetter, 1));
    given(dead.clone()).when(discard()).then([discarded(1)]);
    let given_up: Vec<_> = dead.into_iter().chain([discarded(1)]).collect();
    given(given_up.clone()).when(discard()).then_nothing();
    given(given_up).when(redrive()).then([queued(2)]);
}

#[test]
fn only_a_dead_letter_can_be_discarded() {
    let (status, stage) = (Status::Failed, Some(Stage::Fulfillment));
    given(after(failed(Stage::Fulfillment, 1)))
        .when(discard())
        .then_refused(OrderError::NotDeadLetter { status, stage });
    let status = Status::Processing;
    given(placed()).when(discard()).then_refused(OrderError::NotDeadLetter { status, stage: None });
}
