//! What descriptions of routes have in common: error bodies, and what any route may answer.

mod complete;

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{OpenApi, PathItem, RefOr};
use utoipa::{OpenApi as _, ToSchema};

/// What the edge refuses.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Problem` writes")]
pub struct Message {
    message: String,
}

/// What the application refuses.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Problem` writes")]
pub struct Refusal {
    error: String,
    /// The order that is on record nevertheless.
    order_id: Option<uuid::Uuid>,
    /// Its status.
    status: Option<String>,
}

/// What the edge or the application refuses.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Refused {
    #[schema(rename = "message")]
    Message(String),
    #[schema(rename = "error")]
    Error(String),
}

/// One thing that is wrong with a request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `problem::Fault`")]
struct Fault {
    /// Where in the body: a JSON pointer (RFC 6901). Empty for a parameter.
    pointer: String,
    /// The parameter of the path, the query or the header that is at fault.
    #[schema(nullable = false)]
    parameter: Option<String>,
    detail: String,
}

/// The same as RFC 9457 tells it, for who accepts `application/problem+json`. It has the members of
/// the plain body too.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Problem` writes")]
struct Problem {
    /// `urn:dofs:problem:` and the code.
    #[schema(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
    /// What went wrong, for programs: `docs/problems` has a page for each.
    code: String,
    /// Every fault of the body, or the parameter that is at fault.
    errors: Vec<Fault>,
    request_id: String,
    /// If the edge refused.
    #[schema(nullable = false)]
    message: Option<String>,
    /// If the application refused.
    #[schema(nullable = false)]
    error: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    paths(crate::health::livez, crate::health::readyz),
    components(schemas(Message, Refusal, Refused, Problem, Fault))
)]
struct Shared;

/// Returns the names of the query parameters of every method of every path.
pub(crate) fn query_parameters(api: &mut OpenApi) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut names = BTreeMap::new();
    for (path, item) in &mut api.paths.paths {
        for (method, operation) in complete::operations(item) {
            let parameters = operation.parameters.iter().flatten();
            let of_query = parameters.filter_map(|it| match it {
                RefOr::T(it) if it.parameter_in == ParameterIn::Query => Some(it.name.clone()),
                RefOr::T(_) | RefOr::Ref(_) => None,
            });
            names.insert((path.clone(), method.as_str().to_owned()), of_query.collect());
        }
    }
    names
}

/// Takes out of a description that routes need keys, for an API that asks for none.
pub fn without_keys(api: &mut OpenApi) {
    for item in api.paths.paths.values_mut() {
        for (_, operation) in complete::operations(item) {
            operation.security = None;
        }
    }
    if let Some(components) = &mut api.components {
        components.security_schemes.clear();
    }
}

/// The methods that are known under other paths too.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    Get,
    Post,
}

/// The whole description: those of the parts, and what is true of all routes. `aliases` are paths
/// under which another one is known as well.
pub fn whole(mut api: OpenApi, parts: Vec<OpenApi>, aliases: &[(Method, &str, &str)]) -> OpenApi {
    api.merge(Shared::openapi());
    for part in parts {
        api.merge(part);
    }
    for (method, path, alias) in aliases {
        let Some(item) = api.paths.paths.get(*path) else { continue };
        let (get, post) = (item.get.clone(), item.post.clone());
        let mut item = PathItem::default();
        match method {
            Method::Get => item.get = get,
            Method::Post => item.post = post,
        }
        for (_, operation) in complete::operations(&mut item) {
            if let Some(id) = &mut operation.operation_id {
                id.push_str("_alias");
            }
        }
        api.paths.paths.insert((*alias).to_owned(), item);
    }
    complete::complete(&mut api);
    api
}
