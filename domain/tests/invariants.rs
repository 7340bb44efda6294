//! Each invariant of recorded histories, with histories that violate it.

use domain::ids::OrderId;
use domain::order::{
    DeadLetterDiscarded, FailureClass, FulfillmentDeliveryFailed, FulfillmentDeliveryStarted,
    HistoryCheck, Invariant, Item, OrderEvent, OrderFailed, OrderFulfilled, OrderQueued,
    OrderReceived, OrderStored, OrderValidated, Stage, Status,
};
use testkit::spec::{at, recorded};
use uuid::Uuid;

const ORDER: OrderId = OrderId(Uuid::from_u128(1));

fn received() -> OrderEvent {
    let items = vec![Item { product_id: "prod-1".to_owned(), quantity: 2 }];
    OrderEvent::Received(OrderReceived {
        order_id: ORDER,
        customer_id: "cust-1".to_owned(),
        items,
        received_at: at(0),
    })
}

fn validated() -> OrderEvent {
    OrderEvent::Validated(OrderValidated { order_id: ORDER, total_quantity: 2, rules_version: 1 })
}

fn stored_of(order_id: OrderId) -> OrderEvent {
    OrderEvent::Stored(OrderStored { order_id, stored_at: at(0) })
}

fn stored() -> OrderEvent {
    stored_of(ORDER)
}

fn queued(attempt: u32) -> OrderEvent {
    OrderEvent::Queued(OrderQueued {
        order_id: ORDER,
        attempt,
        customer_id: "cust-1".to_owned(),
        items: vec![],
        reason: None,
        deliveries: 0,
    })
}

fn fulfilled(attempt: u32) -> OrderEvent {
    OrderEvent::Fulfilled(OrderFulfilled {
        order_id: ORDER,
        attempt,
        deliveries: 1,
        reference: "r".to_owned(),
        fulfilled_at: at(1),
    })
}

fn failed(stage: Stage, attempt: u32) -> OrderEvent {
    OrderEvent::Failed(OrderFailed {
        order_id: ORDER,
        stage,
        code: "c".to_owned(),
        reason: "r".to_owned(),
        attempt,
        deliveries: 1,
        failed_at: at(1),
        broken_rules: Vec::new(),
    })
}

fn delivery_failed(attempt: u32) -> OrderEvent {
    OrderEvent::DeliveryFailed(FulfillmentDeliveryFailed {
        order_id: ORDER,
        attempt,
        delivery: 1,
        class: FailureClass::Transient,
        error: "e".to_owned(),
        retry_in_ms: 1,
    })
}

fn delivery_started(attempt: u32) -> OrderEvent {
    OrderEvent::DeliveryStarted(FulfillmentDeliveryStarted {
        order_id: ORDER,
        attempt,
        delivery: 2,
    })
}

fn discarded(attempt: u32) -> OrderEvent {
    OrderEvent::Discarded(DeadLetterDiscarded {
        order_id: ORDER,
        attempt,
        reason: "r".to_owned(),
        discarded_at: at(2),
    })
}

/// Returns the history of an accepted order, followed by these events.
fn accepted(then: impl IntoIterator<Item = OrderEvent>) -> Vec<OrderEvent> {
    [received(), validated(), stored(), queued(1)].into_iter().chain(then).collect()
}

/// Returns the invariants that a history violates, with the revisions.
fn broken(history: impl IntoIterator<Item = OrderEvent>) -> Vec<(Invariant, u64)> {
    let mut check = HistoryCheck::new(ORDER);
    let history = recorded(history);
    let mut violations: Vec<_> = history.iter().flat_map(|it| check.observe(it)).collect();
    violations.extend(check.finish());
    violations.iter().map(|it| (it.invariant, it.revision)).collect()
}

#[test]
fn valid_histories_violate_no_invariant() {
    let dead_letter = || failed(Stage::DeadLetter, 1);
    let lives = [
        accepted([]),
        accepted([fulfilled(1)]),
        accepted([delivery_failed(1), delivery_started(1), queued(1), fulfilled(1)]),
        accepted([failed(Stage::Fulfillment, 1), queued(2), fulfilled(2)]),
        accepted([dead_letter(), discarded(1), queued(2), delivery_failed(2), fulfilled(2)]),
        vec![received(), failed(Stage::Validation, 0)],
    ];
    for life in lives {
        assert_eq!(broken(life.clone()), [], "{life:?}");
    }
}

#[test]
fn untracked_order_violates_i1() {
    let tracked = Invariant::AcceptedIsTracked;
    assert_eq!(broken([received()]), [(tracked, 0)], "neither queued nor failed");
    assert_eq!(broken([received(), validated(), stored()]), [(tracked, 2)]);
    assert_eq!(broken([received(), stored(), queued(1)]), [(tracked, 1)], "never validated");
    assert_eq!(broken([received(), queued(1)]), [(tracked, 1)], "never stored");
    assert_eq!(broken([received(), fulfilled(0)]), [(tracked, 1)], "never queued");
    let late = accepted([failed(Stage::Validation, 1)]);
    assert_eq!(broken(late), [(tracked, 4)], "validation ends before the queue");
}

#[test]
fn second_effect_violates_i2() {
    let once = Invariant::FulfilledOnce;
    assert_eq!(broken(accepted([fulfilled(1), fulfilled(1)])), [(once, 5)]);
    assert_eq!(broken(accepted([fulfilled(2)])), [(once, 4)], "an attempt that never began");
    assert_eq!(broken(accepted([delivery_failed(2), fulfilled(1)])), [(once, 4)]);
    assert_eq!(broken(accepted([queued(2)])), [(once, 4)], "a redrive of an attempt in progress");
    let skipped = accepted([failed(Stage::DeadLetter, 1), queued(3)]);
    assert_eq!(broken(skipped), [(once, 5)], "a redrive begins the next attempt");
    let other = accepted([failed(Stage::DeadLetter, 1), discarded(2)]);
    assert_eq!(broken(other), [(once, 5)], "discards the attempt that failed");
}

#[test]
fn event_after_an_end_violates_i3() {
    let last = Invariant::EndIsFinal;
    for then in [queued(2), failed(Stage::DeadLetter, 1), delivery_started(1), discarded(1)] {
        assert_eq!(broken(accepted([fulfilled(1), then.clone()])), [(last, 5)], "{then:?}");
    }
    let refused = || failed(Stage::Fulfillment, 1);
    for then in [fulfilled(1), refused(), delivery_failed(1), discarded(1), stored()] {
        assert_eq!(broken(accepted([refused(), then.clone()])), [(last, 5)], "{then:?}");
    }
    let invalid = [received(), failed(Stage::Validation, 0), queued(1)];
    assert_eq!(broken(invalid), [(last, 2)], "it would break the same rule again");
    let dead_letter = failed(Stage::DeadLetter, 1);
    assert_eq!(broken(accepted([dead_letter, discarded(1), discarded(1)])), [(last, 6)]);
}

#[test]
fn second_order_in_a_stream_violates_i6() {
    assert_eq!(broken(accepted([received(), fulfilled(1)])), [(Invariant::PlacedOnce, 4)]);
}

#[test]
fn event_of_another_order_and_gap_violate_i7() {
    let other = OrderId(Uuid::from_u128(2));
    let strayed = [received(), validated(), stored_of(other), queued(1)];
    assert_eq!(broken(strayed), [(Invariant::Causality, 2)]);

    let mut check = HistoryCheck::new(ORDER);
    let mut history = recorded(accepted([fulfilled(1)]));
    history[4].revision = 6;
    let violations: Vec<_> = history.iter().flat_map(|it| check.observe(it)).collect();
    let [gap] = &violations[..] else { panic!("{violations:?}") };
    assert_eq!((gap.expected.as_str(), gap.found.as_str()), ("revision 4", "revision 6"));
}

/// Invalid events are applied, as the fold does.
#[test]
fn status_equals_the_folded_status() {
    let mut check = HistoryCheck::new(ORDER);
    for event in recorded(accepted([fulfilled(1), failed(Stage::DeadLetter, 1)])) {
        check.observe(&event);
    }
    assert_eq!(check.status(), Some(Status::Failed));
}
