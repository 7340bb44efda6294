//! The summary of a customer, above the customer's orders.

use api_types::{Customer, CustomerOrder};
use jiff::Timestamp;
use maud::{Markup, html};

use crate::components::{dash, format_count, order_link, stage_name, time};

pub(super) fn show(customer: &Customer, now: Timestamp) -> Markup {
    let counts = &customer.orders;
    html! {
        section.panel {
            h2 { "Customer " bdi.wrap { (customer.customer_id) } }
            dl.facts {
                dt { "Orders" }
                dd {
                    (format_count(counts.processing)) " processing, "
                    (format_count(counts.fulfilled)) " fulfilled, "
                    (format_count(counts.failed)) " failed"
                }
                dt { "Total quantity" } dd { (format_count(customer.total_quantity)) }
                dt { "First order" } dd { (show_order(customer.first_order.as_ref(), now)) }
                dt { "Last order" } dd { (show_order(customer.last_order.as_ref(), now)) }
                dt { "Last failure" }
                dd {
                    @if let Some(failure) = &customer.last_failure {
                        (order_link(failure.order_id)) " " (time(failure.failed_at, now)) " "
                        (stage_name(failure.stage)) ": " code { bdi { (failure.code) } }
                    } @else {
                        (dash())
                    }
                }
            }
        }
    }
}

fn show_order(order: Option<&CustomerOrder>, now: Timestamp) -> Markup {
    html! {
        @match order {
            Some(order) => { (order_link(order.order_id)) " " (time(order.received_at, now)) },
            None => { (dash()) },
        }
    }
}
