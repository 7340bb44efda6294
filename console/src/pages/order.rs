//! One order: its state, its events, its past states, and what an operator can do about it.

mod changes;
mod command_line;
pub(super) mod discard;
mod event;
mod past;
pub(super) mod redrive;
mod state;
mod timeline;

use api_types::{HistorySort, Order, OrderComparison, OrderHistory, RecordedEvent};
use axum::extract::Path;
use axum::response::Response;
use futures::future::OptionFuture;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::order_actions::ActionTarget;
use crate::api::{Api, ApiError, Loaded};
use crate::components::{
    callout, count_of, encode_component, loaded, order_address, panel, region,
};
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::visit::Visit;

/// State of the page in its address.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct OrderQuery {
    /// Order of the events over the pages of the timeline.
    sort: Option<HistorySort>,
    /// Cursors of the pages of the timeline that the visitor has passed; the last selects the shown page.
    #[serde(default)]
    cursor: Vec<String>,
    /// Revision or time of the shown past state.
    at: Option<String>,
    /// Revisions or times of the comparison.
    from: Option<String>,
    to: Option<String>,
    /// Newest revision that the open page shows, for the live region.
    #[serde(skip_serializing)]
    seen: Option<u64>,
}

/// What the page shows. Parts that the visitor did not ask for, or may not see, are `None`.
struct OrderView {
    order: Order,
    history: Option<Loaded<OrderHistory>>,
    /// The newest event; `None` if the shown page of the history has it.
    newest: Option<Loaded<OrderHistory>>,
    past: Option<Loaded<OrderComparison>>,
    comparison: Option<Loaded<OrderComparison>>,
    query: OrderQuery,
    now: Timestamp,
}

impl OrderView {
    async fn load(visit: &Visit, id: &str, query: OrderQuery) -> Loaded<Self> {
        let path = api_path(id);
        let may_audit = visit.may("audit:read");
        let history = may_audit.then(|| timeline::load(&visit.api, &path, &query));
        let newest = (may_audit && !timeline::is_newest_page(&query))
            .then(|| timeline::load_newest(&visit.api, &path));
        let compare = |from, to| {
            let is_asked = may_audit && (from, to) != (None, None);
            OptionFuture::from(is_asked.then(|| past::compare(&visit.api, &path, from, to)))
        };
        let past = compare(present(query.at.as_ref()), None);
        let comparison = compare(present(query.from.as_ref()), present(query.to.as_ref()));
        let (history, newest) = (OptionFuture::from(history), OptionFuture::from(newest));
        let (order, history, newest, past, comparison) =
            tokio::join!(visit.api.get(&path), history, newest, past, comparison);
        Ok(Self { order: order?, history, newest, past, comparison, query, now: visit.now })
    }

    /// Returns the order's newest event; `None` if the visitor may not see it, or it could not be read.
    fn newest_event(&self) -> Option<&RecordedEvent> {
        let page = self.newest.as_ref().or(self.history.as_ref())?;
        page.as_ref().ok()?.events.last().map(|entry| &entry.event)
    }

    /// Returns the order's newest revision. The read model may be behind the events.
    fn newest_revision(&self) -> u64 {
        self.newest_event().map_or(0, |event| event.revision).max(self.order.state.revision)
    }

    /// Returns whether the newest event discards the dead letter.
    fn is_discarded(&self) -> bool {
        self.newest_event().is_some_and(|event| event.event_type == "DeadLetterDiscarded")
    }
}

/// Shows the page.
pub(crate) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Response> {
    let query: OrderQuery = visit.query()?;
    let view = Box::pin(OrderView::load(&visit, &id, query)).await;
    let view = view.map_err(|error| visit.show_error("Order", &error))?;
    let state = &view.order.state;
    let is_discarded = view.is_discarded();
    let body = html! {
        h1 { "Order " code #order-id { (state.order_id) } " " (copy_button("order-id")) }
        div.columns {
            (panel("State", &html! {
                (region("status", &state::show_facts(state, visit.now)))
                @if is_discarded { p { "The dead letter is discarded." } }
                (ActionTarget::of_order(state, is_discarded).links(&visit))
            }))
            (panel("Items", &state::show_items("Items", &state.items)))
        }
        @match &view.history {
            None => (panel("Timeline", &callout("info", html! {
                p { "This key may not read the events of orders: it lacks " code { "audit:read" } "." }
            }))),
            Some(history) => {
                (panel_with_id("timeline", "Timeline", &html! {
                    div.news role="status" { (region("timeline-news", &html! {})) }
                    (loaded(history, |history| timeline::show(history, &view.query)))
                }))
                (panel_with_id("as-it-was", "As it was", &past::show_past(&view)))
                (panel_with_id("compare", "Compare", &past::show_comparison(&view)))
            }
        }
        (panel("The same by command line", &command_line::show(&visit, &view)))
    };
    let title = format!("Order {}", state.order_id);
    let page = Page::new(&title, body).in_section(Section::Orders);
    Ok(visit.show(page.live_since(format!("seen={}", view.newest_revision()))))
}

/// Renders the regions of the live page.
pub(crate) async fn regions(
    api: &Api,
    id: &str,
    query: &str,
    now: Timestamp,
) -> Result<Regions, ApiError> {
    let query: OrderQuery = serde_html_form::from_str(query).unwrap_or_default();
    let order: Loaded<Order> = api.get(&api_path(id)).await;
    if let Err(error) = &order
        && error.is_unauthorized()
    {
        return Err(error.clone());
    }
    let status = loaded(&order, |order| state::show_facts(&order.state, now));
    let revision = order.as_ref().map_or(0, |order| order.state.revision);
    let n_new = revision.saturating_sub(query.seen.unwrap_or(revision));
    let news = html! {
        @if n_new > 0 { a href=(page_address(id, &OrderQuery::default())) { (count_of(n_new, "new event")) ": reload" } }
    };
    Ok(vec![("status", status), ("timeline-news", news)])
}

/// Returns the path of an order in the API. `id` is what the visitor typed.
fn api_path(id: &str) -> String {
    format!("/v1/orders/{}", encode_component(id))
}

/// Returns the address of an order's page.
fn page_address(id: impl std::fmt::Display, query: &OrderQuery) -> String {
    // Texts and numbers always serialise.
    let query = serde_html_form::to_string(query).unwrap_or_default();
    let separator = if query.is_empty() { "" } else { "?" };
    format!("{}{separator}{query}", order_address(id))
}

fn present(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn panel_with_id(id: &str, title: &str, content: &Markup) -> Markup {
    html! {
        section.panel id=(id) { h2 { (title) } (content) }
    }
}

/// Returns the button that copies the text of an element.
fn copy_button(id: &str) -> Markup {
    html! { button.js-only type="button" data-copy=(id) { "Copy" } }
}
