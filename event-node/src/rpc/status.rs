//! The protocol's errors: gRPC status, text and trailers, which clients match on.

use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use crate::log::{ExpectedRevision, FilterError, GroupKey, LogError};

/// Trailer that names the kind of error.
const EXCEPTION: &str = "exception";

const STREAM_NAME: &str = "stream-name";
const GROUP_NAME: &str = "group-name";

/// Metadata that every appended event must have.
const REQUIRED_METADATA: &str = "type,content-type";

/// An argument that the original's handler throws on.
pub(crate) fn handler_threw() -> Status {
    Status::unknown("Exception was thrown by handler.")
}

pub(crate) fn stopping() -> Status {
    Status::unavailable("Server is shutting down.")
}

pub(crate) fn stream_deleted(stream: &str) -> Status {
    let text = format!("Event stream '{stream}' is deleted.");
    let trailers = [(EXCEPTION, "stream-deleted"), (STREAM_NAME, stream)];
    with_trailers(Code::FailedPrecondition, text, &trailers)
}

/// Of a deletion; an append answers a wrong version with a response.
pub(crate) fn wrong_expected_version(
    stream: &str,
    expected: ExpectedRevision,
    current: Option<u64>,
) -> Status {
    let expected = expected_number(expected).to_string();
    let actual = current.map_or(-1, to_number).to_string();
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
    about_group(Code::NotFound, text, "persistent-subscription-does-not-exist", key)
}

pub(crate) fn group_exists(key: &GroupKey) -> Status {
    let text = format!("Subscription group {} on stream {} exists.", key.name, key.stream);
    about_group(Code::AlreadyExists, text, "persistent-subscription-exists", key)
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
    about_group(Code::FailedPrecondition, text, "maximum-subscribers-reached", key)
}

pub(crate) fn group_dropped(key: &GroupKey) -> Status {
    let text = format!("Subscription group {} on stream {} was dropped.", key.name, key.stream);
    about_group(Code::Cancelled, text, "persistent-subscription-dropped", key)
}

impl From<LogError> for Status {
    fn from(error: LogError) -> Self {
        let code = match error {
            LogError::Closed => return stopping(),
            LogError::Full => return Self::resource_exhausted(sentence(&LogError::Full)),
            // Clients can tell it from what another try may mend.
            LogError::Damaged { .. } => Code::DataLoss,
            LogError::DamagedIndex | LogError::Disk(_) | LogError::TornWrite(_) => Code::Unknown,
        };
        tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
        Self::new(code, format!("The store failed: {error}."))
    }
}

impl From<FilterError> for Status {
    fn from(error: FilterError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// What went wrong, as a status text.
pub(crate) fn sentence(error: &LogError) -> String {
    format!("The write was refused: {error}.")
}

/// An expected version as the protocol's error trailers write it.
pub(crate) fn expected_number(expected: ExpectedRevision) -> i64 {
    match expected {
        ExpectedRevision::NoStream => -1,
        ExpectedRevision::Any => -2,
        ExpectedRevision::StreamExists => -4,
        ExpectedRevision::Revision(revision) => to_number(revision),
    }
}

fn to_number(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn about_group(code: Code, text: String, exception: &str, key: &GroupKey) -> Status {
    let mut trailers = vec![(EXCEPTION, exception), (STREAM_NAME, key.stream.as_str())];
    // A list of groups names no group.
    if !key.name.is_empty() {
        trailers.push((GROUP_NAME, key.name.as_str()));
    }
    with_trailers(code, text, &trailers)
}

fn with_trailers(code: Code, text: String, trailers: &[(&'static str, &str)]) -> Status {
    let mut metadata = MetadataMap::new();
    for (key, value) in trailers {
        metadata.insert(*key, ascii(value));
    }
    Status::with_metadata(code, text, metadata)
}

/// A trailer is visible ASCII; what a name has beyond it becomes `?`. The status text, which is
/// percent-encoded on the wire, has the whole name.
fn ascii(value: &str) -> AsciiMetadataValue {
    let printable = |it: char| if it.is_ascii_graphic() || it == ' ' { it } else { '?' };
    let text: String = value.chars().map(printable).collect();
    AsciiMetadataValue::try_from(text).unwrap_or_else(|_| AsciiMetadataValue::from_static("?"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_deletion_names_both_versions() {
        let status = wrong_expected_version("order-1", ExpectedRevision::StreamExists, None);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().ends_with("Expected version: -4, Actual version: -1"));
        assert_eq!(status.metadata().get("actual-version").unwrap(), "-1");
    }

    #[test]
    fn damage_is_told_from_other_failures() {
        let status = Status::from(LogError::Damaged { offset: 621 });
        assert_eq!(status.code(), Code::DataLoss);
        assert!(status.message().contains("damaged at byte 621"), "{status}");
        let unsure = LogError::TornWrite(Arc::new(std::io::ErrorKind::Other.into()));
        assert_eq!(Status::from(unsure).code(), Code::Unknown);
    }

    #[test]
    fn names_that_are_not_ascii_make_no_broken_trailers() {
        let status = stream_deleted("bücher\n");
        assert_eq!(status.metadata().get("stream-name").unwrap(), "b?cher?");
        assert!(status.message().contains("bücher"));
    }
}
