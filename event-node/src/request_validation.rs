//! Validation and authentication of requests before they reach a service.
//!
//! A node without users answers every caller, so requests from a web page in a browser on this
//! machine must be rejected. A browser sends an `Origin` header with every request that could write. It sends the
//! name that an attacker owns as the host. It sends neither unencrypted HTTP/2 nor
//! `application/grpc`.

mod authentication;
mod counted_call;
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
    access::Authenticator,
    metrics::CurrentCall,
    request_validation::{
        authentication::authenticate_request,
        counted_call::count_until_ended,
        deadline::{parse_deadline, respond_until},
        request_body::RequestBody,
    },
    rpc::methods::{GOSSIP, Method, RequestedMethod},
};

/// Maximum size of a message in bytes: the limit of EventStoreDB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1_024 * 1_024 - 10_000;

/// Paths of liveness probes: EventStoreDB's, and the one that all processes of DOFS have.
pub(crate) const HEALTH_PATHS: [&str; 2] = ["/health/live", "/livez"];

/// Prefix of all content types of gRPC.
const GRPC: &str = "application/grpc";

const ACCEPTED_CONTENT_TYPES: [&str; 2] = [GRPC, "application/grpc+proto"];

/// Header that names the compression of messages.
const ENCODING: &str = "grpc-encoding";

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ENCODINGS: [&str; 3] = ["identity", "gzip", "deflate"];

/// Wraps a service in [`Validated`].
#[derive(Clone)]
pub(crate) struct ValidationLayer {
    hosts: Arc<AllowedHosts>,
    authenticator: Option<Arc<Authenticator>>,
}

impl ValidationLayer {
    /// Creates a layer. Without an authenticator, every caller has all rights.
    pub(crate) fn new(hosts: AllowedHosts, authenticator: Option<Arc<Authenticator>>) -> Self {
        Self { hosts: Arc::new(hosts), authenticator }
    }
}

impl<S> Layer<S> for ValidationLayer {
    type Service = Validated<S>;

    fn layer(&self, inner: S) -> Validated<S> {
        let authenticator = self.authenticator.clone();
        Validated { hosts: Arc::clone(&self.hosts), authenticator, inner }
    }
}

/// A service that gets valid requests only. Each has the path of a served method, a
/// [`RequestBody`], the deadline of its caller and, if the node has users, the caller.
#[derive(Clone)]
pub(crate) struct Validated<S> {
    hosts: Arc<AllowedHosts>,
    authenticator: Option<Arc<Authenticator>>,
    inner: S,
}

impl<S> Service<Request<Body>> for Validated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Read now: validation consumes the request.
        let is_grpc = content_type(&request).is_some_and(|name| name.starts_with(GRPC));
        let call = is_grpc.then(CurrentCall::begin);
        let response: Self::Future = match validate_request(&self.hosts, request) {
            Ok(ValidRequest { request, deadline, is_call }) => {
                match self.authenticator.clone().filter(|_| is_call) {
                    None => Box::pin(respond_until(deadline, self.inner.call(request))),
                    Some(authenticator) => {
                        // The clone replaces the service that `poll_ready` has prepared.
                        let clone = self.inner.clone();
                        let inner = std::mem::replace(&mut self.inner, clone);
                        let response = respond_to_user(authenticator, request, inner);
                        Box::pin(respond_until(deadline, response))
                    }
                }
            }
            Err(rejection) => {
                let response = rejection.into_response(is_grpc);
                Box::pin(std::future::ready(Ok(response)))
            }
        };
        match call {
            Some(call) => {
                Box::pin(async { response.await.map(|response| count_until_ended(response, call)) })
            }
            None => response,
        }
    }
}

/// Authenticates the request and passes it to the service with its caller.
async fn respond_to_user<S>(
    authenticator: Arc<Authenticator>,
    request: Request<Body>,
    mut inner: S,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    match authenticate_request(&authenticator, request).await {
        Ok(request) => inner.call(request).await,
        Err(status) => Ok(status.into_http()),
    }
}

/// A request that passed validation.
struct ValidRequest {
    request: Request<Body>,
    deadline: Option<Instant>,
    /// Whether the request is a call, and not a liveness probe.
    is_call: bool,
}

/// Why a request is rejected.
#[derive(Debug, PartialEq, Eq)]
enum Rejection {
    /// The request has an `Origin` header: a web page has sent it.
    Origin,
    /// The request names another host.
    Host,
    /// The path does not exist, or not for the HTTP method.
    NotFound,
    NoContentType,
    ContentType(String),
    Version(Version),
    UnknownMethod,
    Encoding(String),
}

fn validate_request(
    hosts: &AllowedHosts,
    request: Request<Body>,
) -> Result<ValidRequest, Rejection> {
    // Both checks come before all others, so that a request of a web page gets no further.
    if request.headers().contains_key(ORIGIN) {
        return Err(Rejection::Origin);
    }
    if !hosts.allow_request(&request) {
        return Err(Rejection::Host);
    }
    let path = request.uri().path();
    if HEALTH_PATHS.contains(&path) {
        return Ok(ValidRequest { request, deadline: None, is_call: false });
    }
    let requested = Method::find_by_path(path).filter(|_| request.method() == HttpMethod::POST);
    let requested = requested.ok_or(Rejection::NotFound)?;
    match content_type(&request) {
        None => return Err(Rejection::NoContentType),
        Some(content_type) if !is_accepted_content_type(content_type) => {
            return Err(Rejection::ContentType(content_type.to_owned()));
        }
        Some(_) => {}
    }
    if request.version() != Version::HTTP_2 {
        return Err(Rejection::Version(request.version()));
    }
    let RequestedMethod::Known(method) = requested else { return Err(Rejection::UnknownMethod) };
    if let Some(encoding) = request.headers().get(ENCODING)
        && !ENCODINGS.iter().any(|known| encoding == known)
    {
        return Err(Rejection::Encoding(String::from_utf8_lossy(encoding.as_bytes()).into_owned()));
    }
    // tonic ends a call at its deadline only until the response begins, and with CANCELLED. This
    // deadline begins before tonic's timer, so it is always the first.
    let deadline = parse_deadline(request.headers());
    let mut request = with_path_of(method, request);
    if method.service == GOSSIP
        && let Some(authority) = request.uri().authority().cloned()
    {
        // The answer names the address that the client has called. tonic's request has no URI, so an
        // extension is the only way to the handler.
        request.extensions_mut().insert(authority);
    }
    let request = request.map(|body| Body::new(RequestBody::new(body, method.requests)));
    Ok(ValidRequest { request, deadline, is_call: true })
}

fn content_type(request: &Request<Body>) -> Option<&str> {
    request.headers().get(CONTENT_TYPE)?.to_str().ok()
}

/// Returns whether the content type is that of protobuf messages over gRPC.
fn is_accepted_content_type(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    ACCEPTED_CONTENT_TYPES.iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// Replaces the path by the router's spelling, because paths are not case-sensitive in
/// EventStoreDB.
fn with_path_of(method: &Method, mut request: Request<Body>) -> Request<Body> {
    let path = method.path();
    if request.uri().path() != path {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = PathAndQuery::try_from(path).ok();
        // The path of a method is valid, so this does not fail. A default URI would find no route.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
    request
}

impl Rejection {
    /// Returns EventStoreDB's response. Only a response to a gRPC request has a content type.
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
            Self::NotFound => return not_found_response(is_grpc),
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

/// Returns a 404, which gRPC clients read as UNIMPLEMENTED.
fn not_found_response(is_grpc: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    if is_grpc {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    }
    response
}
