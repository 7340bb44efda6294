//! Tests that the mounted routes and the API description agree.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use service_kit::auth::Principal;
use service_kit::health::{self, Checks};
use tower::ServiceExt;

use super::*;
use crate::cli::Global;
use crate::description::openapi;
use crate::settings::{self, AuthMode};

/// Paths that Swagger UI mounts for its pages besides the described one.
const SWAGGER_PATHS: [&str; 2] = ["/docs", "/docs/{*rest}"];
/// Paths under which axum lists its fallback route.
const FALLBACK_PATHS: [&str; 2] = ["/", "/{*__private__axum_fallback}"];

/// Returns the routes of a process with all roles.
fn mount_routes() -> Router {
    let mut system = System::new(settings::load(&Global::default(), &[]).unwrap());
    let store = projectors::open("sqlite:///nowhere/rows.sqlite").unwrap();
    let log = system.connect_event_log().unwrap();
    let owners = log.clone().map(Owners::new);
    let routes = system.api_routes(store, log.zip(owners), Access::Open, &ALL_ROLES);
    let health = health::routes(Arc::new(Checks::default()));
    routes.merge(documentation_routes(AuthMode::ApiKey)).merge(health)
}

/// Returns the paths of routes. A router reveals them only in its debug output.
fn mounted_paths(routes: &Router) -> BTreeSet<String> {
    let debug_output = format!("{routes:?}");
    let quoted = debug_output.split('"').filter(|quoted| quoted.starts_with('/'));
    quoted.map(str::to_owned).collect()
}

/// Returns the described paths with their methods.
fn described_methods() -> BTreeMap<String, BTreeSet<String>> {
    let description = serde_json::to_value(openapi()).unwrap();
    let methods = |item: &serde_json::Value| {
        item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect()
    };
    let paths = description["paths"].as_object().unwrap();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test]
async fn every_mounted_path_is_described() {
    let mut mounted = mounted_paths(&mount_routes());
    assert!(mounted.len() > 20, "{mounted:?}");
    let undescribed = SWAGGER_PATHS.iter().chain(&FALLBACK_PATHS);
    mounted.retain(|path| !undescribed.clone().any(|other| path == other));
    let described: BTreeSet<_> = described_methods().into_keys().collect();
    assert_eq!(mounted, described);
}

#[tokio::test]
async fn every_mounted_method_is_described() {
    for (path, methods) in described_methods() {
        let path = path.replace("{id}", "01a20a7c-04d5-7152-ae3b-52abdbe6a2aa");
        let request = Request::builder().uri(&path).method(Method::TRACE);
        let request = request.extension(Principal::anonymous()).body(Body::empty()).unwrap();
        let response = mount_routes().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = response.headers()[header::ALLOW].to_str().unwrap().split(',');
        let allowed: BTreeSet<_> =
            allowed.filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}
