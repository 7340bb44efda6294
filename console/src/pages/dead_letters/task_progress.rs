//! One redrive task: its progress, its end, and its cancellation.

use api_types::{RedriveTask, RedriveTaskState};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::filter::address;
use super::preview::REDRIVES;
use super::task_list::{
    describe_filter, n_done, progress_text, rate_text, remaining_address, state_badge,
};
use crate::api::{Api, ApiError};
use crate::components::{
    callout, encode_component, format_absolute, format_count, optional_time, region, task_address,
    tile, time,
};
use crate::form::{Submission, actor_field, post_form, read_only_note, refusal, typed_actor};
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::session::Notice;
use crate::visit::Visit;

const TITLE: &str = "Redrive task";

/// Shows the progress.
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Response> {
    let task = load(&visit.api, &id).await;
    let task = task.map_err(|error| visit.show_error(TITLE, &error))?;
    let body = html! {
        p { a href="/console/dead-letters/tasks" { "All redrive tasks" } }
        h1 { (TITLE) }
        (region("task", &show_task(&task, visit.may_operate(), visit.now)))
    };
    Ok(visit.show(Page::new(TITLE, body).in_section(Section::DeadLetters).live()))
}

/// Renders the region of the live page.
pub(super) async fn regions(api: &Api, id: &str, now: Timestamp) -> Result<Regions, ApiError> {
    let (task, may_operate) = tokio::join!(load(api, id), api.may_operate());
    let may_operate = may_operate?;
    let content = match task {
        Ok(task) => show_task(&task, may_operate, now),
        Err(error) => refusal(&error),
    };
    Ok(vec![("task", content)])
}

async fn load(api: &Api, id: &str) -> Result<RedriveTask, ApiError> {
    api.get(&task_path(id)).await
}

/// Returns the path of the API for a task. A visitor has typed the id.
fn task_path(id: &str) -> String {
    format!("{REDRIVES}/{}", encode_component(id))
}

fn show_task(task: &RedriveTask, may_operate: bool, now: Timestamp) -> Markup {
    let is_running = task.state == RedriveTaskState::Running;
    let done = n_done(task);
    // A filter may match more orders than when the task was started.
    let total = task.total.max(done).max(1);
    html! {
        p { (state_badge(task.state)) " " (progress_text(task)) }
        @if is_running {
            progress max=(total) value=(done) aria-label="Progress of the redrive" {}
        }
        @if let Some(cause) = &task.waiting_for {
            (callout("warning", html! { p { "The task waits: " (cause) "." } }))
        }
        @if let Some(error) = &task.error {
            (callout("error", html! { p { "The task has failed: " (error) "." } }))
        }
        (show_counts(task))
        (show_facts(task, now))
        p.actions {
            @if is_running {
                @if may_operate {
                    a.button.danger href={ (task_address(task.task_id)) "/cancel" } { "Cancel redrive…" }
                }
            } @else {
                a.button href=(remaining_address(&task.filter)) { "Failures that remain" }
            }
        }
    }
}

fn show_counts(task: &RedriveTask) -> Markup {
    let count = |count: u64| html! { (format_count(count)) };
    let hint = |text: &str| html! { (text) };
    html! {
        dl.tiles {
            (tile("Redriven", &count(task.redriven), &hint("queued again")))
            (tile("Skipped", &count(task.skipped), &hint("no longer matched")))
            (tile("Failed", &count(task.failed), &hint("could not be recorded")))
            (tile("Total", &count(task.total), &hint("matched at the start")))
        }
    }
}

fn show_facts(task: &RedriveTask, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            dt { "Orders" } dd { (describe_filter(&task.filter)) }
            @if let Some(before) = task.filter.failed_before {
                dt { "Failed before" } dd { (format_absolute(before)) }
            }
            dt { "Maximum rate" } dd { (rate_text(task)) }
            dt { "Reason" } dd { (task.reason) }
            dt { "Started by" } dd { (task.actor) }
            dt { "Started" } dd { (time(task.started_at, now)) }
            dt { "Ended" } dd { (optional_time(task.ended_at, now)) }
            dt { "Task id" } dd { code { (task.task_id) } }
        }
    }
}

/// Fields of the form that cancels a task.
#[derive(Default, Deserialize)]
pub(super) struct CancelForm {
    #[serde(default)]
    actor: String,
}

/// Shows the confirmation of a cancellation.
pub(super) async fn show_cancel(
    visit: Visit,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    show_confirmation(&visit, &id, &CancelForm::default(), None).await
}

/// Cancels the task.
pub(super) async fn cancel(
    Path(id): Path<String>,
    Submission { visit, fields }: Submission<CancelForm>,
) -> Result<Response, Response> {
    let actor = typed_actor(&visit, &fields.actor);
    let path = address(&task_path(&id), &[("actor", actor)]);
    match visit.api.delete::<RedriveTask>(&path).await {
        Ok(task) => {
            let notice =
                Notice::success("Redrive cancelled. Orders that were redriven stay redriven.");
            Ok(visit.redirect(&task_address(task.task_id), &notice))
        }
        // The task has ended meanwhile.
        Err(error) if error.status == StatusCode::CONFLICT => {
            Ok(visit.redirect(&task_address(&id), &Notice::error(error.problem.detail.clone())))
        }
        Err(error) => show_confirmation(&visit, &id, &fields, Some(&error)).await,
    }
}

async fn show_confirmation(
    visit: &Visit,
    id: &str,
    typed: &CancelForm,
    refused: Option<&ApiError>,
) -> Result<Response, Response> {
    let task = load(&visit.api, id).await;
    let task = task.map_err(|error| visit.show_error("Cancel redrive", &error))?;
    let form = html! {
        (actor_field(visit, &typed.actor))
        p.actions { button.danger { "Cancel redrive" } }
    };
    let body = html! {
        p { a href=(task_address(task.task_id)) { "Back to the task" } }
        h1 { "Cancel redrive" }
        @if let Some(error) = refused { (refusal(error)) }
        p { (state_badge(task.state)) " " (progress_text(&task)) }
        @if task.state != RedriveTaskState::Running {
            p { "The task has ended: there is nothing to cancel." }
        } @else if visit.may_operate() {
            p { "Orders that were redriven stay redriven. The others stay failed." }
            (post_form(visit, &visit.address, &form))
        } @else {
            (read_only_note("cancel a redrive"))
        }
    };
    let status = refused.map_or(StatusCode::OK, |error| error.status);
    let page = Page::new("Cancel redrive", body).in_section(Section::DeadLetters);
    Ok(visit.show_with_status(status, page))
}
