//! Refused parameters are named, and unknown parameters are refused.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use service_kit::extract::QueryParameters;
use service_kit::http::{Routes, refuse_unknown_parameters, with_edge};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa::OpenApi;

use crate::{Numbered, clock, open_router, test_config};

#[utoipa::path(get, path = "/described/{id}", params(("number" = u32, Query)), responses())]
#[expect(dead_code, reason = "describes the route")]
fn described() {}

#[utoipa::path(get, path = "/plain", responses())]
#[expect(dead_code, reason = "describes the route")]
fn plain() {}

#[derive(OpenApi)]
#[openapi(paths(described, plain))]
struct Described;

/// Returns the status and the first fault of the response.
async fn get_fault(router: &Router, uri: &str) -> (u16, Value) {
    let request =
        Request::get(uri).header("host", "test").header("accept", "application/problem+json");
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, document["errors"][0].clone())
}

fn expected_fault(parameter: &str, detail: &str) -> Value {
    json!({"pointer": "", "parameter": parameter, "detail": detail})
}

#[tokio::test]
async fn invalid_parameter_is_named_with_the_reason() {
    let router = open_router(&test_config());
    let integer = "must be an integer that is not negative, and not too large";
    for (uri, name, reason) in [
        ("/query?number=x", "number", integer),
        ("/query?number=-1", "number", integer),
        ("/query?number=4294967296", "number", integer),
        ("/query?number=", "number", "must be an integer"),
        ("/query?number=1&number=2", "number", "must be given once"),
        ("/query?number=%ff", "number", "must be percent-encoded UTF-8"),
        ("/number/%ff", "it", "must be percent-encoded UTF-8"),
    ] {
        assert_eq!(get_fault(&router, uri).await, (400, expected_fault(name, reason)), "{uri}");
    }
    let missing = expected_fault("number", "missing field `number`");
    assert_eq!(get_fault(&router, "/query").await, (400, missing));
    assert_eq!(get_fault(&router, "/number/x").await.1["detail"], "must be of type u32");
}

#[tokio::test]
async fn unknown_parameter_is_refused() {
    let routes = Router::new()
        .route("/described/{id}", get(|_: QueryParameters<Numbered>| async {}))
        .route("/plain", get(|| async {}))
        .route("/undescribed", get(|| async {}));
    let protected = refuse_unknown_parameters(routes, &Described::openapi());
    let routes = Routes {
        protected,
        ownership: None,
        health: Router::new(),
        draining: CancellationToken::new(),
    };
    let edge = with_edge(routes, &test_config(), service_kit::auth::Access::Open, clock());
    let names = "is not known: must be one of number";
    for (uri, name, reason) in [
        ("/described/1?number=1&nummer=2", "nummer", names),
        ("/described/1?n%75mmer=2", "nummer", names),
        ("/described/1?Number=1", "Number", names),
        ("/plain?verbose", "verbose", "is not known: this route has no query parameters"),
    ] {
        assert_eq!(get_fault(&edge, uri).await, (400, expected_fault(name, reason)), "{uri}");
    }
    for uri in [
        "/described/1?number=1",
        "/described/1?n%75mber=1",
        "/plain",
        "/plain?",
        "/plain?&",
        "/undescribed?any=1",
    ] {
        assert_eq!(get_fault(&edge, uri).await.0, 200, "{uri}");
    }
}
