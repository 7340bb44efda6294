//! The list of orders: filters, pages, and the number of orders that arrived after the page was made.

mod customer;
mod filter;

use api_types::{Customer, Order, OrderPage};
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::OptionFuture;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::{Api, ApiError, Loaded};
use crate::components::{
    count_of, customer_address, dash, empty, encode_component, loaded, next_page, optional_time,
    order_address, order_link, order_status, region, stage_name, table, time,
};
use crate::form::show_fault;
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::response::redirect;
use crate::visit::Visit;

use filter::{Filter, Listing};

/// Maximum number of new orders that are counted.
const MAX_NEW: u32 = 100;

#[derive(Debug, Default, Deserialize)]
pub(crate) struct OrdersQuery {
    /// Search text of the frame.
    q: Option<String>,
    #[serde(flatten)]
    filter: filter::FilterFields,
    cursor: Option<String>,
    /// Newest order that the open page shows, for the live region.
    seen: Option<Uuid>,
    seen_at: Option<Timestamp>,
}

/// Shows the page.
pub(crate) async fn show(visit: Visit) -> Result<Response, Response> {
    let query: OrdersQuery = visit.query()?;
    if let Some(searched) = query.q.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        return Ok(redirect(&find_page(&visit.api, searched).await));
    }
    let filter = match Filter::parse(&query.filter) {
        Ok(filter) => filter,
        Err(reason) => return Ok(refuse_filter(&visit, &query, &reason)),
    };
    let cursor = query.cursor.filter(|cursor| !cursor.is_empty());
    let listing = Listing { cursor: cursor.as_deref(), ..filter.listing() };
    let customer = filter.customer_id.as_ref().map(|id| load_customer(&visit.api, id));
    let (page, customer) =
        tokio::join!(load_orders(&visit.api, &listing), OptionFuture::from(customer));
    let page = page.map_err(|error| visit.show_error("Orders", &error))?;
    let body = html! {
        h1 { "Orders" }
        (filter::form(&query.filter))
        @if let Some(customer) = &customer {
            (show_customer(customer, visit.now))
        }
        div.news role="status" { (region("new", &html! {})) }
        (show_rows(&page, &filter, visit.now))
        (page_links(&filter, cursor.as_deref(), page.next_cursor.as_deref()))
    };
    let document = Page::new("Orders", body).in_section(Section::Orders);
    // New orders come before the first page.
    let document = match cursor {
        None => document.live_since(describe_newest(page.items.first())),
        Some(_) => document,
    };
    Ok(visit.show(document))
}

/// Renders the region of the live page.
pub(crate) async fn regions(api: &Api, query: &str) -> Result<Regions, ApiError> {
    let query: OrdersQuery = serde_html_form::from_str(query).unwrap_or_default();
    let Ok(filter) = Filter::parse(&query.filter) else { return Ok(Regions::new()) };
    let since = query.seen_at.into_iter().chain(filter.from).max();
    let listing = Listing { from: since, limit: Some(MAX_NEW), ..filter.listing() };
    let newer = load_orders(api, &listing).await;
    if let Err(error) = &newer
        && error.is_unauthorized()
    {
        return Err(error.clone());
    }
    let content = loaded(&newer, |page| {
        let is_new = |order: &&Order| {
            // Orders of one time are sorted by their ids.
            (order.state.received_at, Some(order.state.order_id)) > (query.seen_at, query.seen)
        };
        let n_new = page.items.iter().filter(is_new).count() as u64;
        let more = if page.next_cursor.is_some() { " or more" } else { "" };
        html! {
            @if n_new > 0 {
                a href=(filter.address(None)) { (count_of(n_new, "new order")) (more) ": reload" }
            }
        }
    });
    Ok(vec![("new", content)])
}

/// Returns the address of the page that a search leads to: an order, or the orders of a customer. The id
/// of a customer may be a UUID too.
async fn find_page(api: &Api, searched: &str) -> String {
    let Ok(order_id) = searched.parse::<Uuid>() else { return customer_address(searched) };
    let order = api.get::<Order>(&format!("/v1/orders/{order_id}")).await;
    let is_order = !is_missing(&order) || is_missing(&load_customer(api, searched).await);
    if is_order { order_address(order_id) } else { customer_address(searched) }
}

fn is_missing<T>(resource: &Loaded<T>) -> bool {
    resource.as_ref().is_err_and(|error| error.status == StatusCode::NOT_FOUND)
}

fn refuse_filter(visit: &Visit, query: &OrdersQuery, reason: &str) -> Response {
    let body = html! {
        h1 { "Orders" }
        (filter::form(&query.filter))
        (show_fault(reason))
    };
    let page = Page::new("Orders", body).in_section(Section::Orders);
    visit.show_with_status(StatusCode::BAD_REQUEST, page)
}

async fn load_orders(api: &Api, listing: &Listing<'_>) -> Loaded<OrderPage> {
    api.get_with("/v1/orders", listing).await
}

async fn load_customer(api: &Api, id: &str) -> Loaded<Customer> {
    api.get(&format!("/v1/customers/{}", encode_component(id))).await
}

/// Returns the summary of a customer; nothing for an unknown customer, because the empty list names it.
fn show_customer(customer: &Loaded<Customer>, now: Timestamp) -> Markup {
    if is_missing(customer) {
        return html! {};
    }
    loaded(customer, |customer| customer::show(customer, now))
}

fn show_rows(page: &OrderPage, filter: &Filter, now: Timestamp) -> Markup {
    if page.items.is_empty() {
        return show_empty_list(filter);
    }
    let rows = html! {
        @for Order { state, .. } in &page.items {
            tr {
                th scope="row" { (order_link(state.order_id)) }
                td.text {
                    a href=(customer_address(&state.customer_id)) {
                        bdi { (state.customer_id) }
                    }
                }
                td { (order_status(state.status)) }
                td.text { (show_failure(state.stage, state.failure_code.as_deref())) }
                td { (state.attempt) }
                td { (optional_time(state.received_at, now)) }
                td { (time(state.updated_at, now)) }
            }
        }
    };
    let columns = ["Order", "Customer", "Status", "Failure", "Attempt", "Received", "Updated"];
    table("Orders, newest first", &columns, &rows)
}

fn show_failure(stage: Option<api_types::FailureStage>, code: Option<&str>) -> Markup {
    html! {
        @if let Some(stage) = stage {
            (stage_name(stage)) @if let Some(code) = code { ": " code { bdi { (code) } } }
        } @else {
            (dash())
        }
    }
}

fn show_empty_list(filter: &Filter) -> Markup {
    if *filter == Filter::default() {
        return empty("No orders yet.");
    }
    html! {
        div.empty {
            p {
                "No order matches"
                @if let Some(id) = &filter.customer_id { " the customer " code { bdi { (id) } } }
                @if let Some(status) = filter.status { " with the status " (status.as_str()) }
                @if let Some(from) = filter.from { " from " (from) }
                @if let Some(to) = filter.to { " before " (to) }
                "."
            }
            @if filter.customer_id.is_some() {
                p { "A search takes the complete id of an order (a UUID) or of a customer." }
            }
            p { a href="/console/orders" { "All orders" } }
        }
    }
}

fn page_links(filter: &Filter, cursor: Option<&str>, next: Option<&str>) -> Markup {
    html! {
        @if cursor.is_some() { p { a href=(filter.address(None)) { "First page" } } }
        (next_page(next.map(|next| filter.address(Some(next))).as_deref()))
    }
}

/// Returns the newest order of the page as query parameters; empty without orders.
fn describe_newest(newest: Option<&Order>) -> String {
    let newest = newest.and_then(|order| Some((order.state.order_id, order.state.received_at?)));
    newest.map_or_else(String::new, |(id, at)| format!("seen={id}&seen_at={at}"))
}
