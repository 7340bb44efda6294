//! Responses of the middleware: error bodies, request names, time-out and concurrency limit.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use service_kit::http::ApiConfig;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::{HELD, TEST_TIMEOUT, TOO_LONG_BODY, non_zero, open_router, test_config};

async fn send(router: Router, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "test");
    let request = request.body(body.into()).unwrap();
    timeout(TEST_TIMEOUT, router.oneshot(request)).await.unwrap().unwrap()
}

async fn status_and_body(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn errors_outside_handlers_have_our_body() {
    let router = open_router(&test_config());
    let get = |path: &'static str| send(router.clone(), "GET", path, Body::empty());
    let expected = (404, json!({"message": "Not Found"}));
    assert_eq!(status_and_body(get("/nothing").await).await, expected);

    let not_allowed = send(router.clone(), "DELETE", "/ok", Body::empty()).await;
    assert_eq!(not_allowed.headers()["allow"], "GET,HEAD");
    let expected = (405, json!({"message": "Method Not Allowed"}));
    assert_eq!(status_and_body(not_allowed).await, expected);

    let expected = (500, json!({"error": "Internal server error"}));
    assert_eq!(status_and_body(get("/panics").await).await, expected);

    let too_long = send(router.clone(), "POST", "/json", vec![b' '; 65]).await;
    let expected = (413, json!({"message": "Request Too Long"}));
    assert_eq!(status_and_body(too_long).await, expected);
}

/// Request line, header and body of a request; status and code of its response.
type Case = (&'static str, (&'static str, &'static str), &'static str, u16, &'static str);
const EDGE_ERRORS: [Case; 12] = [
    ("GET /nothing", PLAIN, "", 404, "not_found"),
    ("PUT /ok", PLAIN, "", 405, "method_not_allowed"),
    ("GET /panics", PLAIN, "", 500, "internal_error"),
    ("GET /never", PLAIN, "", 503, "processing_timeout"),
    ("POST /json", PLAIN, "{", 400, "invalid_body"),
    ("POST /json", PLAIN, r#"{"a":1,"a":1}"#, 400, "invalid_body"),
    ("POST /json", PLAIN, TOO_LONG_BODY, 413, "request_too_long"),
    ("POST /json", ("content-type", "text/xml"), "{}", 415, "unsupported_media_type"),
    ("POST /json", ("content-type", "\u{e9}"), "{}", 415, "unsupported_media_type"),
    ("POST /json", ("content-encoding", "gzip"), "{}", 415, "unsupported_media_type"),
    ("GET /number/x", PLAIN, "", 400, "invalid_parameters"),
    ("GET /query?number=x", PLAIN, "", 400, "invalid_parameters"),
];
const PLAIN: (&str, &str) = ("x-nothing", "");

fn expected_body(code: &str) -> Value {
    match code {
        "not_found" => json!({"message": "Not Found"}),
        "method_not_allowed" => json!({"message": "Method Not Allowed"}),
        "internal_error" => json!({"error": "Internal server error"}),
        "processing_timeout" => json!({"error": "Request timed out"}),
        "invalid_body" => json!({"message": "Invalid request body"}),
        "request_too_long" => json!({"message": "Request Too Long"}),
        "unsupported_media_type" => json!({"message": "Unsupported Media Type"}),
        "invalid_parameters" => json!({"message": "Invalid request parameters"}),
        "unauthorized" => json!({"message": "Unauthorized"}),
        "forbidden" => json!({"message": "Forbidden"}),
        "too_many_requests" => json!({"message": "Too Many Requests"}),
        other => panic!("no expected body for {other}"),
    }
}

#[tokio::test]
async fn every_error_has_a_plain_and_a_document_form() {
    let router = open_router(&ApiConfig { request_timeout_ms: non_zero(50), ..test_config() });
    for (line, (name, value), body, status, code) in EDGE_ERRORS {
        let (method, path) = line.split_once(' ').unwrap();
        let send_accepting = |accept: &'static str| {
            let request = Request::builder().method(method).uri(path).header(name, value);
            let request = request.header("host", "test");
            let request = request.header("accept", accept).body(Body::from(body)).unwrap();
            router.clone().oneshot(request)
        };
        let plain = send_accepting("*/*").await.unwrap();
        assert_eq!(plain.headers()["content-type"], "application/json", "{line}");
        assert_eq!(status_and_body(plain).await, (status, expected_body(code)), "{line} {body}");

        let document = send_accepting("application/problem+json").await.unwrap();
        assert_eq!(document.headers()["content-type"], "application/problem+json", "{line}");
        let name = document.headers()["x-request-id"].to_str().unwrap().to_owned();
        let (document_status, document) = status_and_body(document).await;
        assert_eq!((document_status, &document["code"]), (status, &json!(code)), "{line}");
        assert_eq!((&document["status"], &document["request_id"]), (&json!(status), &json!(name)));
        let text = expected_body(code);
        let (member, message) = text.as_object().unwrap().iter().next().unwrap();
        assert_eq!((&document[member], &document["detail"]), (message, message), "{line}");
        assert_eq!(document["type"], format!("urn:dofs:problem:{code}"));
        let has_faults = !document["errors"].as_array().unwrap().is_empty();
        let expects_faults = ["invalid_body", "invalid_parameters"].contains(&code);
        assert_eq!(has_faults, expects_faults, "{line}: {document}");
    }
}

#[tokio::test]
async fn response_repeats_the_client_request_id() {
    let request = Request::builder().uri("/ok").header("x-request-id", "checkout-7");
    let request = request.header("host", "test").body(Body::empty()).unwrap();
    let response = open_router(&test_config()).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "checkout-7");
}

#[tokio::test]
async fn every_response_has_a_new_request_id() {
    let router = open_router(&test_config());
    let mut ids = Vec::new();
    for path in ["/ok", "/nothing"] {
        let response = send(router.clone(), "GET", path, Body::empty()).await;
        ids.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn slow_request_times_out() {
    let router = open_router(&ApiConfig { request_timeout_ms: non_zero(10), ..test_config() });
    let response = send(router, "GET", "/never", Body::empty()).await;
    assert!(response.headers().contains_key("retry-after"));
    let expected = (503, json!({"error": "Request timed out"}));
    assert_eq!(status_and_body(response).await, expected);
}

#[tokio::test]
async fn requests_above_the_concurrency_limit_are_refused() {
    let router = open_router(&test_config());
    let mut held = JoinSet::new();
    held.spawn(send(router.clone(), "GET", "/held", Body::empty()));
    let refused = async {
        loop {
            let response = send(router.clone(), "GET", "/ok", Body::empty()).await;
            if response.status() != 200 {
                return response;
            }
            tokio::task::yield_now().await;
        }
    };
    let response = timeout(TEST_TIMEOUT, refused).await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    let expected = (503, json!({"error": "Too many requests in progress"}));
    assert_eq!(status_and_body(response).await, expected);
    let health = send(router.clone(), "GET", "/livez", Body::empty()).await;
    assert_eq!(health.status(), 200, "health checks are not limited");
    HELD.add_permits(1);
    assert_eq!(held.join_next().await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn waiting_request_gives_its_permit_back() {
    let router = open_router(&test_config());
    let mut waiting = JoinSet::new();
    let served = async {
        for _ in 0..100 {
            waiting.spawn(send(router.clone(), "GET", "/waiting", Body::empty()));
            while send(router.clone(), "GET", "/ok", Body::empty()).await.status() != 200 {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(TEST_TIMEOUT, served).await.expect("other requests are answered");
    assert_eq!(waiting.len(), 100);
    assert!(waiting.try_join_next().is_none(), "every request waits");
}
