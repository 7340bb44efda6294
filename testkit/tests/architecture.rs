//! What ARCHITECTURE.md says of the code's shape and neither rustc nor clippy can check.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may import whom inside the workspace. A new line here is an architecture change.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("api-types", &["domain"]),
    ("service-kit", &["api-types"]),
    ("event-log", &["domain", "service-kit"]),
    ("event-node", &["service-kit"]),
    ("conformance", &[]),
    ("command-api", &["api-types", "domain", "event-log", "service-kit"]),
    ("fulfillment-worker", &["domain", "event-log", "service-kit"]),
    ("projectors", &["api-types", "domain", "event-log", "service-kit"]),
    (
        "dofs",
        &[
            "api-types",
            "command-api",
            "domain",
            "event-log",
            "event-node",
            "fulfillment-worker",
            "projectors",
            "service-kit",
        ],
    ),
];

/// Outside crates that bring a technology with them, and the crates that may name them.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("kurrentdb", &["event-log", "conformance"]),
    ("filedescriptor", &["event-log"]),
    ("sqlx", &["projectors"]),
    ("tonic", &["event-node", "conformance"]),
    ("prost", &["event-node", "conformance"]),
    ("clap", &["dofs", "conformance"]),
    ("reqwest", &["dofs", "fulfillment-worker", "conformance"]),
    ("axum", &["service-kit", "command-api", "event-node", "projectors", "dofs"]),
];

/// What keeps the domain pure.
const NEVER_IN_DOMAIN: &[&str] = &["tokio", "axum", "sqlx", "kurrentdb", "rand", "tracing"];

const MAX_FILE_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a package imports when it is built, as opposed to when it is tested.
fn imports(package: &Value) -> impl Iterator<Item = &str> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    dependencies.filter(|it| it["kind"] != "dev").map(|it| it["name"].as_str().unwrap())
}

fn forbidden_imports(metadata: &Value) -> Vec<String> {
    let mut forbidden = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let importer = package["name"].as_str().unwrap();
        if importer == "testkit" {
            continue;
        }
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == importer);
        let Some((_, allowed)) = allowed else {
            forbidden.push(format!("{importer} is not in the table"));
            continue;
        };
        for import in imports(package) {
            let ours = import == "testkit" || MAY_IMPORT.iter().any(|(name, _)| *name == import);
            let fenced = ONLY_IN.iter().find(|(name, _)| *name == import);
            let impure = importer == "domain" && NEVER_IN_DOMAIN.contains(&import);
            if (ours && !allowed.contains(&import))
                || fenced.is_some_and(|(_, homes)| !homes.contains(&importer))
                || impure
            {
                forbidden.push(format!("{importer} imports {import}"));
            }
        }
    }
    forbidden
}

#[test]
fn crates_import_only_what_the_table_allows() {
    assert_eq!(forbidden_imports(&metadata()), Vec::<String>::new());
}

#[test]
fn an_import_against_the_table_is_found() {
    let metadata = serde_json::json!({"packages": [
        {"name": "domain", "dependencies": [{"name": "tokio", "kind": null}]},
        {"name": "command-api", "dependencies": [
            {"name": "sqlx", "kind": null},
            {"name": "projectors", "kind": null},
            {"name": "testkit", "kind": "dev"},
        ]},
    ]});
    assert_eq!(
        forbidden_imports(&metadata),
        ["domain imports tokio", "command-api imports sqlx", "command-api imports projectors"]
    );
}

/// What the first line of a file begins with that a generator wrote.
const GENERATED: &str = "// This file is @generated";

/// Every Rust source of the workspace that is written by hand, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut folders: Vec<_> = MAY_IMPORT.iter().map(|(name, _)| root().join(name)).collect();
    folders.push(root().join("testkit"));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
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
fn files_can_be_read_in_a_sitting() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > MAX_FILE_LINES)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: BTreeSet<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(silent, BTreeSet::new());
}

#[test]
fn modules_are_named_files() {
    // Beside integration tests a named file would be a test of its own.
    let unnamed = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|it| it.ends_with("mod.rs") && !it.iter().any(|part| part == "tests"));
    assert_eq!(unnamed.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}
