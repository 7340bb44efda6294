//! Commands that show the same as the page, with placeholders for the address and the key.

use maud::{Markup, html};

use super::{OrderView, copy_button};
use crate::visit::Visit;

pub(super) fn show(visit: &Visit, view: &OrderView) -> Markup {
    html! {
        p.hint {
            "Set " code { "DOFS_URL" } " to the address of the API"
            @if visit.principal.requires_key { " and " code { "DOFS_API_KEY" } " to your key" }
            "."
        }
        pre #commands tabindex="0" { (commands(visit, view).join("\n")) }
        p { (copy_button("commands")) }
    }
}

fn commands(visit: &Visit, view: &OrderView) -> Vec<String> {
    let id = view.order.state.order_id;
    let key = if visit.principal.requires_key {
        "-H \"Authorization: Bearer $DOFS_API_KEY\" "
    } else {
        ""
    };
    let get = |path: &str| format!("curl {key}\"$DOFS_URL/v1/orders/{id}{path}\"");
    let mut commands = vec![get(""), format!("dofs order get {id}")];
    if view.history.is_none() {
        return commands;
    }
    commands.extend([get("/history"), format!("dofs audit show {id}")]);
    // Only points that the API has understood: their texts are revisions or times.
    if let Some(Ok(past)) = &view.past {
        let revision = past.from.revision;
        commands.push(get(&format!("?at_revision={revision}")));
        commands.push(format!("dofs audit show {id} --at-revision {revision}"));
    }
    if let Some(Ok(compared)) = &view.comparison {
        let (from, to) = (compared.from.revision, compared.to.revision);
        commands.push(get(&format!("/history/compare?from={from}&to={to}")));
        commands.push(format!("dofs audit compare {id} {from} {to}"));
    }
    commands
}
