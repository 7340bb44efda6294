//! Past states of an order: the state at one point, and the comparison of two points.

use api_types::{CompareHistoryQuery, OrderComparison};
use jiff::Timestamp;
use maud::{Markup, html};

use super::{OrderQuery, OrderView, changes, page_address, state};
use crate::api::{Api, Loaded};
use crate::components::{empty, loaded};

/// Compares the states at two points, each a revision or a time. The defaults are the first event and the
/// newest.
pub(super) async fn compare(
    api: &Api,
    path: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> Loaded<OrderComparison> {
    let query = CompareHistoryQuery { from: from.map(str::to_owned), to: to.map(str::to_owned) };
    api.get_with(&format!("{path}/history/compare"), &query).await
}

/// Returns the slider over the revisions, and the chosen state beside the changes since.
pub(super) fn show_past(view: &OrderView) -> Markup {
    let newest = view.newest_revision();
    let past = view.past.as_ref().and_then(|past| past.as_ref().ok());
    let revision = past.map_or(newest, |past| past.from.revision);
    html! {
        form.field action={ (page_address(view.order.state.order_id, &OrderQuery::default())) }
            data-submit-on-change {
            (position_fields(&view.query))
            label for="at" { "State after event " output for="at" { (revision) } }
            // The focus stays on the slider when the arrow keys load one revision after the other.
            input #at type="range" name="at" min="0" max=(newest) value=(revision)
                autofocus[view.past.is_some()] aria-describedby="at-hint";
            p.hint #at-hint { "The page shows the state when the slider stops." }
            p.actions {
                button type="submit" { "Show" }
                @for (name, neighbour) in [
                    ("Event before", revision.checked_sub(1)),
                    ("Event after", Some(revision + 1).filter(|after| *after <= newest)),
                ] {
                    @if let Some(neighbour) = neighbour {
                        @let at = OrderQuery { at: Some(neighbour.to_string()), ..view.query.clone() };
                        a.button href=(page_address(view.order.state.order_id, &at)) { (name) }
                    }
                }
            }
        }
        @if let Some(past) = &view.past { (loaded(past, |past| show_past_state(past, view.now))) }
    }
}

fn show_past_state(past: &OrderComparison, now: Timestamp) -> Markup {
    let OrderComparison { from, changes, .. } = past;
    html! {
        div.columns {
            div {
                h3 { "State after event " (from.revision) }
                (state::show_facts(from, now))
                (state::show_items(&format!("Items after event {}", from.revision), &from.items))
            }
            div {
                h3 { "Changed since" }
                @if changes.is_empty() {
                    (empty("Nothing: this is the current state."))
                } @else {
                    (changes::show_table("Changed since", changes, ["Then", "Now"]))
                }
            }
        }
    }
}

/// Returns the form that compares two states, and the comparison.
pub(super) fn show_comparison(view: &OrderView) -> Markup {
    let value = |text: &Option<String>| text.clone().unwrap_or_default();
    html! {
        form.filters action={ (page_address(view.order.state.order_id, &OrderQuery::default())) "#compare" } {
            (position_fields(&view.query))
            @for (name, label, text) in
                [("from", "From", value(&view.query.from)), ("to", "To", value(&view.query.to))] {
                div {
                    label for={ "compare-" (name) } { (label) }
                    input id={ "compare-" (name) } name=(name) value=(text) autocomplete="off"
                        aria-describedby="compare-hint";
                }
            }
            button type="submit" { "Compare" }
        }
        p.hint #compare-hint {
            "Revisions, or times like " code { "2026-01-02T03:04:05Z" } ". An empty field stands for the first or the newest event."
        }
        @if let Some(comparison) = &view.comparison { (loaded(comparison, show_changes)) }
    }
}

fn show_changes(comparison: &OrderComparison) -> Markup {
    let OrderComparison { from, to, changes, .. } = comparison;
    html! {
        @if changes.is_empty() {
            (empty("The states are equal."))
        } @else {
            (changes::show_table(
                "Compared states",
                changes,
                [from, to].map(|state| format!("Revision {}", state.revision)),
            ))
        }
    }
}

/// Returns the fields that keep the shown page of the timeline.
fn position_fields(query: &OrderQuery) -> Markup {
    let sort = query.sort.map(|sort| match sort {
        api_types::HistorySort::Oldest => "oldest",
        api_types::HistorySort::Newest => "newest",
    });
    html! {
        @if let Some(sort) = sort { input type="hidden" name="sort" value=(sort); }
        @for cursor in &query.cursor { input type="hidden" name="cursor" value=(cursor); }
    }
}
