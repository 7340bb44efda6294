//! The overview: what needs a person now, figures, charts, and the health of each part.

mod attention;
mod charts;
mod health;

use api_types::{
    DeadLetterSummary, MinuteStatistics, ProjectionList, Statistics, Unavailable, WorkersStatus,
};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use crate::api::{Api, ApiError, Loaded};
use crate::components::{
    callout, dash, format_share, format_whole_seconds, loaded, optional_count, region, tile,
};
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::response::redirect;
use crate::visit::Visit;

/// Length of the charts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Window {
    #[default]
    Hour,
    Day,
}

impl Window {
    fn minutes(self) -> u32 {
        match self {
            Self::Hour => 60,
            Self::Day => 1_440,
        }
    }
}

/// Seconds of a minute.
const MINUTE: i64 = 60;

#[derive(Debug, Default, Deserialize)]
pub(crate) struct OverviewQuery {
    #[serde(default)]
    window: Window,
}

/// What the page shows.
struct Overview {
    statistics: Loaded<Statistics>,
    workers: Loaded<WorkersStatus>,
    dead_letters: Loaded<DeadLetterSummary>,
    projections: Loaded<ProjectionList>,
    window: Window,
    now: Timestamp,
}

impl Overview {
    async fn load(api: &Api, window: Window, now: Timestamp) -> Result<Self, ApiError> {
        let path = format!("/v1/stats?minutes={}", window.minutes());
        let (statistics, workers, dead_letters, projections) = tokio::join!(
            api.get::<Statistics>(&path),
            api.get("/v1/ops/worker"),
            api.get("/v1/dead-letters"),
            api.get("/v1/ops/projections"),
        );
        if let Err(error) = &statistics
            && error.is_unauthorized()
        {
            return Err(error.clone());
        }
        Ok(Self { statistics, workers, dead_letters, projections, window, now })
    }

    /// Returns why a store is missing; `None` if no answer says so. `reason` reads it from an answer.
    fn outage(&self, reason: fn(&Unavailable) -> Option<&str>) -> Option<&str> {
        let answers = [
            self.statistics.as_ref().ok().map(|statistics| &statistics.unavailable),
            self.workers.as_ref().ok().map(|status| &status.unavailable),
            self.projections.as_ref().ok().map(|list| &list.unavailable),
        ];
        answers.into_iter().flatten().find_map(reason)
    }

    fn regions(&self) -> Regions {
        vec![
            ("attention", attention::show(self)),
            ("tiles", loaded(&self.statistics, |statistics| show_tiles(self, statistics))),
            ("charts", charts::show(self)),
            ("health", health::show(self)),
        ]
    }
}

/// Shows the page.
pub(crate) async fn show(visit: Visit) -> Result<Response, Response> {
    let query: OverviewQuery = visit.query()?;
    if !visit.may("ops:read") {
        // A shop's key may read its orders, and nothing of the installation.
        return Ok(redirect("/console/orders"));
    }
    let overview = Overview::load(&visit.api, query.window, visit.now).await;
    let overview = overview.map_err(|error| visit.show_error("Overview", &error))?;
    let body = html! {
        h1 { "Overview" }
        @for (name, content) in overview.regions() { (region(name, &content)) }
    };
    Ok(visit.show(Page::new("Overview", body).in_section(Section::Overview).live()))
}

/// Renders the regions of the live page.
pub(crate) async fn regions(api: &Api, query: &str, now: Timestamp) -> Result<Regions, ApiError> {
    let query: OverviewQuery = serde_html_form::from_str(query).unwrap_or_default();
    Ok(Overview::load(api, query.window, now).await?.regions())
}

fn show_tiles(overview: &Overview, statistics: &Statistics) -> Markup {
    let Statistics { orders, queue, success_rate, per_minute, .. } = statistics;
    // Not those of the statistics, which also count discarded ones.
    let dead_letters = overview.dead_letters.as_ref().ok().map(|summary| summary.total);
    let none = html! {};
    let received = orders.map(|orders| orders.processing + orders.fulfilled + orders.failed);
    let waiting = html! {
        @if let Some(seconds) = queue.oldest_waiting_seconds {
            "oldest " (format_whole_seconds(seconds))
        }
    };
    let in_last_minute =
        per_minute.as_ref().map(|minutes| received_in_last_minute(minutes, overview.now));
    let configured = html! {
        @if let Some(share) = success_rate.configured { "configured " (format_share(share)) }
    };
    let observed = html! {
        @match success_rate.observed { Some(share) => { (format_share(share)) }, None => { (dash()) } }
    };
    html! {
        @if let Some(reason) = &statistics.unavailable.read_model {
            (callout("error", html! { p { "Read model: " (reason) ". Figures of orders are missing." } }))
        }
        dl.tiles {
            (tile("Received", &optional_count(received), &none))
            (tile("Per minute", &optional_count(in_last_minute), &html! { "received in the last full minute" }))
            (tile("Processing", &optional_count(orders.map(|orders| orders.processing)), &waiting))
            (tile("Fulfilled", &optional_count(orders.map(|orders| orders.fulfilled)), &none))
            (tile("Failed", &optional_count(orders.map(|orders| orders.failed)), &none))
            (tile("Dead letters", &optional_count(dead_letters), &none))
            (tile("Retrying", &optional_count(queue.retrying), &none))
            (tile("Success rate", &observed, &configured))
        }
    }
}

/// Returns the number of orders received in the last full minute. The API leaves out minutes without
/// events.
fn received_in_last_minute(minutes: &[MinuteStatistics], now: Timestamp) -> u64 {
    let number_of = |at: Timestamp| at.as_second().div_euclid(MINUTE);
    let last = number_of(now) - 1;
    let last = minutes.iter().find(|statistics| number_of(statistics.minute) == last);
    last.map_or(0, |statistics| statistics.received)
}
