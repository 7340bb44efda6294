//! Errors of the protocol: gRPC status, message and trailers. Clients match on them.

use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use crate::log::{ExpectedRevision, FilterError, GroupKey, LogError};

/// Name of the trailer with the kind of error.
const EXCEPTION: &str = "exception";

const STREAM_NAME: &str = "stream-name";
const GROUP_NAME: &str = "group-name";

/// Metadata properties that every appended event must have.
const REQUIRED_METADATA: &str = "type,content-type";

/// Returns the status for an argument for which EventStoreDB's handler throws an exception.
pub(crate) fn handler_threw() -> Status {
    Status::unknown("Exception was thrown by handler.")
}

pub(crate) fn server_stopping() -> Status {
    Status::unavailable("Server is shutting down.")
}

/// Returns the status of a call whose credentials are wrong.
pub(crate) fn unauthenticated() -> Status {
    Status::unauthenticated("Unauthenticated")
}

/// Returns the status of a call from an address with too many failed attempts to authenticate.
pub(crate) fn too_many_failed_attempts() -> Status {
    Status::resource_exhausted(
        "Too many attempts to authenticate have failed: retry in a minute with the right password.",
    )
}

/// Returns the status of a call that the caller's rights do not allow.
pub(crate) fn access_denied() -> Status {
    let text = "Access Denied".to_owned();
    with_trailers(Code::PermissionDenied, text, &[(EXCEPTION, "access-denied")])
}

pub(crate) fn stream_deleted(stream: &str) -> Status {
    let text = format!("Event stream '{stream}' is deleted.");
    let trailers = [(EXCEPTION, "stream-deleted"), (STREAM_NAME, stream)];
    with_trailers(Code::FailedPrecondition, text, &trailers)
}

/// Returns the status of a deletion. An append reports a wrong version in its response instead.
pub(crate) fn wrong_expected_version(
    stream: &str,
    expected: ExpectedRevision,
    current: Option<u64>,
) -> Status {
    let expected = expected_version_number(expected).to_string();
    let actual = current.map_or(-1, to_signed).to_string();
    let text = format!(
        "Delete failed due to WrongExpectedVersion. Stream: {stream}, \
         Expected version: {expected}, Actual version: {actual}"
    );
    let trailers = [
        (EXCEPTION, "wrong-expected-version"),
        (STREAM_NAME, stream),
        ("expected-version", &expected),
        ("actual-version", &actual),
    ];
    with_trailers(Code::FailedPrecondition, text, &trailers)
}

pub(crate) fn append_too_big(limit_bytes: usize) -> Status {
    let trailers = [
        (EXCEPTION, "maximum-append-size-exceeded"),
        ("maximum-append-size", &limit_bytes.to_string()),
    ];
    let text = format!("Maximum Append Size of {limit_bytes} Exceeded.");
    with_trailers(Code::InvalidArgument, text, &trailers)
}

pub(crate) fn missing_metadata(property: &str) -> Status {
    let trailers = [
        (EXCEPTION, "missing-required-metadata-property"),
        ("required-metadata-properties", REQUIRED_METADATA),
    ];
    let text = format!("Required Metadata Property '{property}' is missing");
    with_trailers(Code::InvalidArgument, text, &trailers)
}

pub(crate) fn group_missing(key: &GroupKey) -> Status {
    let text = format!("Subscription group {} on stream {} does not exist.", key.name, key.stream);
    group_status(Code::NotFound, text, "persistent-subscription-does-not-exist", key)
}

pub(crate) fn group_exists(key: &GroupKey) -> Status {
    let text = format!("Subscription group {} on stream {} exists.", key.name, key.stream);
    group_status(Code::AlreadyExists, text, "persistent-subscription-exists", key)
}

pub(crate) fn group_failed(key: &GroupKey, reason: &str) -> Status {
    let (group, stream) = (&key.name, &key.stream);
    let text = format!("Subscription group {group} on stream {stream} failed: '{reason}'");
    let trailers = [
        (EXCEPTION, "persistent-subscription-failed"),
        (STREAM_NAME, stream.as_str()),
        (GROUP_NAME, group.as_str()),
        ("reason", reason),
    ];
    with_trailers(Code::Internal, text, &trailers)
}

pub(crate) fn too_many_subscribers(key: &GroupKey) -> Status {
    let text = format!(
        "Maximum subscriptions reached for subscription group {} on stream {}.",
        key.name, key.stream
    );
    group_status(Code::FailedPrecondition, text, "maximum-subscribers-reached", key)
}

pub(crate) fn group_dropped(key: &GroupKey) -> Status {
    let text = format!("Subscription group {} on stream {} was dropped.", key.name, key.stream);
    group_status(Code::Cancelled, text, "persistent-subscription-dropped", key)
}

impl From<LogError> for Status {
    fn from(error: LogError) -> Self {
        let code = match error {
            LogError::Closed => return server_stopping(),
            LogError::Full => return Self::resource_exhausted(refused_write_text(&LogError::Full)),
            // DATA_LOSS tells clients that a retry does not help.
            LogError::Damaged { .. } => Code::DataLoss,
            LogError::DamagedIndex | LogError::Disk(_) | LogError::TornWrite(_) => Code::Unknown,
        };
        tracing::error!(error = &error as &dyn std::error::Error, "Event store failed");
        Self::new(code, format!("The store failed: {error}."))
    }
}

impl From<FilterError> for Status {
    fn from(error: FilterError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Returns the status message of a write that the log refused.
pub(crate) fn refused_write_text(error: &LogError) -> String {
    format!("The write was refused: {error}.")
}

/// Returns an expected version as the protocol's trailers write it.
pub(crate) fn expected_version_number(expected: ExpectedRevision) -> i64 {
    match expected {
        ExpectedRevision::NoStream => -1,
        ExpectedRevision::Any => -2,
        ExpectedRevision::StreamExists => -4,
        ExpectedRevision::Revision(revision) => to_signed(revision),
    }
}

fn to_signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn group_status(code: Code, text: String, exception: &str, key: &GroupKey) -> Status {
    let mut trailers = vec![(EXCEPTION, exception), (STREAM_NAME, key.stream.as_str())];
    // An error of `List` is about no group.
    if !key.name.is_empty() {
        trailers.push((GROUP_NAME, key.name.as_str()));
    }
    with_trailers(code, text, &trailers)
}

fn with_trailers(code: Code, text: String, trailers: &[(&'static str, &str)]) -> Status {
    let mut metadata = MetadataMap::new();
    for (key, value) in trailers {
        metadata.insert(*key, to_ascii(value));
    }
    Status::with_metadata(code, text, metadata)
}

/// Replaces characters that a trailer cannot hold by `?`: all but visible ASCII and blanks. The
/// status message is percent-encoded and has the complete name.
fn to_ascii(value: &str) -> AsciiMetadataValue {
    let printable = |char: char| if char.is_ascii_graphic() || char == ' ' { char } else { '?' };
    let text: String = value.chars().map(printable).collect();
    AsciiMetadataValue::try_from(text).unwrap_or_else(|_| AsciiMetadataValue::from_static("?"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn deletion_error_names_both_versions() {
        let status = wrong_expected_version("order-1", ExpectedRevision::StreamExists, None);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().ends_with("Expected version: -4, Actual version: -1"));
        assert_eq!(status.metadata().get("actual-version").unwrap(), "-1");
    }

    #[test]
    fn damaged_log_has_its_own_code() {
        let status = Status::from(LogError::Damaged { offset: 621 });
        assert_eq!(status.code(), Code::DataLoss);
        assert!(status.message().contains("damaged at byte 621"), "{status}");
        let unsure = LogError::TornWrite(Arc::new(std::io::ErrorKind::Other.into()));
        assert_eq!(Status::from(unsure).code(), Code::Unknown);
    }

    #[test]
    fn trailers_replace_characters_outside_ascii() {
        let status = stream_deleted("bücher\n");
        assert_eq!(status.metadata().get("stream-name").unwrap(), "b?cher?");
        assert!(status.message().contains("bücher"));
    }
}
