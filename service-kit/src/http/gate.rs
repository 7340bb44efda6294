//! What a request passes on its way to a handler: who may, how often, its whole body, a place, whose
//! it is, and the time that it may take.
//!
//! One middleware for all of it, and for what is around it: for each that stands in a row, axum
//! copies all that is behind it with every request.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::ApiConfig;
use super::access_log::AnsweredTo;
use super::around::Edge;
use super::body::{Limits, end_connection};
use super::guard::{Guard, refused};
use crate::auth::{Access, Ownership, Principal};
use crate::clock::Clock;
use crate::problem::{Code, Problem};
use crate::slots::Slots;
use crate::wait::LONGEST_WAIT;

/// What a request that has waited may still take.
const AFTER_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Gate {
    edge: Arc<Edge>,
    guard: Guard,
    ownership: Option<Arc<dyn Ownership>>,
    body_limits: Limits,
    slots: Slots,
    request_timeout: Duration,
}

impl Gate {
    pub(super) fn new(
        edge: Arc<Edge>,
        access: Access,
        ownership: Option<Arc<dyn Ownership>>,
        config: &ApiConfig,
        clock: Clock,
    ) -> Self {
        let request_timeout = Duration::from_millis(config.request_timeout_ms.get());
        let longest_wait = request_timeout.saturating_sub(AFTER_WAIT).min(LONGEST_WAIT);
        Self {
            edge,
            guard: Guard::new(access, config, clock),
            ownership,
            body_limits: Limits::of(config),
            slots: Slots::new(config.max_concurrency.get(), longest_wait),
            request_timeout,
        }
    }

    async fn passed(&self, mut request: Request, next: Next) -> Response {
        let (admitted, standing) = self.guard.admit(&mut request);
        let principal = request.extensions().get::<Principal>().cloned();
        let (mut response, is_read) = match admitted {
            Ok(()) => self.answered(request, next).await,
            Err(problem) => {
                let is_read = self.body_limits.thrown_away(&mut request).await;
                (refused(problem), is_read)
            }
        };
        if !is_read {
            end_connection(&mut response);
        }
        if let Some(principal) = principal {
            response.extensions_mut().insert(AnsweredTo(principal));
        }
        if let Some(standing) = standing {
            standing.tell(response.headers_mut());
        }
        response
    }

    /// The answer, and whether the request's body has been read to its end.
    async fn answered(&self, mut request: Request, next: Next) -> (Response, bool) {
        // Where there is no route, nobody waits for a body.
        if request.extensions().get::<MatchedPath>().is_none() {
            let is_read = self.body_limits.thrown_away(&mut request).await;
            return (next.run(request).await, is_read);
        }
        // The body is here before anybody waits for a place or a handler.
        match self.body_limits.arrived(request).await {
            Ok(request) => (self.handled(request, next).await.into_response(), true),
            Err(problem) => (problem.into_response(), false),
        }
    }

    async fn handled(&self, mut request: Request, next: Next) -> Result<Response, Problem> {
        let _place = self.slots.admit(&mut request)?;
        let handled = async {
            self.check_owner(&mut request).await?;
            Ok(next.run(request).await)
        };
        timeout(self.request_timeout, handled).await.unwrap_or_else(|_| {
            let problem = Problem::unavailable("Request timed out");
            Err(problem.with_code(Code::ProcessingTimeout))
        })
    }

    /// Lets a principal of one tenant through to what is its own.
    async fn check_owner(&self, request: &mut Request) -> Result<(), Problem> {
        let Some(ownership) = &self.ownership else { return Ok(()) };
        let principal = request.extensions().get::<Principal>();
        if principal.is_some_and(|it| it.tenant.is_none()) {
            return Ok(());
        }
        let tenant = principal.and_then(|it| it.tenant.clone());
        ownership.check(tenant.as_deref(), request).await
    }
}

/// The gate, and what is around it.
pub(super) async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    gate.edge.around(request, |request| gate.passed(request, next)).await
}

/// The gate alone, for where something stands between it and what is around it.
pub(super) async fn pass_within(
    State(gate): State<Arc<Gate>>,
    request: Request,
    next: Next,
) -> Response {
    gate.passed(request, next).await
}
