//! Architecture rules of ARCHITECTURE.md that rustc and clippy cannot check.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Allowed imports between the crates of the workspace. Each new entry is an architecture change.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("api-types", &["domain"]),
    ("service-kit", &["api-types"]),
    ("event-log", &["domain", "service-kit"]),
    ("event-node", &["service-kit"]),
    ("conformance", &[]),
    ("console", &["api-types", "service-kit"]),
    ("command-api", &["api-types", "domain", "event-log", "service-kit"]),
    ("fulfillment-worker", &["domain", "event-log", "service-kit"]),
    ("projectors", &["api-types", "domain", "event-log", "service-kit"]),
    (
        "dofs",
        &[
            "api-types",
            "command-api",
            "console",
            "domain",
            "event-log",
            "event-node",
            "fulfillment-worker",
            "projectors",
            "service-kit",
        ],
    ),
];

/// Third-party crates that tie code to a technology, and the crates that may depend on them.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("kurrentdb", &["event-log", "conformance"]),
    ("filedescriptor", &["event-log"]),
    ("sqlx", &["projectors"]),
    ("tonic", &["event-node", "conformance"]),
    ("prost", &["event-node", "conformance"]),
    ("clap", &["dofs", "conformance"]),
    ("metrics-exporter-prometheus", &["service-kit"]),
    ("maud", &["console"]),
    ("metrics-process", &["service-kit"]),
    ("reqwest", &["dofs", "fulfillment-worker", "conformance", "service-kit"]),
    ("opentelemetry", &["service-kit"]),
    ("opentelemetry-http", &["service-kit"]),
    ("opentelemetry-otlp", &["service-kit"]),
    ("opentelemetry_sdk", &["service-kit"]),
    ("tracing-opentelemetry", &["service-kit"]),
    ("axum", &["service-kit", "command-api", "console", "event-node", "projectors", "dofs"]),
];

/// Crates with I/O, time or randomness, which the domain must not depend on.
const NEVER_IN_DOMAIN: &[&str] = &["tokio", "axum", "sqlx", "kurrentdb", "rand", "tracing"];

const MAX_FILE_LINES: usize = 500;

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn cargo_metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the names of a package's dependencies, without dev-dependencies.
fn non_dev_dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    dependencies
        .filter(|dependency| dependency["kind"] != "dev")
        .map(|dependency| dependency["name"].as_str().unwrap())
}

fn find_forbidden_imports(metadata: &Value) -> Vec<String> {
    let mut forbidden = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let importer = package["name"].as_str().unwrap();
        if importer == "testkit" {
            continue;
        }
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == importer);
        let Some((_, allowed)) = allowed else {
            forbidden.push(format!("{importer} is not in MAY_IMPORT"));
            continue;
        };
        for import in non_dev_dependencies(package) {
            let is_ours = import == "testkit" || MAY_IMPORT.iter().any(|(name, _)| *name == import);
            let restriction = ONLY_IN.iter().find(|(name, _)| *name == import);
            let is_impure = importer == "domain" && NEVER_IN_DOMAIN.contains(&import);
            if (is_ours && !allowed.contains(&import))
                || restriction.is_some_and(|(_, homes)| !homes.contains(&importer))
                || is_impure
            {
                forbidden.push(format!("{importer} imports {import}"));
            }
        }
    }
    forbidden
}

#[test]
fn crates_import_only_allowed_crates() {
    assert_eq!(find_forbidden_imports(&cargo_metadata()), Vec::<String>::new());
}

#[test]
fn forbidden_import_is_reported() {
    let metadata = serde_json::json!({"packages": [
        {"name": "domain", "dependencies": [{"name": "tokio", "kind": null}]},
        {"name": "command-api", "dependencies": [
            {"name": "sqlx", "kind": null},
            {"name": "projectors", "kind": null},
            {"name": "testkit", "kind": "dev"},
        ]},
    ]});
    assert_eq!(
        find_forbidden_imports(&metadata),
        ["domain imports tokio", "command-api imports sqlx", "command-api imports projectors"]
    );
}

/// Beginning of the first line of a generated file.
const GENERATED: &str = "// This file is @generated";

/// Returns every handwritten Rust source of the workspace, with its text.
fn read_sources() -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut folders: Vec<_> =
        MAY_IMPORT.iter().map(|(name, _)| workspace_root().join(name)).collect();
    folders.push(workspace_root().join("testkit"));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                if !text.starts_with(GENERATED) {
                    sources.push((path, text));
                }
            }
        }
    }
    sources
}

#[test]
fn files_have_at_most_500_lines() {
    let long: Vec<_> = read_sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > MAX_FILE_LINES)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn every_file_has_a_module_doc() {
    let without_doc: BTreeSet<_> = read_sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(without_doc, BTreeSet::new());
}

#[test]
fn modules_are_named_files() {
    // Next to integration tests, a file with the name of the module would be another test.
    let unnamed = read_sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with("mod.rs") && !path.iter().any(|part| part == "tests"));
    assert_eq!(unnamed.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}
