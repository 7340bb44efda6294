//! What describes this release to other programs: the API, and the stored events.

use domain::order::{CURRENT_SCHEMA, EVENT_TYPES, schemas};
use serde_json::{Map, Value, json};
use service_kit::api_doc::{Method, whole};
use utoipa::OpenApi;

/// Paths of the system before this one, which are known under newer names too.
const ALIASES: [(Method, &str, &str); 2] =
    [(Method::Post, "/v1/orders", "/order"), (Method::Get, "/v1/orders/{id}", "/order/{id}")];

/// Describe the API to programs
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations",
    responses((status = 200, description = "This description", body = Object)),
)]
#[expect(dead_code, reason = "describes what Swagger UI serves")]
fn description() {}

/// Describe the API to people
#[utoipa::path(
    get, path = "/docs/", tag = "operations",
    responses((status = 200, description = "A page that needs no internet", body = String, content_type = "text/html")),
)]
#[expect(dead_code, reason = "describes what Swagger UI serves")]
fn pages() {}

#[derive(OpenApi)]
#[openapi(
    paths(description, pages),
    info(
        title = "DOFS",
        description = "Distributed order fulfillment: places orders, shows them, and tells what happens to them",
    ),
    tags(
        (name = "orders", description = "Orders, their histories and failures"),
        (name = "events", description = "What happens, as it happens"),
        (name = "operations", description = "How the system is"),
    )
)]
struct Api;

/// The description of the HTTP API.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    let parts = vec![command_api::api_doc(), projectors::api_doc()];
    let mut api = whole(Api::openapi(), parts, &ALIASES);
    // Made of the package's, which has none.
    api.info.license = None;
    api
}

/// A JSON Schema for every type of event as it is written today, by file name.
pub(crate) fn event_schemas() -> Result<Vec<(String, String)>, serde_json::Error> {
    let (events, shared): (Vec<_>, Vec<_>) =
        schemas().into_iter().partition(|(name, _)| EVENT_TYPES.contains(&name.as_str()));
    let mut definitions = Map::new();
    for (name, schema) in shared {
        definitions.insert(name, serde_json::to_value(schema)?);
    }
    events
        .into_iter()
        .map(|(event_type, schema)| {
            let mut whole = json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": event_type,
            });
            if let (Some(whole), Value::Object(schema)) =
                (whole.as_object_mut(), serde_json::to_value(schema)?)
            {
                whole.extend(schema);
            }
            let is_used = |it: &str| whole.to_string().contains(&format!("/{it}\""));
            let used: Map<String, Value> =
                definitions.clone().into_iter().filter(|(name, _)| is_used(name)).collect();
            if !used.is_empty() {
                whole["$defs"] = Value::Object(used);
            }
            let text = serde_json::to_string_pretty(&whole)?;
            let text = text.replace("#/components/schemas/", "#/$defs/");
            Ok((format!("{event_type}.v{CURRENT_SCHEMA}.json"), format!("{text}\n")))
        })
        .collect()
}
