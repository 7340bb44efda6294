//! Differences between two answers, as text.

use std::fmt;

use serde_json::Value;

/// Longest value that is shown whole, in characters.
const MAX_SHOWN: usize = 300;

/// A difference between a recorded answer and a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The step, counted from 1, and its description.
    pub step: String,
    /// Where in the answer, as in `/messages/0/success`.
    pub path: String,
    /// The recorded value, as JSON.
    pub wanted: String,
    /// The server's value, as JSON.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, path, wanted, got } = self;
        writeln!(formatter, "  step {step}, at {path}")?;
        writeln!(formatter, "    wanted {wanted}")?;
        write!(formatter, "    got    {got}")
    }
}

/// Returns all differences between two answers of a step.
pub(super) fn compare_answers(step: &str, wanted: &Value, got: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    visit(step, String::new(), Some(wanted), Some(got), &mut found);
    found
}

fn visit(
    step: &str,
    path: String,
    wanted: Option<&Value>,
    got: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    match (wanted, got) {
        _ if wanted == got => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let more = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(more) {
                visit(step, format!("{path}/{key}"), one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                visit(step, format!("{path}/{index}"), one.get(index), other.get(index), found);
            }
        }
        (wanted, got) => found.push(Difference {
            step: step.to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path },
            wanted: describe(wanted),
            got: describe(got),
        }),
    }
}

fn describe(value: Option<&Value>) -> String {
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
    fn each_differing_value_is_named_by_its_path() {
        let wanted = json!({ "messages": [{ "a": 1 }, { "b": 2 }], "status": "OK" });
        let got = json!({ "messages": [{ "a": 1, "c": 3 }], "status": "OK" });
        let found = compare_answers("1 read", &wanted, &got);
        let shown: Vec<_> =
            found.iter().map(|it| [it.path.as_str(), &it.wanted, &it.got]).collect();
        assert_eq!(
            shown,
            [["/messages/0/c", "nothing", "3"], ["/messages/1", r#"{"b":2}"#, "nothing"]]
        );
    }
}
