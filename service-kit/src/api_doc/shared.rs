//! Components that all operations share: errors, headers, parameters and security schemes.

use api_types::{Message, Problem, Refusal, RefusedRequest};
use utoipa::ToSchema;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, Content, HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required,
    ResponseBuilder, Type,
};

use super::SCHEMES;
use crate::problem::PROBLEM_JSON;

const JSON: &str = "application/json";

/// Headers of responses, with their types and descriptions.
const RESPONSE_HEADERS: [(&str, Type, &str); 6] = [
    ("X-Request-Id", Type::String, "Name of the request: the client's own, or its id"),
    ("RateLimit-Policy", Type::String, "Requests per time window, if the rate is limited"),
    ("RateLimit", Type::String, "Remaining requests and seconds, if the rate is limited"),
    ("Vary", Type::String, "`accept`: it selects the form of the error"),
    ("Retry-After", Type::Integer, "Seconds after which to retry"),
    ("WWW-Authenticate", Type::String, "`Bearer`"),
];

/// Headers of responses to clients whose rate is limited.
pub(super) const RATE_LIMIT_HEADERS: [&str; 2] = ["RateLimit-Policy", "RateLimit"];

/// Headers that every request may have.
pub(super) const REQUEST_HEADERS: [(&str, &str); 2] = [
    (
        "X-Request-Id",
        "Name of the request in logs and in the response. A name with other characters than letters, digits and `-_.:/+=` is replaced by an id",
    ),
    (
        "traceparent",
        "W3C trace context, recorded with the events that the request causes. Any other text is ignored",
    ),
];

/// Operations that return a shared error without declaring it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppliesTo {
    Every,
    /// Operations that read a request body.
    WithBody,
    /// Operations that require a key.
    Guarded,
    /// All operations but health checks.
    RateLimited,
    /// None: handlers declare it.
    Declared,
}

/// An error response that operations share.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedError {
    pub(super) status: &'static str,
    name: &'static str,
    pub(super) applies_to: AppliesTo,
    schema: &'static str,
    description: &'static str,
}

const fn error(
    status: &'static str,
    name: &'static str,
    applies_to: AppliesTo,
    schema: &'static str,
    description: &'static str,
) -> SharedError {
    SharedError { status, name, applies_to, schema, description }
}

/// Every shared error.
pub(super) const SHARED_ERRORS: [SharedError; 17] = {
    use AppliesTo::{Declared, Every, Guarded, RateLimited, WithBody};
    [
        error("400", "BadRequest", Every, "RefusedRequest", "The request is malformed"),
        error("401", "Unauthorized", Guarded, "Message", "The request has no valid key"),
        error("403", "Forbidden", Guarded, "Message", "The request is not permitted"),
        error("404", "NotFound", Declared, "Refusal", "The resource does not exist"),
        error("408", "RequestTimeout", WithBody, "Message", "The body did not arrive in time"),
        error(
            "409",
            "Conflict",
            Declared,
            "Refusal",
            "The state of the resource does not permit it",
        ),
        error("410", "Gone", Declared, "Refusal", "The order was deleted from the event store"),
        error("412", "PreconditionFailed", Declared, "Refusal", "The order has another revision"),
        error("413", "ContentTooLarge", WithBody, "Message", "The body is too large"),
        error("414", "UriTooLong", Every, "Message", "The URL is too long"),
        error("415", "UnsupportedMediaType", WithBody, "Message", "The body is not plain JSON"),
        error("421", "MisdirectedRequest", Every, "Message", "The `Host` is not allowed"),
        error("422", "Unprocessable", Declared, "Refusal", "A business rule is broken"),
        error("429", "TooManyRequests", RateLimited, "Message", "The client exceeds its rate"),
        error("431", "HeadersTooLarge", Every, "Message", "The request head is too large"),
        error("500", "InternalError", Every, "Refusal", "The server has a defect"),
        error("503", "Unavailable", Every, "Refusal", "A dependency is unavailable; retry later"),
    ]
};

impl SharedError {
    /// Returns the shared error with a status.
    pub(super) fn for_status(status: &str) -> Option<Self> {
        SHARED_ERRORS.into_iter().find(|error| error.status == status)
    }

    /// Returns a reference to the shared response, with a description of its own unless that is empty.
    pub(super) fn to_reference(self, description: &str) -> RefOr<Response> {
        let mut reference = Ref::from_response_name(self.name);
        description.clone_into(&mut reference.description);
        RefOr::Ref(reference)
    }

    /// Returns the response itself.
    pub(super) fn to_response(self) -> Response {
        let content = |schema| Content::new(Some(Ref::from_schema_name(schema)));
        let of_status: &[&str] = match self.status {
            "401" => &["WWW-Authenticate"],
            "429" | "503" => &["Retry-After"],
            _ => &[],
        };
        let names = ["X-Request-Id", "Vary"].iter().chain(of_status).chain(&RATE_LIMIT_HEADERS);
        let mut response = ResponseBuilder::new()
            .description(self.description)
            .content(JSON, content(self.schema))
            .content(PROBLEM_JSON, content("Problem"))
            .build();
        response.headers = names
            .map(|name| {
                let header = Ref::new(format!("#/components/headers/{name}"));
                ((*name).to_owned(), RefOr::Ref(header))
            })
            .collect();
        response
    }
}

/// Adds everything that completed operations refer to.
pub(super) fn add_components(api: &mut OpenApi) {
    let components = api.components.get_or_insert_default();
    add_schema::<Message>(components);
    add_schema::<Refusal>(components);
    add_schema::<RefusedRequest>(components);
    add_schema::<Problem>(components);
    for error in SHARED_ERRORS {
        components.responses.insert(error.name.to_owned(), error.to_response().into());
    }
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
    for (name, kind, description) in RESPONSE_HEADERS {
        components.headers.insert(name.to_owned(), header(kind, description).into());
    }
    let key = ApiKeyValue::with_description(
        "X-Api-Key",
        "An API key, `dofs_<environment>_<id>_<secret>`: `dofs keys create`",
    );
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The same key as a bearer token"))
        .build();
    let schemes = [SecurityScheme::ApiKey(ApiKey::Header(key)), SecurityScheme::Http(bearer)];
    for (name, scheme) in SCHEMES.into_iter().zip(schemes) {
        components.add_security_scheme(name, scheme);
    }
}

fn add_schema<T: ToSchema>(components: &mut Components) {
    let mut schemas = Vec::new();
    T::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert(T::name().into_owned(), T::schema());
}

fn header(kind: Type, description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
