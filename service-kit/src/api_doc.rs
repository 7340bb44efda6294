//! API descriptions: what is true of every operation, and the same operation under another path.
//!
//! Handlers declare their operations with `#[utoipa::path]`. [`complete`] adds what the HTTP server does
//! for all of them: common headers and parameters, the forms of a key, and the errors it returns itself.
//! A declared error response without a body becomes a reference to the shared response of its status.

pub(crate) mod operations;
mod shared;

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::path::{Operation, ParameterIn, Paths};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{Schema, SchemaType};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{HttpMethod, OpenApi, PathItem, Ref, RefOr, Required, Type};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::auth::{Requirement, Scope, requirement_of};
use crate::health;
use operations::{operations, operations_mut};
use shared::{AppliesTo, SHARED_ERRORS, SharedError};

/// Names of the security schemes. Declarations name the first; both forms of a key are equal.
const SCHEMES: [&str; 2] = ["api_key", "bearer"];

/// Declares an operation under another path too.
pub fn alias<S>(routes: UtoipaMethodRouter<S>, path: &str) -> UtoipaMethodRouter<S> {
    let (schemas, paths, handlers) = routes;
    let mut aliases = Paths::new();
    for item in paths.paths.into_values() {
        let PathItem { get, post, .. } = item;
        for (method, operation) in [(HttpMethod::Get, get), (HttpMethod::Post, post)] {
            let Some(mut operation) = operation else { continue };
            if let Some(id) = &mut operation.operation_id {
                // Ids of operations are unique in a document.
                id.push_str("Alias");
            }
            aliases.add_path_operation(path, vec![method], operation);
        }
    }
    (schemas, aliases, handlers)
}

/// Adds to a description what is true of every operation.
pub fn complete(api: &mut OpenApi) {
    for (path, item) in &mut api.paths.paths {
        let is_health = health::ROUTES.contains(&path.as_str());
        for operation in operations_mut(item) {
            complete_operation(operation, is_health);
        }
    }
    shared::add_components(api);
}

/// Removes the need for keys from a description, for an API that requires none.
pub fn without_keys(api: &mut OpenApi) {
    for item in api.paths.paths.values_mut() {
        for operation in operations_mut(item) {
            operation.security = None;
        }
    }
    if let Some(components) = &mut api.components {
        components.security_schemes.clear();
    }
}

/// Returns the names of the query parameters of every operation, by path and method.
pub(crate) fn query_parameters(api: &OpenApi) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut names = BTreeMap::new();
    for (path, item) in &api.paths.paths {
        for (method, operation) in operations(item) {
            let parameters = operation.parameters.iter().flatten();
            let of_query = parameters.filter_map(|parameter| match parameter {
                RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
                    Some(parameter.name.clone())
                }
                RefOr::T(_) | RefOr::Ref(_) => None,
            });
            names.insert((path.clone(), method.as_str().to_owned()), of_query.collect());
        }
    }
    names
}

fn complete_operation(operation: &mut Operation, is_health: bool) {
    let requirement = requirement_of(operation);
    let scope = match requirement {
        Some(Requirement::Scope(scope)) => Some(scope),
        Some(Requirement::Public | Requirement::Key) | None => None,
    };
    let needs_key = matches!(requirement, Some(Requirement::Scope(_) | Requirement::Key));
    if needs_key {
        let requirement = |scheme| SecurityRequirement::new(scheme, scope.map(Scope::as_str));
        operation.security = Some(SCHEMES.map(requirement).into());
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && parameter.parameter_in != ParameterIn::Path
        {
            parameter.required = Required::False;
            if let Some(schema) = &mut parameter.schema {
                remove_null(schema);
            }
        }
    }
    for name in shared::REQUEST_HEADERS.map(|(name, _)| name) {
        let parameter = Ref::new(format!("#/components/parameters/{name}"));
        operation.parameters.get_or_insert_default().push(RefOr::Ref(parameter));
    }
    complete_responses(operation, requirement, is_health);
}

/// Removes null from the schema of an optional parameter: an absent parameter has no value.
fn remove_null(schema: &mut RefOr<Schema>) {
    let is_null = |item: &RefOr<Schema>| match item {
        RefOr::T(Schema::Object(object)) => object.schema_type == SchemaType::Type(Type::Null),
        RefOr::T(_) | RefOr::Ref(_) => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|kind| *kind != Type::Null);
                if let [kind] = types.as_slice() {
                    object.schema_type = SchemaType::Type(kind.clone());
                }
            }
        }
        RefOr::T(Schema::OneOf(union)) => {
            union.items.retain(|item| !is_null(item));
            if union.items.len() == 1
                && let Some(only) = union.items.pop()
            {
                *schema = only;
            }
        }
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

fn complete_responses(
    operation: &mut Operation,
    requirement: Option<Requirement>,
    is_health: bool,
) {
    let has_body = operation.request_body.is_some();
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        let RefOr::T(declared) = response else { continue };
        match SharedError::for_status(status) {
            Some(shared) if declared.content.is_empty() && declared.headers.is_empty() => {
                *response = shared.to_reference(&declared.description);
            }
            Some(shared) if declared.content.is_empty() => {
                let own_headers = std::mem::take(&mut declared.headers);
                let description = std::mem::take(&mut declared.description);
                *declared = shared.to_response();
                declared.description = description;
                declared.headers.extend(own_headers);
            }
            Some(_) | None => add_headers(declared, is_health),
        }
    }
    for shared in SHARED_ERRORS {
        let applies = match shared.applies_to {
            AppliesTo::Every => true,
            AppliesTo::WithBody => has_body,
            AppliesTo::Guarded => {
                matches!(requirement, Some(Requirement::Scope(_) | Requirement::Key))
            }
            AppliesTo::RateLimited => !is_health,
            AppliesTo::Declared => false,
        };
        if !applies || responses.contains_key(shared.status) {
            continue;
        }
        let description = match requirement {
            Some(Requirement::Scope(scope)) if shared.status == "403" => {
                format!("The key lacks the scope `{}`, or the origin is foreign", scope.as_str())
            }
            Some(_) | None => String::new(),
        };
        responses.insert(shared.status.to_owned(), shared.to_reference(&description));
    }
}

fn add_headers(response: &mut Response, is_health: bool) {
    let rate_limits = shared::RATE_LIMIT_HEADERS.into_iter().filter(|_| !is_health);
    for name in ["X-Request-Id"].into_iter().chain(rate_limits) {
        let header = Ref::new(format!("#/components/headers/{name}"));
        response.headers.entry(name.to_owned()).or_insert(RefOr::Ref(header));
    }
}
