//! The list of failures, with the buttons that mend the selected ones.

use api_types::{FailedOrder, FailedOrderPage, FailureFilter, OrderItem};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Serialize;

use super::filter::{LetterFilter, ListQuery};
use super::{letter_address, no_letters};
use crate::api::{Api, Loaded};
use crate::components::{
    count_of, empty, format_count, loaded, next_page, optional_time, order_link, table, time,
};
use crate::pages::order_actions::can_discard;

/// Number of rows of a page.
const PAGE: u32 = 100;
/// Maximum number of new failures that are counted.
const MAX_NEW: u32 = 200;
/// Maximum number of items that a row shows of its order.
const MAX_ITEMS: usize = 20;

/// A page of failures, or why there is none.
pub(super) type FailureList = Loaded<FailedOrderPage>;

#[derive(Serialize)]
struct Parameters {
    #[serde(flatten)]
    filter: FailureFilter,
    include_resolved: bool,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
}

/// Loads the page that the parameters name.
pub(super) async fn load(api: &Api, filter: &LetterFilter, query: &ListQuery) -> FailureList {
    let parameters = Parameters {
        filter: filter.to_api(),
        include_resolved: query.resolved,
        limit: PAGE,
        cursor: query.cursor.clone(),
        from: None,
    };
    api.get_with("/v1/failed-orders", &parameters).await
}

/// Returns the number of failures that are newer than the visitor's rows; `None` if the visitor does not
/// see the newest rows, or the failures cannot be read.
pub(super) async fn count_new(api: &Api, filter: &LetterFilter, query: &ListQuery) -> Option<u64> {
    if query.cursor.is_some() {
        return None;
    }
    let parameters = Parameters {
        filter: filter.to_api(),
        include_resolved: false,
        limit: MAX_NEW,
        cursor: None,
        from: query.since,
    };
    let page: FailedOrderPage = api.get_with("/v1/failed-orders", &parameters).await.ok()?;
    // The API also returns the failures of that very time, which the visitor sees.
    let is_new = |failure: &&FailedOrder| query.since.is_none_or(|since| failure.failed_at > since);
    Some(page.items.iter().filter(is_new).count() as u64)
}

/// Returns the number of new failures with a link to them; nothing if there are none.
pub(super) fn new_note(n_new: Option<u64>, reload: &str) -> Markup {
    let count = n_new.unwrap_or(0);
    html! {
        @if count > 0 {
            p {
                (count_of(count, "new failure"))
                @if count == u64::from(MAX_NEW) { " or more" }
                ". " a href=(reload) { "Show" }
            }
        }
    }
}

/// What the list shows beside its rows.
pub(super) struct ListContext<'a> {
    pub(super) filter: &'a LetterFilter,
    pub(super) query: &'a ListQuery,
    /// Number of failures that match the filter, if it is known.
    pub(super) n_matching: Option<u64>,
    pub(super) may_act: bool,
    pub(super) now: Timestamp,
}

pub(super) fn show(failures: &FailureList, context: &ListContext<'_>) -> Markup {
    html! {
        section.panel {
            h2 { "Orders" }
            (loaded(failures, |page| show_page(page, context)))
        }
    }
}

fn show_page(page: &FailedOrderPage, context: &ListContext<'_>) -> Markup {
    let ListContext { filter, query, may_act, .. } = *context;
    if page.items.is_empty() {
        // The groups above say so too.
        let is_restricted = filter.is_restricted() || query.cursor.is_some();
        return if is_restricted { no_letters(filter.stage, true) } else { empty("No orders.") };
    }
    let mut columns = vec!["Order", "Customer", "Code", "Error", "Attempt", "Failed", "Payload"];
    if may_act {
        columns.insert(0, "Select");
    }
    if query.resolved {
        columns.push("Resolved");
    }
    let rows = html! {
        @for failure in &page.items { (show_row(failure, context)) }
    };
    let rows = table("Failed orders, newest first", &columns, &rows);
    let next = page.next_cursor.clone();
    let next = next.map(|cursor| ListQuery { cursor: Some(cursor), ..query.clone() });
    html! {
        @if may_act {
            form action="/console/dead-letters/redrive" {
                (filter.hidden_fields())
                (buttons(context))
                p.js-only {
                    label { input type="checkbox" data-select-all="order_id"; " Select all of this page" }
                }
                (rows)
            }
        } @else {
            (rows)
        }
        (next_page(next.map(|query| query.list_address(filter)).as_deref()))
    }
}

fn buttons(context: &ListContext<'_>) -> Markup {
    let ListContext { filter, n_matching, .. } = *context;
    html! {
        p.actions {
            @match n_matching {
                Some(0) => {}
                Some(count) => {
                    a.button.primary href=(filter.redrive_address()) {
                        "Redrive all " (format_count(count)) " that match…"
                    }
                }
                None => {
                    a.button.primary href=(filter.redrive_address()) { "Redrive all that match…" }
                }
            }
            button name="selected" value="true" { "Redrive selected…" }
            // The API refuses to discard refusals.
            @if can_discard(filter.stage) {
                button.danger name="selected" value="true" formaction="/console/dead-letters/discard" {
                    "Discard selected…"
                }
            }
        }
    }
}

fn show_row(failure: &FailedOrder, context: &ListContext<'_>) -> Markup {
    let ListContext { query, may_act, now, .. } = *context;
    let order = &failure.order;
    html! {
        tr {
            @if may_act {
                td {
                    @if failure.resolved_at.is_none() {
                        input type="checkbox" name="order_id" value=(failure.order_id)
                            aria-label={ "Select order " (failure.order_id) };
                    }
                }
            }
            td { (order_link(failure.order_id)) }
            td { (order.customer_id) }
            td { (failure.code) }
            td.text { (failure.reason) }
            td.nowrap {
                a href=(letter_address(failure.order_id)) {
                    "Attempt " (failure.attempt) ", "
                    (count_of(failure.deliveries.into(), "delivery"))
                }
            }
            td { (time(failure.failed_at, now)) }
            td { (payload(&order.items)) }
            @if query.resolved { td { (optional_time(failure.resolved_at, now)) } }
        }
    }
}

/// Returns the items of an order, folded.
pub(super) fn payload(items: &[OrderItem]) -> Markup {
    html! {
        details {
            summary { (count_of(items.len() as u64, "item")) }
            ul {
                @for item in items.iter().take(MAX_ITEMS) {
                    li { (format_count(item.quantity)) " × " (item.product_id) }
                }
                @if items.len() > MAX_ITEMS {
                    li { "and " (items.len() - MAX_ITEMS) " more" }
                }
            }
        }
    }
}
