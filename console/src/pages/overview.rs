//! The overview: what needs a person now, figures, charts, and the health of each part.

mod attention;
mod charts;
mod health;

use api_types::{DeadLetterSummary, ProjectionList, Statistics, WorkersStatus};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use crate::api::{Api, ApiError, Loaded};
use crate::components::{
    callout, dash, format_count, format_share, format_whole_seconds, loaded, region, tile,
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

    fn regions(&self) -> Regions {
        vec![
            ("attention", attention::show(self)),
            ("tiles", loaded(&self.statistics, show_tiles)),
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

fn show_tiles(statistics: &Statistics) -> Markup {
    let Statistics { orders, failed_by_stage, queue, success_rate, .. } = statistics;
    let count = |count: Option<u64>| html! { (count.map_or_else(|| "–".to_owned(), format_count)) };
    let none = html! {};
    let accepted = orders.map(|orders| orders.processing + orders.fulfilled + orders.failed);
    let waiting = html! {
        @if let Some(seconds) = queue.oldest_waiting_seconds {
            "oldest " (format_whole_seconds(seconds))
        }
    };
    let per_minute = statistics.per_minute.as_deref().unwrap_or_default();
    // The newest minute is not over.
    let last_minute = per_minute.iter().rev().nth(1).or(per_minute.last());
    let rate = html! {
        @match last_minute { Some(minute) => { (format_count(minute.received)) }, None => { "0" } }
    };
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
            (tile("Accepted", &count(accepted), &none))
            (tile("Per minute", &rate, &html! { "last full minute" }))
            (tile("Processing", &count(orders.map(|orders| orders.processing)), &waiting))
            (tile("Fulfilled", &count(orders.map(|orders| orders.fulfilled)), &none))
            (tile("Failed", &count(orders.map(|orders| orders.failed)), &none))
            (tile("Dead letters", &count(failed_by_stage.map(|failed| failed.dead_letter)), &none))
            (tile("Retrying", &count(queue.retrying), &none))
            (tile("Success rate", &observed, &configured))
        }
    }
}
