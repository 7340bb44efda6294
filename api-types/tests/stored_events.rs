//! Stored events pass through the API's event types unchanged.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::path::Path;

use api_types::{
    DeadLetterDiscarded, FulfillmentDeliveryFailed, FulfillmentDeliveryStarted, OrderFailed,
    OrderFulfilled, OrderQueued, OrderReceived, OrderStored, OrderValidated,
};
use domain::ids::OrderId;
use domain::order::{
    BrokenRule, DeadLetterDiscarded as Discarded, EVENT_TYPES, FailureClass as Class,
    FulfillmentDeliveryFailed as DeliveryFailed, FulfillmentDeliveryStarted as DeliveryStarted,
    Item, OrderEvent, OrderFailed as Failed, OrderFulfilled as Fulfilled, OrderQueued as Queued,
    OrderReceived as Received, OrderStored as Stored, OrderValidated as Validated, Stage, encode,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

fn rewrite<T: Serialize + DeserializeOwned>(json: &str) -> Value {
    serde_json::to_value(serde_json::from_str::<T>(json).unwrap()).unwrap()
}

/// Reads and writes the data of an event by the API's type of that name.
fn pass_through(event_type: &str, json: &str) -> Value {
    match event_type {
        "OrderReceived" => rewrite::<OrderReceived>(json),
        "OrderValidated" => rewrite::<OrderValidated>(json),
        "OrderStored" => rewrite::<OrderStored>(json),
        "OrderQueued" => rewrite::<OrderQueued>(json),
        "OrderFulfilled" => rewrite::<OrderFulfilled>(json),
        "OrderFailed" => rewrite::<OrderFailed>(json),
        "FulfillmentDeliveryFailed" => rewrite::<FulfillmentDeliveryFailed>(json),
        "FulfillmentDeliveryStarted" => rewrite::<FulfillmentDeliveryStarted>(json),
        "DeadLetterDiscarded" => rewrite::<DeadLetterDiscarded>(json),
        unknown => panic!("the API has no type for {unknown}"),
    }
}

#[test]
fn golden_events_pass_through_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain/tests/golden");
    for event_type in EVENT_TYPES {
        let json = std::fs::read_to_string(folder.join(format!("{event_type}.v1.json"))).unwrap();
        let stored: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(pass_through(event_type, &json), stored, "{event_type}");
    }
}

fn any_items() -> impl Strategy<Value = Vec<Item>> + Clone {
    let item = (any::<String>(), any::<u64>())
        .prop_map(|(product_id, quantity)| Item { product_id, quantity });
    prop::collection::vec(item, 0..3)
}

fn any_time() -> impl Strategy<Value = Timestamp> + Clone {
    (0..4_000_000_000_i64, 0..1_000_000_000_i32)
        .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).unwrap())
}

fn any_stage() -> impl Strategy<Value = Stage> + Clone {
    prop::sample::select(Stage::ALL.to_vec())
}

fn any_class() -> impl Strategy<Value = Class> + Clone {
    prop::sample::select(vec![Class::Transient, Class::Permanent, Class::Poison])
}

fn any_rules() -> impl Strategy<Value = Vec<BrokenRule>> + Clone {
    let rule =
        any::<[String; 3]>().prop_map(|[code, member, reason]| BrokenRule { code, member, reason });
    prop::collection::vec(rule, 0..3)
}

fn any_placing() -> impl Strategy<Value = OrderEvent> {
    let parts =
        (any::<u128>(), any::<u64>(), any::<u32>(), any::<String>(), any_items(), any_time());
    prop_oneof![
        parts.clone().prop_map(|(id, _, _, customer_id, items, received_at)| {
            let order_id = OrderId(Uuid::from_u128(id));
            OrderEvent::Received(Received { order_id, customer_id, items, received_at })
        }),
        parts.clone().prop_map(|(id, total_quantity, rules_version, ..)| {
            let order_id = OrderId(Uuid::from_u128(id));
            OrderEvent::Validated(Validated { order_id, total_quantity, rules_version })
        }),
        parts.clone().prop_map(|(id, _, _, _, _, stored_at)| {
            OrderEvent::Stored(Stored { order_id: OrderId(Uuid::from_u128(id)), stored_at })
        }),
        (parts, any::<Option<String>>()).prop_map(
            |((id, deliveries, attempt, customer_id, items, _), reason)| {
                let order_id = OrderId(Uuid::from_u128(id));
                let deliveries = u32::try_from(deliveries % 3).unwrap();
                OrderEvent::Queued(Queued {
                    order_id,
                    attempt,
                    customer_id,
                    items,
                    reason,
                    deliveries,
                })
            }
        ),
    ]
}

fn any_outcome() -> impl Strategy<Value = OrderEvent> {
    let parts = (any::<u128>(), any::<[u32; 2]>(), any::<[String; 2]>(), any_time());
    prop_oneof![
        parts.clone().prop_map(|(id, [attempt, deliveries], [reference, _], fulfilled_at)| {
            let order_id = OrderId(Uuid::from_u128(id));
            OrderEvent::Fulfilled(Fulfilled {
                order_id,
                attempt,
                deliveries,
                reference,
                fulfilled_at,
            })
        }),
        (parts.clone(), any_stage(), any_rules()).prop_map(
            |((id, [attempt, deliveries], [code, reason], failed_at), stage, broken_rules)| {
                OrderEvent::Failed(Failed {
                    order_id: OrderId(Uuid::from_u128(id)),
                    stage,
                    code,
                    reason,
                    attempt,
                    deliveries,
                    failed_at,
                    broken_rules,
                })
            }
        ),
        (parts.clone(), any_class(), any::<u64>()).prop_map(
            |((id, [attempt, delivery], [error, _], _), class, retry_in_ms)| {
                OrderEvent::DeliveryFailed(DeliveryFailed {
                    order_id: OrderId(Uuid::from_u128(id)),
                    attempt,
                    delivery,
                    class,
                    error,
                    retry_in_ms,
                })
            }
        ),
        parts.clone().prop_map(|(id, [attempt, delivery], ..)| {
            let order_id = OrderId(Uuid::from_u128(id));
            OrderEvent::DeliveryStarted(DeliveryStarted { order_id, attempt, delivery })
        }),
        parts.prop_map(|(id, [attempt, _], [reason, _], discarded_at)| {
            let order_id = OrderId(Uuid::from_u128(id));
            OrderEvent::Discarded(Discarded { order_id, attempt, reason, discarded_at })
        }),
    ]
}

proptest! {
    #[test]
    fn any_event_passes_through_unchanged(event in prop_oneof![any_placing(), any_outcome()]) {
        let encoded = encode(&event).unwrap();
        let json = encoded.data.get();
        let stored: Value = serde_json::from_str(json).unwrap();
        prop_assert_eq!(pass_through(encoded.event_type, json), stored);
    }
}
