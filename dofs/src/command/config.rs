//! `dofs config`: checks the settings, and shows them with their sources.

use std::process::ExitCode;

use serde_json::{Map, Value, json};
use service_kit::config::{EffectiveValue, Evaluation, SettingOrigin};
use service_kit::error::Chain;

use crate::cli::{Config, ConfigCommand, Global, Role};
use crate::error::CliError;
use crate::output::{USAGE_ERROR, print_json_or_text};
use crate::settings::{self, Settings, mask_setting};
use crate::system::ALL_ROLES;

/// Maximum width of the settings before the column of their sources; longer settings exceed it.
const MAX_SETTING_WIDTH: usize = 48;

pub(crate) fn run(arguments: &Config, global: &Global) -> Result<ExitCode, CliError> {
    match &arguments.command {
        ConfigCommand::Check { roles } => {
            check_settings(if roles.is_empty() { &ALL_ROLES } else { roles }, global)
        }
        ConfigCommand::Show { sources } => show_settings(*sources, global),
    }
}

fn check_settings(roles: &[Role], global: &Global) -> Result<ExitCode, CliError> {
    let evaluation = settings::evaluate(global)?;
    let problems = find_problems(&evaluation, roles);
    let environment = evaluation.settings.environment.as_str();
    let roles: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    let text = match problems.len() {
        0 => format!("settings are valid: environment {environment}, roles {}", roles.join(", ")),
        1 => format!("{}\n1 problem", problems.join("\n")),
        n_problems => format!("{}\n{n_problems} problems", problems.join("\n")),
    };
    let json = json!({"environment": environment, "roles": roles, "problems": problems});
    print_json_or_text(global, json, text)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(USAGE_ERROR) })
}

/// Returns everything for which a process with `roles` would refuse to start.
fn find_problems(evaluation: &Evaluation<Settings>, roles: &[Role]) -> Vec<String> {
    let Evaluation { settings, problems, .. } = evaluation;
    let invalid_keys: Vec<_> = problems
        .iter()
        .filter_map(|problem| problem.invalid_key().map(|key| format!("`{key}`")))
        .collect();
    let refusals = find_refusals(settings, roles)
        .into_iter()
        // A lower layer's value has replaced the invalid one; a problem of that value would mislead.
        .filter(|refusal| !invalid_keys.iter().any(|key| refusal.contains(key)));
    problems.iter().map(|problem| Chain(problem).to_string()).chain(refusals).collect()
}

/// Returns the errors of valid values: unsafe in the environment, or invalid together.
fn find_refusals(settings: &Settings, roles: &[Role]) -> Vec<String> {
    let unsafe_settings = settings.find_unsafe_settings(roles);
    let mut refusals: Vec<_> = unsafe_settings.iter().map(ToString::to_string).collect();
    refusals.extend(settings.api.find_errors().iter().map(ToString::to_string));
    if roles.contains(&Role::Worker) {
        refusals.extend(settings.fulfillment.find_errors().iter().map(ToString::to_string));
    }
    let needs_store = roles.iter().any(|role| matches!(role, Role::Worker | Role::Projector));
    if needs_store && settings.event_store.url.is_empty() {
        refusals.push(CliError::NoEventStore.to_string());
    }
    refusals
}

fn show_settings(with_sources: bool, global: &Global) -> Result<ExitCode, CliError> {
    let Evaluation { settings, values, problems } = settings::evaluate(global)?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem.into());
    }
    let environment = settings.environment.as_str();
    let values: Vec<_> = values.into_iter().map(mask_setting).collect();
    let json = json!({
        "environment": environment,
        "settings": to_json(&values, with_sources),
    });
    print_json_or_text(global, json, to_toml(environment, &values, with_sources))?;
    Ok(ExitCode::SUCCESS)
}

fn to_json(values: &[EffectiveValue], with_sources: bool) -> Value {
    let mut sections = Map::new();
    for EffectiveValue { section, key, value, origin } in values {
        let value = if with_sources {
            json!({"value": value, "source": {"kind": kind_of(origin), "name": origin.name()}})
        } else {
            value.clone()
        };
        let section = sections.entry(section.clone()).or_insert_with(|| Map::new().into());
        section[key] = value;
    }
    sections.into()
}

/// Returns the kind of a source, for programs.
fn kind_of(origin: &SettingOrigin) -> &'static str {
    match origin {
        SettingOrigin::BuiltIn(_) => "built_in_file",
        SettingOrigin::File(_) => "file",
        SettingOrigin::Variable(_) => "environment_variable",
        SettingOrigin::Flag(_) => "flag",
    }
}

/// Formats the values as a TOML file, the sources as its comments.
fn to_toml(environment: &str, values: &[EffectiveValue], with_sources: bool) -> String {
    let format_setting =
        |value: &EffectiveValue| format!("{} = {}", value.key, format_value(&value.value));
    let widths = values.iter().map(|value| format_setting(value).chars().count());
    let width = widths.max().unwrap_or_default().min(MAX_SETTING_WIDTH);
    let mut lines = vec![format!("# DOFS_ENV: {environment}")];
    let mut current = None;
    for value in values {
        if current != Some(&value.section) {
            lines.push(format!("\n[{}]", value.section));
            current = Some(&value.section);
        }
        let setting = format_setting(value);
        lines.push(if with_sources {
            let origin = escape_text(&value.origin.to_string());
            format!("{setting:width$}  # {origin}")
        } else {
            setting
        });
    }
    lines.join("\n")
}

/// Formats a value as TOML. JSON's notation of text, numbers, booleans and arrays is valid in TOML
/// once every control character is escaped, which also protects the terminal.
fn format_value(value: &Value) -> String {
    escape_text(&value.to_string())
}

fn escape_text(text: &str) -> String {
    let escape = |character: char| {
        if character.is_control() {
            format!("\\u{:04x}", u32::from(character))
        } else {
            character.to_string()
        }
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use service_kit::config::Layers;

    use super::*;

    /// Returns what `config show` prints, as text and as JSON.
    fn show(layers: Layers) -> Option<(String, Value)> {
        let evaluation = layers.evaluate::<Settings>().ok()?;
        let values: Vec<_> = evaluation.values.into_iter().map(mask_setting).collect();
        Some((to_toml("dev", &values, true), to_json(&values, true)))
    }

    fn default_layers() -> Layers {
        Layers::new()
            .with_toml("default.toml", include_str!("../../../config/default.toml"))
            .with_toml("dev.toml", include_str!("../../../config/dev.toml"))
    }

    fn with_value(section: &str, key: &str, value: &str) -> Layers {
        let variable = format!("DOFS__{section}__{key}").to_uppercase();
        default_layers().with_environment([(variable, value.to_owned())])
    }

    #[test]
    fn shown_settings_are_valid_toml_with_the_same_values() {
        // Given settings with an array and control characters
        let layers = || {
            with_value("api", "cors_origins", "[\"https://shop.example\"]").with_flag(
                "--data",
                "node",
                "data",
                Some("a\u{7f}\u{9b}\"b\\ # c\n"),
            )
        };
        // When they are shown
        let (toml, json) = show(layers()).unwrap();
        // Then the output is a file with the same values
        assert!(!toml.chars().any(|it| it.is_control() && it != '\n'), "{toml}");
        let again = Layers::new().with_toml("shown.toml", &toml);
        let before = layers().evaluate::<Settings>().unwrap();
        let after = again.evaluate::<Settings>().unwrap();
        assert!(after.problems.is_empty(), "{:?}", after.problems);
        for (before, after) in before.values.iter().zip(&after.values) {
            assert_eq!(before.value, after.value, "{}.{}", before.section, before.key);
        }
        assert_eq!(json["node"]["data"]["source"], json!({"kind": "flag", "name": "--data"}));
        assert!(toml.contains("# environment variable `DOFS__API__CORS_ORIGINS`"), "{toml}");
        assert!(toml.contains("# built-in file `dev.toml`"), "{toml}");
    }

    #[test]
    fn problem_of_a_replaced_value_is_not_reported() {
        let layers = Layers::new()
            .with_toml("default.toml", include_str!("../../../config/default.toml"))
            .with_toml("production.toml", include_str!("../../../config/production.toml"));
        let gateway = [("DOFS__FULFILLMENT__GATEWAY".to_owned(), "htp".to_owned())];
        let mut evaluation = layers.with_environment(gateway).evaluate::<Settings>().unwrap();
        evaluation.settings.environment = settings::Environment::Production;
        let problems = find_problems(&evaluation, &ALL_ROLES);
        assert!(problems[0].contains("htp"), "{problems:?}");
        assert!(problems[1].contains("API keys would be sent unencrypted"), "{problems:?}");
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    proptest! {
        #[test]
        fn no_secret_is_ever_shown(characters in any::<String>(), position in 0..8_usize) {
            // Given a secret of any characters in a place where settings can contain one
            let secret = format!("s3cr3t{characters}");
            let (section, key, value) = match position {
                0 => ("event_store", "url", format!("esdb://admin:{secret}@store:2113?tls=false")),
                1 => ("event_store", "url", format!("esdb+discover://admin:{secret}@a:1,b:2")),
                2 => ("read_model", "url", format!("postgres://dofs:{secret}@db:5432/dofs")),
                3 => ("read_model", "url", format!("postgres://db/dofs?user=a&password={secret}")),
                4 => ("fulfillment", "url", format!("https://dofs:{secret}@warehouse/orders")),
                5 => ("fulfillment", "url", format!("https://warehouse/orders?key={secret}")),
                6 => ("fulfillment", "url", format!("https://warehouse/orders#{secret}")),
                _ => ("fulfillment", "url", format!("https://dofs:12/{secret}@warehouse")),
            };
            // When the settings are shown, or refused
            let evaluation = with_value(section, key, &value).evaluate::<Settings>().unwrap();
            let problems = find_problems(&evaluation, &ALL_ROLES).join("\n");
            prop_assert!(!problems.contains("s3cr3t"), "{problems}");
            let (toml, json) = show(with_value(section, key, &value)).unwrap();
            // Then not even the beginning of the secret is in the output
            prop_assert!(!toml.contains("s3cr3t") && !json.to_string().contains("s3cr3t"), "{toml}");
        }
    }
}
