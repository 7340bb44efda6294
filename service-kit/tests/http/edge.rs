//! What clients get when no handler answers: our bodies, within the limits.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use service_kit::http::ApiConfig;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::{HELD, LONG, PATIENCE, config, nonzero, router};

async fn answer(router: Router, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "test");
    let request = request.body(body.into()).unwrap();
    timeout(PATIENCE, router.oneshot(request)).await.unwrap().unwrap()
}

async fn status_and_body(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn what_no_handler_saw_has_our_body() {
    let router = router(&config());
    let get = |path: &'static str| answer(router.clone(), "GET", path, Body::empty());
    let expected = (404, json!({"message": "Not Found"}));
    assert_eq!(status_and_body(get("/nothing").await).await, expected);

    let not_allowed = answer(router.clone(), "DELETE", "/ok", Body::empty()).await;
    assert_eq!(not_allowed.headers()["allow"], "GET,HEAD");
    let expected = (405, json!({"message": "Method Not Allowed"}));
    assert_eq!(status_and_body(not_allowed).await, expected);

    let expected = (500, json!({"error": "Internal server error"}));
    assert_eq!(status_and_body(get("/panics").await).await, expected);

    let too_long = answer(router.clone(), "POST", "/json", vec![b' '; 65]).await;
    let expected = (413, json!({"message": "Request Too Long"}));
    assert_eq!(status_and_body(too_long).await, expected);
}

/// Every error that the edge makes by itself: request, header and body; status, code and text.
type Case = (&'static str, (&'static str, &'static str), &'static str, u16, &'static str);
const EDGE_ERRORS: [Case; 13] = [
    ("GET /nothing", PLAIN, "", 404, "not_found"),
    ("PUT /ok", PLAIN, "", 405, "method_not_allowed"),
    ("GET /panics", PLAIN, "", 500, "internal_error"),
    ("GET /never", PLAIN, "", 503, "processing_timeout"),
    ("POST /json", PLAIN, "{", 400, "invalid_body"),
    ("POST /json", PLAIN, r#"{"a":1,"a":1}"#, 400, "invalid_body"),
    ("POST /json", PLAIN, LONG, 413, "request_too_long"),
    ("POST /json", ("content-length", "65"), "{}", 413, "request_too_long"),
    ("POST /json", ("content-type", "text/xml"), "{}", 415, "unsupported_media_type"),
    ("POST /json", ("content-type", "\u{e9}"), "{}", 415, "unsupported_media_type"),
    ("POST /json", ("content-encoding", "gzip"), "{}", 415, "unsupported_media_type"),
    ("GET /number/x", PLAIN, "", 400, "invalid_parameters"),
    ("GET /query?number=x", PLAIN, "", 400, "invalid_parameters"),
];
const PLAIN: (&str, &str) = ("x-nothing", "");

fn text_of(code: &str) -> Value {
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
        other => panic!("{other} has no text here"),
    }
}

#[tokio::test]
async fn every_error_of_the_edge_is_told_in_both_ways() {
    let router = router(&ApiConfig { request_timeout_ms: nonzero(50), ..config() });
    for (line, (name, value), body, status, code) in EDGE_ERRORS {
        let (method, path) = line.split_once(' ').unwrap();
        let send = |accept: &'static str| {
            let request = Request::builder().method(method).uri(path).header(name, value);
            let request = request.header("host", "test");
            let request = request.header("accept", accept).body(Body::from(body)).unwrap();
            router.clone().oneshot(request)
        };
        let plain = send("*/*").await.unwrap();
        assert_eq!(plain.headers()["content-type"], "application/json", "{line}");
        assert_eq!(status_and_body(plain).await, (status, text_of(code)), "{line} {body}");

        let document = send("application/problem+json").await.unwrap();
        assert_eq!(document.headers()["content-type"], "application/problem+json", "{line}");
        let name = document.headers()["x-request-id"].to_str().unwrap().to_owned();
        let (document_status, document) = status_and_body(document).await;
        assert_eq!((document_status, &document["code"]), (status, &json!(code)), "{line}");
        assert_eq!((&document["status"], &document["request_id"]), (&json!(status), &json!(name)));
        let text = text_of(code);
        let (member, said) = text.as_object().unwrap().iter().next().unwrap();
        assert_eq!((&document[member], &document["detail"]), (said, said), "{line}");
        assert_eq!(document["type"], format!("urn:dofs:problem:{code}"));
        let has_faults = !document["errors"].as_array().unwrap().is_empty();
        let names_faults = ["invalid_body", "invalid_parameters"].contains(&code);
        assert_eq!(has_faults, names_faults, "{line}: {document}");
    }
}

#[tokio::test]
async fn request_keeps_the_name_that_its_client_gave_it() {
    let request = Request::builder().uri("/ok").header("x-request-id", "checkout-7");
    let request = request.header("host", "test").body(Body::empty()).unwrap();
    let response = router(&config()).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "checkout-7");
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let router = router(&config());
    let mut ids = Vec::new();
    for path in ["/ok", "/nothing"] {
        let response = answer(router.clone(), "GET", path, Body::empty()).await;
        ids.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn request_that_takes_too_long_is_cut_off() {
    let router = router(&ApiConfig { request_timeout_ms: nonzero(10), ..config() });
    let response = answer(router, "GET", "/never", Body::empty()).await;
    assert!(response.headers().contains_key("retry-after"));
    let expected = (503, json!({"error": "Request timed out"}));
    assert_eq!(status_and_body(response).await, expected);
}

#[tokio::test]
async fn more_requests_than_the_limit_of_all_routes_are_shed() {
    let router = router(&config());
    let mut held = JoinSet::new();
    held.spawn(answer(router.clone(), "GET", "/held", Body::empty()));
    let shed = async {
        loop {
            let response = answer(router.clone(), "GET", "/ok", Body::empty()).await;
            if response.status() != 200 {
                return response;
            }
            tokio::task::yield_now().await;
        }
    };
    let response = timeout(PATIENCE, shed).await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    let expected = (503, json!({"error": "Too many requests in progress"}));
    assert_eq!(status_and_body(response).await, expected);
    let health = answer(router.clone(), "GET", "/livez", Body::empty()).await;
    assert_eq!(health.status(), 200, "health has no part in the limit");
    HELD.add_permits(1);
    assert_eq!(held.join_next().await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn request_that_waits_leaves_its_place_to_others() {
    let router = router(&config());
    let mut waiting = JoinSet::new();
    let served = async {
        for _ in 0..100 {
            waiting.spawn(answer(router.clone(), "GET", "/waiting", Body::empty()));
            while answer(router.clone(), "GET", "/ok", Body::empty()).await.status() != 200 {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(PATIENCE, served).await.expect("others are served");
    assert_eq!(waiting.len(), 100);
    assert!(waiting.try_join_next().is_none(), "all of them wait");
}
