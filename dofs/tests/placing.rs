//! Placing orders: accepted, failed and rejected ones, with their exact responses.

use serde_json::{Value, json};
use testkit::api::{Answer, Api, valid_order};
use testkit::command;
use testkit::process::Start;
use testkit::system::{System, sqlite_url};

/// Default of `api.max_body_bytes`.
const MAX_BODY_BYTES: usize = 491_520;

fn start_system(environment: &[(&str, &str)]) -> System {
    System::start(env!("CARGO_BIN_EXE_dofs"), environment)
}

fn post_order(api: &Api, body: impl Into<reqwest::blocking::Body>) -> Answer {
    Api::send(api.request("POST", "/order").body(body))
}

fn order_with(customer_id: &str, quantity: impl Into<Value>) -> Value {
    json!({"customer_id": customer_id, "items": [{"product_id": "p-1", "quantity": quantity.into()}]})
}

#[track_caller]
fn assert_answer(answer: &Answer, status: u16, body: &Value) {
    assert_eq!((answer.status, &answer.json()), (status, body), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
}

#[test]
fn accepted_order_has_the_documented_response() {
    let system = start_system(&[]);
    for path in ["/order", "/v1/orders"] {
        let answer = Api::send(system.api.request("POST", path).json(&valid_order()));
        let id = answer.json()["order_id"].as_str().unwrap().to_owned();
        let expected = json!({
            "message": "Order received and processing started",
            "order_id": id,
            "status": "processing",
            "execution_arn": format!("arn:dofs:orders:dev:execution/order-{id}"),
        });
        assert_answer(&answer, 202, &expected);
        assert_eq!(answer.header("location"), Some(format!("/v1/orders/{id}").as_str()));
        assert_eq!(answer.header("etag"), Some("\"3\""));
        assert_eq!(answer.text, expected.to_string(), "members are in the documented order");
    }
}

#[test]
fn accepted_status_is_configurable() {
    let system = start_system(&[("DOFS__API__ACCEPTED_STATUS", "200")]);
    assert_eq!(system.api.place(&valid_order()).status, 200);
}

#[test]
fn order_that_breaks_a_business_rule_is_recorded_as_failed() {
    let system = start_system(&[]);
    let cases = [
        (order_with("ab", 1), "Invalid customer_id format"),
        (order_with("cust-1", 101), "Order total quantity cannot exceed 100 items"),
    ];
    for (order, error) in cases {
        let answer = system.api.place(&order);
        let id = answer.json()["order_id"].as_str().unwrap().to_owned();
        let expected = json!({"error": error, "order_id": id, "status": "FAILED"});
        assert_answer(&answer, 422, &expected);
        assert_eq!(system.api.event_types(&id), ["OrderReceived", "OrderFailed"]);
        let shown = system.api.wait_until_ended(&id);
        assert_eq!(
            (&shown["stage"], &shown["failure_reason"]),
            (&json!("validation"), &json!(error))
        );
    }
}

#[test]
fn invalid_body_is_rejected_and_not_recorded() {
    let system = start_system(&[]);
    let shape = json!({"message": "Invalid request body"});
    let no_items = json!({"error": "items must be a non-empty array"});
    let deep = format!("{{\"customer_id\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = "c".repeat(257);
    let cases: Vec<(Vec<u8>, u16, Value)> = vec![
        (b"".to_vec(), 400, shape.clone()),
        (b"{".to_vec(), 400, shape.clone()),
        (b"null".to_vec(), 400, shape.clone()),
        (b"[]".to_vec(), 400, shape.clone()),
        (b"\xff\xfe{}".to_vec(), 400, shape.clone()),
        (b"\xef\xbb\xbf{}".to_vec(), 400, shape.clone()),
        (
            br#"{"customer_id":"cust-1","items":[{"product_id":"\ud800","quantity":1}]}"#.to_vec(),
            400,
            shape.clone(),
        ),
        (
            br#"{"customer_id":"cust-1","items":[{"product_id":"p","quantity":1e400}]}"#.to_vec(),
            400,
            shape.clone(),
        ),
        (
            br#"{"customer_id":"cust-1","items":[{"product_id":"p","quantity":NaN}]}"#.to_vec(),
            400,
            shape.clone(),
        ),
        (deep.into_bytes(), 400, shape.clone()),
        (order_with("cust-1", 0).to_string().into_bytes(), 400, shape.clone()),
        (order_with("cust-1", -1).to_string().into_bytes(), 400, shape.clone()),
        (order_with("cust-1", 1.5).to_string().into_bytes(), 400, shape.clone()),
        (order_with("cust-1", "2").to_string().into_bytes(), 400, shape.clone()),
        (br#"{"items":[{"product_id":"p","quantity":0}]}"#.to_vec(), 400, shape.clone()),
        (br#"{"customer_id":"test","items":[]}"#.to_vec(), 400, no_items),
        (
            order_with(&long, 1).to_string().into_bytes(),
            400,
            json!({"error": "customer_id must be at most 256 characters"}),
        ),
        (vec![b' '; MAX_BODY_BYTES + 1], 413, json!({"message": "Request Too Long"})),
    ];
    for (body, status, expected) in cases {
        assert_answer(&post_order(&system.api, body), status, &expected);
    }
    system.api.wait_until_projected(&system.api.place_valid_order());
    let listed = system.api.get("/v1/orders").json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn body_is_read_as_json_for_curls_default_content_type() {
    let system = start_system(&[]);
    let send = |content_type: Option<&str>| {
        let request = system.api.request("POST", "/order").body(valid_order().to_string());
        let request = match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        };
        Api::send(request)
    };
    let read = [
        None,
        Some("application/json"),
        Some("application/json; charset=utf-8"),
        Some("application/x-www-form-urlencoded"),
    ];
    for content_type in read {
        assert_eq!(send(content_type).status, 202, "{content_type:?}");
    }
    for content_type in ["text/plain", "application/xml", "multipart/form-data; boundary=x"] {
        let expected = json!({"message": "Unsupported Media Type"});
        assert_answer(&send(Some(content_type)), 415, &expected);
    }
}

#[test]
fn unknown_routes_methods_and_parameters_are_rejected() {
    let system = start_system(&[]);
    let api = &system.api;
    let not_found = json!({"message": "Not Found"});
    assert_answer(&api.get("/nothing/here"), 404, &not_found);
    assert_answer(&Api::send(api.request("DELETE", "/v1/nothing")), 404, &not_found);

    for (method, path) in [("DELETE", "/v1/orders"), ("PUT", "/order"), ("POST", "/v1/stats")] {
        let answer = Api::send(api.request(method, path));
        assert_answer(&answer, 405, &json!({"message": "Method Not Allowed"}));
        assert!(answer.header("allow").is_some(), "{answer:?}");
    }
    let parameters = json!({"message": "Invalid request parameters"});
    let malformed = [
        "/v1/orders/not-a-uuid",
        "/order/%00",
        "/order/%ff",
        "/v1/orders?limit=0",
        "/v1/orders?limit=201",
        "/v1/orders?limit=x",
        "/v1/orders?status=LOST",
        "/v1/orders?from=yesterday",
        "/v1/orders?cursor=%00",
        "/v1/failed-orders?stage=nowhere",
        "/v1/orders/7/history",
    ];
    for path in malformed {
        assert_answer(&api.get(path), 400, &parameters);
    }
    let id = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";
    let unknown = json!({"error": format!("Order {id} not found")});
    for path in ["/order/", "/v1/orders/"] {
        assert_answer(&api.get(&format!("{path}{id}")), 404, &unknown);
    }
    assert_answer(&api.get(&format!("/v1/orders/{id}/history")), 404, &unknown);
}

#[test]
fn repeated_key_replays_and_rejects_another_body() {
    let system = start_system(&[]);
    let send = |order: &Value| {
        let request = system.api.request("POST", "/order").header("idempotency-key", "k-1");
        Api::send(request.json(order))
    };
    let first = send(&valid_order());
    let again = send(&valid_order());
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!(first.header("etag"), again.header("etag"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotent-replayed"), None);

    let another = send(&order_with("cust-1", 7));
    let expected = json!({"error": "Idempotency-Key was used with another body"});
    assert_answer(&another, 422, &expected);

    // The replay does not change when the order ends.
    let id = first.json()["order_id"].as_str().unwrap().to_owned();
    system.api.wait_until_ended(&id);
    assert_eq!(send(&valid_order()).text, first.text);
}

#[test]
fn missing_event_store_is_reported_by_every_route() {
    let data = tempfile::tempdir().unwrap();
    let read_model = sqlite_url(data.path());
    let binary = env!("CARGO_BIN_EXE_dofs");
    command::run(binary, &["migrate"], &[("DOFS__READ_MODEL__URL", &read_model)]).success();
    let (_process, api) = Start::new(binary, &["serve", "api", "--listen", "127.0.0.1:0"])
        .env("DOFS__READ_MODEL__URL", &read_model)
        .env("DOFS__EVENT_STORE__URL", "")
        .spawn_api();
    let answer = api.place(&valid_order());
    let not_configured = json!({"error": "Event store not configured"});
    assert_answer(&answer, 503, &not_configured);
    for path in ["/v1/orders", "/order/7", "/v1/orders/7/history", "/v1/stats", "/v1/events/stream"]
    {
        assert_answer(&api.get(path), 503, &not_configured);
    }
    assert!(answer.header("retry-after").is_some());
    assert_eq!(api.get("/livez").status, 200);
}

#[test]
fn repeated_rejection_replays_the_recorded_errors() {
    let system = start_system(&[]);
    let send = || {
        let request = system.api.request("POST", "/order").header("idempotency-key", "k-2");
        Api::send(request.header("accept", "application/problem+json").json(&order_with("ab", 101)))
    };
    let (first, again) = (send(), send());
    assert_eq!((first.status, again.status), (422, 422));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let without_request = |answer: &Answer| {
        let mut document = answer.json();
        document["request_id"].take();
        document
    };
    assert_eq!(without_request(&first), without_request(&again));
    let faults = first.json()["errors"].clone();
    let pointers: Vec<_> =
        faults.as_array().unwrap().iter().map(|fault| fault["pointer"].clone()).collect();
    assert_eq!(pointers, [json!("/customer_id"), json!("/items")]);
    // The recorded event contains both errors.
    let id = first.json()["order_id"].as_str().unwrap().to_owned();
    let history = system.api.get(&format!("/v1/orders/{id}/history")).json();
    let rules = history["events"][1]["data"]["broken_rules"].as_array().unwrap();
    assert_eq!(rules.len(), 2);
}

#[test]
fn replay_respects_the_wait_preference_of_each_request() {
    let system = start_system(&[("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0")]);
    let send = |wait: Option<&str>| {
        let request = system.api.request("POST", "/order").header("idempotency-key", "k-3");
        let request = wait.into_iter().fold(request, |request, it| request.header("prefer", it));
        Api::send(request.json(&valid_order()))
    };
    let waited = send(Some("wait=20"));
    assert_eq!((waited.status, &waited.json()["status"]), (200, &json!("FULFILLED")));
    // Without the preference: the response that the first request would have had without it.
    let plain = send(None);
    assert_eq!((plain.status, &plain.json()["status"]), (202, &json!("processing")));
    assert_eq!(plain.header("etag"), Some("\"3\""));
    let again = send(Some("wait=20"));
    assert_eq!((again.status, &again.text), (200, &waited.text));
}

#[test]
fn large_quantities_are_recorded_without_loss() {
    let system = start_system(&[]);
    for quantity in [(1 << 32), (1 << 53) - 1, 1 << 53, i64::MAX] {
        let answer = system.api.place(&order_with("cust-1", quantity));
        assert_eq!(
            (answer.status, &answer.json()["status"]),
            (422, &json!("FAILED")),
            "{quantity}"
        );
        let id = answer.json()["order_id"].as_str().unwrap().to_owned();
        let shown = system.api.wait_until_projected(&id);
        assert_eq!(shown["items"][0]["quantity"], json!(quantity));
        assert_eq!(shown["total_quantity"], json!(quantity));
    }
    let answer = post_order(
        &system.api,
        r#"{"customer_id":"cust-1","items":[{"product_id":"p","quantity":9223372036854775808}]}"#,
    );
    assert_eq!(answer.status, 400);

    let item = json!({"product_id": "p".repeat(256), "quantity": i64::MAX});
    let largest = json!({"customer_id": "c".repeat(256), "items": vec![item; 1_000]});
    let answer = system.api.place(&largest);
    assert_eq!((answer.status, &answer.json()["status"]), (422, &json!("FAILED")));
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();
    assert_eq!(system.api.wait_until_projected(&id)["items"].as_array().unwrap().len(), 1_000);
}

#[test]
fn event_store_accepts_the_largest_body() {
    let system = start_system(&[]);
    // 100 lines, because 1,000 would exceed the total quantity of 100.
    let items: Vec<_> =
        (0..100).map(|_| json!({"product_id": "p".repeat(256), "quantity": 1})).collect();
    let mut largest = json!({"customer_id": "cust-1", "items": items, "note": ""});
    let padding = MAX_BODY_BYTES - largest.to_string().len();
    largest["note"] = "n".repeat(padding).into();
    assert_eq!(post_order(&system.api, largest.to_string()).status, 202);
    largest["note"] = "n".repeat(padding + 1).into();
    assert_eq!(post_order(&system.api, largest.to_string()).status, 413);
    // With four bytes per character, the body limit is reached before 1,000 lines of 256 characters.
    let items = |n_items: usize| {
        vec![json!({"product_id": "\u{1f4e6}".repeat(256), "quantity": 1}); n_items]
    };
    let order = |n_items| json!({"customer_id": "cust-1", "items": items(n_items)});
    let most = (MAX_BODY_BYTES - 40) / (items(1)[0].to_string().len() + 1);
    assert_eq!(post_order(&system.api, order(most).to_string()).status, 422);
    assert_eq!(post_order(&system.api, order(most + 2).to_string()).status, 413);
}
