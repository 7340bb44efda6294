//! Responses held against the API description (`openapi.json`).
//!
//! Every response that [`Api`](crate::api::Api) receives is checked: its status, its headers and its body must be
//! what the description says of the operation. The committed description is used; a test holds that it is
//! the code's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};
use service_kit::mutex::lock;

/// Documented headers that a response may lack.
const OPTIONAL_HEADERS: [&str; 7] = [
    "RateLimit",
    "RateLimit-Policy",
    "Idempotent-Replayed",
    "Preference-Applied",
    "Stale",
    "Degraded",
    "Link",
];

#[derive(Debug)]
pub struct Exchange<'a> {
    pub method: &'a str,
    /// Path without the query.
    pub path: &'a str,
    pub status: u16,
    pub headers: &'a HeaderMap,
    pub body: &'a str,
}

/// Checks a response against the description of its operation. Responses of paths and methods without a
/// description are not checked.
///
/// # Errors
/// What differs, in words for people.
pub fn check(exchange: &Exchange<'_>) -> Result<(), String> {
    let document = document();
    // A response to HEAD has the headers of GET and no body.
    let method = if exchange.method == "HEAD" { "GET" } else { exchange.method };
    let Some(operation) = find_operation(document, method, exchange.path) else { return Ok(()) };
    let status = exchange.status.to_string();
    let described = operation["responses"]
        .get(&status)
        .ok_or_else(|| format!("status {status} is not described"))?;
    let described = resolve(document, described);
    check_headers(described, exchange.headers)?;
    if exchange.method == "HEAD" {
        return Ok(());
    }
    check_body(document, described, exchange)
}

/// Checks a value against a schema of the description.
///
/// # Errors
/// What differs, in words for people.
pub fn check_schema(schema: &Value, value: &Value) -> Result<(), String> {
    check_value(document(), schema, value)
}

fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.json");
        let text = std::fs::read_to_string(path).expect("the description is committed");
        serde_json::from_str(&text).expect("the description is JSON")
    })
}

/// Returns the operation with this method whose path template fits. Literal segments win over parameters.
fn find_operation<'a>(document: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let segments: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == segments.len()
            && parts.iter().zip(&segments).all(|(part, segment)| {
                part == segment || (part.starts_with('{') && !segment.is_empty())
            })
    };
    let paths = document["paths"].as_object()?;
    let fitting = paths.iter().filter(|(template, _)| fits(template));
    let (_, item) = fitting.min_by_key(|(template, _)| template.matches('{').count())?;
    item.get(method.to_ascii_lowercase())
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
    let pointer = reference.trim_start_matches('#');
    document.pointer(pointer).unwrap_or_else(|| panic!("the description lacks {reference}"))
}

fn check_headers(described: &Value, headers: &HeaderMap) -> Result<(), String> {
    let names = described.get("headers").and_then(Value::as_object);
    let mut required = names.into_iter().flat_map(Map::keys);
    let is_missing = |name: &&String| {
        !OPTIONAL_HEADERS.contains(&name.as_str()) && !headers.contains_key(name.as_str())
    };
    match required.find(is_missing) {
        Some(name) => Err(format!("header {name} is missing")),
        None => Ok(()),
    }
}

fn check_body(document: &Value, described: &Value, exchange: &Exchange<'_>) -> Result<(), String> {
    let Some(content) = described.get("content").and_then(Value::as_object) else {
        return if exchange.body.is_empty() {
            Ok(())
        } else {
            Err("the response has a body, and none is described".to_owned())
        };
    };
    let content_type = exchange.headers.get("content-type").and_then(|value| value.to_str().ok());
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let described = content
        .get(media_type)
        .ok_or_else(|| format!("content type `{media_type}` is not described"))?;
    if !media_type.ends_with("json") {
        return Ok(());
    }
    let body: Value = serde_json::from_str(exchange.body)
        .map_err(|error| format!("the body is not JSON: {error}"))?;
    check_value(document, &described["schema"], &body)?;
    // The data of an event has the schema that the event's type names.
    for event in body.get("events").and_then(Value::as_array).into_iter().flatten() {
        let event_type = event["type"].as_str().unwrap_or_default();
        if document["components"]["schemas"].get(event_type).is_some() {
            let schema = json!({"$ref": format!("#/components/schemas/{event_type}")});
            check_value(document, &schema, &event["data"])?;
        }
    }
    Ok(())
}

fn check_value(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let validator = validator(document, schema);
    let errors = validator.iter_errors(value);
    let errors = errors.map(|error| format!("{} at `{}`", error, error.instance_path()));
    let errors: Vec<String> = errors.take(5).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// Returns the validator of a schema. Each is built once.
fn validator(document: &Value, schema: &Value) -> Arc<Validator> {
    static VALIDATORS: OnceLock<Mutex<HashMap<String, Arc<Validator>>>> = OnceLock::new();
    let validators = VALIDATORS.get_or_init(Mutex::default);
    let mut validators = lock(validators);
    let validator = validators.entry(schema.to_string()).or_insert_with(|| {
        let mut root = schema.clone();
        root["components"] = document["components"].clone();
        let options = jsonschema::options().should_validate_formats(true);
        Arc::new(options.build(&root).expect("the described schema is valid"))
    });
    Arc::clone(validator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange<'a>(headers: &'a HeaderMap, path: &'a str, body: &'a str) -> Exchange<'a> {
        Exchange { method: "GET", path, status: 200, headers, body }
    }

    #[test]
    fn value_outside_the_schema_is_found() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "r-1".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        let checked =
            |body: &str| check(&exchange(&headers, "/v1/ops/dead-letters/redrives", body));
        assert_eq!(checked(r#"{"items": [], "next_cursor": null}"#), Ok(()));
        let wrong = checked(r#"{"items": [{"state": "lost"}], "next_cursor": null}"#).unwrap_err();
        assert!(wrong.contains("/items/0"), "{wrong}");
        assert!(checked(r#"{"items": []}"#).unwrap_err().contains("next_cursor"));
        let bare = HeaderMap::new();
        let unnamed = check(&exchange(&bare, "/v1/stats", "{}")).unwrap_err();
        assert!(unnamed.contains("X-Request-Id"), "{unnamed}");
    }

    #[test]
    fn literal_path_wins_over_a_parameter() {
        let operation = find_operation(document(), "GET", "/v1/orders/7/history").unwrap();
        assert_eq!(operation["operationId"], "getOrderHistory");
        assert!(find_operation(document(), "PUT", "/v1/orders/7").is_none());
        assert!(find_operation(document(), "GET", "/nothing").is_none());
    }
}
