//! The form that queues a failed order again, as it is or corrected.

use api_types::{FieldChange, Order, OrderItem, OrderState, RedriveOrderRequest, RedrivenOrder};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{api_path, changes, state};
use crate::components::order_address;
use crate::form::{
    MISSING_REASON, Submission, actor_field, post_form, reason_field, refusal, show_fault,
    typed_actor, typed_text,
};
use crate::page::{Page, Section};
use crate::pages::order_actions::{ActionTarget, form_or_obstacle, show_changed};
use crate::session::Notice;
use crate::visit::Visit;

const TITLE: &str = "Redrive order";

/// The form as the visitor submitted it.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct RedriveForm {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    customer_id: String,
    #[serde(default)]
    product_id: Vec<String>,
    #[serde(default)]
    quantity: Vec<String>,
    /// Revision of the order that the visitor saw.
    revision: u64,
    /// Present if the visitor asked for one more line of items.
    add_line: Option<String>,
}

impl RedriveForm {
    /// Returns the form for an order without corrections.
    fn of(order: &OrderState) -> Self {
        Self {
            customer_id: order.customer_id.clone(),
            product_id: order.items.iter().map(|item| item.product_id.clone()).collect(),
            quantity: order.items.iter().map(|item| item.quantity.to_string()).collect(),
            revision: order.revision,
            ..Self::default()
        }
    }

    fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.product_id
            .iter()
            .zip(&self.quantity)
            .map(|(product, quantity)| (&**product, &**quantity))
    }

    /// Returns the request without its actor: the members that differ from the order that the visitor saw.
    fn request(&self, seen: &OrderState) -> RedriveOrderRequest {
        let customer_id =
            Some(&self.customer_id).filter(|typed| !is_unchanged(typed, &seen.customer_id));
        let is_filled = |(product, quantity): &(&str, &str)| {
            !product.trim().is_empty() || !quantity.trim().is_empty()
        };
        let lines: Vec<_> = self.lines().collect();
        let is_same_line = |((product, quantity), item): (&(&str, &str), &OrderItem)| {
            is_unchanged(product, &item.product_id) && *quantity == item.quantity.to_string()
        };
        let is_same =
            lines.len() == seen.items.len() && lines.iter().zip(&seen.items).all(is_same_line);
        let items = lines.into_iter().enumerate().filter(|(_, line)| is_filled(line));
        let items = items.map(|(index, line)| to_item(line, seen.items.get(index)));
        RedriveOrderRequest {
            actor: None,
            reason: typed_text(&self.reason),
            customer_id: customer_id.cloned(),
            items: (!is_same).then(|| items.collect::<Vec<_>>().into()),
        }
    }
}

/// Returns whether a field has its first value. Browsers remove line breaks from the value of a field.
fn is_unchanged(typed: &str, stored: &str) -> bool {
    typed == stored || typed == stored.replace(['\r', '\n'], "")
}

/// Returns a line as an item. The API names the fault of a quantity that is not a number.
fn to_item((product, quantity): (&str, &str), seen: Option<&OrderItem>) -> Value {
    let stored = seen.map(|item| item.product_id.as_str());
    let product = stored.filter(|stored| is_unchanged(product, stored)).unwrap_or(product);
    let quantity = quantity.trim();
    let quantity = quantity.parse::<u64>().map_or_else(|_| Value::from(quantity), Value::from);
    json!({"product_id": product, "quantity": quantity})
}

/// Shows the form.
pub(crate) async fn show_form(visit: Visit, Path(id): Path<String>) -> Result<Response, Response> {
    let order: Order =
        visit.api.get(&api_path(&id)).await.map_err(|error| visit.show_error(TITLE, &error))?;
    let form = RedriveForm::of(&order.state);
    Ok(render(&visit, StatusCode::OK, &order.state, &form, &html! {}))
}

/// Redrives the order.
pub(crate) async fn submit(
    Path(id): Path<String>,
    Submission { visit, fields }: Submission<RedriveForm>,
) -> Result<Response, Response> {
    let path = api_path(&id);
    // The order that the visitor saw: differences from it are the visitor's corrections, those from a
    // newer revision would also be the changes of others.
    let seen: Order = visit
        .api
        .get(&format!("{path}?at_revision={}", fields.revision))
        .await
        .map_err(|error| visit.show_error(TITLE, &error))?;
    let seen = seen.state;
    if fields.add_line.is_some() {
        let mut form = fields;
        form.product_id.push(String::new());
        form.quantity.push(String::new());
        return Ok(render(&visit, StatusCode::OK, &seen, &form, &html! {}));
    }
    if typed_text(&fields.reason).is_none() {
        let message = show_fault(MISSING_REASON);
        return Ok(render(&visit, StatusCode::UNPROCESSABLE_ENTITY, &seen, &fields, &message));
    }
    let actor = typed_actor(&visit, &fields.actor);
    let request = RedriveOrderRequest { actor, ..fields.request(&seen) };
    let redriven = visit
        .api
        .post_if_match::<RedrivenOrder>(&format!("{path}/redrive"), &request, Some(fields.revision))
        .await;
    match redriven {
        Ok(redriven) => {
            let text = format!("The order is queued again: attempt {}.", redriven.attempt);
            Ok(visit.redirect(&order_address(redriven.order_id), &Notice::success(text)))
        }
        Err(error) if error.status == StatusCode::PRECONDITION_FAILED => {
            let current: Order =
                visit.api.get(&path).await.map_err(|error| visit.show_error(TITLE, &error))?;
            Ok(render_changed(&visit, &seen, &current.state, &request))
        }
        Err(error) => {
            let message = refusal(&error);
            Ok(render(&visit, error.status, &seen, &fields, &message))
        }
    }
}

/// Shows the form for the current order, with the visitor's corrections, and what others have changed.
fn render_changed(
    visit: &Visit,
    seen: &OrderState,
    current: &OrderState,
    request: &RedriveOrderRequest,
) -> Response {
    let mut form = RedriveForm::of(current);
    form.reason = request.reason.clone().unwrap_or_default();
    form.actor = request.actor.clone().unwrap_or_default();
    if let Some(customer_id) = &request.customer_id {
        form.customer_id.clone_from(customer_id);
    }
    if let Some(Value::Array(items)) = &request.items {
        let text = |item: &Value, name| {
            item[name].as_str().map_or_else(|| item[name].to_string(), str::to_owned)
        };
        form.product_id = items.iter().map(|item| text(item, "product_id")).collect();
        form.quantity = items.iter().map(|item| text(item, "quantity")).collect();
    }
    let changes = FieldChange::between(Some(seen), current);
    let changes = changes::show_list(&changes);
    let has_obstacle = ActionTarget::of_order(current, false).redrive_obstacle().is_some();
    let message = show_changed(seen.revision, current, "redriven", has_obstacle, &changes);
    render(visit, StatusCode::PRECONDITION_FAILED, current, &form, &message)
}

fn render(
    visit: &Visit,
    status: StatusCode,
    order: &OrderState,
    form: &RedriveForm,
    message: &Markup,
) -> Response {
    let obstacle = ActionTarget::of_order(order, false).redrive_obstacle();
    let body = html! {
        h1 { (TITLE) " " code { (order.order_id) } }
        (message)
        div.columns {
            section.panel {
                (form_or_obstacle(visit, obstacle, "redrive orders", || {
                    show_fields(visit, order, form)
                }))
                p { a href=(order_address(order.order_id)) { "Back to the order" } }
            }
            section.panel { h2 { "State" } (state::show_facts(order, visit.now)) }
        }
    };
    visit.show_with_status(status, Page::new(TITLE, body).in_section(Section::Orders))
}

fn show_fields(visit: &Visit, order: &OrderState, form: &RedriveForm) -> Markup {
    let is_corrected = {
        let request = form.request(order);
        request.customer_id.is_some() || request.items.is_some()
    };
    let content = html! {
        p {
            "The order is queued again as attempt " (order.attempt.saturating_add(1))
            ", and the gateway receives it again."
        }
        input type="hidden" name="revision" value=(order.revision);
        // Enter in a field presses the first button of the form, which else would add a line of items.
        button type="submit" hidden {}
        (reason_field(&form.reason))
        (actor_field(visit, &form.actor))
        details.field open[is_corrected] {
            summary { "Correct the order first" }
            (show_corrections(form))
        }
        p.actions { button.primary type="submit" { "Redrive order" } }
    };
    post_form(visit, &format!("{}/redrive", order_address(order.order_id)), &content)
}

fn show_corrections(form: &RedriveForm) -> Markup {
    html! {
        div.field {
            label for="customer_id" { "Customer id" }
            input #customer_id name="customer_id" value=(form.customer_id) autocomplete="off"
                spellcheck="false";
        }
        fieldset {
            legend { "Items" }
            p.hint { "Clear both fields of a line to remove it." }
            @for (index, (product, quantity)) in form.lines().enumerate() {
                div.line {
                    input name="product_id" value=(product) aria-label={ "Product of line " (index + 1) }
                        autocomplete="off" spellcheck="false";
                    input name="quantity" value=(quantity) aria-label={ "Quantity of line " (index + 1) }
                        inputmode="numeric" autocomplete="off";
                }
            }
            button type="submit" name="add_line" value="1" formnovalidate { "Add a line" }
        }
    }
}
