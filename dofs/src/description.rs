//! Descriptions of this release for programs: the HTTP API, and the stored events.

use std::sync::Arc;

use api_types::event_schemas;
use domain::order::CURRENT_SCHEMA;
use serde_json::{Value, to_string_pretty};
use service_kit::api_doc::complete;
use service_kit::health::{self, Checks};
use utoipa::OpenApi;

use crate::installation_api;

/// Get this document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "operations", security(()),
    responses((status = 200, description = "This document", body = Object, example = json!({"openapi": "3.1.0"}))),
)]
#[expect(dead_code, reason = "declares the route of Swagger UI")]
fn get_openapi() {}

/// Read the API documentation
#[utoipa::path(
    get, path = "/docs/", operation_id = "getDocs", tag = "operations", security(()),
    responses((status = 200, description = "A page that works without internet access", body = String, content_type = "text/html", example = "<!DOCTYPE html>")),
)]
#[expect(dead_code, reason = "declares the route of Swagger UI")]
fn get_docs() {}

#[derive(OpenApi)]
#[openapi(
    paths(get_openapi, get_docs),
    info(
        title = "DOFS",
        description = "Distributed order fulfillment: place orders, read them, and follow their events.\n\nEvery response has the security headers of `docs/OPERATIONS.md`. Errors are JSON; clients that accept `application/problem+json` get problem documents (RFC 9457).",
    ),
    servers((url = "/", description = "The server of this document")),
    tags(
        (name = "orders", description = "Orders, their histories and failures"),
        (name = "events", description = "Events as they are appended"),
        (name = "operations", description = "Operation of the system"),
    )
)]
struct Api;

/// Returns the description of the HTTP API.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    api.merge(health::routes(Arc::new(Checks::default())).into_openapi());
    api.merge(command_api::api_doc());
    api.merge(projectors::api_doc());
    api.merge(installation_api::api_doc());
    complete(&mut api);
    api
}

/// Returns a JSON Schema for every event type of this release, by file name.
pub(crate) fn event_schema_files() -> Result<Vec<(String, String)>, serde_json::Error> {
    let files = event_schemas()?.into_iter().map(|(event_type, schema): (String, Value)| {
        let name = format!("{event_type}.v{CURRENT_SCHEMA}.json");
        Ok((name, format!("{}\n", to_string_pretty(&schema)?)))
    });
    files.collect()
}
