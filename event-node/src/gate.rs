//! What a request has to be before anything of it is carried out.
//!
//! The node asks for no password, so a web page in a browser on this machine must not get through:
//! a browser names the page's origin with every request that could write, reaches a name that an
//! attacker owns under that name, and speaks neither unencrypted HTTP/2 nor `application/grpc`.

mod deadline;
mod request_body;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{
    HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_TYPE, ORIGIN, UPGRADE},
    uri::PathAndQuery,
};
use service_kit::http::AllowedHosts;
use tokio::time::Instant;
use tonic::{Status, body::Body, codegen::Service};
use tower::Layer;

use crate::{
    gate::{
        deadline::{answer_until, deadline_of},
        request_body::RequestBody,
    },
    rpc::methods::{Called, Method},
};

/// Largest message that is accepted, in bytes: what the original accepts.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 * 1_024 * 1_024 - 10_000;

/// The paths at which the node says that it works, to any HTTP client: the original's, and ours.
pub(crate) const HEALTH_PATHS: [&str; 2] = ["/health/live", "/livez"];

/// What all names of gRPC content begin with.
const GRPC: &str = "application/grpc";

/// What the content of a request may be called.
const GRPC_TYPES: [&str; 2] = [GRPC, "application/grpc+proto"];

/// Header that names how messages are compressed.
const ENCODING: &str = "grpc-encoding";

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ENCODINGS: [&str; 3] = ["identity", "gzip", "deflate"];

/// Puts a [`Gated`] in front of a service.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    hosts: Arc<AllowedHosts>,
}

impl Gate {
    pub(crate) fn new(hosts: AllowedHosts) -> Self {
        Self { hosts: Arc::new(hosts) }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { hosts: Arc::clone(&self.hosts), inner }
    }
}

/// A service that sees only requests which may be carried out, each with a path that is served, a
/// body that ends where its caller ended it, and the time that its caller gives it.
#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    hosts: Arc<AllowedHosts>,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_grpc = content_type(&request).is_some_and(|it| it.starts_with(GRPC));
        match admit(&self.hosts, request) {
            Ok(Admitted { request, deadline }) => {
                Box::pin(answer_until(deadline, self.inner.call(request)))
            }
            Err(refusal) => {
                let response = refusal.into_response(is_grpc);
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}

/// A request that may be carried out.
struct Admitted {
    request: Request<Body>,
    deadline: Option<Instant>,
}

/// Why a request is not carried out.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It names the web page that it comes from.
    Origin,
    /// It is meant for another host.
    Host,
    /// There is nothing at its path, or not for its method.
    NotFound,
    NoContentType,
    ContentType(String),
    Version(Version),
    UnknownMethod,
    Encoding(String),
}

fn admit(hosts: &AllowedHosts, request: Request<Body>) -> Result<Admitted, Refusal> {
    if request.headers().contains_key(ORIGIN) {
        return Err(Refusal::Origin);
    }
    if !hosts.allow_request(&request) {
        return Err(Refusal::Host);
    }
    let path = request.uri().path();
    if HEALTH_PATHS.contains(&path) {
        return Ok(Admitted { request, deadline: None });
    }
    let called = Method::called_by(path).filter(|_| request.method() == HttpMethod::POST);
    let called = called.ok_or(Refusal::NotFound)?;
    match content_type(&request) {
        None => return Err(Refusal::NoContentType),
        Some(content_type) if !is_grpc(content_type) => {
            return Err(Refusal::ContentType(content_type.to_owned()));
        }
        Some(_) => {}
    }
    if request.version() != Version::HTTP_2 {
        return Err(Refusal::Version(request.version()));
    }
    let Called::Method(method) = called else { return Err(Refusal::UnknownMethod) };
    if let Some(encoding) = request.headers().get(ENCODING)
        && !ENCODINGS.iter().any(|known| encoding == known)
    {
        return Err(Refusal::Encoding(String::from_utf8_lossy(encoding.as_bytes()).into_owned()));
    }
    let deadline = deadline_of(request.headers());
    let request = at_path_of(method, request);
    let request = request.map(|body| Body::new(RequestBody::new(body, method.requests)));
    Ok(Admitted { request, deadline })
}

fn content_type(request: &Request<Body>) -> Option<&str> {
    request.headers().get(CONTENT_TYPE)?.to_str().ok()
}

/// Whether content of this type is messages as `proto/` describes them.
fn is_grpc(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    GRPC_TYPES.iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// The request with its path as the router knows it.
fn at_path_of(method: &Method, mut request: Request<Body>) -> Request<Body> {
    let path = method.path();
    if request.uri().path() != path {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = PathAndQuery::try_from(path).ok();
        // Nothing but the path has changed: without a URI from it the request finds no route.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
    request
}

impl Refusal {
    /// Answers like the original. For a request that said it were gRPC, the response says so too.
    fn into_response(self, is_grpc: bool) -> Response<Body> {
        let mut header = None;
        let (code, status) = match self {
            Self::Origin => (
                StatusCode::FORBIDDEN,
                Status::permission_denied("Requests of web pages (with an Origin) are refused."),
            ),
            Self::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                Status::permission_denied(
                    "Requests for this host are refused: connect to localhost or to an IP \
                     address, or set node.advertise to this host.",
                ),
            ),
            Self::NotFound => return not_found(is_grpc),
            Self::NoContentType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, Status::internal("Content-Type is missing."))
            }
            Self::ContentType(content_type) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Status::internal(format!("Content-Type '{content_type}' is not supported.")),
            ),
            Self::Version(version) => {
                header = Some((UPGRADE, HeaderValue::from_static("HTTP/2")));
                let text = format!("Request protocol '{version:?}' is not supported.");
                (StatusCode::UPGRADE_REQUIRED, Status::internal(text))
            }
            Self::UnknownMethod => {
                (StatusCode::OK, Status::unimplemented("Method is unimplemented."))
            }
            Self::Encoding(encoding) => {
                let known = HeaderValue::from_static("identity,gzip,deflate");
                header = Some((ACCEPT_ENCODING, known));
                let text = format!(
                    "Unsupported grpc-encoding value '{encoding}'. Supported encodings: {}",
                    ENCODINGS.join(", ")
                );
                (StatusCode::OK, Status::unimplemented(text))
            }
        };
        let mut response = status.into_http();
        *response.status_mut() = code;
        response.headers_mut().extend(header);
        if !is_grpc {
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }
}

/// What is at a path where nothing is. gRPC clients make UNIMPLEMENTED of it.
fn not_found(is_grpc: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    if is_grpc {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    }
    response
}
