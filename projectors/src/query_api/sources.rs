//! Sources of the responses for operators, which name a source that does not answer in time.

use std::error::Error;
use std::time::Duration;

use api_types::{LastVerification, Unavailable};
use event_log::LogError;
use tokio::time::error::Elapsed;

use crate::store::{self, StoreError};

/// Maximum time for each source, so that the whole response takes less than a second.
pub(super) const SOURCE_TIMEOUT: Duration = Duration::from_millis(800);

const LATE: &str = "it did not answer in time";

/// Notes that the read model did not answer. Reasons contain no addresses.
pub(super) fn note_store<T>(
    unavailable: &mut Unavailable,
    outcome: Result<T, StoreError>,
) -> Option<T> {
    outcome
        .inspect_err(|error| {
            super::log_read_model_failure(error);
            let is_late = matches!(error, StoreError::Timeout);
            let reason = if is_late { LATE } else { "it does not answer" };
            unavailable.read_model = Some(reason.to_owned());
        })
        .ok()
}

/// Notes that the event store did not answer.
pub(super) fn note_log<T>(
    unavailable: &mut Unavailable,
    outcome: Result<T, LogError>,
) -> Option<T> {
    outcome
        .inspect_err(|error| {
            tracing::warn!(error = error as &dyn Error, "Event store unavailable");
            let is_refusal = error.is_refusal();
            let reason = if is_refusal { "it refused to answer" } else { "it does not answer" };
            unavailable.event_store = Some(reason.to_owned());
        })
        .ok()
}

/// Notes that the event store did not answer, or not in time.
pub(super) fn note_timed_log<T>(
    unavailable: &mut Unavailable,
    outcome: Result<Result<T, LogError>, Elapsed>,
) -> Option<T> {
    if let Ok(outcome) = outcome {
        return note_log(unavailable, outcome);
    }
    note_late("event_store", &mut unavailable.event_store);
    None
}

/// Notes that a source did not answer in time, unless there is a reason already.
pub(super) fn note_late(source: &'static str, reason: &mut Option<String>) {
    tracing::warn!(source, "No answer in time for an overview");
    reason.get_or_insert_with(|| LATE.to_owned());
}

pub(super) fn to_last_verification(last: store::LastVerification) -> LastVerification {
    let store::LastVerification { verified_at, n_orders, n_findings } = last;
    LastVerification { verified_at, orders: n_orders, findings: n_findings }
}
