//! Client of the HTTP API in this process: calls its router with the visitor's key.

use std::net::SocketAddr;

use api_types::{HealthReport, Principal, Problem, ProblemCode};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use axum::http::request::{Builder, Parts};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service_kit::http::{PartOfPage, RequestName};
use tower::ServiceExt;

const ACCEPTED: &str = "application/json, application/problem+json";
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Scope of the actions of operators: redrive, discard, pause.
pub(crate) const OPERATOR_SCOPE: &str = "ops:write";
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Client of the API on behalf of one visitor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    router: Router,
    key: Option<HeaderValue>,
    /// The API counts clients without a key by their address.
    peer: Option<ConnectInfo<SocketAddr>>,
    host: Option<HeaderValue>,
    /// The log lines of the page and of its calls have the same request id.
    request_name: Option<RequestName>,
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} ({})", .problem.detail, .status.as_u16())]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) problem: Box<Problem>,
}

/// Result of a call that a page shows, the failure included.
pub(crate) type Loaded<T> = Result<T, ApiError>;

impl Api {
    /// Creates the client for the visitor of a request, with the key of the visitor's session.
    pub(crate) fn for_request(router: Router, request: &Parts, key: Option<&str>) -> Self {
        Self {
            router,
            // Keys with other characters were refused at the sign-in.
            key: key.and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok()),
            peer: request.extensions.get().copied(),
            host: request.headers.get(HOST).cloned(),
            request_name: request.extensions.get().cloned(),
        }
    }

    /// Gets a resource.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Loaded<T> {
        parse(self.call(self.page_request(path), Body::empty()).await?).await
    }

    /// Gets a resource with a query.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Loaded<T> {
        self.get(&add_query(path, query)?).await
    }

    /// Gets the result of the health checks. A process that is not ready has one too, with status 503.
    pub(crate) async fn get_health(&self) -> Loaded<HealthReport> {
        let response = self.send(self.page_request("/readyz?verbose"), Body::empty()).await?;
        let status = response.status();
        let body = read_body(response).await?;
        serde_json::from_slice(&body).map_err(|_| to_error(status, &body))
    }

    /// Posts a command.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Loaded<T> {
        self.post_if_match(path, body, None).await
    }

    /// Posts a command that applies only to the given revision of an order.
    pub(crate) async fn post_if_match<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        revision: Option<u64>,
    ) -> Loaded<T> {
        let mut request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        if let Some(revision) = revision {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        let body = serde_json::to_vec(body).map_err(|_| ApiError::internal())?;
        parse(self.call(request, Body::from(body)).await?).await
    }

    /// Deletes a resource.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Loaded<T> {
        parse(self.call(self.request(Method::DELETE, path), Body::empty()).await?).await
    }

    /// Opens an event stream and returns the response whose body it is. The stream continues after the
    /// message with the id `last_event_id`.
    pub(crate) async fn open_stream(
        &self,
        path: &str,
        query: &impl Serialize,
        last_event_id: Option<&HeaderValue>,
    ) -> Loaded<Response<Body>> {
        let mut request = self.request(Method::GET, &add_query(path, query)?);
        if let Some(id) = last_event_id {
            request = request.header(LAST_EVENT_ID, id);
        }
        self.call(request, Body::empty()).await
    }

    /// Returns the same client for calls that belong to no single request, such as those of shared pages.
    pub(crate) fn without_request_id(self) -> Self {
        Self { request_name: None, ..self }
    }

    /// Returns whether the key may redrive, discard and pause; `false` if the API cannot say.
    ///
    /// # Errors
    /// If the key is no longer valid.
    pub(crate) async fn may_operate(&self) -> Loaded<bool> {
        match self.get::<Principal>("/v1/principal").await {
            Ok(principal) => Ok(principal.scopes.iter().any(|scope| scope == OPERATOR_SCOPE)),
            Err(error) if error.is_unauthorized() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Returns the visitor's key as it is sent; empty without a key. Clients with equal keys get equal
    /// responses.
    pub(crate) fn identity(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], HeaderValue::as_bytes)
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, ACCEPTED);
        for (name, value) in [(AUTHORIZATION, &self.key), (HOST, &self.host)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(name) = &self.request_name {
            request = request.header(X_REQUEST_ID, &*name.0);
        }
        if let Some(peer) = self.peer {
            request = request.extension(peer);
        }
        request
    }

    /// Returns a request that the access log leaves out if it succeeds.
    fn page_request(&self, path: &str) -> Builder {
        let mut request = self.request(Method::GET, path);
        if let Some(extensions) = request.extensions_mut() {
            extensions.insert(PartOfPage);
        }
        request
    }

    async fn call(&self, request: Builder, body: Body) -> Loaded<Response<Body>> {
        let response = self.send(request, body).await?;
        if response.status().is_success() { Ok(response) } else { Err(read_error(response).await) }
    }

    /// Returns the response, whatever its status.
    async fn send(&self, request: Builder, body: Body) -> Loaded<Response<Body>> {
        // A path that a visitor typed may not be a valid address.
        let request = request.body(body).map_err(|_| ApiError::invalid_address())?;
        // The router's error type has no values.
        let Ok(response) = self.router.clone().oneshot(request).await;
        Ok(response)
    }
}

impl ApiError {
    /// Returns whether the API needs a key, or the key is not valid any more.
    pub(crate) fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ProblemCode::InternalError)
    }

    fn invalid_address() -> Self {
        Self::new(StatusCode::NOT_FOUND, ProblemCode::NotFound)
    }

    fn new(status: StatusCode, code: ProblemCode) -> Self {
        let problem = Problem {
            problem_type: code.urn(),
            title: code.title(),
            status: status.as_u16(),
            detail: code.title(),
            code,
            errors: Vec::new(),
            request_id: None,
            trace_id: None,
            message: None,
            error: None,
            order_id: None,
            task_id: None,
        };
        Self { status, problem: Box::new(problem) }
    }
}

fn add_query(path: &str, query: &impl Serialize) -> Loaded<String> {
    let query = serde_html_form::to_string(query).map_err(|_| ApiError::internal())?;
    Ok(format!("{path}?{query}"))
}

async fn parse<T: DeserializeOwned>(response: Response<Body>) -> Loaded<T> {
    let body = read_body(response).await?;
    serde_json::from_slice(&body).map_err(|error| {
        tracing::error!(%error, "Response of the API is not of its declared type");
        ApiError::internal()
    })
}

async fn read_error(response: Response<Body>) -> ApiError {
    let status = response.status();
    to_error(status, &read_body(response).await.unwrap_or_default())
}

fn to_error(status: StatusCode, body: &[u8]) -> ApiError {
    serde_json::from_slice(body).map_or_else(
        // A redirect, or an error before the API's middleware: neither has a problem document.
        |_| ApiError { status, ..ApiError::internal() },
        |problem| ApiError { status, problem: Box::new(problem) },
    )
}

async fn read_body(response: Response<Body>) -> Loaded<axum::body::Bytes> {
    let body = response.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|_| ApiError::internal())
}
