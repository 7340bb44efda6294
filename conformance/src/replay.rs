//! The replay of a recording: scenarios of bare protocol messages, carried out against a server, and
//! compared with what a real EventStoreDB answered.
//!
//! The recording is in `event-node/tests/recording`; its README describes the form.

mod answer;
mod call;
mod compare;
mod http;
mod known;
#[cfg(test)]
mod messages_tests;
mod method;
mod recording;
mod request;
mod run;
mod script;
mod tokens;
mod view;

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use prost_reflect::DescriptorPool;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};

pub use compare::Difference;
pub use known::{KnownDifference, KnownDifferences, KnownError};
pub use recording::{RecordingError, Scenario, load_scenarios};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Version of the server that was recorded.
pub const RECORDED_VERSION: &str = "EventStoreDB 23.10.6";

#[expect(clippy::expect_used, reason = "the build writes the descriptors")]
static PROTOCOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/protocol.descriptors"));
    DescriptorPool::decode(descriptors.as_slice()).expect("the descriptors are valid")
});

/// Returns the folder of the recording in this repository.
pub fn recording_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../event-node/tests/recording"))
}

/// Returns the list of known differences in this repository.
pub fn known_differences_file() -> PathBuf {
    recording_folder().join("known_differences.toml")
}

/// Carries out a scenario against the server at `address` (`host:port`, without TLS), on a connection
/// of its own. Returns how the answers differ from the recorded ones.
///
/// # Errors
///
/// If the server cannot be reached.
pub async fn replay(
    scenario: &Scenario,
    address: &str,
) -> Result<Vec<Difference>, tonic::transport::Error> {
    let channel = connect(address).await?;
    let (steps, stopped) = run::run_scenario(scenario, address, channel, &PROTOCOL).await;
    let mut differences = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let name = format!("{} {}", index + 1, step.name);
        differences.extend(compare::compare_answers(&name, &step.wanted, &step.got));
    }
    if let Some(reason) = stopped {
        let name = format!("{}", steps.len() + 1);
        let got = json!(reason.to_string());
        differences.extend(compare::compare_answers(&name, &json!("an answer"), &got));
    }
    Ok(differences)
}

/// Connects to the server at `address` (`host:port`, without TLS).
///
/// # Errors
///
/// If the address is invalid, or nothing accepts connections there.
pub async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await
}
