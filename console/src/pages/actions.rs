//! The actions of operators, with actor and reason.

use api_types::{ApiKeyInfo, ApiKeyList, OperatorAction, OperatorActionKind, OperatorActionPage};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::api::Loaded;
use crate::components::{dash, empty, loaded, next_page, order_link, table, task_address, time};
use crate::form::{parse_time, time_field, typed_text};
use crate::page::{Page, Section};
use crate::visit::Visit;

const ADDRESS: &str = "/console/actions";
/// The API records the id of a key with this prefix as the actor.
const ACTOR_PREFIX: &str = "api-key:";
const COLUMNS: [&str; 6] = ["Time", "Action", "Actor", "Reason", "Concerns", "Detail"];
const KINDS: [OperatorActionKind; 8] = [
    OperatorActionKind::OrderRedriven,
    OperatorActionKind::DeadLetterDiscarded,
    OperatorActionKind::RedriveStarted,
    OperatorActionKind::RedriveCancelled,
    OperatorActionKind::WorkersPaused,
    OperatorActionKind::WorkersResumed,
    OperatorActionKind::ApiKeyCreated,
    OperatorActionKind::ApiKeyRevoked,
];

/// Filters and place, as in the address of the page. The API has the same names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct ActionsQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl ActionsQuery {
    /// Leaves out what the visitor has left empty, and reads times without an offset as UTC.
    fn normalize(self) -> Self {
        let text = |text: Option<String>| text.as_deref().and_then(typed_text);
        // The API names the fault of a text that is not a time.
        let time =
            |time| text(time).map(|text| parse_time(&text).map_or(text, |time| time.to_string()));
        Self {
            kind: text(self.kind),
            actor: text(self.actor),
            from: time(self.from),
            to: time(self.to),
            cursor: text(self.cursor),
        }
    }

    fn has_filter(&self) -> bool {
        *self != Self { cursor: self.cursor.clone(), ..Self::default() }
    }
}

/// Shows the page.
pub(crate) async fn show(visit: Visit) -> Result<Response, Response> {
    let query = visit.query::<ActionsQuery>()?.normalize();
    let (actions, keys) = tokio::join!(
        visit.api.get_with::<OperatorActionPage>("/v1/ops/actions", &query),
        load_keys(&visit),
    );
    let actions = visit.require_access("Actions", actions)?;
    let body = html! {
        h1 { "Actions" }
        (filter_form(&query))
        (show_page(&actions, &keys, &query, visit.now))
    };
    Ok(visit.show(Page::new("Actions", body).in_section(Section::Actions)))
}

/// Returns the API keys, whose names the page shows. Without them, it shows the ids that are recorded.
async fn load_keys(visit: &Visit) -> Vec<ApiKeyInfo> {
    if !visit.principal.requires_key {
        return Vec::new();
    }
    let keys = visit.api.get::<ApiKeyList>("/v1/ops/keys").await;
    keys.map_or_else(|_| Vec::new(), |keys| keys.items)
}

fn show_page(
    actions: &Loaded<OperatorActionPage>,
    keys: &[ApiKeyInfo],
    query: &ActionsQuery,
    now: Timestamp,
) -> Markup {
    loaded(actions, |page| {
        let rows = html! { @for action in &page.items { (row(action, keys, now)) } };
        let next = page.next_cursor.as_ref().and_then(|cursor| {
            let query = ActionsQuery { cursor: Some(cursor.clone()), ..query.clone() };
            serde_html_form::to_string(query).ok()
        });
        html! {
            @if !page.items.is_empty() {
                (table("Actions of operators, newest first", &COLUMNS, &rows))
            } @else if query.has_filter() {
                (empty("No action matches these filters."))
            } @else {
                (empty("No operator has acted yet."))
            }
            (next_page(next.map(|query| format!("{ADDRESS}?{query}")).as_deref()))
        }
    })
}

fn row(action: &OperatorAction, keys: &[ApiKeyInfo], now: Timestamp) -> Markup {
    let key_id = action.actor.strip_prefix(ACTOR_PREFIX);
    let key = key_id.and_then(|id| keys.iter().find(|key| key.key_id == id));
    html! {
        tr {
            td { (time(action.at, now)) }
            td { (kind_name(action.kind)) }
            td { @if let Some(key) = key { (key.name) br; } (action.actor) }
            td { @if let Some(reason) = &action.reason { (reason) } @else { (dash()) } }
            td { (subject(action)) }
            td { @if let Some(detail) = &action.detail { (detail) } @else { (dash()) } }
        }
    }
}

/// Returns a link to the order or the task that the action concerns.
fn subject(action: &OperatorAction) -> Markup {
    html! {
        @if let Some(order_id) = action.order_id {
            (order_link(order_id))
        } @else if let Some(task_id) = action.task_id {
            a href=(task_address(task_id)) { "Redrive task" }
        } @else {
            (dash())
        }
    }
}

fn kind_name(kind: OperatorActionKind) -> &'static str {
    match kind {
        OperatorActionKind::OrderRedriven => "Order redriven",
        OperatorActionKind::DeadLetterDiscarded => "Dead letter discarded",
        OperatorActionKind::RedriveStarted => "Redrive started",
        OperatorActionKind::RedriveCancelled => "Redrive cancelled",
        OperatorActionKind::WorkersPaused => "Workers paused",
        OperatorActionKind::WorkersResumed => "Workers resumed",
        OperatorActionKind::ApiKeyCreated => "API key created",
        OperatorActionKind::ApiKeyRevoked => "API key revoked",
    }
}

/// Returns the name of a kind in addresses: the one of the API.
fn kind_value(kind: OperatorActionKind) -> String {
    let name = serde_json::to_value(kind);
    name.ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn filter_form(query: &ActionsQuery) -> Markup {
    html! {
        form.filters action=(ADDRESS) {
            div {
                label for="kind" { "Action" }
                select #kind name="kind" {
                    option value="" { "All" }
                    @for kind in KINDS {
                        @let value = kind_value(kind);
                        option value=(value) selected[query.kind.as_ref() == Some(&value)] {
                            (kind_name(kind))
                        }
                    }
                }
            }
            div {
                label for="actor" { "Actor" }
                input #actor name="actor" value=[query.actor.as_deref()] maxlength="256" autocomplete="off";
            }
            (time_field("from", "From (UTC)", query.from.as_deref().unwrap_or_default()))
            (time_field("to", "Before (UTC)", query.to.as_deref().unwrap_or_default()))
            button type="submit" { "Filter" }
            @if query.has_filter() { a.button href=(ADDRESS) { "Clear" } }
        }
    }
}
