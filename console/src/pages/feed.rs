//! The feed: the newest events of all orders, and the stream of those that follow.

use std::time::Duration;

use api_types::{EVENT_TYPES, EventPage, FeedEvent, StreamEventsQuery};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::SharedState;
use crate::api::{LAST_EVENT_ID, Loaded};
use crate::components::{
    callout, dash, encode_component, format_absolute, loaded, next_page, order_link, table,
};
use crate::form::typed_text;
use crate::page::{Page, Section};
use crate::response::UNBUFFERED;
use crate::visit::Visit;

const ADDRESS: &str = "/console/feed";
const COLUMNS: [&str; 5] = ["Time (UTC)", "Event type", "Order", "Revision", "Actor"];
/// Number of events of a page.
const LIMIT: u32 = 50;
/// Message without an event, which shows that the connection works.
const ALIVE_MESSAGE: Bytes = Bytes::from_static(b"event: alive\ndata: {}\n\n");

/// Filters and place, as in the address of the page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct FeedQuery {
    #[serde(default)]
    types: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// Filters and place, as the API reads them.
#[derive(Debug, Serialize)]
struct EventsQuery {
    #[serde(flatten)]
    filter: StreamEventsQuery,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    limit: u32,
}

impl FeedQuery {
    /// Returns the filter of the API. An address may also have the types separated by commas.
    fn filter(&self) -> StreamEventsQuery {
        StreamEventsQuery {
            order_id: self.order_id.as_deref().and_then(typed_text),
            types: Some(self.types.join(",")).filter(|types| !types.is_empty()),
        }
    }

    fn has_type(&self, name: &str) -> bool {
        self.types.iter().flat_map(|types| types.split(',')).any(|given| given == name)
    }

    /// Returns the address of the page that begins at a cursor.
    fn address_at(&self, cursor: Option<String>) -> String {
        let query = serde_html_form::to_string(Self { cursor, ..self.clone() });
        format!("{ADDRESS}?{}", query.unwrap_or_default())
    }
}

/// Shows the page.
pub(crate) async fn show(visit: Visit) -> Result<Response, Response> {
    let query: FeedQuery = visit.query()?;
    let events_query =
        EventsQuery { filter: query.filter(), cursor: query.cursor.clone(), limit: LIMIT };
    let events = visit.api.get_with::<EventPage>("/v1/events", &events_query).await;
    let events = visit.require_access("Feed", events)?;
    let body = html! {
        h1 { "Feed" }
        (filter_form(&query))
        (show_events(&events, &query))
    };
    Ok(visit.show(Page::new("Feed", body).in_section(Section::Feed)))
}

fn show_events(events: &Loaded<EventPage>, query: &FeedQuery) -> Markup {
    loaded(events, |page| {
        let rows = html! { @for event in &page.items { (row(event)) } };
        let is_newest = query.cursor.is_none();
        let stream = is_newest.then(|| stream_address(&query.filter()));
        let next = page.next_cursor.clone().map(|cursor| query.address_at(Some(cursor)));
        html! {
            @if is_newest { (live_controls(query)) }
            @else { p { a href=(query.address_at(None)) { "Newest events" } } }
            div data-feed=[stream] data-types=(EVENT_TYPES.join(" ")) {
                (table("Events, newest first", &COLUMNS, &rows))
            }
            p.empty.feed-empty {
                @if page.next_cursor.is_some() { "No event in this range matches the filter. The next page may have some." }
                @else { "No events." }
            }
            (next_page(next.as_deref()))
        }
    })
}

/// Returns the address of the stream that continues the page.
fn stream_address(filter: &StreamEventsQuery) -> String {
    let members = [("types", &filter.types), ("order_id", &filter.order_id)];
    let pairs = members.iter().filter_map(|(name, value)| {
        value.as_ref().map(|value| format!("{name}={}", encode_component(value)))
    });
    let query: Vec<_> = pairs.collect();
    format!("{ADDRESS}/events?{}", query.join("&"))
}

fn live_controls(query: &FeedQuery) -> Markup {
    let address = query.address_at(None);
    html! {
        p.actions {
            button #feed-pause.js-only type="button" aria-pressed="false" { "Pause" }
            a.button href=(address) { "Reload" }
            // Screen readers announce only the state: announcements of each event would hide all others.
            span #feed-status role="status" {}
            span #feed-count {}
        }
        div #feed-skipped hidden {
            (callout("warning", html! {
                p role="alert" { "Events were skipped: " a href=(address) { "reload" } "." }
            }))
        }
        noscript { p.hint { "Without JavaScript, this list does not change until you reload it." } }
    }
}

/// Returns the row of an event. The script makes the same row.
fn row(FeedEvent { order_id, event }: &FeedEvent) -> Markup {
    let at = event.recorded_at;
    html! {
        tr data-event=(event.event_id) {
            td { time datetime=(at) title=(format_absolute(at)) { (at.strftime("%F %T%.3f")) } }
            td { (event.event_type) }
            td { (order_link(*order_id)) }
            td { (event.revision) }
            td {
                @match event.metadata.get("actor").and_then(|actor| actor.as_str()) {
                    Some(actor) => (actor),
                    None => (dash()),
                }
            }
        }
    }
}

fn filter_form(query: &FeedQuery) -> Markup {
    let has_filter = !query.types.is_empty() || query.filter().order_id.is_some();
    html! {
        form.filters action=(ADDRESS) {
            fieldset.options {
                legend { "Event types" }
                @for name in EVENT_TYPES {
                    label {
                        input type="checkbox" name="types" value=(name) checked[query.has_type(name)];
                        " " (name)
                    }
                }
            }
            div {
                label for="order_id" { "Order id" }
                input #order_id name="order_id" value=[query.order_id.as_deref()] maxlength="256"
                    autocomplete="off" spellcheck="false";
            }
            button type="submit" { "Filter" }
            @if has_filter { a.button href=(ADDRESS) { "Clear" } }
        }
    }
}

/// Passes on the API's stream of events with the key of the visitor's session, which the browser cannot
/// send to the API. The stream ends with the session, and before the process stops.
pub(crate) async fn stream_events(
    State(state): State<SharedState>,
    headers: HeaderMap,
    visit: Visit,
) -> Result<Response, Response> {
    let filter: StreamEventsQuery = visit.query()?;
    let last_event_id = headers.get(LAST_EVENT_ID);
    let opened = visit.api.open_stream("/v1/events/stream", &filter, last_event_id).await;
    // The browser reads no body of a stream that failed.
    let opened = opened.map_err(|error| error.status.into_response())?;
    let left = visit.session.expires_at.duration_since(visit.now);
    let messages = opened
        .into_body()
        .into_data_stream()
        // The API's heartbeat is a comment, which a script does not see.
        .map_ok(|chunk| if chunk.starts_with(b":") { ALIVE_MESSAGE } else { chunk })
        .take_until(state.stop.clone().cancelled_owned())
        .take_until(sleep(Duration::try_from(left).unwrap_or_default()));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        UNBUFFERED,
    ];
    Ok((headers, Body::from_stream(messages)).into_response())
}
