//! What is true of every route: which parameters may be left out, who may use it, and what the edge
//! answers or adds to an answer.

use axum::http::Method;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Content, HeaderBuilder, ObjectBuilder, OpenApi, PathItem, Ref, RefOr, Required,
    ResponseBuilder, Type,
};

use crate::auth::{Need, need};
use crate::health;
use crate::problem::PROBLEM_JSON;

const JSON: &str = "application/json";
/// How a key is shown: one of these.
const SCHEMES: [&str; 2] = ["bearer", "api_key"];
/// The schemas of errors that are told as problem documents to who asks for that.
const ERRORS: [&str; 3] = ["Message", "Refusal", "Refused"];

/// Headers that are described once, and what they say.
const HEADERS: [(&str, Type, &str); 12] = [
    ("X-Request-Id", Type::String, "The name of this request: the client's own, or its id"),
    ("Cache-Control", Type::String, "`no-store`, unless the answer says otherwise"),
    ("Content-Security-Policy", Type::String, "Load nothing, frame nothing"),
    ("Referrer-Policy", Type::String, "`no-referrer`"),
    ("X-Content-Type-Options", Type::String, "`nosniff`"),
    ("X-Frame-Options", Type::String, "`DENY`"),
    ("RateLimit-Policy", Type::String, "How many requests may come in which time, if limited"),
    ("RateLimit", Type::String, "How many are left, and for how long, if limited"),
    ("Strict-Transport-Security", Type::String, "Come back over TLS only; over TLS"),
    ("Vary", Type::String, "`accept`: it decides on the form of an error"),
    ("Retry-After", Type::Integer, "Seconds after which to try again"),
    ("WWW-Authenticate", Type::String, "`Bearer`"),
];
/// Headers that any request may have.
const REQUEST_HEADERS: [(&str, &str); 2] = [
    (
        "X-Request-Id",
        "What the client calls the request, if it can stand in a log; else it gets an id",
    ),
    (
        "traceparent",
        "W3C trace context, recorded with what the request causes; any other text is none",
    ),
];
/// Those of every answer.
const OF_ALL: [&str; 7] = [
    "X-Request-Id",
    "Cache-Control",
    "Content-Security-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Strict-Transport-Security",
];
/// Those of every answer of a route whose clients are counted.
const OF_COUNTED: [&str; 2] = ["RateLimit-Policy", "RateLimit"];

/// Where an answer of the edge can come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    All,
    /// Those that read a body.
    Body,
    /// Those that somebody may use and others may not.
    Guarded,
    /// All but health.
    Counted,
}

/// What the edge answers, beside what each route's own description says.
const ANSWERS: [(&str, On, &str, &str); 12] = [
    ("400", On::All, "Message", "A parameter or a header is malformed"),
    ("401", On::Guarded, "Message", "The request shows no key that is known and valid"),
    (
        "403",
        On::Guarded,
        "Message",
        "A web page of a foreign origin asks, or the key lacks the scope",
    ),
    ("408", On::Body, "Message", "The body did not come in time"),
    ("413", On::Body, "Message", "The body is too long"),
    ("414", On::All, "Message", "The URL is too long"),
    ("415", On::Body, "Message", "The body is of another type, or packed"),
    (
        "421",
        On::All,
        "Message",
        "The API listens on loopback, and the host is not one of its names",
    ),
    ("429", On::Counted, "Message", "The client asks more often than it may"),
    ("431", On::All, "Message", "The head is too long"),
    ("500", On::All, "Refusal", "A defect of ours"),
    ("503", On::All, "Refusal", "Something that the answer needs does not work right now"),
];

/// The operations of a path, each with its method.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, post, put, delete, patch, .. } = item;
    let all = [
        (Method::GET, get),
        (Method::POST, post),
        (Method::PUT, put),
        (Method::DELETE, delete),
        (Method::PATCH, patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Adds to a description what is true of every route.
pub(super) fn complete(api: &mut OpenApi) {
    for (path, item) in &mut api.paths.paths {
        let is_health = health::ROUTES.contains(&path.as_str());
        for (method, operation) in operations(item) {
            let need = if is_health { Need::Nothing } else { need(path, &method) };
            optional(operation);
            for name in REQUEST_HEADERS.map(|(name, _)| name) {
                let known = Ref::new(format!("#/components/parameters/{name}"));
                operation.parameters.get_or_insert_default().push(RefOr::Ref(known));
            }
            security(operation, need);
            answers(operation, need, is_health);
        }
    }
    let components = api.components.get_or_insert_default();
    for (name, description) in REQUEST_HEADERS {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
            .build();
        components.parameters.insert(name.to_owned(), parameter.into());
    }
    for (name, kind, description) in HEADERS {
        components.headers.insert(name.to_owned(), header(kind, description).into());
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, `dofs_<environment>_<id>_<secret>`: `dofs keys create`"))
        .build();
    let key = ApiKeyValue::with_description("X-Api-Key", "The same in a header of its own");
    let schemes = [SecurityScheme::Http(bearer), SecurityScheme::ApiKey(ApiKey::Header(key))];
    for (name, scheme) in SCHEMES.into_iter().zip(schemes) {
        components.add_security_scheme(name, scheme);
    }
}

/// Only what stands in the path is always there.
fn optional(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && parameter.parameter_in != ParameterIn::Path
        {
            parameter.required = Required::False;
        }
    }
}

fn security(operation: &mut Operation, need: Need) {
    operation.security = match need {
        Need::Nothing => None,
        Need::Scope(_) => {
            let no_scopes = || std::iter::empty::<String>();
            Some(SCHEMES.map(|it| SecurityRequirement::new(it, no_scopes())).into())
        }
    };
}

fn answers(operation: &mut Operation, need: Need, is_health: bool) {
    let has_body = operation.request_body.is_some();
    let applies = |on| match on {
        On::All => true,
        On::Body => has_body,
        On::Guarded => need != Need::Nothing,
        On::Counted => !is_health,
    };
    let answers = &mut operation.responses.responses;
    for (status, on, schema, description) in ANSWERS {
        if !applies(on) {
            continue;
        }
        let description = match need {
            Need::Scope(scope) if status == "403" => format!("{description} `{}`", scope.as_str()),
            Need::Nothing | Need::Scope(_) => description.to_owned(),
        };
        answers.entry(status.to_owned()).or_insert_with(|| error(schema, description).into());
    }
    for (status, answer) in answers.iter_mut() {
        let RefOr::T(answer) = answer else { continue };
        let is_error = is_told_as_problem(answer);
        let of_error = is_error.then_some("Vary");
        let of_status = match status.as_str() {
            "401" => Some("WWW-Authenticate"),
            "429" | "503" => is_error.then_some("Retry-After"),
            _ => None,
        };
        let counted = OF_COUNTED.into_iter().filter(|_| !is_health);
        for name in OF_ALL.into_iter().chain(counted).chain(of_error).chain(of_status) {
            let known = RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
            answer.headers.entry(name.to_owned()).or_insert(known);
        }
        if is_error {
            let content = Content::new(Some(Ref::from_schema_name("Problem")));
            answer.content.insert(PROBLEM_JSON.to_owned(), content.into());
        }
    }
}

/// Whether an answer has one of the two bodies of errors.
fn is_told_as_problem(answer: &Response) -> bool {
    let Some(RefOr::T(content)) = answer.content.get(JSON) else { return false };
    let Some(RefOr::Ref(schema)) = &content.schema else { return false };
    ERRORS.iter().any(|it| schema.ref_location.ends_with(&format!("/{it}")))
}

fn error(schema: &str, description: String) -> Response {
    let content = Content::new(Some(Ref::from_schema_name(schema)));
    ResponseBuilder::new().description(description).content(JSON, content).build()
}

fn header(kind: Type, description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
