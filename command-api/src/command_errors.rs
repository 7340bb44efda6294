//! Error responses of commands that were refused or could not be recorded.

use axum::http::StatusCode;
use domain::ids::OrderId;
use domain::order::OrderError;
use event_log::LogError;
use service_kit::problem::{Code, Problem};

/// Error text while the event store is unreachable, or the outcome of a call is unknown.
const UNAVAILABLE: &str = "Event store unavailable";

/// Returns the error for a failed read before a command: nothing was recorded.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn log_failed(error: LogError) -> Problem {
    to_problem(&error, UNAVAILABLE.to_owned())
}

/// Returns the error for a failed append, which may have been recorded.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn command_failed(error: LogError) -> Problem {
    to_problem(&error, format!("{UNAVAILABLE}: the command may have been recorded; retry it"))
}

/// Returns the error for an `Idempotency-Key` whose order cannot be read, or was deleted. The order must not
/// be placed again.
pub(crate) fn key_failed(error: LogError) -> Problem {
    if matches!(error, LogError::Deleted) {
        let text = "Idempotency-Key belongs to an order that was deleted: use another key";
        return Problem::application(StatusCode::GONE, text).with_code(Code::OrderDeleted);
    }
    log_failed(error)
}

/// Returns the error for a new order that may not be recorded. Without a key, a retry would place the order
/// twice: the response names the order, so that the client can look it up.
pub(crate) fn placing_failed(error: &LogError, order_id: OrderId, is_keyed: bool) -> Problem {
    if matches!(error, LogError::Deleted) && is_keyed {
        return key_failed(LogError::Deleted);
    }
    if error.is_too_large() {
        return Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let advice = if is_keyed {
        "retry with the same Idempotency-Key".to_owned()
    } else {
        format!("look up order {order_id} before you place it again")
    };
    let text = format!("{UNAVAILABLE}: the order may have been recorded; {advice}");
    let problem = to_problem(error, text);
    // Only then may the order exist.
    if error.is_unavailable() && !is_unsent(error) {
        problem.with_order_id(order_id.0)
    } else {
        problem
    }
}

/// Returns whether the request was not sent, because the store is known to have failed.
fn is_unsent(error: &LogError) -> bool {
    matches!(error, LogError::Failed { .. })
}

fn to_problem(error: &LogError, unavailable: String) -> Problem {
    let cause = error as &dyn std::error::Error;
    if is_unsent(error) {
        tracing::debug!(error = cause, "Command not recorded");
        let text = format!("{UNAVAILABLE}: nothing was recorded; retry the request");
        return Problem::unavailable(text).with_code(Code::EventStoreUnavailable);
    }
    if error.is_unavailable() {
        // An outage is logged once, not for each request.
        tracing::debug!(error = cause, "Command not recorded, as far as is known");
        return Problem::unavailable(unavailable).with_code(Code::EventStoreUnavailable);
    }
    if matches!(error, LogError::Deleted) {
        return Problem::order_deleted();
    }
    if let LogError::Conflict { stream, .. } = error {
        tracing::warn!(error = cause, "Command not recorded");
        let text = format!("Concurrent updates to {stream}; retry the request");
        return Problem::application(StatusCode::CONFLICT, text);
    }
    tracing::error!(error = cause, "Command not recorded");
    if error.is_refusal() {
        let text = format!("{UNAVAILABLE}: it refused the command; retry the request");
        return Problem::unavailable(text).with_code(Code::EventStoreUnavailable);
    }
    Problem::internal()
}

/// Returns the error for a command that a rule refused.
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

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::header::RETRY_AFTER;
    use axum::response::{IntoResponse, Response};
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    const ORDER_ID: OrderId = OrderId(Uuid::nil());

    fn away() -> LogError {
        LogError::NoDescriptors
    }

    async fn body(response: Response) -> Value {
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn unknown_outcome_of_an_order_says_how_to_find_out() {
        for (is_keyed, advice) in [
            (true, "retry with the same Idempotency-Key"),
            (false, "look up order 00000000-0000-0000-0000-000000000000"),
        ] {
            let response = placing_failed(&away(), ORDER_ID, is_keyed).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(RETRY_AFTER));
            let body = body(response).await;
            let text = body["error"].as_str().unwrap();
            assert!(text.contains("may have been recorded") && text.contains(advice), "{text}");
            assert_eq!(body["order_id"], ORDER_ID.to_string());
        }
    }

    #[tokio::test]
    async fn only_an_unknown_outcome_says_may_have_been_recorded() {
        let command = command_failed(away()).into_response();
        assert!(command.headers().contains_key(RETRY_AFTER));
        let text = body(command).await["error"].to_string();
        assert!(text.contains("may have been recorded"), "{text}");
        let read = body(log_failed(away()).into_response()).await;
        assert_eq!(read["error"], UNAVAILABLE);
    }

    #[tokio::test]
    async fn conflict_of_an_order_names_no_order_id() {
        let conflict = LogError::Conflict { stream: "order-1".to_owned(), current: None };
        let response = placing_failed(&conflict, ORDER_ID, false).into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(body(response).await.get("order_id"), None);
    }
}
