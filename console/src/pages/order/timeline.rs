//! The events of an order: by attempt and delivery, page by page.

use api_types::{ChainCheck, ChainState, HistoryEntry, HistoryQuery, HistorySort, OrderHistory};
use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;
use uuid::Uuid;

use super::event::{Description, describe};
use super::{OrderQuery, changes, copy_button, page_address};
use crate::api::{Api, Loaded};
use crate::components::{badge, count_of, format_absolute, format_count, format_gap};

/// Number of events of a page.
const PAGE_EVENTS: u32 = 200;
/// Number of events above which only the newest attempt is open at first.
const MAX_OPEN_EVENTS: usize = 50;
/// Maximum number of pages that the links lead back: the address of the page contains a cursor of each.
const MAX_PAGES_BACK: usize = 20;

/// An event and its place among the attempts.
struct Entry<'a> {
    entry: &'a HistoryEntry,
    previous_at: Option<Timestamp>,
    /// 0 before the order was queued.
    attempt: u64,
    delivery: Option<u64>,
}

/// Loads a page of events, the oldest of the page first.
pub(super) async fn load(api: &Api, path: &str, query: &OrderQuery) -> Loaded<OrderHistory> {
    let request = HistoryQuery {
        sort: Some(sort_of(query)),
        limit: Some(PAGE_EVENTS),
        cursor: query.cursor.last().cloned(),
    };
    let mut history: OrderHistory = api.get_with(&format!("{path}/history"), &request).await?;
    if sort_of(query) == HistorySort::Newest {
        history.events.reverse();
    }
    Ok(history)
}

/// Loads the newest event only.
pub(super) async fn load_newest(api: &Api, path: &str) -> Loaded<OrderHistory> {
    let request = HistoryQuery { sort: Some(HistorySort::Newest), limit: Some(1), cursor: None };
    api.get_with(&format!("{path}/history"), &request).await
}

/// Returns whether the page of the timeline has the newest event.
pub(super) fn is_newest_page(query: &OrderQuery) -> bool {
    query.cursor.is_empty() && sort_of(query) == HistorySort::Newest
}

pub(super) fn show(history: &OrderHistory, query: &OrderQuery) -> Markup {
    let entries = place_events(&history.events);
    let attempts: Vec<_> = entries.chunk_by(|one, next| one.attempt == next.attempt).collect();
    let links = page_links(history, query);
    let correlation = history.events.first().and_then(correlation_of);
    html! {
        p {
            (show_chain(&history.chain)) " "
            @if let (Some(first), Some(last)) = (history.events.first(), history.events.last()) {
                span.hint {
                    "Events " (format_count(first.event.revision)) " to "
                    (format_count(last.event.revision))
                    @if let Some(correlation) = correlation { ". Correlation id " code { (correlation) } }
                }
            }
        }
        (links)
        @if attempts.len() > 1 {
            p.choice role="group" aria-label="Attempts of this page" {
                @for attempt in &attempts {
                    a href={ "#" (attempt_id(attempt)) } { (attempt_name(attempt)) }
                }
            }
        }
        @for (index, attempt) in attempts.iter().enumerate() {
            @let is_open = entries.len() <= MAX_OPEN_EVENTS || index + 1 == attempts.len();
            (show_attempt(attempt, is_open, history, query))
        }
        @if attempts.len() > 1 { (links) }
    }
}

/// Assigns the events to attempts. Events without an attempt belong to that of the event before.
fn place_events(events: &[HistoryEntry]) -> Vec<Entry<'_>> {
    let mut attempt = 0;
    let mut previous_at = None;
    let place = |entry| {
        let HistoryEntry { event, .. }: &HistoryEntry = entry;
        let member = |name| event.data.0.get(name).and_then(Value::as_u64);
        attempt = member("attempt").unwrap_or(attempt);
        let previous_at = previous_at.replace(event.recorded_at);
        Entry { entry, previous_at, attempt, delivery: member("delivery") }
    };
    events.iter().map(place).collect()
}

fn show_attempt(
    attempt: &[Entry<'_>],
    is_open: bool,
    history: &OrderHistory,
    query: &OrderQuery,
) -> Markup {
    let deliveries = attempt.chunk_by(|one, next| one.delivery == next.delivery);
    html! {
        details.attempt open[is_open] id=(attempt_id(attempt)) {
            summary { h3 { (attempt_name(attempt)) } " " (summarise(attempt)) }
            @for events in deliveries {
                @let delivery = events.first().and_then(|event| event.delivery);
                ol.timeline.delivery[delivery.is_some()]
                    aria-label=[delivery.map(|number| format!("Delivery {number}"))] {
                    @for event in events { (show_event(event, history, query)) }
                }
            }
        }
    }
}

fn attempt_number(attempt: &[Entry<'_>]) -> u64 {
    attempt.first().map_or(0, |entry| entry.attempt)
}

fn attempt_id(attempt: &[Entry<'_>]) -> String {
    format!("attempt-{}", attempt_number(attempt))
}

fn attempt_name(attempt: &[Entry<'_>]) -> String {
    match attempt_number(attempt) {
        0 => "Acceptance".to_owned(),
        number => format!("Attempt {number}"),
    }
}

/// Returns the outcome of an attempt, its deliveries, and its length.
fn summarise(attempt: &[Entry<'_>]) -> Markup {
    let (Some(first), Some(last)) = (attempt.first(), attempt.last()) else { return html! {} };
    let Description { tone, title, .. } = describe(&last.entry.event);
    let ended = last.entry.event.data.0.get("deliveries").and_then(Value::as_u64);
    let delivered = attempt.iter().filter_map(|entry| entry.delivery).max();
    let length = format_gap(first.entry.event.recorded_at, last.entry.event.recorded_at);
    html! {
        (badge(tone, &title))
        span.hint {
            @if let Some(n_deliveries) = ended.or(delivered) { " " (count_of(n_deliveries, "delivery")) "," }
            " " (length)
        }
    }
}

fn show_event(event: &Entry<'_>, history: &OrderHistory, query: &OrderQuery) -> Markup {
    let HistoryEntry { event: recorded, changes, .. } = event.entry;
    let Description { tone, title, detail } = describe(recorded);
    let revision = recorded.revision;
    let at = OrderQuery { at: Some(revision.to_string()), ..query.clone() };
    let actor = recorded.metadata.get("actor").and_then(Value::as_str);
    html! {
        li id={ "event-" (revision) } {
            p { (badge(tone, &title)) " " (detail) }
            p.hint {
                a href={ "#event-" (revision) } { "Event " (revision) } " "
                time datetime=(recorded.recorded_at) { (format_absolute(recorded.recorded_at)) }
                @if let Some(previous) = event.previous_at {
                    " (+" (format_gap(previous, recorded.recorded_at)) ")"
                }
                @if let Some(actor) = actor { " by " bdi { (actor) } }
                (show_cause(event.entry, history))
                ". " a href=(page_address(history.order_id, &at)) { "State after this event" }
            }
            (changes::show_list(changes))
            details {
                summary { (recorded.event_type) ": data and metadata" }
                (show_json(&format!("data-{revision}"), "Data", &recorded.data.0))
                (show_json(&format!("metadata-{revision}"), "Metadata", &recorded.metadata))
                p.hint { "Event id " code { (recorded.event_id) } }
            }
        }
    }
}

/// Returns the event or the request that caused an event.
fn show_cause(entry: &HistoryEntry, history: &OrderHistory) -> Markup {
    let member = |name| entry.event.metadata.get(name).and_then(Value::as_str);
    let Some(causation) = member("$causationId") else { return html! {} };
    let causation_id = causation.parse::<Uuid>().ok();
    let is_cause = |other: &&HistoryEntry| Some(other.event.event_id) == causation_id;
    if let Some(cause) = history.events.iter().find(is_cause) {
        let revision = cause.event.revision;
        return html! { ", caused by " a href={ "#event-" (revision) } { "event " (revision) } };
    }
    let is_request = [member("request_id"), correlation_of(entry)].contains(&Some(causation));
    let kind = if is_request { "request" } else { "event" };
    let first = history.events.first().and_then(correlation_of);
    html! {
        ", caused by " (kind) " " code { (causation) }
        @if let Some(correlation) = correlation_of(entry).filter(|_| correlation_of(entry) != first) {
            ", correlation id " code { (correlation) }
        }
    }
}

fn correlation_of(entry: &HistoryEntry) -> Option<&str> {
    entry.event.metadata.get("$correlationId").and_then(Value::as_str)
}

fn show_json(id: &str, title: &str, value: &Value) -> Markup {
    html! {
        h4 { (title) " " (copy_button(id)) }
        pre id=(id) tabindex="0" { (format!("{value:#}")) }
    }
}

fn show_chain(chain: &ChainCheck) -> Markup {
    match (chain.state, chain.broken_at) {
        (ChainState::Verified, _) => badge("good", "Hash chain verified"),
        (ChainState::Broken, Some(revision)) => {
            badge("bad", &format!("Hash chain broken at revision {revision}"))
        }
        (ChainState::Broken, None) => badge("bad", "Hash chain broken"),
        (ChainState::Unhashed, _) => badge("neutral", "Events without hashes"),
    }
}

fn sort_of(query: &OrderQuery) -> HistorySort {
    query.sort.unwrap_or(HistorySort::Newest)
}

/// Returns the links to the other pages of events; nothing if one page has all.
fn page_links(history: &OrderHistory, query: &OrderQuery) -> Markup {
    let sort = sort_of(query);
    let other = match sort {
        HistorySort::Newest => HistorySort::Oldest,
        HistorySort::Oldest => HistorySort::Newest,
    };
    let ahead = history.next_cursor.as_ref().map(|next| {
        let n_left_out = (query.cursor.len() + 1).saturating_sub(MAX_PAGES_BACK);
        query.cursor.iter().chain([next]).skip(n_left_out).cloned().collect()
    });
    let back = query.cursor.split_last().map(|(_, before)| before.to_vec());
    // The other end is on this page if there is nothing ahead.
    let end = ahead.as_ref().map(|_| Vec::new());
    let names = match sort {
        HistorySort::Newest => ["Later events", "Earlier events", "First events"],
        HistorySort::Oldest => ["Earlier events", "Later events", "Newest events"],
    };
    let links = [(back, sort, "prev"), (ahead, sort, "next"), (end, other, "last")];
    html! {
        @if history.next_cursor.is_some() || !query.cursor.is_empty() {
            p.actions {
                @for (name, (cursor, sort, rel)) in names.into_iter().zip(links) {
                    @if let Some(cursor) = cursor {
                        @let page = OrderQuery { sort: Some(sort), cursor, ..OrderQuery::default() };
                        a.button rel=(rel) href={ (page_address(history.order_id, &page)) "#timeline" } {
                            (name)
                        }
                    }
                }
            }
        }
    }
}
