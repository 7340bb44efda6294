//! The form that discards a dead letter.

use api_types::{
    DeadLetter, DiscardRequest, DiscardedOrder, FailureStage, Order, OrderState, OrderStatus,
};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::OptionFuture;
use maud::{Markup, html};
use serde::Deserialize;

use super::operator::action_or_obstacle;
use super::{OrderQuery, api_path, page_address, state};
use crate::api::Loaded;
use crate::components::{callout, encode_component};
use crate::form::{Submission, actor_field, post_form, reason_field, refusal, typed_text};
use crate::page::{Page, Section};
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
}

/// The order, and why its dead letter cannot be discarded.
struct Target {
    order: OrderState,
    obstacle: Option<&'static str>,
}

impl Target {
    async fn load(visit: &Visit, id: &str) -> Loaded<Self> {
        let path = format!("/v1/dead-letters/{}", encode_component(id));
        let dead_letter = visit.may("ops:read").then(|| visit.api.get::<DeadLetter>(&path));
        let order_path = api_path(id);
        let (order, dead_letter) =
            tokio::join!(visit.api.get::<Order>(&order_path), OptionFuture::from(dead_letter));
        let order = order?.state;
        // A key that may not read dead letters gets the form; a second discard changes nothing.
        let is_discarded =
            dead_letter.is_some_and(|found| found.is_ok_and(|found| found.is_discarded));
        let obstacle = match (order.status, order.stage) {
            (OrderStatus::Failed, Some(FailureStage::DeadLetter)) if is_discarded => {
                Some("The dead letter is already discarded.")
            }
            (OrderStatus::Failed, Some(FailureStage::DeadLetter)) => None,
            _ => Some("The order is not a dead letter: there is nothing to discard."),
        };
        Ok(Self { order, obstacle })
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
        None => {
            let message = callout("error", html! { p { "A discard needs a reason." } });
            (StatusCode::UNPROCESSABLE_ENTITY, message)
        }
        Some(reason) => {
            let path = format!("/v1/dead-letters/{}/discard", encode_component(&id));
            let request = DiscardRequest { actor: typed_text(&fields.actor), reason: Some(reason) };
            match visit.api.post::<DiscardedOrder>(&path, &request).await {
                Ok(discarded) => {
                    let address = page_address(discarded.order_id, &OrderQuery::default());
                    let notice = Notice::success("The dead letter is discarded.".to_owned());
                    return Ok(visit.redirect(&address, &notice));
                }
                Err(error) => (error.status, refusal(&error)),
            }
        }
    };
    let target = Target::load(&visit, &id).await;
    let target = target.map_err(|error| visit.show_error(TITLE, &error))?;
    Ok(render(&visit, status, &target, &fields, &message))
}

fn render(
    visit: &Visit,
    status: StatusCode,
    Target { order, obstacle }: &Target,
    form: &DiscardForm,
    message: &Markup,
) -> Response {
    let address = page_address(order.order_id, &OrderQuery::default());
    let fields = html! {
        p {
            "The order stays failed, and its dead letter is resolved: it is no longer listed or counted. "
            "A redrive remains possible. You see revision " (order.revision) " of the order."
        }
        (reason_field(&form.reason))
        (actor_field(visit, &form.actor))
        p.actions { button.danger type="submit" { "Discard dead letter" } }
    };
    let body = html! {
        h1 { (TITLE) " " code { (order.order_id) } }
        (message)
        div.columns {
            section.panel {
                (action_or_obstacle(visit, *obstacle, "discard dead letters", || {
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
