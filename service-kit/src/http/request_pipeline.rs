//! The steps of a request on its way to a handler: access control and rate limit, body, concurrency
//! limit, ownership, time-out.
//!
//! One middleware does all steps, and the edge around them: axum clones the inner service once per
//! layer and request, and `tower-http`'s time-out and body limit have other error bodies.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::access_control::{AccessControl, respond_to_refused};
use super::access_log::AuthenticatedAs;
use super::body::{BodyLimits, close_connection};
use super::config::ApiConfig;
use super::edge::Edge;
use crate::auth::{Access, Ownership, Principal};
use crate::clock::Clock;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::problem::{Code, Problem};
use crate::wait::LONGEST_WAIT;

/// Time that a handler keeps for its work after the longest `Prefer: wait`.
const WORK_AFTER_WAIT: Duration = Duration::from_secs(5);

pub(super) struct RequestPipeline {
    edge: Arc<Edge>,
    access_control: AccessControl,
    ownership: Option<Arc<dyn Ownership>>,
    body_limits: BodyLimits,
    concurrency_limit: ConcurrencyLimit,
    request_timeout: Duration,
}

impl RequestPipeline {
    pub(super) fn new(
        edge: Arc<Edge>,
        access: Access,
        ownership: Option<Arc<dyn Ownership>>,
        config: &ApiConfig,
        clock: Clock,
    ) -> Self {
        let request_timeout = Duration::from_millis(config.request_timeout_ms.get());
        let longest_wait = request_timeout.saturating_sub(WORK_AFTER_WAIT).min(LONGEST_WAIT);
        Self {
            edge,
            access_control: AccessControl::new(access, config, clock),
            ownership,
            body_limits: BodyLimits::from_config(config),
            concurrency_limit: ConcurrencyLimit::new(config.max_concurrency.get(), longest_wait),
            request_timeout,
        }
    }

    async fn process_request(&self, mut request: Request, next: Next) -> Response {
        let (admitted, rate_limit_state) = self.access_control.admit_request(&mut request);
        // Kept for the access log, because the handler consumes the request.
        let principal = request.extensions().get::<Principal>().cloned();
        let (mut response, is_body_read) = match admitted {
            Ok(()) => self.process_admitted(request, next).await,
            Err(problem) => {
                let is_body_read = self.body_limits.discard_body(&mut request).await;
                (respond_to_refused(problem), is_body_read)
            }
        };
        if !is_body_read {
            close_connection(&mut response);
        }
        if let Some(principal) = principal {
            response.extensions_mut().insert(AuthenticatedAs(principal));
        }
        if let Some(state) = rate_limit_state {
            state.add_headers(response.headers_mut());
        }
        response
    }

    /// Returns the response, and whether the request's body has been read to its end.
    async fn process_admitted(&self, mut request: Request, next: Next) -> (Response, bool) {
        // The fallback handler needs no body.
        if request.extensions().get::<MatchedPath>().is_none() {
            let is_body_read = self.body_limits.discard_body(&mut request).await;
            return (next.run(request).await, is_body_read);
        }
        // The body is read before the request takes a permit: a slow client must not hold one.
        match self.body_limits.read_body(request).await {
            Ok(request) => (self.run_handler(request, next).await.into_response(), true),
            Err(problem) => (problem.into_response(), false),
        }
    }

    /// Runs the handler within the concurrency limit and the time-out.
    async fn run_handler(&self, mut request: Request, next: Next) -> Result<Response, Problem> {
        let _permit = self.concurrency_limit.acquire_for(&mut request)?;
        let handler = async {
            self.check_owner(&mut request).await?;
            Ok(next.run(request).await)
        };
        timeout(self.request_timeout, handler).await.unwrap_or_else(|_| {
            let problem = Problem::unavailable("Request timed out");
            Err(problem.with_code(Code::ProcessingTimeout))
        })
    }

    /// Refuses a request of one tenant for what belongs to another tenant.
    async fn check_owner(&self, request: &mut Request) -> Result<(), Problem> {
        let Some(ownership) = &self.ownership else { return Ok(()) };
        let principal = request.extensions().get::<Principal>();
        if principal.is_some_and(|principal| principal.tenant.is_none()) {
            return Ok(());
        }
        let tenant = principal.and_then(|principal| principal.tenant.clone());
        ownership.check(tenant.as_deref(), request).await
    }
}

/// The edge and the pipeline in one middleware.
pub(super) async fn edge_and_pipeline_middleware(
    State(pipeline): State<Arc<RequestPipeline>>,
    request: Request,
    next: Next,
) -> Response {
    let process = |request| pipeline.process_request(request, next);
    pipeline.edge.handle_request(request, process).await
}

/// The steps of a request for a page: the edge, and the body within its limits.
pub(super) struct PagePipeline {
    edge: Edge,
    body_limits: BodyLimits,
}

impl PagePipeline {
    pub(super) fn new(edge: Edge, config: &ApiConfig) -> Self {
        Self { edge, body_limits: BodyLimits::from_config(config) }
    }
}

/// The edge and the limits of the body, for pages.
pub(super) async fn page_middleware(
    State(pipeline): State<Arc<PagePipeline>>,
    request: Request,
    next: Next,
) -> Response {
    let process = async |request| match pipeline.body_limits.read_body(request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => {
            let mut response = problem.into_response();
            close_connection(&mut response);
            response
        }
    };
    pipeline.edge.handle_request(request, process).await
}

/// The pipeline alone, for routers with a layer between it and the edge.
pub(super) async fn pipeline_middleware(
    State(pipeline): State<Arc<RequestPipeline>>,
    request: Request,
    next: Next,
) -> Response {
    pipeline.process_request(request, next).await
}
