//! Generates tests that run the checks in the packages of the official clients.
//!
//! No code is copied. The generated files include the packages' files from cargo's registry.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The official Rust client under its new and its old name.
const PACKAGES: [&str; 2] = ["kurrentdb", "eventstore"];

/// Modules of a client's tests: name, and file inside the package.
const CHECKS: [(&str, &str); 2] = [
    ("persistent_subscriptions", "tests/api/persistent_subscriptions.rs"),
    ("streams", "tests/api/streams.rs"),
];

/// Module of functions that the checks share: name, and file inside the package.
const SHARED: (&str, &str) = ("common", "tests/common.rs");

/// Writes `<package>_checks.rs` to `out_dir` for each client.
pub(crate) fn generate_tests(out_dir: &Path) -> Result<(), Box<dyn Error>> {
    // A change of the lock file or of cargo's home may change the versions or paths of the
    // packages.
    println!("cargo::rerun-if-changed=../Cargo.lock");
    println!("cargo::rerun-if-env-changed=CARGO_HOME");
    let metadata = read_cargo_metadata()?;
    for package in PACKAGES {
        let folder = find_package_folder(&metadata, package).ok_or_else(|| {
            format!("package `{package}` is missing in the output of cargo metadata")
        })?;
        let tests = generate_package_tests(&folder)?;
        fs::write(out_dir.join(format!("{package}_checks.rs")), tests)?;
    }
    Ok(())
}

/// Returns modules that include the package's files, each followed by tests for its checks.
fn generate_package_tests(folder: &Path) -> Result<String, String> {
    let (shared, file) = SHARED;
    let mut tests = include_module(shared, &folder.join(file), "");
    for (name, file) in CHECKS {
        let file = folder.join(file);
        println!("cargo::rerun-if-changed={}", file.display());
        let source = fs::read_to_string(&file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let checks: Vec<_> = find_checks(&source).collect();
        // Without this error, a package with a new layout of its tests would pass with no checks at
        // all.
        if checks.is_empty() {
            return Err(format!("{} has no function `test_...`", file.display()));
        }
        let checks: String = checks.iter().map(Check::to_test).collect();
        tests += &include_module(name, &file, &checks);
    }
    Ok(tests)
}

fn include_module(name: &str, file: &Path, tests: &str) -> String {
    let expect = "#[expect(warnings, clippy::disallowed_methods, reason = \"not our file\")]";
    let file = file.display().to_string();
    format!("{expect}\nmod {name} {{\ninclude!({file:?});\n{tests}}}\n")
}

/// A check: a function `test_...` of the client's tests.
struct Check<'a> {
    name: &'a str,
    takes_names: bool,
}

impl Check<'_> {
    fn to_test(&self) -> String {
        let Self { name, takes_names } = self;
        let names = if *takes_names { ", &mut names::Generator::default()" } else { "" };
        format!(
            "#[tokio::test(flavor = \"multi_thread\")]\n\
             async fn {name}_passes() {{\n\
             let data = tempfile::tempdir().unwrap();\n\
             let node = testkit::node::TestNode::start(data.path(), \"127.0.0.1:0\").await;\n\
             let client = crate::connect_and_append(&node).await;\n\
             test_{name}(&client{names}).await.unwrap();\n\
             node.stop().await;\n}}\n"
        )
    }
}

fn find_checks(source: &str) -> impl Iterator<Item = Check<'_>> {
    source.split("\nasync fn test_").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (parameters, _) = rest.split_once('{')?;
        Some(Check { name, takes_names: parameters.contains("names") })
    })
}

/// Runs `cargo metadata`.
///
/// Without `--offline`, because cargo also resolves the packages of the rest of the workspace and
/// fetches missing ones.
fn read_cargo_metadata() -> Result<Value, Box<dyn Error>> {
    let cargo = env::var_os("CARGO").ok_or("cargo sets CARGO for build scripts")?;
    let target = env::var_os("TARGET").ok_or("cargo sets TARGET for build scripts")?;
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
        .arg(target)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Returns the folder of a package in cargo's registry.
fn find_package_folder(metadata: &Value, name: &str) -> Option<PathBuf> {
    let packages = metadata.get("packages")?.as_array()?;
    let package = packages.iter().find(|package| package["name"] == name)?;
    Some(Path::new(package["manifest_path"].as_str()?).parent()?.to_owned())
}
