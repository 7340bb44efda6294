//! `dofs version`: prints the versions of this release.

use std::process::ExitCode;

use domain::order::{CURRENT_SCHEMA, OLDEST_SCHEMA, RULES_VERSION};
use event_node::SERVER_VERSION;
use projectors::{PROJECTIONS, SCHEMA_VERSION};
use serde_json::{Map, json};

use crate::cli::Global;
use crate::error::CliError;
use crate::output::{format_table, print_json_or_text};
use crate::process::COMMIT;

pub(crate) fn run(global: &Global) -> Result<ExitCode, CliError> {
    let commit = COMMIT;
    let projections: Map<_, _> = PROJECTIONS
        .iter()
        .map(|projection| (projection.name.to_owned(), projection.version.into()))
        .collect();
    let json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit,
        "rustc": env!("DOFS_BUILD_RUSTC"),
        "target": env!("DOFS_BUILD_TARGET"),
        "event_schema": {"written": CURRENT_SCHEMA, "oldest_readable": OLDEST_SCHEMA},
        "rules": RULES_VERSION,
        "read_model_schema": SCHEMA_VERSION,
        "projections": projections,
        "event_store_protocol": SERVER_VERSION,
    });
    let events = if OLDEST_SCHEMA == CURRENT_SCHEMA {
        format!("version {CURRENT_SCHEMA}")
    } else {
        format!("version {CURRENT_SCHEMA}, reads from version {OLDEST_SCHEMA}")
    };
    let projections = PROJECTIONS.map(|it| format!("{} {}", it.name, it.version)).join(", ");
    let rows = [
        ("dofs", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", commit.unwrap_or("unknown").to_owned()),
        ("rustc", env!("DOFS_BUILD_RUSTC").to_owned()),
        ("target", env!("DOFS_BUILD_TARGET").to_owned()),
        ("stored events", events),
        ("business rules", format!("version {RULES_VERSION}")),
        ("read model schema", format!("version {SCHEMA_VERSION}")),
        ("projections", projections),
        ("event store protocol", format!("EventStoreDB {SERVER_VERSION}")),
    ];
    print_json_or_text(global, json, format_table(&["component", "version"], rows))?;
    Ok(ExitCode::SUCCESS)
}
