//! The requests of the README get the responses shown there.

#![expect(clippy::expect_used, reason = "a failing set-up fails the test")]

use serde_json::Value;
use testkit::api::Api;
use testkit::system::System;
use uuid::Uuid;

const README: &str = include_str!("../../README.md");

/// Returns the request bodies in the README, each with the response shown.
fn parse_examples() -> Vec<(String, Value)> {
    // A backslash at the end of a line continues the command.
    let text = README.replace("\\\n", "");
    let lines: Vec<&str> = text.lines().collect();
    let mut examples = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((command, rest)) = line.split_once("-d '") else { continue };
        if !command.starts_with("$ curl") {
            continue;
        }
        let (body, _) = rest.split_once('\'').expect("the body is quoted");
        let answer = lines[index..].iter().find(|line| line.starts_with('{'));
        let answer =
            answer.and_then(|answer| serde_json::from_str(answer).ok()).expect("an answer");
        examples.push((body.to_owned(), answer));
    }
    examples
}

/// Replaces all order ids by `ID`, because every order has its own.
fn replace_ids(value: Value) -> Value {
    let without_id = |word: &str| {
        let id = word.rsplit_once("order-").map_or(word, |(_, id)| id);
        if id.parse::<Uuid>().is_ok() { word.replace(id, "ID") } else { word.to_owned() }
    };
    match value {
        Value::String(text) => Value::String(without_id(&text)),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, replace_ids(value))).collect()
        }
        same @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => same,
    }
}

#[test]
fn readme_orders_get_the_responses_shown() {
    let system = System::start(env!("CARGO_BIN_EXE_dofs"), &[]);
    let examples = parse_examples();
    assert_eq!(examples.len(), 4, "the accepted order and the three refused ones");
    for (body, shown) in examples {
        let answer = Api::send(system.api.request("POST", "/order").body(body.clone()));
        assert_eq!(replace_ids(answer.json()), replace_ids(shown), "{body}");
    }
}

#[test]
fn readme_resources_respond() {
    let system = System::start(env!("CARGO_BIN_EXE_dofs"), &[]);
    let id = system.api.place_valid_order();
    let paths: Vec<String> = README
        .lines()
        .filter_map(|line| line.strip_prefix("$ curl -s ")?.split_once("localhost:8080"))
        .map(|(_, rest)| rest.split(['\'', ' ']).next().unwrap_or_default().to_owned())
        .filter(|path| path != "/order")
        .collect();
    assert!(paths.len() >= 6, "{paths:?}");
    for path in paths {
        let answer = system.api.get(&path.replace("ORDER_ID", &id));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}
