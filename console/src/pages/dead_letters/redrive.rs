//! The redrive of many orders: its dry run and its start.

use api_types::{FailureFilter, RedrivePreview, RedriveTask, StartRedriveRequest};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::filter::{LetterFilter, Selection};
use super::preview::{self, REDRIVES};
use super::task_list;
use crate::api::{ApiError, Loaded};
use crate::components::{callout, count_of, loaded, task_address};
use crate::form::{
    MISSING_REASON, Submission, actor_field, post_form, read_only_note, reason_field, refusal,
    show_fault, typed_actor, typed_text,
};
use crate::page::{Page, Section};
use crate::session::Notice;
use crate::visit::Visit;

const TITLE: &str = "Redrive orders";
/// Orders per second, unless the visitor chooses another rate.
const DEFAULT_RATE: &str = "50";
const MAX_RATE: u32 = 100_000;

/// Parameters of the page beside the filter and the selection.
#[derive(Deserialize)]
struct RedriveQuery {
    /// List every order of the dry run.
    #[serde(default)]
    all: bool,
}

/// The orders that the visitor has chosen.
struct Chosen {
    filter: LetterFilter,
    order_ids: Option<Vec<Uuid>>,
    lists_all: bool,
}

impl Chosen {
    fn read(visit: &Visit) -> Result<Self, Response> {
        let filter: LetterFilter = visit.query()?;
        let selection: Selection = visit.query()?;
        let RedriveQuery { all } = visit.query()?;
        match selection.order_ids() {
            Ok(ids) => Ok(Self { filter, order_ids: ids.map(<[Uuid]>::to_vec), lists_all: all }),
            Err(reason) => Err(super::refuse_selection(visit, TITLE, &filter, &reason)),
        }
    }

    /// Returns the filter of the task. Selected orders are redriven whatever the filter of the list says
    /// about them now.
    fn to_api(&self) -> FailureFilter {
        match &self.order_ids {
            Some(ids) => FailureFilter { order_ids: Some(ids.clone()), ..FailureFilter::default() },
            None => self.filter.to_api(),
        }
    }

    fn describe(&self) -> Markup {
        match &self.order_ids {
            Some(ids) => html! { (count_of(ids.len() as u64, "selected order")) },
            None => self.filter.describe(),
        }
    }
}

/// Fields of the form.
#[derive(Deserialize)]
pub(super) struct RedriveForm {
    reason: String,
    rate: String,
    #[serde(default)]
    actor: String,
}

impl Default for RedriveForm {
    fn default() -> Self {
        Self { reason: String::new(), rate: DEFAULT_RATE.to_owned(), actor: String::new() }
    }
}

/// Shows the dry run and the form that starts the redrive.
pub(super) async fn show(visit: Visit) -> Result<Response, Response> {
    let chosen = Chosen::read(&visit)?;
    Ok(show_form(&visit, &chosen, &RedriveForm::default(), None).await)
}

/// Starts the redrive.
pub(super) async fn start(
    Submission { visit, fields }: Submission<RedriveForm>,
) -> Result<Response, Response> {
    let chosen = Chosen::read(&visit)?;
    let request = match read_form(&visit, &chosen, &fields) {
        Ok(request) => request,
        Err(fault) => {
            let refused = Some((StatusCode::UNPROCESSABLE_ENTITY, show_fault(&fault)));
            return Ok(show_form(&visit, &chosen, &fields, refused).await);
        }
    };
    match visit.api.post::<RedriveTask>(REDRIVES, &request).await {
        Ok(task) => {
            let notice = Notice::success("Redrive started.");
            Ok(visit.redirect(&task_address(task.task_id), &notice))
        }
        Err(error) => {
            let refused = Some((error.status, show_refusal(&error)));
            Ok(show_form(&visit, &chosen, &fields, refused).await)
        }
    }
}

/// Returns the request to the API, or what is wrong with the form.
fn read_form(
    visit: &Visit,
    chosen: &Chosen,
    form: &RedriveForm,
) -> Result<StartRedriveRequest, String> {
    let reason = typed_text(&form.reason).ok_or(MISSING_REASON)?;
    let rate = form.rate.trim().parse().ok().filter(|rate| (1..=MAX_RATE).contains(rate));
    let rate = rate.ok_or("The rate must be a whole number from 1 to 100,000.")?;
    Ok(StartRedriveRequest {
        actor: typed_actor(visit, &form.actor),
        reason: Some(reason),
        filter: Some(chosen.to_api()),
        rate_per_second: Some(rate),
        dry_run: Some(false),
    })
}

/// Returns why the API did not start the redrive, with a link to the task that runs.
fn show_refusal(error: &ApiError) -> Markup {
    match error.problem.task_id {
        Some(task_id) => callout(
            "warning",
            html! {
                p { "Not started: another redrive is running. "
                    a href=(task_address(task_id)) { "Show its progress" } }
            },
        ),
        None => refusal(error),
    }
}

/// Shows the dry run and the form with the visitor's texts. `refused` is why a submission has failed.
async fn show_form(
    visit: &Visit,
    chosen: &Chosen,
    typed: &RedriveForm,
    refused: Option<(StatusCode, Markup)>,
) -> Response {
    let (status, refused) = refused.unwrap_or((StatusCode::OK, html! {}));
    let content = if visit.may_operate() {
        let (preview, running) = tokio::join!(
            preview::load(&visit.api, chosen.to_api()),
            task_list::find_running(&visit.api),
        );
        html! { (refused) (task_list::running_note(running.as_ref())) (show_preview(visit, chosen, typed, &preview)) }
    } else {
        read_only_note("redrive orders")
    };
    let body = html! {
        p { a href=(chosen.filter.list_address()) { "Back to the list" } }
        h1 { (TITLE) }
        dl.facts { dt { "Orders" } dd { (chosen.describe()) } }
        (content)
    };
    let page = Page::new(TITLE, body).in_section(Section::DeadLetters);
    visit.show_with_status(status, page)
}

fn show_preview(
    visit: &Visit,
    chosen: &Chosen,
    typed: &RedriveForm,
    preview: &Loaded<RedrivePreview>,
) -> Markup {
    loaded(preview, |preview| {
        let separator = if visit.address.contains('?') { '&' } else { '?' };
        let all = (!chosen.lists_all).then(|| format!("{}{separator}all=true", visit.address));
        html! {
            (preview::counts(preview))
            @if preview.redrive == 0 {
                (callout("info", html! { p { "Nothing to redrive." } }))
            } @else {
                (start_form(visit, typed))
            }
            @if !preview.items.is_empty() {
                h2 { "Dry run" }
                (preview::rows(preview, visit.now, all.as_deref()))
            }
        }
    })
}

/// Returns the form that starts the redrive. Its address has the filter and the selection.
fn start_form(visit: &Visit, typed: &RedriveForm) -> Markup {
    let content = html! {
        (reason_field(&typed.reason))
        div.field {
            label for="rate" { "Orders per second" }
            input #rate name="rate" type="number" min="1" max=(MAX_RATE) required value=(typed.rate);
        }
        (actor_field(visit, &typed.actor))
        p.actions {
            button.primary { "Start redrive" }
        }
    };
    post_form(visit, &visit.address, &content)
}
