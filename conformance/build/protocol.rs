//! Code from `event-node/proto`: a client for the tests, and the server code, which a test compares
//! with the committed code of `event-node`.

use std::{error::Error, fs, path::Path};

use prost::Message;

const SERVICES: [&str; 5] = [
    "streams.proto",
    "persistent.proto",
    "server_features.proto",
    "gossip.proto",
    "operations.proto",
];

/// Writes `client/protocol.rs` and `server/protocol.rs`, with the files that they include, to
/// `out_dir`. Also writes the definition as `protocol.descriptors`.
pub(crate) fn generate_code(proto: &Path, out_dir: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", proto.display());
    let descriptors = protox::compile(SERVICES, [proto])?;
    fs::write(out_dir.join("protocol.descriptors"), descriptors.encode_to_vec())?;
    for side in ["client", "server"] {
        let folder = out_dir.join(side);
        fs::create_dir_all(&folder)?;
        tonic_build::configure()
            .build_client(side == "client")
            .build_server(side == "server")
            .build_transport(false)
            .bytes(["."])
            .out_dir(&folder)
            .include_file("protocol.rs")
            .compile_fds(descriptors.clone())?;
    }
    Ok(())
}
