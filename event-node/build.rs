//! Generates the gRPC services and messages from `proto/`, without `protoc`, and finds the Rust
//! client's own tests, which `tests/node` runs against this node.

use std::{env, error::Error, fs, path::Path, process::Command};

const SERVICES: [&str; 4] =
    ["streams.proto", "persistent.proto", "server_features.proto", "gossip.proto"];

/// The package that `eventstore` stands for in this workspace.
const CLIENT_PACKAGE: &str = "kurrentdb";

/// Modules of the client's tests: name, and file inside the package.
const CLIENT_TESTS: [(&str, &str); 3] = [
    ("common", "tests/common.rs"),
    ("persistent_subscriptions", "tests/api/persistent_subscriptions.rs"),
    ("streams", "tests/api/streams.rs"),
];

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
    write_client_tests(Path::new(&out))
}

/// Writes the modules that the conformance test includes. A build that never fetched the client,
/// which is a dependency of the tests only, must not fail for want of it: then only they do.
fn write_client_tests(out: &Path) -> Result<(), Box<dyn Error>> {
    let package = client_package();
    let modules = match &package {
        Some(folder) => CLIENT_TESTS.map(|(name, file)| module(name, &folder.join(file))).concat(),
        None => {
            "compile_error!(\"the client package was not found by `cargo metadata`\");".to_owned()
        }
    };
    fs::write(out.join("client_tests.rs"), modules)?;
    Ok(())
}

fn module(name: &str, file: &Path) -> String {
    let expect = "#[expect(warnings, clippy::disallowed_methods, reason = \"not our file\")]";
    format!("{expect}\n#[path = {:?}]\nmod {name};\n", file.display().to_string())
}

/// The folder of the client package in cargo's registry.
fn client_package() -> Option<std::path::PathBuf> {
    let cargo = env::var_os("CARGO")?;
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
        .arg(env::var_os("TARGET")?)
        .output()
        .ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).ok()?;
    let packages = metadata.get("packages")?.as_array()?;
    let client = packages.iter().find(|package| package["name"] == CLIENT_PACKAGE)?;
    Some(Path::new(client["manifest_path"].as_str()?).parent()?.to_owned())
}
