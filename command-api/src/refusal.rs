//! What a client is told when a command could not be recorded, or was refused.

use axum::http::StatusCode;
use domain::ids::OrderId;
use domain::order::OrderError;
use event_log::LogError;
use service_kit::problem::{Code, Problem};

/// The text while the event store cannot be reached, or has not said what came of a call.
const UNAVAILABLE: &str = "Event store unavailable";

/// The answer when the log could not be read for a command: nothing was recorded.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn log_failed(error: LogError) -> Problem {
    refuse(&error, UNAVAILABLE.to_owned())
}

/// The answer when the log did not take a command, or did not say whether it did.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn command_failed(error: LogError) -> Problem {
    refuse(&error, format!("{UNAVAILABLE}: the command may have been recorded; retry it"))
}

/// The answer when the log could not be read for a request with an `Idempotency-Key`, or the key's
/// order was deleted: it must not begin anew.
pub(crate) fn key_refused(error: LogError) -> Problem {
    if matches!(error, LogError::Deleted) {
        let text = "Idempotency-Key belongs to an order that was deleted: use another key";
        return Problem::application(StatusCode::GONE, text).with_code(Code::OrderDeleted);
    }
    log_failed(error)
}

/// The answer when the log did not take a new order, or did not say whether it did. An order without
/// a key would be placed twice by a retry: the answer names it, so that the client can look it up.
pub(crate) fn placing_failed(error: &LogError, order_id: OrderId, is_keyed: bool) -> Problem {
    if matches!(error, LogError::Deleted) && is_keyed {
        return key_refused(LogError::Deleted);
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
    let problem = refuse(error, text);
    if error.is_unavailable() && !is_unsent(error) {
        problem.with("order_id", order_id.to_string())
    } else {
        problem
    }
}

/// Whether nothing was sent, because the store is known to have failed.
fn is_unsent(error: &LogError) -> bool {
    matches!(error, LogError::Failed { .. })
}

fn refuse(error: &LogError, unavailable: String) -> Problem {
    let cause = error as &dyn std::error::Error;
    if is_unsent(error) {
        tracing::debug!(error = cause, "Command not recorded");
        let text = format!("{UNAVAILABLE}: nothing was recorded; retry the request");
        return Problem::unavailable(text).with_code(Code::EventStoreUnavailable);
    }
    if error.is_unavailable() {
        // The log of an outage says it once, and not for each request.
        tracing::debug!(error = cause, "Command not recorded, as far as is known");
        return Problem::unavailable(unavailable).with_code(Code::EventStoreUnavailable);
    }
    if matches!(error, LogError::Deleted) {
        return Problem::order_deleted();
    }
    if let LogError::Conflict { stream, .. } = error {
        tracing::warn!(error = cause, "Command not recorded");
        let text = format!("others keep changing {stream}: ask again");
        return Problem::application(StatusCode::CONFLICT, text);
    }
    tracing::error!(error = cause, "Command not recorded");
    if error.is_refusal() {
        let text = format!("{UNAVAILABLE}: it refused the command; retry the request");
        return Problem::unavailable(text).with_code(Code::EventStoreUnavailable);
    }
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
    async fn open_outcome_of_an_order_says_how_to_find_out() {
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
    async fn open_outcome_of_a_command_says_so_and_a_failed_read_does_not() {
        let command = command_failed(away()).into_response();
        assert!(command.headers().contains_key(RETRY_AFTER));
        let text = body(command).await["error"].to_string();
        assert!(text.contains("may have been recorded"), "{text}");
        let read = body(log_failed(away()).into_response()).await;
        assert_eq!(read["error"], UNAVAILABLE);
    }

    #[tokio::test]
    async fn refused_append_says_nothing_of_the_store() {
        let conflict = LogError::Conflict { stream: "order-1".to_owned(), current: None };
        let response = placing_failed(&conflict, ORDER_ID, false).into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(body(response).await.get("order_id"), None);
    }
}
