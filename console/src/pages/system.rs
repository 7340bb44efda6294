//! The system: version, health, settings, API keys, the visitor's own permissions, and documents.

mod settings;

use api_types::{ApiKeyInfo, ApiKeyList, HealthReport, HealthState, SystemInfo};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::components::{badge, dash, empty, loaded, optional_time, panel, table, time};
use crate::page::{Page, Section};
use crate::visit::Visit;

/// Documents of the repository, by subject.
const DOCUMENTS: [(&str, &str); 11] = [
    ("First steps", "README.md"),
    ("Console", "docs/console.md"),
    ("Operation", "docs/OPERATIONS.md"),
    ("Upgrades", "docs/UPGRADING.md"),
    ("Runbooks of the alerts", "docs/runbooks/README.md"),
    ("Errors of the API", "docs/problems/README.md"),
    ("Checks of dofs doctor", "docs/doctor.md"),
    ("Metrics", "docs/metrics.md"),
    ("Events", "docs/EVENTS.md"),
    ("Audit", "docs/AUDIT.md"),
    ("Sizes and limits", "docs/sizing.md"),
];

/// Shows the page.
pub(crate) async fn show(visit: Visit) -> Result<Response, Response> {
    let (system, keys, health) = tokio::join!(
        visit.api.get::<SystemInfo>("/v1/ops/system"),
        visit.api.get::<ApiKeyList>("/v1/ops/keys"),
        visit.api.get_health(),
    );
    let system = visit.require_access("System", system)?;
    let body = html! {
        h1 { "System" }
        (panel("Process", &loaded(&system, |system| show_process(system, visit.now))))
        (panel("Health checks", &loaded(&health, show_health)))
        (panel("Your permissions", &show_principal(&visit)))
        (panel("API keys", &loaded(&keys, |keys| show_keys(keys, visit.now))))
        (panel("Settings", &loaded(&system, |system| settings::show(&system.settings))))
        (panel("Documents", &show_documents()))
    };
    Ok(visit.show(Page::new("System", body).in_section(Section::System)))
}

fn show_process(system: &SystemInfo, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            dt { "Version" } dd { (system.version) }
            dt { "Commit" }
            dd { @if let Some(commit) = &system.commit { code { (commit) } } @else { (dash()) } }
            dt { "Environment" } dd { (system.environment) }
            dt { "Roles" } dd { (system.roles.join(", ")) }
            dt { "Started" } dd { (time(system.started_at, now)) }
        }
        p.hint { "The process that answered this request. Another process may answer the next one." }
    }
}

fn show_health(report: &HealthReport) -> Markup {
    let checks = report.checks.iter().flatten();
    let rows = html! {
        @for (name, state) in checks {
            @let reason = report.reasons.as_ref().and_then(|reasons| reasons.get(name));
            tr {
                th scope="row" { (name) }
                td { (health_state(*state)) }
                td { @if let Some(reason) = reason { (reason) } @else { (dash()) } }
            }
        }
    };
    html! {
        p { (health_state(report.status)) }
        @if report.checks.is_some() { (table("Health checks", &["Check", "State", "Reason"], &rows)) }
    }
}

fn health_state(state: HealthState) -> Markup {
    match state {
        HealthState::Ok => badge("good", "ok"),
        HealthState::Degraded => badge("warning", "degraded"),
        HealthState::Unavailable => badge("bad", "unavailable"),
        HealthState::Draining => badge("warning", "draining: the process is stopping"),
    }
}

fn show_principal(visit: &Visit) -> Markup {
    let principal = &visit.principal;
    html! {
        dl.facts {
            dt { "Name" } dd { (principal.actor) }
            dt { "Tenant" }
            dd { @if let Some(tenant) = &principal.tenant { (tenant) } @else { "all tenants" } }
            dt { "Scopes" } dd { (principal.scopes.join(", ")) }
            dt { "Session" }
            dd {
                @if principal.requires_key { "expires " (time(visit.session.expires_at, visit.now)) }
                @else { "The API requires no key." }
            }
        }
    }
}

fn show_keys(keys: &ApiKeyList, now: Timestamp) -> Markup {
    const COLUMNS: [&str; 8] =
        ["Name", "Key id", "State", "Tenant", "Scopes", "Created", "Expires", "Revoked"];
    let rows = html! { @for key in &keys.items { (key_row(key, now)) } };
    html! {
        @if keys.items.is_empty() { (empty("No API keys. The command dofs keys create makes one.")) }
        @else { (table("API keys, newest first", &COLUMNS, &rows)) }
    }
}

fn key_row(key: &ApiKeyInfo, now: Timestamp) -> Markup {
    let state = if key.revoked_at.is_some() {
        badge("bad", "revoked")
    } else if key.expires_at.is_some_and(|at| at <= now) {
        badge("warning", "expired")
    } else {
        badge("good", "valid")
    };
    html! {
        tr {
            th scope="row" { (key.name) }
            td { code { (key.key_id) } }
            td { (state) }
            td { @if let Some(tenant) = &key.tenant { (tenant) } @else { "all" } }
            td { (key.scopes.join(", ")) }
            td { (time(key.created_at, now)) }
            td { (optional_time(key.expires_at, now)) }
            td { (optional_time(key.revoked_at, now)) }
        }
    }
}

fn show_documents() -> Markup {
    html! {
        p.actions {
            a.button href="/docs/" { "API reference" }
            a.button href="/openapi.json" { "OpenAPI document" }
        }
        p { "Files of the repository:" }
        dl.facts {
            @for (subject, file) in DOCUMENTS { dt { (subject) } dd { code { (file) } } }
        }
    }
}
