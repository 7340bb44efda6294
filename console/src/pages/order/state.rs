//! The state of an order: facts and items.

use api_types::{OrderItem, OrderState};
use jiff::Timestamp;
use maud::{Markup, html};

use crate::components::{
    count_of, customer_address, format_count, order_status, stage_name, table, time,
};

/// Number of items above which the list is closed at first.
const MAX_OPEN_ITEMS: usize = 20;

/// Returns the facts of a state.
pub(super) fn show_facts(order: &OrderState, now: Timestamp) -> Markup {
    let times = [
        ("Received", order.received_at),
        ("Queued", order.queued_at),
        ("Fulfilled", order.fulfilled_at),
        ("Failed", order.failed_at),
        ("Updated", Some(order.updated_at)),
    ];
    html! {
        dl.facts {
            dt { "Status" } dd { (order_status(order.status)) }
            @if let Some(stage) = order.stage {
                dt { "Failure" }
                dd {
                    (stage_name(stage))
                    @if let Some(code) = &order.failure_code { ": " code { bdi { (code) } } }
                    @if let Some(reason) = &order.failure_reason { br; bdi { (reason) } }
                }
            }
            @if let Some(reference) = &order.reference {
                dt { "Reference" } dd { code { bdi { (reference) } } }
            }
            dt { "Customer" }
            dd {
                a href=(customer_address(&order.customer_id)) {
                    bdi { (order.customer_id) }
                }
            }
            dt { "Attempt" }
            dd { (order.attempt) ", " (count_of(order.deliveries.into(), "delivery")) }
            dt { "Revision" } dd { (format_count(order.revision)) }
            @for (name, at) in times {
                @if let Some(at) = at { dt { (name) } dd { (time(at, now)) } }
            }
        }
    }
}

/// Returns the items as a table. A long list is closed at first.
pub(super) fn show_items(caption: &str, items: &[OrderItem]) -> Markup {
    let rows = html! {
        @for item in items {
            tr {
                th.text scope="row" { bdi { (item.product_id) } }
                td { (format_count(item.quantity)) }
            }
        }
    };
    let items_table = table(caption, &["Product", "Quantity"], &rows);
    html! {
        @if items.len() > MAX_OPEN_ITEMS {
            details { summary { (count_of(items.len() as u64, "item")) } (items_table) }
        } @else {
            (items_table)
        }
    }
}
