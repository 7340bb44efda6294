//! Dead letters: groups by cause, the list, and what mends them.

mod detail;
mod discard;
mod filter;
mod groups;
mod list;
mod preview;
mod redrive;
mod task_list;
mod task_progress;

use api_types::FailureStage;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use maud::{Markup, html};

use super::order_actions::can_redrive;
use crate::SharedState;
use crate::api::{Api, ApiError};
use crate::components::{badge, callout, encode_component, region};
use crate::form::read_only_note;
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::visit::Visit;
use filter::{LetterFilter, ListQuery, stage_title};
use groups::Groups;

pub(super) fn routes() -> Router<SharedState> {
    Router::new()
        .route("/console/dead-letters", get(show))
        .route("/console/dead-letters/redrive", get(redrive::show).post(redrive::start))
        .route("/console/dead-letters/discard", get(discard::show).post(discard::discard))
        .route("/console/dead-letters/tasks", get(task_list::show))
        .route("/console/dead-letters/tasks/{id}", get(task_progress::show))
        .route(
            "/console/dead-letters/tasks/{id}/cancel",
            get(task_progress::show_cancel).post(task_progress::cancel),
        )
        .route("/console/dead-letters/{id}", get(detail::show))
}

/// Renders the regions of a live page. `page` is the path after `/console/dead-letters`.
pub(super) async fn regions(
    api: &Api,
    page: &[&str],
    query: &str,
    now: Timestamp,
) -> Result<Regions, ApiError> {
    match page {
        [] => list_regions(api, query, now).await,
        ["tasks"] => task_list::regions(api, now).await,
        ["tasks", id] => task_progress::regions(api, id, now).await,
        _ => Ok(Regions::new()),
    }
}

/// Shows the groups and the list.
async fn show(visit: Visit) -> Result<Response, Response> {
    let query: ListQuery = visit.query()?;
    let filter = visit.query()?;
    let (mut groups, failures, running) = tokio::join!(
        Groups::load(&visit.api, &filter),
        list::load(&visit.api, &filter, &query),
        task_list::find_running(&visit.api),
    );
    groups.summary = visit.require_access("Dead letters", groups.summary)?;
    let body = html! {
        h1 { (stage_title(filter.stage)) }
        (filter::stage_choice(&filter))
        @if !can_redrive(filter.stage) {
            (callout("info", html! {
                p { "These orders broke a business rule. They cannot be redriven: the customer places a corrected order." }
            }))
        }
        // The space of one line of news is reserved, so that it does not move the rows below.
        div.news {
            div role="status" { (region("new", &html! {})) }
            (region("running", &task_list::running_note(running.as_ref())))
        }
        (region("groups", &groups.show(&filter, visit.now)))
        (filter::filter_form(&filter, &query, groups.codes()))
        (list::show(&failures, &list::ListContext {
            filter: &filter,
            query: &query,
            n_matching: groups.count_matching(&filter),
            may_act: visit.may_operate() && can_redrive(filter.stage),
            now: visit.now,
        }))
        @if !visit.may_operate() { (read_only_note("redrive or discard orders")) }
        p { a href="/console/dead-letters/tasks" { "Redrive tasks" } }
    };
    let newest = failures.as_ref().ok().and_then(|page| page.items.first());
    let seen = newest.map_or_else(String::new, |newest| format!("since={}", newest.failed_at));
    let page = Page::new(stage_title(filter.stage), body).in_section(Section::DeadLetters);
    Ok(visit.show(page.live_since(seen)))
}

async fn list_regions(api: &Api, query: &str, now: Timestamp) -> Result<Regions, ApiError> {
    let list: ListQuery = serde_html_form::from_str(query).unwrap_or_default();
    let filter = serde_html_form::from_str(query).unwrap_or_default();
    let (groups, n_new, running) = tokio::join!(
        Groups::load(api, &filter),
        list::count_new(api, &filter, &list),
        task_list::find_running(api),
    );
    if let Err(error) = &groups.summary
        && error.is_unauthorized()
    {
        return Err(error.clone());
    }
    let reload = ListQuery { cursor: None, since: None, ..list }.list_address(&filter);
    Ok(vec![
        ("new", list::new_note(n_new, &reload)),
        ("running", task_list::running_note(running.as_ref())),
        ("groups", groups.show(&filter, now)),
    ])
}

/// Returns the page of one dead letter.
fn letter_address(order_id: uuid::Uuid) -> String {
    format!("/console/dead-letters/{order_id}")
}

/// Returns the text of a list without failures.
fn no_letters(stage: FailureStage, is_filtered: bool) -> Markup {
    let noun = match stage {
        FailureStage::DeadLetter => "dead letters",
        FailureStage::Fulfillment => "refusals",
        FailureStage::Validation => "invalid orders",
    };
    html! {
        p.empty {
            @if is_filtered {
                "No " (noun) " match the filter. "
                a href=(LetterFilter { stage, ..LetterFilter::default() }.list_address()) { "Show all" }
            } @else {
                (badge("good", &format!("No {noun}.")))
            }
        }
    }
}

/// Returns the path of the API for one dead letter. A visitor has typed the id.
pub(super) fn api_path(id: &str) -> String {
    format!("/v1/dead-letters/{}", encode_component(id))
}

/// Responds to a selection that is empty or too large.
fn refuse_selection(visit: &Visit, title: &str, filter: &LetterFilter, reason: &str) -> Response {
    let body = html! {
        h1 { (title) }
        (callout("warning", html! { p { (reason) } }))
        p { a href=(filter.list_address()) { "Back to the list" } }
    };
    let page = Page::new(title, body).in_section(Section::DeadLetters);
    visit.show_with_status(StatusCode::UNPROCESSABLE_ENTITY, page)
}
