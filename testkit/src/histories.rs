//! Random histories of one order, for property tests.

use domain::ids::OrderId;
use domain::order::{
    Discard, FailureClass, Item, OrderCommand, OrderEvent, PlaceOrder, RecordDeliveryFailed,
    RecordDeliveryStarted, RecordFailed, RecordFulfilled, Redrive, Requeue, Stage, decide, fold,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::spec::{at, recorded};

/// The order of every history.
pub const ORDER: OrderId = OrderId(Uuid::from_u128(1));

fn any_item() -> impl Strategy<Value = Item> {
    ("\\PC{0,8}", 1..60_u64).prop_map(|(product_id, quantity)| Item { product_id, quantity })
}

fn any_items() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec(any_item(), 0..4)
}

/// Returns arbitrary commands, allowed or not.
pub fn any_command() -> impl Strategy<Value = OrderCommand> {
    let attempt = 0..4_u32;
    let delivery = 1..6_u32;
    prop_oneof![
        ("\\PC{0,6}", any_items()).prop_map(|(customer_id, items)| {
            OrderCommand::Place(PlaceOrder { order_id: ORDER, customer_id, items, at: at(0) })
        }),
        (attempt.clone(), delivery.clone()).prop_map(|(attempt, deliveries)| {
            let reference = "r".to_owned();
            OrderCommand::RecordFulfilled(RecordFulfilled {
                attempt,
                deliveries,
                reference,
                at: at(1),
            })
        }),
        (
            attempt.clone(),
            delivery.clone(),
            prop::sample::select(vec![Stage::Fulfillment, Stage::DeadLetter])
        )
            .prop_map(|(attempt, deliveries, stage)| {
                OrderCommand::RecordFailed(RecordFailed {
                    attempt,
                    deliveries,
                    stage,
                    code: "c".to_owned(),
                    reason: "\u{1f4a5} \" \\".to_owned(),
                    at: at(2),
                })
            }),
        (attempt.clone(), delivery.clone(), any::<u64>()).prop_map(
            |(attempt, delivery, retry_in_ms)| {
                OrderCommand::RecordDeliveryFailed(RecordDeliveryFailed {
                    attempt,
                    delivery,
                    class: FailureClass::Transient,
                    error: "e".to_owned(),
                    retry_in_ms,
                })
            }
        ),
        (attempt, delivery).prop_map(|(attempt, delivery)| {
            OrderCommand::RecordDeliveryStarted(RecordDeliveryStarted { attempt, delivery })
        }),
        ("\\PC{0,8}", prop::option::of("\\PC{0,6}"), prop::option::of(any_items())).prop_map(
            |(reason, customer_id, items)| {
                OrderCommand::Redrive(Redrive { reason, customer_id, items })
            }
        ),
        (0..12_u64).prop_map(|revision| {
            OrderCommand::Requeue(Requeue { revision, reason: "lost".to_owned() })
        }),
        "\\PC{0,8}".prop_map(|reason| OrderCommand::Discard(Discard { reason, at: at(3) })),
    ]
}

/// Returns histories that result from arbitrary commands.
pub fn any_history() -> impl Strategy<Value = Vec<OrderEvent>> {
    prop::collection::vec(any_command(), 0..40).prop_map(|commands| {
        let mut history = Vec::new();
        for command in commands {
            let state = fold(&recorded(history.clone()));
            history.extend(decide(state.as_ref(), command).unwrap_or_default());
        }
        history
    })
}
