//! What a redrive would do with each order: the answer of a dry run.

use std::collections::BTreeMap;

use api_types::{
    FailureFilter, RedriveAction, RedrivePreview, RedrivePreviewItem, StartRedriveRequest,
};
use jiff::Timestamp;
use maud::{Markup, html};

use crate::api::{Api, Loaded};
use crate::components::{badge, count_of, dash, format_count, optional_time, order_link, table};

/// Path of the API for redrive tasks.
pub(super) const REDRIVES: &str = "/v1/ops/dead-letters/redrives";
/// Number of orders that are listed unless the visitor asks for all.
const MAX_LISTED: usize = 200;

/// Asks the API what a redrive would do. Changes nothing.
pub(super) async fn load(api: &Api, filter: FailureFilter) -> Loaded<RedrivePreview> {
    let request = StartRedriveRequest {
        filter: Some(filter),
        dry_run: Some(true),
        ..StartRedriveRequest::default()
    };
    api.post(REDRIVES, &request).await
}

/// Returns how many orders would be redriven, and how many skipped for which reason.
pub(super) fn counts(preview: &RedrivePreview) -> Markup {
    let mut skipped = BTreeMap::<&str, u64>::new();
    for item in preview.items.iter().filter(|item| item.action == RedriveAction::Skip) {
        *skipped.entry(&item.why).or_default() += 1;
    }
    html! {
        p {
            "Dry run: " strong { (count_of(preview.redrive, "order")) } " would be queued again, "
            (format_count(preview.skip)) " would be skipped."
            @if preview.truncated { " More orders match: the dry run ends here, the redrive does not." }
        }
        @if !skipped.is_empty() {
            ul.wrap { @for (why, count) in skipped { li { (format_count(count)) " skipped: " (why) } } }
        }
    }
}

/// Returns a table of the orders. `all` is the address of the page that lists them all, if this page does
/// not.
pub(super) fn rows(preview: &RedrivePreview, now: Timestamp, all: Option<&str>) -> Markup {
    let listed = if all.is_some() { MAX_LISTED } else { preview.items.len() };
    let columns = ["Order", "Dry run", "Why", "Code", "Error", "Attempt", "Failed"];
    let rows = html! {
        @for item in preview.items.iter().take(listed) {
            tr {
                td { (order_link(item.order_id)) }
                td { (action(item.action)) }
                td.text { (item.why) }
                (failure_cells(item, now))
            }
        }
    };
    html! {
        (table("What the redrive would do with each order", &columns, &rows))
        @if let Some(all) = all && preview.items.len() > listed {
            p {
                (listed) " of " (count_of(preview.items.len() as u64, "order")) " are listed. "
                a href=(all) { "List all" }
            }
        }
    }
}

/// Returns the cells of an order's last failure: code, error, attempt, time.
pub(super) fn failure_cells(item: &RedrivePreviewItem, now: Timestamp) -> Markup {
    html! {
        td { @match &item.code { Some(code) => { (code) }, None => { (dash()) } } }
        td.text { @match &item.reason { Some(reason) => { (reason) }, None => { (dash()) } } }
        td { @match item.attempt { Some(attempt) => { (attempt) }, None => { (dash()) } } }
        td { (optional_time(item.failed_at, now)) }
    }
}

fn action(action: RedriveAction) -> Markup {
    match action {
        RedriveAction::Redrive => badge("good", "Redrive"),
        RedriveAction::Skip => badge("neutral", "Skip"),
    }
}
