//! The form that discards a dead letter.

use api_types::{DeadLetter, DiscardRequest, DiscardedOrder, Order, OrderState};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::OptionFuture;
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::{api_path, state};
use crate::api::Loaded;
use crate::components::order_address;
use crate::form::{
    MISSING_REASON, Submission, actor_field, post_form, reason_field, refusal, show_fault,
    typed_actor, typed_text,
};
use crate::page::{Page, Section};
use crate::pages::dead_letters;
use crate::pages::order_actions::{ActionTarget, form_or_obstacle, show_changed};
use crate::session::Notice;
use crate::visit::Visit;

const TITLE: &str = "Discard dead letter";

/// The form as the visitor submitted it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct DiscardForm {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    actor: String,
    /// Revision of the order that the visitor saw.
    revision: u64,
}

/// The order, and why its dead letter cannot be discarded.
struct Target {
    order: OrderState,
    is_discarded: bool,
    obstacle: Option<&'static str>,
}

impl Target {
    async fn load(visit: &Visit, id: &str) -> Loaded<Self> {
        let path = dead_letters::api_path(id);
        let dead_letter = visit.may("ops:read").then(|| visit.api.get::<DeadLetter>(&path));
        let order_path = api_path(id);
        let (order, dead_letter) =
            tokio::join!(visit.api.get::<Order>(&order_path), OptionFuture::from(dead_letter));
        let order = order?.state;
        // A key that may not read dead letters gets the form; a second discard changes nothing.
        let is_discarded =
            dead_letter.is_some_and(|found| found.is_ok_and(|found| found.is_discarded));
        let obstacle = ActionTarget::of_order(&order, is_discarded).discard_obstacle();
        Ok(Self { order, is_discarded, obstacle })
    }
}

/// Shows the form.
pub(crate) async fn show_form(visit: Visit, Path(id): Path<String>) -> Result<Response, Response> {
    let target = Target::load(&visit, &id).await;
    let target = target.map_err(|error| visit.show_error(TITLE, &error))?;
    Ok(render(&visit, StatusCode::OK, &target, &DiscardForm::default(), &html! {}))
}

/// Discards the dead letter.
pub(crate) async fn submit(
    Path(id): Path<String>,
    Submission { visit, fields }: Submission<DiscardForm>,
) -> Result<Response, Response> {
    let (status, message) = match typed_text(&fields.reason) {
        None => (StatusCode::UNPROCESSABLE_ENTITY, show_fault(MISSING_REASON)),
        Some(reason) => {
            let path = format!("{}/discard", dead_letters::api_path(&id));
            let actor = typed_actor(&visit, &fields.actor);
            let request = DiscardRequest { actor, reason: Some(reason) };
            let discarded = visit
                .api
                .post_if_match::<DiscardedOrder>(&path, &request, Some(fields.revision))
                .await;
            match discarded {
                Ok(discarded) => return Ok(show_discarded(&visit, discarded.order_id)),
                Err(error) => (error.status, refusal(&error)),
            }
        }
    };
    let target = Target::load(&visit, &id).await;
    let target = target.map_err(|error| visit.show_error(TITLE, &error))?;
    let message = if status == StatusCode::PRECONDITION_FAILED {
        // Another visitor's discard, or the first of two clicks.
        if target.is_discarded {
            return Ok(show_discarded(&visit, target.order.order_id));
        }
        let has_obstacle = target.obstacle.is_some();
        show_changed(fields.revision, &target.order, "discarded", has_obstacle, &html! {})
    } else {
        message
    };
    Ok(render(&visit, status, &target, &fields, &message))
}

fn show_discarded(visit: &Visit, order_id: Uuid) -> Response {
    visit.redirect(&order_address(order_id), &Notice::success("The dead letter is discarded."))
}

fn render(
    visit: &Visit,
    status: StatusCode,
    Target { order, obstacle, .. }: &Target,
    form: &DiscardForm,
    message: &Markup,
) -> Response {
    let address = order_address(order.order_id);
    let fields = html! {
        p {
            "The order stays failed, and its dead letter is resolved: it is no longer listed or counted. "
            "A redrive remains possible. You see revision " (order.revision) " of the order."
        }
        input type="hidden" name="revision" value=(order.revision);
        (reason_field(&form.reason))
        (actor_field(visit, &form.actor))
        p.actions { button.danger type="submit" { "Discard dead letter" } }
    };
    let body = html! {
        h1 { (TITLE) " " code { (order.order_id) } }
        (message)
        div.columns {
            section.panel {
                (form_or_obstacle(visit, *obstacle, "discard dead letters", || {
                    post_form(visit, &format!("{address}/discard"), &fields)
                }))
                p { a href=(address) { "Back to the order" } }
            }
            section.panel {
                h2 { "State" }
                (state::show_facts(order, visit.now))
                (state::show_items("Items", &order.items))
            }
        }
    };
    visit.show_with_status(status, Page::new(TITLE, body).in_section(Section::Orders))
}
