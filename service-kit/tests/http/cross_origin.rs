//! Requests of web pages: a foreign page changes nothing unless its origin is allowed.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use service_kit::http::ApiConfig;
use tower::ServiceExt;

use crate::{open_router, test_config};

type Headers<'a> = &'a [(&'a str, &'a str)];

async fn send(router: &Router, line: &str, headers: Headers<'_>) -> Response<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let body = if method == "POST" { Body::from("{}") } else { Body::empty() };
    router.clone().oneshot(request.body(body).unwrap()).await.unwrap()
}

async fn post_json(router: &Router, headers: Headers<'_>) -> u16 {
    let json = ("content-type", "application/json");
    send(router, "POST /json", &[headers, &[json]].concat()).await.status().as_u16()
}

const HOST: (&str, &str) = ("host", "127.0.0.1:8080");
const FOREIGN: (&str, &str) = ("origin", "https://evil.example");
const OURS: (&str, &str) = ("origin", "http://127.0.0.1:8080");

#[tokio::test]
async fn foreign_page_cannot_change_anything() {
    let router = open_router(&test_config());
    let foreign: [Headers<'_>; 8] = [
        &[HOST, FOREIGN],
        &[HOST, ("origin", "null")],
        &[HOST, ("origin", "http://127.0.0.1:3000")],
        &[HOST, OURS, FOREIGN],
        &[HOST, ("sec-fetch-site", "cross-site")],
        &[HOST, ("sec-fetch-site", "same-site")],
        &[HOST, OURS, ("sec-fetch-site", "cross-site")],
        &[HOST, FOREIGN, ("sec-fetch-site", "cross-site")],
    ];
    for headers in foreign {
        assert_eq!(post_json(&router, headers).await, 403, "{headers:?}");
        for line in ["PUT /json", "DELETE /ok", "POST /livez", "POST /nothing"] {
            assert_eq!(send(&router, line, headers).await.status(), 403, "{line} {headers:?}");
        }
        assert_eq!(send(&router, "GET /ok", headers).await.status(), 200, "{headers:?}");
    }
    let accept = ("accept", "application/problem+json");
    let refused = send(&router, "POST /json", &[HOST, FOREIGN, accept]).await;
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["code"], json!("foreign_origin"), "{problem}");
}

#[tokio::test]
async fn programs_own_pages_and_allowed_origins_are_admitted() {
    let shop = ("origin", "https://shop.example");
    let allowed = vec![shop.1.parse().unwrap()];
    let router = open_router(&ApiConfig { cors_origins: allowed, ..test_config() });
    let admitted: [Headers<'_>; 6] = [
        &[HOST],
        &[HOST, OURS, ("sec-fetch-site", "same-origin")],
        &[HOST, OURS],
        // Behind a proxy that calls this server by another name.
        &[HOST, ("origin", "https://api.example"), ("sec-fetch-site", "same-origin")],
        &[HOST, shop, ("sec-fetch-site", "cross-site")],
        &[HOST, shop],
    ];
    for headers in admitted {
        assert_eq!(post_json(&router, headers).await, 200, "{headers:?}");
    }
    assert_eq!(post_json(&router, &[HOST, FOREIGN]).await, 403, "other origins stay foreign");
}

#[tokio::test]
async fn loopback_server_refuses_foreign_hosts() {
    let evil = ("host", "evil.example:8080");
    let names = ["api.example", "localhost:8080", "api.localhost", "[::1]:8080", "192.0.2.1"];
    let allowed_hosts = vec!["api.example".to_owned()];
    let local = open_router(&ApiConfig { allowed_hosts, ..test_config() });
    for line in ["GET /ok", "GET /livez", "GET http://evil.example/ok"] {
        let host = if line.contains("evil") { HOST } else { evil };
        assert_eq!(send(&local, line, &[host]).await.status(), 421, "{line}");
    }
    for name in names {
        assert_eq!(send(&local, "GET /ok", &[("host", name)]).await.status(), 200, "{name}");
    }
    // A server on every address cannot know its names.
    let open = open_router(&ApiConfig { listen: "0.0.0.0:8080".parse().unwrap(), ..test_config() });
    assert_eq!(send(&open, "GET /ok", &[evil]).await.status(), 200);
}
