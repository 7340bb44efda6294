//! The newest redrive tasks.

use api_types::{FailureStage, RedriveFilter, RedriveTask, RedriveTaskPage, RedriveTaskState};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::filter::{LetterFilter, stage_title};
use super::preview::REDRIVES;
use crate::api::{Api, ApiError, Loaded};
use crate::components::{
    badge, count_of, empty, format_count, loaded, region, table, task_address, time,
};
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::visit::Visit;

const TITLE: &str = "Redrive tasks";

/// Shows the list.
pub(super) async fn show(visit: Visit) -> Result<Response, Response> {
    let tasks = load(&visit.api).await.map_err(|error| visit.show_error(TITLE, &error))?;
    let body = html! {
        p { a href="/console/dead-letters" { "Dead letters" } }
        h1 { (TITLE) }
        (region("tasks", &show_tasks(&tasks, visit.now)))
    };
    Ok(visit.show(Page::new(TITLE, body).in_section(Section::DeadLetters).live()))
}

/// Renders the region of the live page.
pub(super) async fn regions(api: &Api, now: Timestamp) -> Result<Regions, ApiError> {
    match load(api).await {
        Err(error) if error.is_unauthorized() => Err(error),
        tasks => Ok(vec![("tasks", loaded(&tasks, |tasks| show_tasks(tasks, now)))]),
    }
}

async fn load(api: &Api) -> Loaded<RedriveTaskPage> {
    api.get(REDRIVES).await
}

fn show_tasks(page: &RedriveTaskPage, now: Timestamp) -> Markup {
    if page.items.is_empty() {
        return empty("No redrive was started yet.");
    }
    let columns = ["Started", "State", "Done", "Orders", "Rate", "Reason", "Started by"];
    let rows = html! {
        @for task in &page.items {
            tr {
                td { a href=(task_address(task.task_id)) { (time(task.started_at, now)) } }
                td { (state_badge(task.state)) }
                td.nowrap { (progress_text(task)) }
                td.text { (describe_filter(&task.filter)) }
                td.nowrap { (rate_text(task)) }
                td.text { (task.reason) }
                td { (task.actor) }
            }
        }
    };
    table("Redrive tasks, newest first", &columns, &rows)
}

/// Returns the task that runs now; `None` if no task runs, or the tasks cannot be read.
pub(super) async fn find_running(api: &Api) -> Option<RedriveTask> {
    let page = load(api).await.ok()?;
    page.items.into_iter().find(|task| task.state == RedriveTaskState::Running)
}

/// Returns a line about a running task, with a link to its page; nothing if there is none.
pub(super) fn running_note(task: Option<&RedriveTask>) -> Markup {
    html! {
        @if let Some(task) = task {
            p {
                (badge("busy", "A redrive is running:")) " " (progress_text(task)) ". "
                a href=(task_address(task.task_id)) { "Show its progress" }
            }
        }
    }
}

/// Returns the number of orders that a task has handled.
pub(super) fn n_done(task: &RedriveTask) -> u64 {
    task.redriven + task.skipped + task.failed
}

/// Returns how far a task is.
pub(super) fn progress_text(task: &RedriveTask) -> String {
    format!("{} of {}", format_count(n_done(task)), count_of(task.total, "order"))
}

/// Returns the maximum rate of a task.
pub(super) fn rate_text(task: &RedriveTask) -> String {
    let rate = task.rate_per_second.map(|rate| format!("{} per second", format_count(rate.into())));
    rate.unwrap_or_else(|| "unlimited".to_owned())
}

pub(super) fn state_badge(state: RedriveTaskState) -> Markup {
    match state {
        RedriveTaskState::Running => badge("busy", "Running"),
        RedriveTaskState::Succeeded => badge("good", "Succeeded"),
        RedriveTaskState::Failed => badge("bad", "Failed"),
        RedriveTaskState::Cancelled => badge("warning", "Cancelled"),
    }
}

/// Returns the filter of a task in words, without its time.
pub(super) fn describe_filter(filter: &RedriveFilter) -> Markup {
    html! {
        @match (&filter.order_ids, filter.stage) {
            (Some(ids), _) => { (count_of(ids.len() as u64, "selected order")) },
            (None, Some(stage)) => { (stage_title(stage)) },
            (None, None) => { "Failed orders" },
        }
        @if let Some(code) = &filter.code { " with code " code { (code) } }
        @if let Some(customer) = &filter.customer_id { " of customer " code { (customer) } }
    }
}

/// Returns the address of the failures that a task's filter still matches.
pub(super) fn remaining_address(filter: &RedriveFilter) -> String {
    let stage = filter.stage.unwrap_or(FailureStage::DeadLetter);
    let (code, customer) = (filter.code.clone(), filter.customer_id.clone());
    LetterFilter { stage, code, customer, older_than: None }.list_address()
}
