//! Generates Rust code from the protocol's definition, without `protoc`. Also generates a test for
//! each check in the packages of the official clients.

#[path = "build/client_checks.rs"]
mod client_checks;
#[path = "build/protocol.rs"]
mod protocol;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let out_dir = env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets OUT_DIR")?;
    protocol::generate_code(Path::new("../event-node/proto"), &out_dir)?;
    client_checks::generate_tests(&out_dir)
}
