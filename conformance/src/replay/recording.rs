//! The scenarios of the recording.
//!
//! Each file is a family of scenarios, in JSON lines. A line `{"scenario": NAME}` begins a
//! scenario. Each line after it is one [`Operation`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::operation::Operation;

#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A line, counted from 1, is not an operation of a scenario.
    #[error("{}:{line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
}

/// A scenario: operations on streams and groups of its own.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Family and name, for example `append/expect any, stream of 3`.
    pub name: String,
    pub(super) operations: Vec<Operation>,
}

/// Reads all scenarios of the folder's `*.jsonl` files, in the order of the files' names.
pub fn load_scenarios(folder: &Path) -> Result<Vec<Scenario>, RecordingError> {
    let unreadable = |source| RecordingError::Read { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let mut scenarios = Vec::new();
    for path in paths {
        scenarios.extend(load_family(&path)?);
    }
    Ok(scenarios)
}

fn load_family(path: &Path) -> Result<Vec<Scenario>, RecordingError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Header {
        scenario: String,
    }

    let text = fs::read_to_string(path)
        .map_err(|source| RecordingError::Read { path: path.to_owned(), source })?;
    let family = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let invalid =
            |reason| RecordingError::Line { path: path.to_owned(), line: index + 1, reason };
        let malformed = |error: serde_json::Error| invalid(error.to_string());
        // Told apart by the text: an untagged enum would name neither the unknown variant nor the
        // field.
        if text.starts_with(r#"{"scenario""#) {
            let Header { scenario } = serde_json::from_str(text).map_err(malformed)?;
            let name = format!("{family}/{scenario}");
            scenarios.push(Scenario { name, operations: Vec::new() });
        } else {
            let operation = serde_json::from_str(text).map_err(malformed)?;
            let headless = || invalid("an operation before the first scenario".to_owned());
            scenarios.last_mut().ok_or_else(headless)?.operations.push(operation);
        }
    }
    Ok(scenarios)
}

impl Scenario {
    /// Returns the part of the name before the first slash.
    pub fn family(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Returns whether the scenario reads or disturbs data of other scenarios on the same server.
    pub fn needs_server_alone(&self) -> bool {
        self.operations.iter().any(|operation| match operation {
            Operation::Call(call) => {
                call.method.ends_with("/RestartSubsystem")
                    || call.send.iter().any(is_about_whole_store)
            }
            Operation::Send { message, .. } => is_about_whole_store(message),
            Operation::Open(_)
            | Operation::End(_)
            | Operation::Ack { .. }
            | Operation::Nack { .. }
            | Operation::Wait(_)
            | Operation::Quiet { .. }
            | Operation::Cancel(_)
            | Operation::Look { .. }
            | Operation::Pause { .. }
            | Operation::Http(_)
            | Operation::Http2(_) => false,
        })
    }
}

/// Returns whether a request names `$all`, lists all groups, or reads the groups' configuration.
fn is_about_whole_store(request: &Value) -> bool {
    let options = &request["options"];
    let stream = options["stream"]["stream_identifier"].as_str().unwrap_or_default();
    options.get("all").is_some()
        || options.get("list_all_subscriptions").is_some()
        || stream.starts_with("$persistentSubscriptionConfig")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Vec<Scenario>, RecordingError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("read.jsonl"), text).unwrap();
        fs::write(folder.path().join("README.md"), "not a family").unwrap();
        load_scenarios(folder.path())
    }

    #[test]
    fn scenarios_are_named_by_file_and_header() {
        let text = concat!(
            r#"{"scenario":"a"}"#,
            "\n",
            r#"{"pause":{"ms":1}}"#,
            "\n",
            r#"{"scenario":"b"}"#,
            "\n"
        );
        let scenarios = load_text(text).unwrap();
        let shown: Vec<_> = scenarios
            .iter()
            .map(|scenario| (scenario.name.as_str(), scenario.operations.len()))
            .collect();
        assert_eq!(shown, [("read/a", 1), ("read/b", 0)]);
        assert_eq!(scenarios[0].family(), "read");
    }

    #[test]
    fn error_names_line_of_unknown_operation_or_field() {
        for (line, reason) in [
            (r#"{"sleep":{"ms":1}}"#, "unknown variant `sleep`"),
            (r#"{"pause":{"ms":1,"s":1}}"#, "unknown field `s`"),
        ] {
            let text = format!("{{\"scenario\":\"a\"}}\n{line}\n");
            let refused = load_text(&text).unwrap_err().to_string();
            assert!(refused.contains("read.jsonl:2: ") && refused.contains(reason), "{refused}");
        }
        let headless = load_text("{\"pause\":{\"ms\":1}}\n").unwrap_err().to_string();
        assert!(headless.ends_with("read.jsonl:1: an operation before the first scenario"));
    }
}
