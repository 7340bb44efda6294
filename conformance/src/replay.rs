//! The replay of a recording: runs scenarios of raw protocol messages against a server, and
//! compares the answers with those of a real EventStoreDB.
//!
//! The recording is in `event-node/tests/recording`. Its README describes the format.

mod answer;
mod difference;
mod json_to_message;
mod known_differences;
#[cfg(test)]
mod message_json_tests;
mod message_to_json;
mod method;
mod operation;
mod placeholders;
mod raw_call;
mod raw_http;
mod recording;
mod scenario_run;

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use prost_reflect::DescriptorPool;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};

pub use difference::Difference;
pub use known_differences::{KnownDifference, KnownDifferences, KnownDifferencesError};
pub use recording::{RecordingError, Scenario, load_scenarios};

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Version of the recorded server.
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

/// Runs a scenario against the server at `address` (`host:port`, without TLS), on a new connection.
/// Returns the differences between its answers and the recorded ones.
///
/// # Errors
///
/// If the server is unreachable.
pub async fn replay_scenario(
    scenario: &Scenario,
    address: &str,
) -> Result<Vec<Difference>, tonic::transport::Error> {
    let channel = connect(address).await?;
    let (steps, error) = scenario_run::run_scenario(scenario, address, channel, &PROTOCOL).await;
    let mut differences = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let name = format!("{} {}", index + 1, step.name);
        differences.extend(difference::compare_answers(&name, &step.recorded, &step.got));
    }
    // An error is shown as one more step that got no answer.
    if let Some(error) = error {
        let name = format!("{}", steps.len() + 1);
        let got = json!(error.to_string());
        differences.extend(difference::compare_answers(&name, &json!("an answer"), &got));
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
