//! What descriptions of routes have in common: error bodies, and what any route may answer.

use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::response::Response;
use utoipa::openapi::{
    Content, HeaderBuilder, ObjectBuilder, OpenApi, PathItem, Ref, RefOr, Required,
    ResponseBuilder, Type,
};
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

#[derive(utoipa::OpenApi)]
#[openapi(
    paths(crate::health::livez, crate::health::readyz),
    components(schemas(Message, Refusal, Refused))
)]
struct Shared;

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
        for operation in operations(&mut item) {
            if let Some(id) = &mut operation.operation_id {
                id.push_str("_alias");
            }
        }
        api.paths.paths.insert((*alias).to_owned(), item);
    }
    for item in api.paths.paths.values_mut() {
        for operation in operations(item) {
            complete(operation);
        }
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, delete, patch, .. } = item;
    [get, post, put, delete, patch].into_iter().flatten()
}

/// Says which parameters may be left out, and adds what every route may answer, and the header that every answer has.
fn complete(operation: &mut Operation) {
    // Only what stands in the path is always there.
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && parameter.parameter_in != ParameterIn::Path
        {
            parameter.required = Required::False;
        }
    }
    let common = [
        ("500", "Refusal", "A defect of ours", false),
        ("503", "Refusal", "Something that the answer needs does not work right now", true),
    ];
    for (status, schema, description, is_temporary) in common {
        let answers = &mut operation.responses.responses;
        answers
            .entry(status.to_owned())
            .or_insert_with(|| error(schema, description, is_temporary).into());
    }
    for answer in operation.responses.responses.values_mut() {
        if let RefOr::T(answer) = answer {
            let id = header("The id of this request", Type::String);
            answer.headers.insert("X-Request-Id".to_owned(), id.into());
        }
    }
}

fn error(schema: &str, description: &str, is_temporary: bool) -> Response {
    let content = Content::new(Some(Ref::from_schema_name(schema)));
    let mut answer = ResponseBuilder::new()
        .description(description)
        .content("application/json", content)
        .build();
    if is_temporary {
        let after = header("Seconds after which to try again", Type::Integer);
        answer.headers.insert("Retry-After".to_owned(), after.into());
    }
    answer
}

fn header(description: &str, kind: Type) -> utoipa::openapi::Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
