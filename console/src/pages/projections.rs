//! The projections: lag, last verification, sets of tables, and the commands that mend them.

use api_types::{
    LastVerification, Projection, ProjectionList, ProjectionSet, ProjectionSetState,
    RebuildProgress, Statistics,
};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use crate::api::{Api, ApiError, Loaded};
use crate::components::{
    badge, callout, count_of, dash, empty, format_count, format_share, format_whole_seconds,
    loaded, missing_sources, optional_count, optional_time, panel, region, table, time,
};
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::visit::Visit;

/// Lag above which the rows are not current enough to act on.
const MAX_LAG_SECONDS: f64 = 30.0;
/// Time without a write after which a rebuild has probably been interrupted.
const MAX_REBUILD_PAUSE: SignedDuration = SignedDuration::from_mins(2);

const SET_COLUMNS: [&str; 7] =
    ["Set", "State", "Version", "Position", "Events applied", "Last event", "Progress"];

/// Commands of a projection: what each does, and its arguments.
const COMMANDS: [(&str, &str); 4] = [
    ("Compare all rows with their events", "verify"),
    ("Build the tables anew beside the live ones, then swap them in", "rebuild"),
    ("Continue an interrupted rebuild", "rebuild --resume"),
    ("Swap the tables back that the last rebuild replaced", "rollback"),
];

/// What the page shows.
struct Projections {
    list: Loaded<ProjectionList>,
    statistics: Loaded<Statistics>,
    now: Timestamp,
}

impl Projections {
    async fn load(api: &Api, now: Timestamp) -> Self {
        let (list, statistics) = tokio::join!(api.get("/v1/ops/projections"), api.get("/v1/stats"));
        Self { list, statistics, now }
    }

    fn regions(&self) -> Regions {
        vec![
            ("advice", self.show_advice()),
            ("projections", loaded(&self.list, |list| show_list(list, self.now))),
        ]
    }

    /// Returns what to do if the read model is ahead of the event store.
    fn show_advice(&self) -> Markup {
        let statistics = self.statistics.as_ref().ok();
        let advice = statistics.and_then(|statistics| statistics.projection.advice.as_ref());
        html! { @if let Some(advice) = advice { (callout("error", html! { p { (advice) } })) } }
    }
}

/// Shows the page.
pub(crate) async fn show(visit: Visit) -> Result<Response, Response> {
    let projections = Projections::load(&visit.api, visit.now).await;
    let list = visit.require_access("Projections", projections.list)?;
    let projections = Projections { list, ..projections };
    let body = html! {
        h1 { "Projections" }
        @for (name, content) in projections.regions() { (region(name, &content)) }
        @if let Ok(list) = &projections.list { (show_commands(list)) }
    };
    Ok(visit.show(Page::new("Projections", body).in_section(Section::Projections).live()))
}

/// Renders the regions of the live page.
pub(crate) async fn regions(api: &Api, now: Timestamp) -> Result<Regions, ApiError> {
    let projections = Projections::load(api, now).await;
    match &projections.list {
        Err(error) if error.is_unauthorized() => Err(error.clone()),
        Ok(_) | Err(_) => Ok(projections.regions()),
    }
}

fn show_list(list: &ProjectionList, now: Timestamp) -> Markup {
    html! {
        (missing_sources(&list.unavailable))
        @for projection in &list.items {
            (panel(&projection.name, &show_projection(projection, now)))
        }
        @if list.items.is_empty() { (empty("No projections.")) }
    }
}

fn show_projection(projection: &Projection, now: Timestamp) -> Markup {
    let rows = html! { @for set in &projection.sets { (set_row(set, now)) } };
    html! {
        dl.facts {
            dt { "State" }
            dd { (show_state(projection)) }
            dt { "Rate" }
            dd {
                @match projection.events_per_second {
                    Some(rate) => { (format!("{rate:.1}")) " events/s in the last full minute" }
                    None => (dash()),
                }
            }
            dt { "Lease holder" }
            dd { @if let Some(holder) = &projection.holder { (holder) } @else { "none" } }
            dt { "Last verification" }
            dd { (verification(projection.verification, now)) }
        }
        @if projection.sets.is_empty() { (empty("No sets of tables.")) } @else {
            (table(&format!("Sets of tables of {}", projection.name), &SET_COLUMNS, &rows))
        }
    }
}

/// Returns whether the rows of a projection are not current enough to act on.
pub(super) fn is_behind(projection: &Projection) -> bool {
    projection.lag_seconds.is_some_and(|seconds| seconds > MAX_LAG_SECONDS)
}

/// Returns the state of a projection as a badge, with its lag.
pub(super) fn show_state(projection: &Projection) -> Markup {
    let (Some(events), Some(seconds)) = (projection.lag_events, projection.lag_seconds) else {
        return badge("neutral", "unknown");
    };
    let lag = format!("{}, {}", count_of(events, "event"), format_whole_seconds(seconds));
    if projection.stuck == Some(true) {
        return html! { (badge("bad", "stuck")) ": " (lag) " behind, and no event is applied" };
    }
    if events == 0 {
        return badge("good", "up to date");
    }
    let badge = if is_behind(projection) {
        badge("warning", "behind")
    } else {
        badge("busy", "catching up")
    };
    html! { (badge) ": " (lag) }
}

fn verification(verification: Option<LastVerification>, now: Timestamp) -> Markup {
    let Some(LastVerification { verified_at, orders, findings }) = verification else {
        return html! { "never" };
    };
    html! {
        @match findings {
            0 => (badge("good", "no differences")),
            _ => (badge("bad", &count_of(findings, "difference"))),
        }
        " in " (count_of(orders, "order")) ", " (time(verified_at, now))
    }
}

fn set_row(set: &ProjectionSet, now: Timestamp) -> Markup {
    let state = match set.state {
        ProjectionSetState::Live => badge("good", "live"),
        ProjectionSetState::Building => badge("busy", "building"),
        ProjectionSetState::Previous => badge("neutral", "previous"),
    };
    html! {
        tr {
            th scope="row" { (set.set) }
            td { (state) }
            td { (set.version) }
            td.nowrap { (optional_count(set.position)) }
            td.nowrap { (format_count(set.events_applied)) }
            td { (optional_time(set.last_event_at, now)) }
            td.wide {
                @if let Some(progress) = &set.progress { (show_progress(progress, &set.set, now)) }
                @else { (dash()) }
            }
        }
    }
}

fn show_progress(progress: &RebuildProgress, set: &str, now: Timestamp) -> Markup {
    let share = progress.share.clamp(0.0, 1.0);
    let is_paused =
        progress.updated_at.is_some_and(|at| now.duration_since(at) > MAX_REBUILD_PAUSE);
    html! {
        progress max="1" value=(format!("{share:.3}")) aria-label={ "Rebuild of " (set) } {}
        div.hint {
            (format_share(share)) ", last write "
            @if let Some(at) = progress.updated_at { (time(at, now)) } @else { "not yet" }
        }
        @if is_paused {
            (badge("warning", &format!("no write for {} min", MAX_REBUILD_PAUSE.as_mins())))
        }
    }
}

fn show_commands(list: &ProjectionList) -> Markup {
    let content = html! {
        p {
            "The console cannot verify, rebuild or roll back: the HTTP API has no route for these. Run the \
             commands on a machine that reaches the event store and the read model."
        }
        @for projection in &list.items {
            h3 { (projection.name) }
            dl.commands {
                @for (index, (purpose, arguments)) in COMMANDS.into_iter().enumerate() {
                    @let id = format!("command-{}-{index}", projection.name);
                    dt { (purpose) }
                    dd {
                        code id=(id) { "dofs projections " (arguments) " --projection " (projection.name) }
                        " "
                        button.js-only type="button" data-copy=(id) { "Copy" }
                    }
                }
            }
        }
    };
    panel("Commands", &content)
}
