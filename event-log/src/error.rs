//! What can go wrong between us and the log.

use domain::order::DecodeError;
use eventstore::Error as ClientError;

use crate::diagnosis::UnreachableCause;

mod outcome;

use outcome::{Outcome, damage};
pub(crate) use outcome::{
    breaks_connection, ends_client, is_connection_lost, is_consumer_too_slow, is_store_failure,
    may_be_repeated, public_cause,
};

/// Text of a store that takes no append of such a size.
const TOO_LARGE: &str = "Maximum Append Size";

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The connection string cannot be used. No retry helps.
    // The client's reason is left out: it quotes the whole address, password included.
    #[error(
        "event store address `{url}` is not usable: write `esdb://USER:PASSWORD@HOST:2113`, \
         `esdb://HOST:2113?tls=false`, or `esdb+discover://...` for a cluster"
    )]
    Address { url: String },
    /// Somebody appended first: load again and decide on what is there now.
    #[error("stream `{stream}` is at {}, not at the expected revision", at(*.current))]
    Conflict { stream: String, current: Option<u64> },
    /// The store did not answer, not in time, or not what came of the call. An append may have
    /// happened; made again with the same command id it is recognised.
    #[error("event store is unavailable")]
    Unavailable(#[source] Box<ClientError>),
    /// The store is known to take no appends, and nothing was sent. An append has not happened.
    #[error("event store has failed, and nothing was sent: {cause}")]
    Failed { cause: String },
    /// No connection to the store can be made. An append may have happened if it could be before.
    #[error("event store {address} is unreachable: {cause}")]
    Unreachable { address: String, cause: UnreachableCause },
    /// No file descriptor is left for a connection. An append has not happened.
    #[error(
        "event store cannot be reached: no file descriptor is left for a connection; raise the \
         limit of open files (`ulimit -n`)"
    )]
    NoDescriptors,
    /// The store has none of the stream's events any more: it was deleted or truncated. No retry
    /// helps.
    #[error("stream was deleted from the event store")]
    Deleted,
    /// The store answered that it will not do it. No retry helps.
    #[error("event store refused the call")]
    Refused(#[source] Box<ClientError>),
    /// The store answered that its own log is damaged, in its words. No retry helps.
    #[error("event store reports that its log is damaged: {said}")]
    Damaged { said: String },
    /// An event that this release cannot read.
    #[error("event {revision} of stream `{stream}` cannot be read")]
    Undecodable {
        stream: String,
        revision: u64,
        #[source]
        source: DecodeError,
    },
    /// An event of ours could not be written as JSON.
    #[error("event cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

fn at(revision: Option<u64>) -> String {
    revision.map_or_else(|| "no event".to_owned(), |it| format!("revision {it}"))
}

impl LogError {
    /// Whether the same call may succeed later. An append may have happened all the same.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::Unreachable { .. }
                | Self::Failed { .. }
                | Self::NoDescriptors
        )
    }

    /// Whether the store answered that it does not do it, or that its log is damaged.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Damaged { .. })
    }

    /// Whether the store refused an append because its events are larger than it takes.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.to_string().contains(TOO_LARGE))
    }

    /// Sorts a failed call to the client.
    pub(crate) fn from_client(error: ClientError) -> Self {
        match Outcome::of(&error) {
            Outcome::Open => Self::Unavailable(Box::new(error)),
            Outcome::Refused if matches!(error, ClientError::ResourceDeleted) => Self::Deleted,
            Outcome::Refused => Self::Refused(Box::new(error)),
            Outcome::Damaged => {
                Self::Damaged { said: damage(&error).unwrap_or_default().to_owned() }
            }
        }
    }
}
