//! Events of an order in words.

use api_types::{
    DeadLetterDiscarded, FulfillmentDeliveryFailed, FulfillmentDeliveryStarted, OrderFailed,
    OrderFulfilled, OrderQueued, OrderValidated, RecordedEvent,
};
use maud::{Markup, html};
use serde::Deserialize;

use crate::components::{class_name, format_seconds, stage_name};

/// An event in words.
pub(super) struct Description {
    /// Tone of the badge.
    pub(super) tone: &'static str,
    pub(super) title: String,
    pub(super) detail: Markup,
}

impl Description {
    fn new(tone: &'static str, title: impl Into<String>, detail: Markup) -> Self {
        Self { tone, title: title.into(), detail }
    }
}

/// Describes an event. An event of another release, or of another tool, has its type as the title.
pub(super) fn describe(event: &RecordedEvent) -> Description {
    let described = match event.event_type.as_str() {
        "OrderReceived" => Some(Description::new("neutral", "Received", html! {})),
        "OrderValidated" => read(event).as_ref().map(describe_validated),
        "OrderStored" => Some(Description::new("neutral", "Stored", html! {})),
        "OrderQueued" => read(event).map(describe_queued),
        "FulfillmentDeliveryStarted" => read(event).as_ref().map(describe_delivery_start),
        "FulfillmentDeliveryFailed" => read(event).as_ref().map(describe_failed_delivery),
        "OrderFulfilled" => read(event).as_ref().map(describe_fulfilled),
        "OrderFailed" => read(event).as_ref().map(describe_failed),
        "DeadLetterDiscarded" => read(event).as_ref().map(describe_discarded),
        _ => None,
    };
    described.unwrap_or_else(|| {
        let detail = html! { "This release cannot read the data of the event." };
        Description::new("warning", event.event_type.clone(), detail)
    })
}

fn read<'a, T: Deserialize<'a>>(event: &'a RecordedEvent) -> Option<T> {
    T::deserialize(&event.data.0).ok()
}

fn describe_validated(event: &OrderValidated) -> Description {
    let detail = html! { "rules version " (event.rules_version) };
    Description::new("neutral", "Validated", detail)
}

fn describe_queued(event: OrderQueued) -> Description {
    match event.reason {
        None => Description::new("busy", "Queued", html! {}),
        Some(reason) => Description::new("busy", "Queued again", html! { bdi { (reason) } }),
    }
}

fn describe_delivery_start(event: &FulfillmentDeliveryStarted) -> Description {
    Description::new("busy", format!("Delivery {} started", event.delivery), html! {})
}

fn describe_failed_delivery(event: &FulfillmentDeliveryFailed) -> Description {
    let detail = html! {
        bdi { (event.error) } " (" (class_name(event.class)) "); next delivery after " (format_pause(event.retry_in_ms))
    };
    Description::new("warning", format!("Delivery {} failed", event.delivery), detail)
}

fn describe_fulfilled(event: &OrderFulfilled) -> Description {
    Description::new("good", "Fulfilled", html! { "reference " code { bdi { (event.reference) } } })
}

fn describe_failed(event: &OrderFailed) -> Description {
    let detail = html! {
        (stage_name(event.stage)) ": " code { bdi { (event.code) } } ", " bdi { (event.reason) }
        // The first rule is the one of the code.
        @for rule in event.broken_rules.iter().skip(1) {
            "; " code { bdi { (rule.code) } } ", " bdi { (rule.reason) }
        }
    };
    Description::new("bad", "Failed", detail)
}

fn describe_discarded(event: &DeadLetterDiscarded) -> Description {
    Description::new("neutral", "Dead letter discarded", html! { bdi { (event.reason) } })
}

fn format_pause(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        _ => format_seconds(milliseconds / 1_000),
    }
}
