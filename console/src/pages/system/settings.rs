//! Tables of the effective settings, one for each section.

use api_types::Setting;
use maud::{Markup, html};
use serde_json::Value;

use crate::components::{dash, empty, table};

/// Shows the settings by section. The API has masked the secrets.
pub(super) fn show(settings: &[Setting]) -> Markup {
    let sections = settings.chunk_by(|left, right| section(left) == section(right));
    html! {
        @if settings.is_empty() { (empty("No settings.")) }
        div.settings {
            @for settings in sections {
                @let name = settings.first().map_or("", section);
                h3 { (name) }
                (table(&format!("Settings of {name}"), &["Key", "Value", "Source"], &rows(settings)))
            }
        }
    }
}

fn rows(settings: &[Setting]) -> Markup {
    html! {
        @for setting in settings {
            tr {
                th scope="row" { code { (setting.key) } }
                td { (format_value(&setting.value)) }
                td { (setting.source) }
            }
        }
    }
}

/// Returns the part of the key before the first dot.
fn section(setting: &Setting) -> &str {
    setting.key.split('.').next().unwrap_or_default()
}

fn format_value(value: &Value) -> Markup {
    match value {
        Value::Null => dash(),
        Value::String(text) if text.is_empty() => html! { span.absent { "empty" } },
        Value::String(text) => html! { code { (text) } },
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            html! { code { (value) } }
        }
    }
}
