//! Rejections by the handlers, as plain body and as problem document: every problem code that a client can
//! cause. Rejections by the HTTP layer are tested in `service-kit/tests/http.rs`.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use serde_json::{Value, json};
use testkit::api::{Answer, Api, valid_order};
use testkit::system::{System, start_api_without_event_store};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const UNKNOWN: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";

/// Request line, body, `Idempotency-Key`; status, code, plain body, pointers of the errors.
type Case = (&'static str, Value, &'static str, u16, &'static str, Value, &'static [&'static str]);

fn placement_cases() -> Vec<Case> {
    let item =
        |product_id: &str, quantity: Value| json!({"product_id": product_id, "quantity": quantity});
    let order_of = |items: Value| json!({"customer_id": "cust-1", "items": items});
    let long = "p".repeat(257);
    let body = json!({"message": "Invalid request body"});
    vec![
        ("POST /order", json!([]), "a", 400, "invalid_body", body.clone(), &[""]),
        (
            "POST /v1/orders",
            json!({"customer_id": 7, "items": [item("p", json!(0)), {"quantity": "1"}]}),
            "a",
            400,
            "invalid_body",
            body,
            &["/customer_id", "/items/0/quantity", "/items/1/product_id", "/items/1/quantity"],
        ),
        (
            "POST /order",
            order_of(json!([])),
            "a",
            400,
            "invalid_order",
            json!({"error": "items must be a non-empty array"}),
            &["/items"],
        ),
        (
            "POST /order",
            order_of(json!([item("p", json!(1)), item(&long, json!(1)), item("\0", json!(1))])),
            "a",
            400,
            "invalid_order",
            json!({"error": "product_id must be at most 256 characters"}),
            &["/items/1/product_id", "/items/2/product_id"],
        ),
        (
            "POST /order",
            valid_order(),
            "\"",
            400,
            "invalid_idempotency_key",
            json!({"message": "Invalid Idempotency-Key"}),
            &[],
        ),
        (
            "POST /order",
            order_of(json!([item("p", json!(2))])),
            "used",
            422,
            "idempotency_key_reused",
            json!({"error": "Idempotency-Key was used with another body"}),
            &[],
        ),
    ]
}

fn query_cases() -> Vec<Case> {
    let parameters = json!({"message": "Invalid request parameters"});
    let not_found = json!({"error": format!("Order {UNKNOWN} not found")});
    vec![
        (
            "GET /v1/orders/x",
            Value::Null,
            "a",
            400,
            "invalid_parameters",
            parameters.clone(),
            &[""],
        ),
        ("GET /v1/orders?limit=0", Value::Null, "a", 400, "invalid_parameters", parameters, &[""]),
        (
            "GET /v1/orders/018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
            Value::Null,
            "a",
            404,
            "order_not_found",
            not_found.clone(),
            &[],
        ),
        (
            "GET /v1/orders/018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33/history",
            Value::Null,
            "a",
            404,
            "order_not_found",
            not_found,
            &[],
        ),
        ("GET /nothing", Value::Null, "a", 404, "not_found", json!({"message": "Not Found"}), &[]),
        (
            "PUT /order",
            Value::Null,
            "a",
            405,
            "method_not_allowed",
            json!({"message": "Method Not Allowed"}),
            &[],
        ),
    ]
}

fn send_request(api: &Api, line: &str, body: &Value, key: &str, accept: &str) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let request = api.request(method, path).header("accept", accept).header("idempotency-key", key);
    Api::send(if body.is_null() { request } else { request.json(body) })
}

/// Asserts that the problem document contains the members of the plain body.
#[track_caller]
fn assert_document(answer: &Answer, plain: &Value, code: &str) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let document = answer.json();
    for (member, value) in plain.as_object().unwrap() {
        assert_eq!(&document[member], value, "{document}");
    }
    assert_eq!(document["code"], code, "{document}");
    assert_eq!(document["status"], answer.status, "{document}");
    assert_eq!(document["request_id"].as_str(), answer.header("x-request-id"), "{document}");
    document
}

#[test]
fn rejections_have_plain_body_and_problem_document() {
    let system = System::start(BINARY, &[]);
    let api = &system.api;
    assert_eq!(send_request(api, "POST /order", &valid_order(), "used", "*/*").status, 202);
    for (line, body, key, status, code, plain, pointers) in
        placement_cases().into_iter().chain(query_cases())
    {
        let answer = send_request(api, line, &body, key, "application/json");
        assert_eq!((answer.status, answer.text), (status, plain.to_string()), "{line} {body}");
        let answer = send_request(api, line, &body, key, "application/problem+json");
        assert_eq!(answer.status, status, "{line}");
        let document = assert_document(&answer, &plain, code);
        let faults = document["errors"].as_array().unwrap();
        let named: Vec<_> = faults.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
        assert_eq!(named, pointers, "{line}: {document}");
        assert!(faults.iter().all(|fault| !fault["detail"].as_str().unwrap().is_empty()));
    }
    // The body of a failed order contains its id, which differs each time.
    let rejected = json!({"customer_id": "ab", "items": valid_order()["items"]});
    let answer =
        send_request(api, "POST /order", &rejected, "rejected", "application/problem+json");
    let plain = json!({"error": "Invalid customer_id format"});
    let document = assert_document(&answer, &plain, "order_rejected");
    assert_eq!((answer.status, &document["status"]), (422, &json!(422)));
    assert!(document["order_id"].is_string(), "{document}");
}

#[test]
fn rejected_parameter_is_named_with_the_reason() {
    let system = System::start(BINARY, &[]);
    let send = |line: &str, body: &Value| {
        send_request(&system.api, line, body, "a", "application/problem+json")
    };
    let order = format!("/v1/orders/{UNKNOWN}");
    for (path, parameter, reason) in [
        ("/v1/orders?limit=201", "limit", "must be from 1 to 200"),
        ("/v1/orders?limit=many", "limit", "must be an integer"),
        ("/v1/orders?limit=1&limit=2", "limit", "must be given once"),
        ("/v1/orders?status=lost", "status", "PROCESSING, FULFILLED, FAILED"),
        ("/v1/orders?from=yesterday", "from", "RFC 3339"),
        ("/v1/orders?cursor=x", "cursor", "next_cursor"),
        ("/v1/orders?customer_id=%ff", "customer_id", "UTF-8"),
        ("/v1/orders?custmer_id=c", "custmer_id", "not known: must be one of cursor"),
        ("/v1/failed-orders?stage=lost", "stage", "one of"),
        ("/v1/stats?minutes=0", "minutes", "from 1 to 1440"),
        ("/v1/events/stream?types=Lost", "types", "OrderReceived"),
        ("/v1/events?types=Lost", "types", "OrderReceived"),
        ("/v1/events?limit=201", "limit", "must be from 1 to 200"),
        ("/v1/ops/projections?name=orders", "name", "not known"),
        ("/v1/dead-letters?limit=1", "limit", "not known"),
        ("/v1/orders/x", "id", "UUID"),
        (&format!("{order}?at=soon"), "at", "RFC 3339"),
        (&format!("{order}?at_revision=1&at=2026-01-01T00:00:00Z"), "at", "at_revision"),
        (&format!("{order}/history?sort=up"), "sort", "must be `oldest` or `newest`"),
        (&format!("{order}/history?limit=1001"), "limit", "from 1 to 1000"),
        (&format!("{order}/history/compare?from=x"), "from", "a revision or a time"),
        (&format!("/order/{UNKNOWN}?status=FAILED"), "status", "at, at_revision"),
    ] {
        let answer = send(&format!("GET {path}"), &Value::Null);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        let fault = &answer.json()["errors"][0];
        assert_eq!(fault["parameter"], parameter, "{path}: {fault}");
        assert!(fault["detail"].as_str().unwrap().contains(reason), "{path}: {fault}");
    }
    let answer = send("POST /v1/orders?dry_run=true", &valid_order());
    assert_eq!(answer.json()["errors"][0]["parameter"], "dry_run");
    for status in ["failed", "FAILED"] {
        assert_eq!(system.api.get(&format!("/v1/orders?status={status}")).status, 200);
    }
}

#[test]
fn missing_event_store_has_plain_body_and_problem_document() {
    let data = tempfile::tempdir().unwrap();
    let (_process, api) = start_api_without_event_store(BINARY, data.path());
    let plain = json!({"error": "Event store not configured"});
    assert_eq!(
        send_request(&api, "POST /order", &valid_order(), "a", "*/*").text,
        plain.to_string()
    );
    let answer = send_request(&api, "POST /order", &valid_order(), "a", "application/problem+json");
    assert_document(&answer, &plain, "event_store_unavailable");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}
