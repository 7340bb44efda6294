//! What a client is told when a command could not be recorded, or was refused.

use axum::http::StatusCode;
use domain::ids::OrderId;
use domain::order::OrderError;
use event_log::LogError;
use service_kit::problem::{Code, Problem};

/// The log failed.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn log_failed(error: LogError) -> Problem {
    let cause = &error as &dyn std::error::Error;
    if error.is_unavailable() {
        tracing::warn!(error = cause, "Command not recorded");
        return Problem::unavailable("Event store unavailable")
            .with_code(Code::EventStoreUnavailable);
    }
    if let LogError::Conflict { stream, .. } = &error {
        tracing::warn!(error = cause, "Command not recorded");
        let text = format!("others keep changing {stream}: ask again");
        return Problem::application(StatusCode::CONFLICT, text);
    }
    tracing::error!(error = cause, "Command not recorded");
    Problem::internal()
}

/// A rule refused a command on that order.
pub(crate) fn rule_refused(order_id: OrderId, error: &OrderError) -> Problem {
    let status = match error {
        OrderError::NotPlaced => return Problem::order_not_found(order_id),
        OrderError::CorrectionRefused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        OrderError::AlreadyPlaced
        | OrderError::OtherAttempt { .. }
        | OrderError::AttemptEnded { .. }
        | OrderError::NotFailed(_)
        | OrderError::FailedValidation { .. }
        | OrderError::NotDeadLetter { .. } => StatusCode::CONFLICT,
    };
    Problem::application(status, format!("Order {order_id}: {error}"))
}
