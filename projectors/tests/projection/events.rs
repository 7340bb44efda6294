//! Histories of orders, as the log contains them.

use domain::ids::OrderId;
use domain::order::{
    DeadLetterDiscarded, FailureClass, FulfillmentDeliveryFailed, FulfillmentDeliveryStarted, Item,
    OrderEvent, OrderFailed, OrderFulfilled, OrderQueued, OrderReceived, OrderStored,
    OrderValidated, Recorded, Stage,
};
use jiff::Timestamp;
use uuid::Uuid;

pub(crate) fn id(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number))
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// An order's history, built event by event.
pub(crate) struct History {
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: String,
    pub(crate) quantity: u64,
    /// When the order was received, in seconds; other times derive from it.
    pub(crate) second: i64,
    attempt: u32,
    events: Vec<Recorded>,
}

impl History {
    pub(crate) fn of(number: u128) -> Self {
        Self {
            order_id: id(number),
            customer_id: "cust-retail-001".to_owned(),
            quantity: 2,
            second: 1_000,
            attempt: 0,
            events: Vec::new(),
        }
    }

    pub(crate) fn customer(mut self, customer_id: &str) -> Self {
        customer_id.clone_into(&mut self.customer_id);
        self
    }

    pub(crate) fn quantity(mut self, quantity: u64) -> Self {
        self.quantity = quantity;
        self
    }

    pub(crate) fn second(mut self, second: i64) -> Self {
        self.second = second;
        self
    }

    pub(crate) fn received(self) -> Self {
        let event = OrderEvent::Received(OrderReceived {
            order_id: self.order_id,
            customer_id: self.customer_id.clone(),
            items: self.items(),
            received_at: at(self.second),
        });
        self.and(event)
    }

    pub(crate) fn placed(self) -> Self {
        let validated = OrderEvent::Validated(OrderValidated {
            order_id: self.order_id,
            total_quantity: self.quantity,
            rules_version: 1,
        });
        let stored =
            OrderEvent::Stored(OrderStored { order_id: self.order_id, stored_at: at(self.second) });
        self.received().and(validated).and(stored).queued()
    }

    pub(crate) fn queued(mut self) -> Self {
        self.attempt += 1;
        let event = OrderEvent::Queued(OrderQueued {
            order_id: self.order_id,
            attempt: self.attempt,
            customer_id: self.customer_id.clone(),
            items: self.items(),
            reason: None,
            deliveries: 0,
        });
        self.and(event)
    }

    pub(crate) fn delivery_failed(self) -> Self {
        let event = OrderEvent::DeliveryFailed(FulfillmentDeliveryFailed {
            order_id: self.order_id,
            attempt: self.attempt,
            delivery: 1,
            class: FailureClass::Transient,
            error: "timed out".to_owned(),
            retry_in_ms: 100,
        });
        self.and(event)
    }

    pub(crate) fn delivery_started(self, delivery: u32) -> Self {
        let event = OrderEvent::DeliveryStarted(FulfillmentDeliveryStarted {
            order_id: self.order_id,
            attempt: self.attempt,
            delivery,
        });
        self.and(event)
    }

    pub(crate) fn fulfilled(self) -> Self {
        let event = OrderEvent::Fulfilled(OrderFulfilled {
            order_id: self.order_id,
            attempt: self.attempt,
            deliveries: 1,
            reference: "ref-1".to_owned(),
            fulfilled_at: at(self.second + 60),
        });
        self.and(event)
    }

    pub(crate) fn failed(self, stage: Stage, code: &str) -> Self {
        let event = OrderEvent::Failed(OrderFailed {
            order_id: self.order_id,
            stage,
            code: code.to_owned(),
            reason: "it did not work".to_owned(),
            attempt: self.attempt,
            deliveries: 1,
            failed_at: at(self.second + 30),
            broken_rules: Vec::new(),
        });
        self.and(event)
    }

    pub(crate) fn discarded(self) -> Self {
        let event = OrderEvent::Discarded(DeadLetterDiscarded {
            order_id: self.order_id,
            attempt: self.attempt,
            reason: "given up".to_owned(),
            discarded_at: at(self.second + 90),
        });
        self.and(event)
    }

    pub(crate) fn events(self) -> Vec<Recorded> {
        self.events
    }

    fn items(&self) -> Vec<Item> {
        vec![Item { product_id: "prod-widget-001".to_owned(), quantity: self.quantity }]
    }

    fn and(mut self, event: OrderEvent) -> Self {
        let revision = self.events.len() as u64;
        self.events.push(Recorded { revision, recorded_at: at(self.second), event });
        self
    }
}
