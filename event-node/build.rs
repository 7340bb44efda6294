//! Generates the gRPC services and messages from `proto/`, without `protoc`, and makes a test of
//! each check that the Rust clients' packages bring along, to run against this node.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SERVICES: [&str; 4] =
    ["streams.proto", "persistent.proto", "server_features.proto", "gossip.proto"];

/// The client under its new and its old name: package, and how this crate's tests call it.
const CLIENTS: [(&str, &str); 2] = [("kurrentdb", "eventstore"), ("eventstore", "eventstore_4")];

/// Modules of a client's tests: name, and file inside the package.
const CHECKS: [(&str, &str); 2] = [
    ("persistent_subscriptions", "tests/api/persistent_subscriptions.rs"),
    ("streams", "tests/api/streams.rs"),
];

/// What the checks share.
const COMMON: (&str, &str) = ("common", "tests/common.rs");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let descriptors = protox::compile(SERVICES, ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .include_file("protocol.rs")
        .compile_fds(descriptors.clone())?;
    // A client of the bare protocol, which the tests send with what no official client can.
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?;
    let raw_client = Path::new(&out).join("raw_client");
    fs::create_dir_all(&raw_client)?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .out_dir(&raw_client)
        .include_file("protocol.rs")
        .compile_fds(descriptors)?;
    let metadata = cargo_metadata();
    for (package, alias) in CLIENTS {
        let folder = metadata.as_ref().and_then(|metadata| folder_of(metadata, package));
        let tests = folder.and_then(|folder| client_tests(&folder, package, alias));
        // A build that never fetched the client, which is a dependency of the tests only, must not
        // fail for want of it: then only they do.
        let tests = tests.unwrap_or_else(|| {
            format!("compile_error!(\"the tests of the package `{package}` were not found\");")
        });
        fs::write(Path::new(&out).join(format!("{package}_tests.rs")), tests)?;
    }
    Ok(())
}

/// The modules of a client's tests: its files where cargo has unpacked them, none of them copied,
/// and behind each a test for every check that the file has.
fn client_tests(folder: &Path, package: &str, alias: &str) -> Option<String> {
    // The checks name the client by its package.
    let rename =
        if package == alias { String::new() } else { format!("use {alias} as {package};") };
    let mut tests = module(COMMON.0, &folder.join(COMMON.1), &rename);
    for (name, file) in CHECKS {
        let file = folder.join(file);
        let wrappers: String = checks(&fs::read_to_string(&file).ok()?).map(test_of).collect();
        tests += &module(name, &file, &(rename.clone() + &wrappers));
    }
    Some(tests)
}

fn module(name: &str, file: &Path, ours: &str) -> String {
    let expect = "#[expect(warnings, clippy::disallowed_methods, reason = \"not our file\")]";
    let file = file.display().to_string();
    format!("{expect}\nmod {name} {{\ninclude!({file:?});\n{ours}}}\n")
}

/// A function of the client's tests that checks one thing.
struct Check<'a> {
    name: &'a str,
    takes_names: bool,
}

fn checks(source: &str) -> impl Iterator<Item = Check<'_>> {
    source.split("\nasync fn test_").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (parameters, _) = rest.split_once('{')?;
        Some(Check { name, takes_names: parameters.contains("names") })
    })
}

fn test_of(Check { name, takes_names }: Check<'_>) -> String {
    let names = if takes_names { ", &mut names::Generator::default()" } else { "" };
    format!(
        "#[tokio::test(flavor = \"multi_thread\")]\n\
         async fn {name}_passes() {{\n\
         let (node, client) = crate::used_node().await;\n\
         test_{name}(&client{names}).await.unwrap();\n\
         node.stop().await;\n}}\n"
    )
}

fn cargo_metadata() -> Option<serde_json::Value> {
    let cargo = env::var_os("CARGO")?;
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
        .arg(env::var_os("TARGET")?)
        .output()
        .ok()?;
    serde_json::from_slice(&metadata.stdout).ok()
}

/// The folder of a package in cargo's registry.
fn folder_of(metadata: &serde_json::Value, package: &str) -> Option<PathBuf> {
    let packages = metadata.get("packages")?.as_array()?;
    let found = packages.iter().find(|it| it["name"] == package)?;
    Some(Path::new(found["manifest_path"].as_str()?).parent()?.to_owned())
}
