//! Scopes that operations require, as their declarations name them.

use std::collections::HashMap;

use axum::http::Method;
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::Operation;

use super::Scope;
use crate::api_doc::operations::operations;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// No key: the operation is public.
    Public,
    /// Any valid key, whatever its scopes.
    Key,
    Scope(Scope),
}

/// The requirement of every declared operation, by path template and method.
#[derive(Debug, Clone, Default)]
pub struct OperationScopes {
    by_path: HashMap<String, Vec<(Method, Requirement)>>,
}

impl OperationScopes {
    /// Reads the `security` of every operation. An operation without one has no requirement here.
    pub fn from_api(api: &OpenApi) -> Self {
        let mut scopes = Self::default();
        for (path, item) in &api.paths.paths {
            for (method, operation) in operations(item) {
                if let Some(requirement) = requirement_of(operation) {
                    scopes.by_path.entry(path.clone()).or_default().push((method, requirement));
                }
            }
        }
        scopes
    }

    /// Makes `GET` requests to a path public that has no declaration.
    #[must_use]
    pub fn with_public(mut self, path: &str) -> Self {
        let requirement = (Method::GET, Requirement::Public);
        self.by_path.entry(path.to_owned()).or_default().push(requirement);
        self
    }

    /// Returns what a request to a route needs. An operation without a declaration needs an operator's
    /// scope, so that a forgotten declaration opens nothing. On a path whose operations are all public,
    /// an undeclared method is public too: the answer is 405.
    pub(super) fn requirement(&self, route: &str, method: &Method) -> Requirement {
        let is_read = *method == Method::GET || *method == Method::HEAD;
        // axum answers HEAD with the handler of GET.
        let declared = if is_read { &Method::GET } else { method };
        let operations = self.by_path.get(route).map_or(&[][..], Vec::as_slice);
        let is_public =
            |(_, requirement): &(Method, Requirement)| *requirement == Requirement::Public;
        if !operations.is_empty() && operations.iter().all(is_public) {
            return Requirement::Public;
        }
        let requirement = operations.iter().find(|(method, _)| method == declared);
        let operator = if is_read { Scope::OpsRead } else { Scope::OpsWrite };
        requirement.map_or(Requirement::Scope(operator), |(_, requirement)| *requirement)
    }
}

/// Returns what an operation declares: `security(())` is public, `security(("api_key" = []))` needs any
/// key, `security(("api_key" = ["<scope>"]))` names a scope. `None` if it declares none of these.
pub(crate) fn requirement_of(operation: &Operation) -> Option<Requirement> {
    let declared = operation.security.as_ref()?.first()?;
    // The type has no accessors.
    let Ok(Value::Object(schemes)) = serde_json::to_value(declared) else { return None };
    let Some(scopes) = schemes.values().next() else { return Some(Requirement::Public) };
    match scopes.as_array()?.first() {
        Some(scope) => Scope::from_name(scope.as_str()?).map(Requirement::Scope),
        None => Some(Requirement::Key),
    }
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi as _;

    use super::*;

    #[utoipa::path(get, path = "/read", security(("api_key" = ["audit:read"])), responses())]
    #[expect(dead_code, reason = "a declaration")]
    fn read() {}

    #[utoipa::path(post, path = "/read", security(("api_key" = ["orders:write"])), responses())]
    #[expect(dead_code, reason = "a declaration")]
    fn write() {}

    #[utoipa::path(get, path = "/public", security(()), responses())]
    #[expect(dead_code, reason = "a declaration")]
    fn public() {}

    #[utoipa::path(get, path = "/any-key", security(("api_key" = [])), responses())]
    #[expect(dead_code, reason = "a declaration")]
    fn any_key() {}

    #[utoipa::path(get, path = "/forgotten", responses())]
    #[expect(dead_code, reason = "a declaration")]
    fn forgotten() {}

    #[utoipa::path(get, path = "/misspelt", security(("api_key" = ["orders"])), responses())]
    #[expect(dead_code, reason = "a declaration")]
    fn misspelt() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(read, write, public, any_key, forgotten, misspelt))]
    struct Declared;

    #[test]
    fn operations_need_what_they_declare_and_others_an_operator() {
        let scopes = OperationScopes::from_api(&Declared::openapi()).with_public("/docs/");
        let operator = [Requirement::Scope(Scope::OpsRead), Requirement::Scope(Scope::OpsWrite)];
        for (method, route, expected) in [
            (Method::GET, "/read", Requirement::Scope(Scope::AuditRead)),
            (Method::HEAD, "/read", Requirement::Scope(Scope::AuditRead)),
            (Method::POST, "/read", Requirement::Scope(Scope::OrdersWrite)),
            (Method::DELETE, "/read", operator[1]),
            (Method::GET, "/public", Requirement::Public),
            (Method::POST, "/public", Requirement::Public),
            (Method::GET, "/any-key", Requirement::Key),
            (Method::POST, "/any-key", operator[1]),
            (Method::GET, "/forgotten", operator[0]),
            (Method::GET, "/misspelt", operator[0]),
            (Method::GET, "/docs/", Requirement::Public),
            (Method::GET, "/docsecrets", operator[0]),
            (Method::POST, "/anything/new", operator[1]),
        ] {
            assert_eq!(scopes.requirement(route, &method), expected, "{method} {route}");
        }
    }
}
