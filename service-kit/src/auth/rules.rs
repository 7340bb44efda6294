//! What each route asks for: the only place that says so.

use axum::http::Method;

use super::Scope;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Anybody may: it is the same for all.
    Nothing,
    Scope(Scope),
}

/// Route, and what reading and changing need. A route that is not here needs an operator.
const ROUTES: [(&str, Scope, Scope); 13] = [
    ("/order", Scope::OrdersRead, Scope::OrdersWrite),
    ("/order/{id}", Scope::OrdersRead, Scope::OrdersWrite),
    ("/v1/orders", Scope::OrdersRead, Scope::OrdersWrite),
    ("/v1/orders/{id}", Scope::OrdersRead, Scope::OrdersWrite),
    ("/v1/orders/{id}/history", Scope::AuditRead, Scope::OpsWrite),
    ("/v1/orders/{id}/history/compare", Scope::AuditRead, Scope::OpsWrite),
    ("/v1/events/stream", Scope::AuditRead, Scope::OpsWrite),
    ("/v1/failed-orders", Scope::OrdersRead, Scope::OpsWrite),
    // Here for who reads: these, and all of /v1/ops, would need an operator without a row as well.
    ("/v1/orders/{id}/redrive", Scope::OpsRead, Scope::OpsWrite),
    ("/v1/dead-letters", Scope::OpsRead, Scope::OpsWrite),
    ("/v1/dead-letters/{id}", Scope::OpsRead, Scope::OpsWrite),
    ("/v1/dead-letters/{id}/discard", Scope::OpsRead, Scope::OpsWrite),
    ("/v1/stats", Scope::OpsRead, Scope::OpsWrite),
];

/// How the API is used, which is no secret.
const PUBLIC: [&str; 2] = ["/openapi.json", "/docs"];

/// What a request to a route asks for.
pub(crate) fn need(route: &str, method: &Method) -> Need {
    let is_public = PUBLIC.iter().any(|it| {
        route.strip_prefix(it).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if is_public {
        return Need::Nothing;
    }
    let rule = ROUTES.iter().find(|(path, _, _)| *path == route);
    let (read, write) = rule.map_or((Scope::OpsRead, Scope::OpsWrite), |it| (it.1, it.2));
    Need::Scope(if *method == Method::GET || *method == Method::HEAD { read } else { write })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_need_what_the_table_says_and_others_an_operator() {
        let cases = [
            (Method::POST, "/v1/orders", Need::Scope(Scope::OrdersWrite)),
            (Method::HEAD, "/v1/orders/{id}", Need::Scope(Scope::OrdersRead)),
            (Method::GET, "/v1/orders/{id}/history", Need::Scope(Scope::AuditRead)),
            (Method::GET, "/v1/orders/{id}/history/compare", Need::Scope(Scope::AuditRead)),
            (Method::GET, "/v1/events/stream", Need::Scope(Scope::AuditRead)),
            (Method::GET, "/v1/dead-letters/{id}", Need::Scope(Scope::OpsRead)),
            (Method::POST, "/v1/dead-letters/{id}/discard", Need::Scope(Scope::OpsWrite)),
            (Method::POST, "/v1/orders/{id}/redrive", Need::Scope(Scope::OpsWrite)),
            (Method::GET, "/v1/ops/tasks", Need::Scope(Scope::OpsRead)),
            (Method::DELETE, "/v1/ops/tasks/{id}", Need::Scope(Scope::OpsWrite)),
            (Method::POST, "/v1/ops/dead-letters/redrives", Need::Scope(Scope::OpsWrite)),
            (Method::POST, "/anything/new", Need::Scope(Scope::OpsWrite)),
            (Method::GET, "/docs/{*file}", Need::Nothing),
            (Method::GET, "/openapi.json", Need::Nothing),
            (Method::GET, "/docsecrets", Need::Scope(Scope::OpsRead)),
        ];
        for (method, route, expected) in cases {
            assert_eq!(need(route, &method), expected, "{method} {route}");
        }
    }
}
