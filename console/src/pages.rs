//! The pages, and the regions of those that are live.

mod actions;
mod dead_letters;
mod feed;
mod order;
mod order_actions;
mod orders;
mod overview;
mod projections;
mod system;
mod workers;

use axum::Router;
use axum::routing::get;
use jiff::Timestamp;

use crate::SharedState;
use crate::api::{Api, ApiError};
use crate::regions::{PageAddress, Regions};

/// Returns the routes of the pages.
pub(crate) fn routes() -> Router<SharedState> {
    Router::new()
        .route("/console", get(overview::show))
        .route("/console/workers", get(workers::show))
        .route("/console/workers/pause", get(workers::show_pause).post(workers::pause))
        .route("/console/workers/resume", get(workers::show_resume).post(workers::resume))
        .route("/console/projections", get(projections::show))
        .route("/console/feed", get(feed::show))
        .route("/console/feed/events", get(feed::stream_events))
        .route("/console/actions", get(actions::show))
        .route("/console/system", get(system::show))
        .merge(dead_letters::routes())
        .route("/console/orders", get(orders::show))
        .route("/console/orders/{id}", get(order::show))
        .route(
            "/console/orders/{id}/redrive",
            get(order::redrive::show_form).post(order::redrive::submit),
        )
        .route(
            "/console/orders/{id}/discard",
            get(order::discard::show_form).post(order::discard::submit),
        )
}

/// Renders the regions of a live page; none for addresses without a live page.
///
/// # Errors
/// If the visitor's key is no longer valid. Other failures are shown in the regions.
pub(crate) async fn render_regions(
    api: &Api,
    address: &PageAddress,
    now: Timestamp,
) -> Result<Regions, ApiError> {
    match address.segments().as_slice() {
        ["console"] => overview::regions(api, &address.query, now).await,
        ["console", "workers"] => workers::regions(api, now).await,
        ["console", "projections"] => projections::regions(api, now).await,
        ["console", "dead-letters", page @ ..] => {
            dead_letters::regions(api, page, &address.query, now).await
        }
        ["console", "orders"] => orders::regions(api, &address.query).await,
        ["console", "orders", id] => order::regions(api, id, &address.query, now).await,
        _ => Ok(Regions::new()),
    }
}
