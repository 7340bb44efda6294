//! What a failed call says of its outcome, status by status.
//!
//! | status | detail | client's error | outcome |
//! | --- | --- | --- | --- |
//! | `CANCELLED` | | `Grpc`, or `DeadlineExceeded` | open |
//! | `UNKNOWN` | `Exception was thrown by handler.`, `Unexpected Read...` | `ServerError` | refused |
//! | `UNKNOWN` | anything else: transport faults, no leader known | `ServerError` | open |
//! | `DEADLINE_EXCEEDED` | | `DeadlineExceeded` | open |
//! | `NOT_FOUND` | `exception: not-leader` | `NotLeaderException` | open |
//! | `RESOURCE_EXHAUSTED` | | `Grpc` | open |
//! | `ABORTED` | `Operation timed out: ...` | `Grpc` | open |
//! | `INTERNAL` | such as `RST_STREAM` | `ServerError` | open |
//! | `UNAVAILABLE` | | `ServerError` | open |
//! | `DATA_LOSS` | | `ServerError` | damaged |
//! | any other | | | refused |
//!
//! A `BatchAppend` response has the same statuses inside; the client hands each on as `Grpc`.

use eventstore::Error as ClientError;

/// Numbers of gRPC statuses, as the protocol has them.
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

/// Texts by which a server says that it cannot do what it was asked, whatever the connection.
const HANDLER_FAILED: [&str; 2] = ["Exception was thrown by handler", "Unexpected Read"];
/// Texts of a server that works, but not now: its connection is sound.
const NOT_NOW: [&str; 2] = ["Server Is Not Ready", "Server Is Too Busy"];
/// Codes of statuses that clients make of a broken connection, too.
const CONNECTION_CODES: [i32; 4] =
    [code::CANCELLED, code::DEADLINE_EXCEEDED, code::INTERNAL, code::UNAVAILABLE];
/// Names of statuses that stores answer with, and what clients put into them themselves.
const SAID_BY_STORES: [&str; 4] = ["Unknown", "ResourceExhausted", "Aborted", "DataLoss"];
const CONNECTION_TEXTS: [&str; 4] =
    ["transport error", "client error", "tcp connect", "h2 protocol error"];
/// Text of a server that switches a live subscription back to catching up.
const TOO_SLOW: &str = "Consumer too slow to handle event while live";

/// What a failed call leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The call may have been carried out, and may be made again.
    Open,
    /// The store has answered that it does not do it.
    Refused,
    /// The store has answered that its log is damaged.
    Damaged,
}

impl Outcome {
    pub(super) fn of(error: &ClientError) -> Self {
        match error {
            ClientError::ServerError(_) if damage(error).is_some() => Self::Damaged,
            ClientError::ServerError(status) => Self::of_unknown(status),
            ClientError::NotLeaderException(_)
            | ClientError::ConnectionClosed
            | ClientError::GrpcConnectionError(_)
            | ClientError::DeadlineExceeded
            // The client's word for a group that the server has dropped.
            | ClientError::IllegalStateError(_)
            | ClientError::InternalClientError => Self::Open,
            ClientError::Grpc { code, message } => match i32::from(*code) {
                code::CANCELLED
                | code::DEADLINE_EXCEEDED
                | code::RESOURCE_EXHAUSTED
                | code::ABORTED
                | code::INTERNAL
                | code::UNAVAILABLE => Self::Open,
                code::UNKNOWN => Self::of_unknown(message),
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

    fn of_unknown(message: &str) -> Self {
        if contains_any(message, &HANDLER_FAILED) { Self::Refused } else { Self::Open }
    }
}

/// Whether the call may be made again, because its outcome is open.
pub(crate) fn may_be_repeated(error: &ClientError) -> bool {
    Outcome::of(error) == Outcome::Open
}

/// Whether a failed append says that the store takes none. What it answers about one append, such as
/// a conflict or a missing right, says nothing of others.
pub(crate) fn is_store_failure(error: &ClientError) -> bool {
    match Outcome::of(error) {
        Outcome::Open | Outcome::Damaged => true,
        Outcome::Refused => matches!(error, ClientError::ServerError(_)),
    }
}

/// Why the store took no append, without addresses, which errors of a connection may name.
pub(crate) fn public_cause(error: &ClientError) -> String {
    match said_by_store(error) {
        Some(said) => format!("it refuses appends: {said}"),
        None => "it does not answer".to_owned(),
    }
}

/// The text of an answer; `None` if there was none.
fn said_by_store(error: &ClientError) -> Option<&str> {
    if let ClientError::Grpc { code, message } = error {
        let is_said = !CONNECTION_CODES.contains(&i32::from(*code));
        return is_said.then_some(message);
    }
    let ClientError::ServerError(status) = error else { return None };
    let said = SAID_BY_STORES.into_iter().find_map(|code| said(status, code));
    said.filter(|it| !contains_any(it, &CONNECTION_TEXTS))
}

/// The text of a status whose code has this name. Of a status the client keeps the text only.
fn said<'a>(status: &'a str, code: &str) -> Option<&'a str> {
    let said = status.strip_prefix("status: ")?.strip_prefix(code)?.strip_prefix(", message: ")?;
    Some(said.split_once(", details: ").map_or(said, |(message, _)| message).trim_matches('"'))
}

/// Whether the error says that the connection broke, or that its node goes away.
pub(crate) fn breaks_connection(error: &ClientError) -> bool {
    let ClientError::ServerError(status) = error else { return false };
    Outcome::of(error) == Outcome::Open && !contains_any(status, &NOT_NOW)
}

/// Whether the error says that the client has ended, and its connection with it.
pub(crate) fn ends_client(error: &ClientError) -> bool {
    matches!(error, ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_))
}

/// Whether the error says that there is no connection, or that nothing came over it in time.
pub(crate) fn is_connection_lost(error: &ClientError) -> bool {
    let is_silent = matches!(error, ClientError::DeadlineExceeded);
    is_silent || breaks_connection(error) || ends_client(error)
}

/// Whether a server ended a live subscription because events came faster than they were read. It
/// expects the client to subscribe again from where it is, on the same connection.
pub(crate) fn is_consumer_too_slow(error: &ClientError) -> bool {
    let (ClientError::Grpc { message: said, .. } | ClientError::ServerError(said)) = error else {
        return false;
    };
    said.contains(TOO_SLOW)
}

/// What the store says of damage to its log.
pub(super) fn damage(error: &ClientError) -> Option<&str> {
    if let ClientError::Grpc { code, message } = error {
        return (i32::from(*code) == code::DATA_LOSS).then_some(message);
    }
    let ClientError::ServerError(status) = error else { return None };
    said(status, "DataLoss")
}

fn contains_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as the client hands it on from inside a `BatchAppend` response.
    fn in_batch(code: i32, message: &str) -> ClientError {
        ClientError::Grpc { code: code.into(), message: message.to_owned() }
    }

    #[test]
    fn status_inside_a_batch_append_response_counts_as_outside() {
        let open = [1, 4, 8, 10, 13, 14];
        for code in 1..=16 {
            let expected = match code {
                2 => continue,
                15 => Outcome::Damaged,
                code if open.contains(&code) => Outcome::Open,
                _ => Outcome::Refused,
            };
            assert_eq!(Outcome::of(&in_batch(code, "Timeout")), expected, "status {code}");
        }
        assert_eq!(Outcome::of(&in_batch(2, "Unknown")), Outcome::Open);
        let thrown = in_batch(2, "Exception was thrown by handler.");
        assert_eq!(Outcome::of(&thrown), Outcome::Refused);
        assert_eq!(damage(&in_batch(15, "record 7")), Some("record 7"));
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
    fn cause_that_is_shown_is_what_the_store_said_and_no_address() {
        let status = |text: &str| public_cause(&ClientError::ServerError(text.to_owned()));
        let failed =
            "status: Unknown, message: \"The store failed: the disk failed.\", details: []";
        assert_eq!(status(failed), "it refuses appends: The store failed: the disk failed.");
        for nothing_said in [
            "status: Unknown, message: \"transport error\", details: []",
            "status: Unavailable, message: \"tcp connect error: 10.0.0.7:2113\"",
        ] {
            assert_eq!(status(nothing_said), "it does not answer");
        }
        let full = in_batch(8, "The write was refused: the disk is full.");
        assert!(public_cause(&full).ends_with("the disk is full."));
        assert_eq!(public_cause(&ClientError::DeadlineExceeded), "it does not answer");
    }

    #[test]
    fn answer_about_one_append_is_no_failure_of_the_store() {
        let thrown = ClientError::ServerError(
            "status: Unknown, message: \"Exception was thrown by handler.\"".to_owned(),
        );
        for failure in
            [thrown, in_batch(8, "full"), in_batch(15, "damaged"), ClientError::DeadlineExceeded]
        {
            assert!(is_store_failure(&failure), "{failure}");
        }
        for answer in
            [ClientError::AccessDenied, ClientError::ResourceDeleted, in_batch(3, "too big")]
        {
            assert!(!is_store_failure(&answer), "{answer}");
        }
    }

    #[test]
    fn slow_consumer_is_known_by_its_text() {
        let text = "Operation timed out: Consumer too slow to handle event while live. Client \
                    resubscription required.";
        assert!(is_consumer_too_slow(&in_batch(10, text)));
        assert!(!is_consumer_too_slow(&in_batch(10, "Operation timed out: Commit phase timeout")));
    }
}
