//! What can go wrong between us and the log.

use domain::order::DecodeError;
use eventstore::Error as ClientError;

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
    /// The store did not answer, or not in time. An append may still have happened; made again
    /// with the same command id it is recognised.
    #[error("event store is unavailable")]
    Unavailable(#[source] Box<ClientError>),
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
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Sorts a failed call to the client.
    pub(crate) fn from_client(error: ClientError) -> Self {
        if let Some(said) = damage(&error) {
            Self::Damaged { said: said.to_owned() }
        } else if is_connectivity(&error) {
            Self::Unavailable(Box::new(error))
        } else {
            Self::Refused(Box::new(error))
        }
    }
}

/// Whether the error says that the store could not be reached or asked, rather than what it
/// answered. The client maps every status that a broken connection can have to `ServerError`, and
/// reports a persistent subscription that the server dropped as an illegal state.
pub(crate) fn is_connectivity(error: &ClientError) -> bool {
    match error {
        ClientError::ServerError(_) => damage(error).is_none(),
        ClientError::NotLeaderException(_)
        | ClientError::ConnectionClosed
        | ClientError::GrpcConnectionError(_)
        | ClientError::DeadlineExceeded
        | ClientError::IllegalStateError(_)
        | ClientError::InternalClientError => true,
        ClientError::Grpc { .. }
        | ClientError::InternalParsingError(_)
        | ClientError::AccessDenied
        | ClientError::ResourceAlreadyExists
        | ClientError::ResourceNotFound
        | ClientError::ResourceDeleted
        | ClientError::UnsupportedFeature
        | ClientError::InitializationError(_)
        | ClientError::WrongExpectedVersion { .. } => false,
    }
}

/// What the store says of damage to its log. Of its status the client keeps the text only.
fn damage(error: &ClientError) -> Option<&str> {
    let ClientError::ServerError(status) = error else { return None };
    let said = status.strip_prefix("status: DataLoss, message: ")?;
    Some(said.split_once(", details: ").map_or(said, |(message, _)| message).trim_matches('"'))
}
