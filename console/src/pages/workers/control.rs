//! Pause and resume of all workers: what will happen, reason, confirmation.

use api_types::{OperatorRequest, WorkersStatus};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::{last_control, pause_state};
use crate::api::Loaded;
use crate::components::{count_of, format_count, loaded};
use crate::form::{
    MISSING_REASON, Submission, actor_field, post_form, read_only_note, reason_field, refusal,
    show_fault, typed_actor, typed_text,
};
use crate::page::{Page, Section};
use crate::session::Notice;
use crate::visit::Visit;

const WORKERS: &str = "/console/workers";

/// Command to all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Pause,
    Resume,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ControlForm {
    #[serde(default)]
    reason: String,
    /// Name of the operator, if the API requires no key.
    #[serde(default)]
    actor: String,
}

impl Control {
    fn title(self) -> &'static str {
        match self {
            Self::Pause => "Pause workers",
            Self::Resume => "Resume workers",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    fn consequences(self) -> &'static [&'static str] {
        match self {
            Self::Pause => &[
                "The API still accepts orders. The orders wait until an operator resumes the workers.",
                "Workers finish the deliveries in flight and take no more orders.",
                "The pause applies to all workers, also to workers that start later.",
                "The next page opens when all workers have confirmed the pause, or after 15 s.",
            ],
            Self::Resume => &[
                "All workers take orders again, the longest waiting first.",
                "The gateway gets the orders that wait as fast as the workers can deliver.",
            ],
        }
    }
}

/// Shows the page that pauses.
pub(crate) async fn show_pause(visit: Visit) -> Response {
    show(&visit, Control::Pause, StatusCode::OK, &ControlForm::default(), None).await
}

/// Shows the page that resumes.
pub(crate) async fn show_resume(visit: Visit) -> Response {
    show(&visit, Control::Resume, StatusCode::OK, &ControlForm::default(), None).await
}

/// Pauses the workers.
pub(crate) async fn pause(Submission { visit, fields }: Submission<ControlForm>) -> Response {
    send(&visit, Control::Pause, &fields).await
}

/// Resumes the workers.
pub(crate) async fn resume(Submission { visit, fields }: Submission<ControlForm>) -> Response {
    send(&visit, Control::Resume, &fields).await
}

async fn send(visit: &Visit, control: Control, fields: &ControlForm) -> Response {
    let reason = typed_text(&fields.reason);
    if reason.is_none() {
        let missing = show_fault(MISSING_REASON);
        return show(visit, control, StatusCode::UNPROCESSABLE_ENTITY, fields, Some(missing)).await;
    }
    let request = OperatorRequest { actor: typed_actor(visit, &fields.actor), reason };
    let path = format!("/v1/ops/worker/{}", control.name());
    match visit.api.post::<WorkersStatus>(&path, &request).await {
        Ok(status) => visit.redirect(WORKERS, &outcome(control, &status)),
        Err(error) if error.is_unauthorized() => visit.show_error(control.title(), &error),
        Err(error) => show(visit, control, error.status, fields, Some(refusal(&error))).await,
    }
}

fn outcome(control: Control, status: &WorkersStatus) -> Notice {
    let n_unconfirmed = status.unconfirmed.as_ref().map_or(0, Vec::len);
    match control {
        Control::Resume => Notice::success("Workers resumed."),
        Control::Pause if n_unconfirmed == 0 => {
            Notice::success("Workers paused. No delivery is in flight.")
        }
        Control::Pause => Notice::error(format!(
            "Workers paused. {n_unconfirmed} of them have not confirmed the pause yet."
        )),
    }
}

async fn show(
    visit: &Visit,
    control: Control,
    status: StatusCode,
    fields: &ControlForm,
    problem: Option<Markup>,
) -> Response {
    let workers = visit.api.get::<WorkersStatus>("/v1/ops/worker").await;
    let body = html! {
        h1 { (control.title()) }
        @if let Some(problem) = problem { (problem) }
        (current_state(visit, &workers))
        @if visit.may_operate() {
            h2 { "What happens" }
            ul { @for consequence in control.consequences() { li { (consequence) } } }
            (form(visit, control, fields))
        } @else {
            (read_only_note(&format!("{} workers", control.name())))
            p { a.button href=(WORKERS) { "Back to workers" } }
        }
    };
    visit.show_with_status(status, Page::new(control.title(), body).in_section(Section::Workers))
}

fn current_state(visit: &Visit, workers: &Loaded<WorkersStatus>) -> Markup {
    loaded(workers, |workers| {
        html! {
            dl.facts {
                dt { "Now" }
                dd { (pause_state(workers)) (last_control(workers, visit.now)) }
                @if let Some(reason) = &workers.reason { dt { "Reason" } dd { (reason) } }
                @if let Some(count) = workers.queue.in_flight {
                    dt { "In flight" } dd { (format_count(count)) }
                }
                @if let Some(count) = workers.orders_processing {
                    dt { "Processing" } dd { (count_of(count, "order")) }
                }
            }
        }
    })
}

fn form(visit: &Visit, control: Control, fields: &ControlForm) -> Markup {
    let class = match control {
        Control::Pause => "danger",
        Control::Resume => "primary",
    };
    let content = html! {
        (reason_field(&fields.reason))
        (actor_field(visit, &fields.actor))
        p.actions {
            button type="submit" class=(class) { (control.title()) }
            a.button href=(WORKERS) { "Cancel" }
        }
    };
    post_form(visit, &format!("{WORKERS}/{}", control.name()), &content)
}
