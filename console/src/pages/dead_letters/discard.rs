//! The discard of selected dead letters: confirmation, and what became of each.

use api_types::{
    DeadLetter, DiscardRequest, DiscardedOrder, FailureFilter, FailureStage, RedriveAction,
    RedrivePreview,
};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::filter::{LetterFilter, Selection};
use super::{api_path, preview, refuse_selection};
use crate::api::{Api, ApiError};
use crate::components::{badge, callout, count_of, loaded, order_link, table};
use crate::form::{
    MISSING_REASON, Submission, actor_field, post_form, read_only_note, reason_field, show_fault,
    typed_actor, typed_text,
};
use crate::page::{Page, Section};
use crate::session::Notice;
use crate::visit::Visit;

const PATH: &str = "/console/dead-letters/discard";
const TITLE: &str = "Discard dead letters";

/// Fields of the form.
#[derive(Default, Deserialize)]
pub(super) struct DiscardForm {
    reason: String,
    #[serde(default)]
    actor: String,
    /// Revision of each order that the visitor saw: `ORDER_ID:REVISION`.
    #[serde(default)]
    revision: Vec<String>,
}

impl DiscardForm {
    fn revision_of(&self, order_id: Uuid) -> Option<u64> {
        let prefix = format!("{order_id}:");
        self.revision.iter().find_map(|seen| seen.strip_prefix(&prefix)?.parse().ok())
    }
}

/// What became of the selected orders.
#[derive(Default)]
struct Outcome {
    n_discarded: u64,
    failed: Vec<(Uuid, ApiError)>,
    /// Orders that were not tried, because the API takes no commands now.
    untried: Vec<Uuid>,
}

/// Shows the confirmation.
pub(super) async fn show(visit: Visit) -> Result<Response, Response> {
    let (filter, order_ids) = read_selection(&visit)?;
    Ok(show_form(&visit, &filter, &order_ids, &DiscardForm::default(), None).await)
}

/// Discards the selected orders one by one.
pub(super) async fn discard(
    Submission { visit, fields }: Submission<DiscardForm>,
) -> Result<Response, Response> {
    let (filter, order_ids) = read_selection(&visit)?;
    let Some(reason) = typed_text(&fields.reason) else {
        return Ok(show_form(&visit, &filter, &order_ids, &fields, Some(MISSING_REASON)).await);
    };
    let actor = typed_actor(&visit, &fields.actor);
    let request = DiscardRequest { actor, reason: Some(reason) };
    let outcome = discard_each(&visit.api, &order_ids, &fields, &request).await;
    if outcome.failed.is_empty() {
        // The read model follows the event store: the list may be a moment behind.
        let text = format!(
            "{} discarded. The list may still show them for a moment.",
            outcome.n_discarded
        );
        let notice = Notice::success(text);
        return Ok(visit.redirect(&filter.list_address(), &notice));
    }
    Ok(show_outcome(&visit, &filter, &outcome))
}

/// Returns the filter of the list that the visitor came from, and the selected orders.
fn read_selection(visit: &Visit) -> Result<(LetterFilter, Vec<Uuid>), Response> {
    let filter: LetterFilter = visit.query()?;
    let selection: Selection = visit.query()?;
    // Only selected orders are discarded, never all that match.
    match selection.order_ids().and_then(|ids| ids.ok_or("No order is selected.".to_owned())) {
        Ok(ids) => Ok((filter, ids.to_vec())),
        Err(reason) => Err(refuse_selection(visit, TITLE, &filter, &reason)),
    }
}

/// Discards each order. An order that the API refuses does not stop the others.
async fn discard_each(
    api: &Api,
    order_ids: &[Uuid],
    form: &DiscardForm,
    request: &DiscardRequest,
) -> Outcome {
    let mut outcome = Outcome::default();
    for (index, order_id) in order_ids.iter().enumerate() {
        match discard_order(api, *order_id, form.revision_of(*order_id), request).await {
            Ok(()) => outcome.n_discarded += 1,
            Err(error) => {
                let is_outage = is_outage(&error);
                outcome.failed.push((*order_id, error));
                // Each further command would wait for its time-out.
                if is_outage {
                    outcome.untried = order_ids[index + 1..].to_vec();
                    break;
                }
            }
        }
    }
    outcome
}

/// Discards an order, unless it has changed since the visitor saw it. An order that is discarded already,
/// for example by the first of two clicks, needs nothing more.
async fn discard_order(
    api: &Api,
    order_id: Uuid,
    revision: Option<u64>,
    request: &DiscardRequest,
) -> Result<(), ApiError> {
    let path = api_path(&order_id.to_string());
    let discard = format!("{path}/discard");
    let Err(error) = api.post_if_match::<DiscardedOrder>(&discard, request, revision).await else {
        return Ok(());
    };
    if error.status == StatusCode::PRECONDITION_FAILED
        && api.get::<DeadLetter>(&path).await.is_ok_and(|letter| letter.is_discarded)
    {
        return Ok(());
    }
    Err(error)
}

/// Returns whether a failure concerns every command and not only this order.
fn is_outage(error: &ApiError) -> bool {
    let outages = [
        StatusCode::UNAUTHORIZED,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    outages.contains(&error.status)
}

async fn show_form(
    visit: &Visit,
    filter: &LetterFilter,
    order_ids: &[Uuid],
    typed: &DiscardForm,
    fault: Option<&str>,
) -> Response {
    let content = if visit.may_operate() {
        // A dry run is the one call that reads many orders as they are now.
        let ids = FailureFilter { order_ids: Some(order_ids.to_vec()), ..FailureFilter::default() };
        let orders = preview::load(&visit.api, ids).await;
        html! {
            p {
                (count_of(order_ids.len() as u64, "dead letter")) " will be discarded: the orders stay failed, "
                "and their dead letters are resolved. A discarded order can still be redriven by itself."
            }
            (loaded(&orders, |orders| html! {
                (confirmation(visit, typed, orders))
                h2 { "Orders" }
                (rows(orders, visit))
            }))
        }
    } else {
        read_only_note("discard dead letters")
    };
    let body = html! {
        p { a href=(filter.list_address()) { "Back to the list" } }
        h1 { (TITLE) }
        @if let Some(fault) = fault { (show_fault(fault)) }
        (content)
    };
    let status = if fault.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    visit.show_with_status(status, Page::new(TITLE, body).in_section(Section::DeadLetters))
}

fn confirmation(visit: &Visit, typed: &DiscardForm, orders: &RedrivePreview) -> Markup {
    let content = html! {
        @for item in &orders.items {
            @if let Some(revision) = item.revision {
                input type="hidden" name="revision" value={ (item.order_id) ":" (revision) };
            }
        }
        (reason_field(&typed.reason))
        (actor_field(visit, &typed.actor))
        p.actions { button.danger { "Discard" } }
    };
    // The address has the filter and the selection.
    post_form(visit, &visit.address, &content)
}

fn rows(orders: &RedrivePreview, visit: &Visit) -> Markup {
    let columns = ["Order", "State", "Code", "Error", "Attempt", "Failed"];
    let rows = html! {
        @for item in &orders.items {
            tr {
                td { (order_link(item.order_id)) }
                td {
                    @match (item.stage, item.action) {
                        (Some(FailureStage::DeadLetter), RedriveAction::Redrive) => {
                            (badge("bad", "Dead letter"))
                        },
                        (Some(FailureStage::DeadLetter), RedriveAction::Skip) => (item.why),
                        _ => { (badge("neutral", "Not a dead letter")) },
                    }
                }
                (preview::failure_cells(item, visit.now))
            }
        }
    };
    table("Orders that will be discarded", &columns, &rows)
}

/// Shows the orders that were not discarded, and why.
fn show_outcome(visit: &Visit, filter: &LetterFilter, outcome: &Outcome) -> Response {
    let failed = outcome.failed.iter().map(|(order_id, _)| *order_id);
    let remaining: Vec<_> = failed.chain(outcome.untried.iter().copied()).collect();
    let retry = Selection::of(remaining).address(PATH, filter);
    let rows = html! {
        @for (order_id, error) in &outcome.failed {
            tr { td { (order_link(*order_id)) } td { (error.problem.detail) } }
        }
        @for order_id in &outcome.untried {
            tr { td { (order_link(*order_id)) } td { "Not tried." } }
        }
    };
    let (n_failed, n_untried) = (outcome.failed.len(), outcome.untried.len());
    let body = html! {
        h1 { (TITLE) }
        (callout("warning", html! {
            p role="status" {
                (outcome.n_discarded) " discarded, " (n_failed) " failed"
                @if n_untried > 0 { ", " (n_untried) " not tried" }
                "."
            }
        }))
        (table("Orders that were not discarded", &["Order", "Why"], &rows))
        p.actions {
            a.button href=(retry) { "Try these again…" }
            a.button href=(filter.list_address()) { "Back to the list" }
        }
    };
    visit.show(Page::new(TITLE, body).in_section(Section::DeadLetters))
}
