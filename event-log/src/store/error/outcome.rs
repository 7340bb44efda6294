//! Outcome of a failed call, by gRPC status.
//!
//! | status | detail | client's error | outcome |
//! | --- | --- | --- | --- |
//! | `CANCELLED` | | `Grpc`, or `DeadlineExceeded` | unknown |
//! | `UNKNOWN` | `Exception was thrown by handler.`, `Unexpected Read...` | `ServerError` | refused |
//! | `UNKNOWN` | any other: transport faults, no known leader | `ServerError` | unknown |
//! | `DEADLINE_EXCEEDED` | | `DeadlineExceeded` | unknown |
//! | `NOT_FOUND` | `exception: not-leader` | `NotLeaderException` | unknown |
//! | `RESOURCE_EXHAUSTED` | | `Grpc` | unknown |
//! | `ABORTED` | `Operation timed out: ...` | `Grpc` | unknown |
//! | `INTERNAL` | such as `RST_STREAM` | `ServerError` | unknown |
//! | `UNAVAILABLE` | | `ServerError` | unknown |
//! | `DATA_LOSS` | | `ServerError` | damaged |
//! | any other | | | refused |
//!
//! A `BatchAppend` response contains the same statuses; the client reports each as `Grpc`.

use eventstore::Error as ClientError;

/// Numbers of the gRPC statuses.
mod code {
    pub(super) const CANCELLED: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const ABORTED: i32 = 10;
    pub(super) const INTERNAL: i32 = 13;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const DATA_LOSS: i32 = 15;
}

/// Texts of a server that refuses the call; the connection is sound.
const HANDLER_FAILED: [&str; 2] = ["Exception was thrown by handler", "Unexpected Read"];
/// Texts of a server that is busy or starting; the connection is sound.
const NOT_NOW: [&str; 2] = ["Server Is Not Ready", "Server Is Too Busy"];
/// Codes that clients also report for a broken connection.
const CONNECTION_CODES: [i32; 4] =
    [code::CANCELLED, code::DEADLINE_EXCEEDED, code::INTERNAL, code::UNAVAILABLE];
/// Names of statuses that stores send.
const STORE_STATUSES: [&str; 4] = ["Unknown", "ResourceExhausted", "Aborted", "DataLoss"];
/// Texts that clients put into such a status for a broken connection.
const CONNECTION_TEXTS: [&str; 4] =
    ["transport error", "client error", "tcp connect", "h2 protocol error"];
/// Text of a server that switches a live subscription back to catching up.
const TOO_SLOW: &str = "Consumer too slow to handle event while live";

/// Outcome of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The call may have been carried out, and may be repeated.
    Unknown,
    /// The store has refused the call.
    Refused,
    /// The store has reported that its log is damaged.
    Damaged,
}

impl Outcome {
    pub(super) fn from_error(error: &ClientError) -> Self {
        match error {
            ClientError::ServerError(_) if damage_report(error).is_some() => Self::Damaged,
            ClientError::ServerError(status) => Self::from_unknown_status(status),
            ClientError::NotLeaderException(_)
            | ClientError::ConnectionClosed
            | ClientError::GrpcConnectionError(_)
            | ClientError::DeadlineExceeded
            // The client's error for a group that the server has dropped.
            | ClientError::IllegalStateError(_)
            | ClientError::InternalClientError => Self::Unknown,
            ClientError::Grpc { code, message } => match i32::from(*code) {
                code::CANCELLED
                | code::DEADLINE_EXCEEDED
                | code::RESOURCE_EXHAUSTED
                | code::ABORTED
                | code::INTERNAL
                | code::UNAVAILABLE => Self::Unknown,
                code::UNKNOWN => Self::from_unknown_status(message),
                code::DATA_LOSS => Self::Damaged,
                _ => Self::Refused,
            },
            ClientError::InternalParsingError(_)
            | ClientError::AccessDenied
            | ClientError::ResourceAlreadyExists
            | ClientError::ResourceNotFound
            | ClientError::ResourceDeleted
            | ClientError::UnsupportedFeature
            | ClientError::InitializationError(_)
            | ClientError::WrongExpectedVersion { .. } => Self::Refused,
        }
    }

    fn from_unknown_status(message: &str) -> Self {
        if contains_any(message, &HANDLER_FAILED) { Self::Refused } else { Self::Unknown }
    }
}

/// Returns whether the call may be repeated, because its outcome is unknown.
pub(crate) fn may_be_repeated(error: &ClientError) -> bool {
    Outcome::from_error(error) == Outcome::Unknown
}

/// Returns whether a failed append shows that the store accepts none. A refusal of one append, such
/// as a conflict or a missing right, says nothing about others.
pub(crate) fn is_store_failure(error: &ClientError) -> bool {
    match Outcome::from_error(error) {
        Outcome::Unknown | Outcome::Damaged => true,
        Outcome::Refused => matches!(error, ClientError::ServerError(_)),
    }
}

/// Returns why the store accepted no append, without addresses, which connection errors may name.
pub(crate) fn public_cause(error: &ClientError) -> String {
    match store_message(error) {
        Some(message) => format!("it refuses appends: {message}"),
        None => "it does not answer".to_owned(),
    }
}

/// Returns the message of the store's response; `None` if there was no response.
fn store_message(error: &ClientError) -> Option<&str> {
    if let ClientError::Grpc { code, message } = error {
        let is_response = !CONNECTION_CODES.contains(&i32::from(*code));
        return is_response.then_some(message);
    }
    let ClientError::ServerError(status) = error else { return None };
    let message = STORE_STATUSES.into_iter().find_map(|code| status_message(status, code));
    message.filter(|message| !contains_any(message, &CONNECTION_TEXTS))
}

/// Returns the message of a status whose code has this name. The client keeps a status as text only.
fn status_message<'a>(status: &'a str, code: &str) -> Option<&'a str> {
    let message =
        status.strip_prefix("status: ")?.strip_prefix(code)?.strip_prefix(", message: ")?;
    Some(message.split_once(", details: ").map_or(message, |(text, _)| text).trim_matches('"'))
}

/// Returns whether the connection broke, or its node is shutting down.
pub(crate) fn breaks_connection(error: &ClientError) -> bool {
    let ClientError::ServerError(status) = error else { return false };
    Outcome::from_error(error) == Outcome::Unknown && !contains_any(status, &NOT_NOW)
}

/// Returns whether the client has ended, and its connection with it.
pub(crate) fn ends_client(error: &ClientError) -> bool {
    matches!(error, ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_))
}

/// Returns whether there is no connection, or nothing came over it in time.
pub(crate) fn is_connection_lost(error: &ClientError) -> bool {
    let is_silent = matches!(error, ClientError::DeadlineExceeded);
    is_silent || breaks_connection(error) || ends_client(error)
}

/// Returns whether the server ended a live subscription because events came faster than they were
/// read. It expects the client to resume from its last position, on the same connection.
pub(crate) fn is_consumer_too_slow(error: &ClientError) -> bool {
    let (ClientError::Grpc { message, .. } | ClientError::ServerError(message)) = error else {
        return false;
    };
    message.contains(TOO_SLOW)
}

/// Returns the store's message about damage to its log; `None` if it reports none.
pub(super) fn damage_report(error: &ClientError) -> Option<&str> {
    if let ClientError::Grpc { code, message } = error {
        return (i32::from(*code) == code::DATA_LOSS).then_some(message);
    }
    let ClientError::ServerError(status) = error else { return None };
    status_message(status, "DataLoss")
}

fn contains_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the client's error for a status inside a `BatchAppend` response.
    fn in_batch(code: i32, message: &str) -> ClientError {
        ClientError::Grpc { code: code.into(), message: message.to_owned() }
    }

    #[test]
    fn status_inside_a_batch_append_response_has_the_same_outcome() {
        let unknown = [1, 4, 8, 10, 13, 14];
        for code in 1..=16 {
            let expected = match code {
                2 => continue,
                15 => Outcome::Damaged,
                code if unknown.contains(&code) => Outcome::Unknown,
                _ => Outcome::Refused,
            };
            assert_eq!(Outcome::from_error(&in_batch(code, "Timeout")), expected, "status {code}");
        }
        assert_eq!(Outcome::from_error(&in_batch(2, "Unknown")), Outcome::Unknown);
        let thrown = in_batch(2, "Exception was thrown by handler.");
        assert_eq!(Outcome::from_error(&thrown), Outcome::Refused);
        assert_eq!(damage_report(&in_batch(15, "record 7")), Some("record 7"));
    }

    #[test]
    fn busy_store_and_slow_append_break_no_connection() {
        let status = |text: &str| ClientError::ServerError(text.to_owned());
        let broken = status("status: Unknown, message: \"transport error\"");
        assert!(breaks_connection(&broken) && !ends_client(&broken));
        let ended = ClientError::ConnectionClosed;
        assert!(ends_client(&ended) && !breaks_connection(&ended));
        for error in [
            status("status: Unavailable, message: \"Server Is Too Busy\""),
            status("status: DataLoss, message: \"record 7\""),
            in_batch(10, "Operation timed out: Commit phase timeout"),
            ClientError::DeadlineExceeded,
        ] {
            assert!(!breaks_connection(&error) && !ends_client(&error), "{error}");
        }
    }

    #[test]
    fn public_cause_is_the_stores_message_without_an_address() {
        let status = |text: &str| public_cause(&ClientError::ServerError(text.to_owned()));
        let failed =
            "status: Unknown, message: \"The store failed: the disk failed.\", details: []";
        assert_eq!(status(failed), "it refuses appends: The store failed: the disk failed.");
        for no_response in [
            "status: Unknown, message: \"transport error\", details: []",
            "status: Unavailable, message: \"tcp connect error: 10.0.0.7:2113\"",
        ] {
            assert_eq!(status(no_response), "it does not answer");
        }
        let full = in_batch(8, "The write was refused: the disk is full.");
        assert!(public_cause(&full).ends_with("the disk is full."));
        assert_eq!(public_cause(&ClientError::DeadlineExceeded), "it does not answer");
    }

    #[test]
    fn refusal_of_one_append_is_no_store_failure() {
        let thrown = ClientError::ServerError(
            "status: Unknown, message: \"Exception was thrown by handler.\"".to_owned(),
        );
        for failure in
            [thrown, in_batch(8, "full"), in_batch(15, "damaged"), ClientError::DeadlineExceeded]
        {
            assert!(is_store_failure(&failure), "{failure}");
        }
        for refusal in
            [ClientError::AccessDenied, ClientError::ResourceDeleted, in_batch(3, "too big")]
        {
            assert!(!is_store_failure(&refusal), "{refusal}");
        }
    }

    #[test]
    fn slow_consumer_is_recognised_by_its_text() {
        let text = "Operation timed out: Consumer too slow to handle event while live. Client \
                    resubscription required.";
        assert!(is_consumer_too_slow(&in_batch(10, text)));
        assert!(!is_consumer_too_slow(&in_batch(10, "Operation timed out: Commit phase timeout")));
    }
}
