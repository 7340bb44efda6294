//! Differences between a recorded answer and a server's answer.

use std::fmt;

use serde_json::Value;

/// Maximum number of characters of a value that is shown completely.
const MAX_SHOWN: usize = 300;

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
    collect_differences(String::new(), Some(recorded), Some(got), &mut found);
    let to_difference = |(path, recorded, got): DifferingValues<'_>| Difference {
        step: step.to_owned(),
        path: if path.is_empty() { "/".to_owned() } else { path },
        recorded: describe_value(recorded),
        got: describe_value(got),
    };
    found.into_iter().map(to_difference).collect()
}

/// A path, and the two values there.
type DifferingValues<'a> = (String, Option<&'a Value>, Option<&'a Value>);

fn collect_differences<'a>(
    path: String,
    recorded: Option<&'a Value>,
    got: Option<&'a Value>,
    found: &mut Vec<DifferingValues<'a>>,
) {
    match (recorded, got) {
        _ if recorded == got => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let more = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(more) {
                collect_differences(format!("{path}/{key}"), one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                let path = format!("{path}/{index}");
                collect_differences(path, one.get(index), other.get(index), found);
            }
        }
        (recorded, got) => found.push((path, recorded, got)),
    }
}

fn describe_value(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        // A boundary between characters, as the recording holds names that are not ASCII.
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
