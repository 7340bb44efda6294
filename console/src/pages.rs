//! The pages, and the regions of those that are live.

mod overview;

use axum::Router;
use axum::routing::get;
use jiff::Timestamp;

use crate::SharedState;
use crate::api::{Api, ApiError};
use crate::live::{PageAddress, Regions};

/// Returns the routes of the pages.
pub(crate) fn routes() -> Router<SharedState> {
    Router::new().route("/console", get(overview::show))
}

/// Renders the regions of a live page; empty for addresses without a live page.
///
/// # Errors
/// If the visitor's key is no longer valid. Other failures are shown in the regions.
pub(crate) async fn render_regions(
    api: &Api,
    address: &PageAddress,
    now: Timestamp,
) -> Result<Regions, ApiError> {
    match address.segments().as_slice() {
        [] => overview::regions(api, &address.query, now).await,
        _ => Ok(Regions::new()),
    }
}
