//! Readiness of a process that is about to stop.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The route that balancers ask.
const READYZ: &str = "/readyz";

/// Answers that the process is not ready once it is `draining`, whatever its checks say: it still
/// serves, but will not for long.
pub(super) async fn unready(
    State(draining): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    if draining.is_cancelled() && request.uri().path() == READYZ {
        let body = axum::Json(json!({"status": "draining"}));
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    next.run(request).await
}
