//! Errors of the event store and of the orders in it.

use domain::order::DecodeError;
use eventstore::Error as ClientError;

use super::diagnosis::UnreachableCause;

mod outcome;

use outcome::{Outcome, damage_report};
pub(crate) use outcome::{
    breaks_connection, ends_client, is_connection_lost, is_consumer_too_slow, is_store_failure,
    may_be_repeated, public_cause,
};

/// Text in the store's refusal of an append that is too large.
const TOO_LARGE: &str = "Maximum Append Size";

/// Why an operation on the event log failed. Every operation that calls the store can fail with
/// [`Unavailable`](Self::Unavailable); documentation of operations names the other errors only.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The connection string is invalid. No retry helps.
    // The client's reason is left out: it quotes the whole address, password included.
    #[error(
        "event store address `{url}` is invalid: write `esdb://USER:PASSWORD@HOST:2113`, \
         `esdb://HOST:2113?tls=false`, or `esdb+discover://...` for a cluster"
    )]
    Address { url: String },
    /// The stream has another revision than expected: load the order and decide again.
    #[error(
        "stream `{stream}` is at {}, not at the expected revision",
        describe_revision(*.current)
    )]
    Conflict { stream: String, current: Option<u64> },
    /// The store did not answer in time, or the outcome is unknown. The events may be stored; a
    /// retry with the same command id is recognised.
    #[error("event store is unavailable")]
    Unavailable(#[source] Box<ClientError>),
    /// The store is known to accept no appends, and nothing was sent. The events are not stored.
    #[error("event store has failed, and nothing was sent: {cause}")]
    Failed { cause: String },
    /// No connection to the store can be made. If the connection broke during the call, the events
    /// may be stored.
    #[error("event store {address} is unreachable: {cause}")]
    Unreachable { address: String, cause: UnreachableCause },
    /// No file descriptor is left for a connection. The events are not stored.
    #[error(
        "event store cannot be reached: no file descriptor is left for a connection; raise the \
         limit of open files (`ulimit -n`)"
    )]
    NoDescriptors,
    /// The stream was deleted or truncated: the store has none of its events. No retry helps.
    #[error("stream was deleted from the event store")]
    Deleted,
    /// The store refused the call. No retry helps.
    #[error("event store refused the call")]
    Refused(#[source] Box<ClientError>),
    /// The store reported that its log is damaged; the store's message. No retry helps.
    #[error("event store reports that its log is damaged: {message}")]
    Damaged { message: String },
    /// This release cannot decode an event.
    #[error("event {revision} of stream `{stream}` cannot be read")]
    Undecodable {
        stream: String,
        revision: u64,
        #[source]
        source: DecodeError,
    },
    /// An event could not be written as JSON.
    #[error("event cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

fn describe_revision(revision: Option<u64>) -> String {
    revision.map_or_else(|| "no event".to_owned(), |revision| format!("revision {revision}"))
}

impl LogError {
    /// Returns whether the same call may succeed later. The events may be stored nevertheless.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::Unreachable { .. }
                | Self::Failed { .. }
                | Self::NoDescriptors
        )
    }

    /// Returns whether the store refused the call or reported that its log is damaged.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Damaged { .. })
    }

    /// Returns whether the store refused an append because its events are too large.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.to_string().contains(TOO_LARGE))
    }

    /// Converts the error of a failed call.
    pub(crate) fn from_client(error: ClientError) -> Self {
        match Outcome::from_error(&error) {
            Outcome::Unknown => Self::Unavailable(Box::new(error)),
            Outcome::Refused if matches!(error, ClientError::ResourceDeleted) => Self::Deleted,
            Outcome::Refused => Self::Refused(Box::new(error)),
            Outcome::Damaged => {
                Self::Damaged { message: damage_report(&error).unwrap_or_default().to_owned() }
            }
        }
    }
}
