//! What is mounted, held against its description.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use service_kit::auth::Principal;
use tower::ServiceExt;

use super::*;
use crate::settings;

/// What Swagger UI mounts for its pages beside the one that is described.
const OF_THE_PAGES: [&str; 2] = ["/docs", "/docs/{*rest}"];
/// How axum calls the place where all ends that has no route.
const FALLBACK: [&str; 2] = ["/", "/{*__private__axum_fallback}"];

/// The routes of a process with every role.
fn routes() -> Router {
    let mut system = System::new(settings::load(&[]).unwrap());
    let store = projectors::open("sqlite:///nowhere/rows.sqlite").unwrap();
    let log = system.connect().unwrap();
    let owners = log.clone().map(Owners::new);
    let routes = system.api_routes(store, log.zip(owners), Access::Open);
    routes.merge(documentation(AuthMode::ApiKey)).merge(health::routes(Checks::default()))
}

/// Their paths: the router shows them to nobody but who prints it.
fn paths(routes: &Router) -> BTreeSet<String> {
    let printed = format!("{routes:?}");
    let quoted = printed.split('"').filter(|it| it.starts_with('/'));
    quoted.map(str::to_owned).collect()
}

/// Paths with their methods, as described.
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let description = serde_json::to_value(openapi()).unwrap();
    let methods = |item: &serde_json::Value| {
        item.as_object().unwrap().keys().map(|it| it.to_uppercase()).collect()
    };
    let paths = description["paths"].as_object().unwrap();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test]
async fn every_path_that_is_mounted_is_described() {
    let mut mounted = paths(&routes());
    assert!(mounted.len() > 20, "{mounted:?}");
    mounted.retain(|it| !OF_THE_PAGES.iter().chain(&FALLBACK).any(|other| it == other));
    let described: BTreeSet<_> = described().into_keys().collect();
    assert_eq!(mounted, described);
}

#[tokio::test]
async fn every_method_that_is_mounted_is_described() {
    for (path, methods) in described() {
        let path = path.replace("{id}", "01a20a7c-04d5-7152-ae3b-52abdbe6a2aa");
        let request = Request::builder().uri(&path).method(Method::TRACE);
        let request = request.extension(Principal::anonymous()).body(Body::empty()).unwrap();
        let answer = routes().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = answer.headers()[header::ALLOW].to_str().unwrap().split(',');
        let allowed: BTreeSet<_> = allowed.filter(|it| *it != "HEAD").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}
