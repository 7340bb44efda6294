//! Differences between a recorded answer and a server's answer.

use std::fmt;

use serde_json::Value;

/// Maximum number of characters of a value that is shown completely.
const MAX_SHOWN: usize = 300;

/// A difference between a recorded answer and a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Number of the step, counted from 1, and its description.
    pub step: String,
    /// Path in the answer, for example `/messages/0/success`.
    pub path: String,
    /// The recorded value, as JSON.
    pub recorded: String,
    /// The server's value, as JSON.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, path, recorded, got } = self;
        writeln!(formatter, "  step {step}, at {path}")?;
        writeln!(formatter, "    recorded {recorded}")?;
        write!(formatter, "    got      {got}")
    }
}

/// Returns all differences between two answers of a step.
pub(super) fn compare_answers(step: &str, recorded: &Value, got: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    collect_differences(step, String::new(), Some(recorded), Some(got), &mut found);
    found
}

fn collect_differences(
    step: &str,
    path: String,
    recorded: Option<&Value>,
    got: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    match (recorded, got) {
        _ if recorded == got => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let more = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(more) {
                collect_differences(
                    step,
                    format!("{path}/{key}"),
                    one.get(key),
                    other.get(key),
                    found,
                );
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                collect_differences(
                    step,
                    format!("{path}/{index}"),
                    one.get(index),
                    other.get(index),
                    found,
                );
            }
        }
        (recorded, got) => found.push(Difference {
            step: step.to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path },
            recorded: describe_value(recorded),
            got: describe_value(got),
        }),
    }
}

fn describe_value(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_is_named_by_its_path() {
        let recorded = json!({ "messages": [{ "a": 1 }, { "b": 2 }], "status": "OK" });
        let got = json!({ "messages": [{ "a": 1, "c": 3 }], "status": "OK" });
        let found = compare_answers("1 read", &recorded, &got);
        let shown: Vec<_> =
            found.iter().map(|found| [found.path.as_str(), &found.recorded, &found.got]).collect();
        assert_eq!(
            shown,
            [["/messages/0/c", "nothing", "3"], ["/messages/1", r#"{"b":2}"#, "nothing"]]
        );
    }
}
