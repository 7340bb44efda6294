//! Why a command failed, and the exit code that says so.

use std::io::ErrorKind;

use event_log::{CopyError, LogError};
use event_node::{CopyError as NodeCopyError, NodeError, VerifyError};
use projectors::{RebuildError, ReplayError, StatusError, StoreError};
use reqwest::StatusCode;
use serde_json::Value;
use service_kit::config::ConfigError;
use service_kit::http::{ApiConfigError, HttpError, TlsError};
use service_kit::lifecycle::LifecycleError;
use service_kit::telemetry::TelemetryError;

use crate::settings::UnsafeSettings;

const DAMAGED_HINT: &str = "stop the event store; `dofs node verify` names what is damaged, `dofs node \
    restore` and `dofs node salvage` mend an embedded one";

const READ_MODEL_HINT: &str = "is the database running, and is `read_model.url` right? A damaged \
    SQLite file may be deleted: its tables are built anew from the events";

const READ_MODEL_RIGHTS_HINT: &str = "the user in `read_model.url` must own the tables for \
    `migrate` and `projections rebuild` and `rollback`: `scripts/postgres-roles.sql` makes the roles";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Fulfillment(#[from] fulfillment_worker::ConfigError),
    #[error(transparent)]
    Api(#[from] ApiConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("configuration refused: not fit for this environment")]
    Unsafe(#[from] UnsafeSettings),
    #[error("`event_store.url` is empty: this role needs an event store")]
    NoEventStore,
    #[error(transparent)]
    EventLog(#[from] LogError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    NodeCopy(#[from] NodeCopyError),
    #[error(transparent)]
    ReadModel(#[from] StoreError),
    #[error(transparent)]
    Rebuild(RebuildError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    #[error("the API key has characters that no key has")]
    UnusableKey,
    #[error("no API key `{0}`")]
    NoSuchKey(String),
    #[error(
        "scope `{0}` is about everybody's orders: a key of one tenant cannot have it; use \
         `--all-tenants`"
    )]
    OperatorScope(&'static str),
    #[error("cannot use folder `{path}`")]
    Folder {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("event store denies the right to {0}")]
    Denied(event_log::AccessRight),
    #[error("the key that was printed was not made: nobody can use it")]
    KeyNotMade(#[source] LogError),
    #[error("there is no file for the read model `{url}`, and this is not `dev`")]
    NoDatabaseFile { url: String },
    #[error("API address `{url}` cannot be used: {reason}")]
    ApiUrl { url: String, reason: String },
    #[error("not confirmed: there is no terminal to ask on")]
    Unconfirmed,
    #[error("not confirmed: nothing was done")]
    Declined,
    #[error("cannot write `{path}`")]
    Output {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("Order {0} not found")]
    OrderNotFound(uuid::Uuid),
    #[error("no answer from {url}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} answered {}: {text}", .status.as_u16())]
    Refused { url: String, status: StatusCode, text: String, document: Box<Value> },
    #[error("description cannot be written as JSON")]
    Description(#[source] serde_json::Error),
    #[error("order {id} had not ended when the API went away, and it did not come back")]
    WatchLost {
        id: uuid::Uuid,
        #[source]
        source: Box<CliError>,
    },
    #[error("answer of {url} is not what this release expects")]
    UnexpectedAnswer {
        url: String,
        #[source]
        source: reqwest::Error,
    },
}

impl CliError {
    /// The exit code: 1 failure, 2 wrong use, 3 a check found problems, 4 not found, 5 conflict, 7 unavailable.
    pub(crate) fn exit_code(&self) -> u8 {
        self.code_and_hint().0
    }

    /// Whether the same request may work in a moment: nobody is there, or what stands before the
    /// API answers for it.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::UnexpectedAnswer { .. })
            || matches!(self, Self::Refused { status, .. } if (502..=504).contains(&status.as_u16()))
    }

    /// The status by which HTTP would tell it.
    pub(crate) fn status(&self) -> StatusCode {
        match (self, self.exit_code()) {
            (Self::Refused { status, .. }, _) => *status,
            (Self::Denied(_), _) => StatusCode::FORBIDDEN,
            (_, 2) => StatusCode::BAD_REQUEST,
            (_, 3) => StatusCode::UNPROCESSABLE_ENTITY,
            (_, 4) => StatusCode::NOT_FOUND,
            (_, 5) => StatusCode::CONFLICT,
            (_, 7) => StatusCode::SERVICE_UNAVAILABLE,
            (_, _) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the API said when it refused, if it was the API, as a problem document.
    pub(crate) fn refusal(&self) -> Option<&Value> {
        let Self::Refused { document, .. } = self else { return None };
        document.get("status").is_some().then_some(&**document)
    }

    /// The one thing to do about it, where there is one.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        self.code_and_hint().1
    }

    fn code_and_hint(&self) -> (u8, Option<&'static str>) {
        if let Self::Refused { status, .. } = self {
            return refused_code_and_hint(*status);
        }
        match self {
            Self::Config(_)
            | Self::Fulfillment(_)
            | Self::Api(_)
            | Self::Telemetry(TelemetryError::Filter { .. })
            | Self::Unsafe(_)
            | Self::OperatorScope(_)
            | Self::UnusableKey
            | Self::EventLog(LogError::Address { .. })
            | Self::Http(HttpError::Address { .. })
            | Self::Tls(_) => (2, None),
            Self::Denied(_) => {
                (1, Some("grant it to the user of `event_store.url`: docs/event-store.md says how"))
            }
            Self::ApiUrl { .. } => (2, Some("write it like `http://127.0.0.1:8080`")),
            Self::Unconfirmed => {
                (2, Some("say `--yes` if that is what you mean; look first with `--dry-run`"))
            }
            Self::NoDatabaseFile { .. } => (
                2,
                Some("is `read_model.url` right? `--create` makes the file; is DOFS_ENV right?"),
            ),
            Self::NoEventStore => {
                (2, Some("set `event_store.url`, e.g. by DOFS__EVENT_STORE__URL"))
            }
            Self::Verify(VerifyError::Damaged { .. } | VerifyError::DamagedIndex { .. })
            | Self::Copy(CopyError::Differs { .. } | CopyError::Unexpected { .. }) => (3, None),
            Self::NodeCopy(error) => (node_copy_code(error), None),
            Self::EventLog(LogError::Damaged { .. }) => (3, Some(DAMAGED_HINT)),
            Self::NoSuchKey(_) => (4, Some("`dofs keys list` shows the keys")),
            Self::OrderNotFound(_)
            | Self::EventLog(LogError::Deleted)
            | Self::Verify(VerifyError::Missing { .. }) => (4, None),
            Self::Output { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                (1, Some("name another file, or replace it with --yes"))
            }
            Self::Rebuild(error) => rebuild_code_and_hint(error),
            Self::ReadModel(error) => read_model_code_and_hint(error),
            Self::EventLog(LogError::Unreachable { cause, .. })
            | Self::Copy(CopyError::Log(LogError::Unreachable { cause, .. })) => {
                (7, Some(cause.hint()))
            }
            Self::EventLog(LogError::Unavailable(_))
            | Self::Copy(CopyError::Log(LogError::Unavailable(_))) => {
                (7, Some("look at the event store's own log"))
            }
            Self::WatchLost { .. } => (7, Some("watch it again once the API is back")),
            Self::Unreachable { .. } => (
                7,
                Some("is it running? start it with `dofs dev`, or say where it is with `--url`"),
            ),
            Self::Runtime(_)
            | Self::Telemetry(TelemetryError::Start(_))
            | Self::EventLog(_)
            | Self::Copy(_)
            | Self::Node(_)
            | Self::Verify(_)
            | Self::Http(_)
            | Self::Lifecycle(_)
            | Self::Folder { .. }
            | Self::Declined
            | Self::KeyNotMade(_)
            | Self::Output { .. }
            | Self::Refused { .. }
            | Self::Description(_)
            | Self::UnexpectedAnswer { .. } => (1, None),
        }
    }
}

fn node_copy_code(error: &NodeCopyError) -> u8 {
    match error {
        NodeCopyError::DamagedStream { .. }
        | NodeCopyError::TruncatedStream { .. }
        | NodeCopyError::Incomplete { .. }
        | NodeCopyError::Unsound { .. } => 3,
        NodeCopyError::Missing { .. } => 4,
        NodeCopyError::Source(_)
        | NodeCopyError::Read(_)
        | NodeCopyError::Write { .. }
        | NodeCopyError::WriteStream(_)
        | NodeCopyError::ReadStream(_)
        | NodeCopyError::OtherStore { .. }
        | NodeCopyError::NotEmpty { .. }
        | NodeCopyError::Folder(_) => 1,
    }
}

fn refused_code_and_hint(status: StatusCode) -> (u8, Option<&'static str>) {
    match status.as_u16() {
        401 | 403 => (1, Some("give an API key that may do this with `--api-key` or DOFS_API_KEY")),
        404 | 410 => (4, None),
        409 => (5, None),
        412 => (5, Some("it has changed since you looked: look again, and name its revision")),
        503 => (7, None),
        _ => (1, None),
    }
}

fn read_model_code_and_hint(error: &StoreError) -> (u8, Option<&'static str>) {
    match error {
        StoreError::Address { .. } => (2, None),
        StoreError::Set(_) => (4, None),
        StoreError::Unfinished { .. } => (5, None),
        StoreError::Locked { .. } => (7, None),
        error if error.is_denied() => (1, Some(READ_MODEL_RIGHTS_HINT)),
        StoreError::Database(_) | StoreError::Timeout => (7, Some(READ_MODEL_HINT)),
        StoreError::SchemaOlder { .. }
        | StoreError::SchemaNewer { .. }
        | StoreError::Migration { .. }
        | StoreError::Encoding { .. }
        | StoreError::CheckpointMoved
        | StoreError::Row { .. } => (1, None),
    }
}

fn rebuild_code_and_hint(error: &RebuildError) -> (u8, Option<&'static str>) {
    match error {
        RebuildError::Poison(_) | RebuildError::Replay(ReplayError::Misfolded(_)) => (3, None),
        RebuildError::TakenOver => (5, None),
        RebuildError::Locked => (7, None),
        RebuildError::Replay(ReplayError::Scratch { .. }) => {
            (1, Some("has its file system room? name another folder with TMPDIR"))
        }
        RebuildError::Replay(
            ReplayError::Store(_) | ReplayError::Log(_) | ReplayError::Origin(_),
        )
        | RebuildError::NeverCaughtUp => (1, None),
    }
}

impl From<StatusError> for CliError {
    fn from(error: StatusError) -> Self {
        match error {
            StatusError::Store(error) => error.into(),
            StatusError::Log(error) => error.into(),
        }
    }
}

impl From<ReplayError> for CliError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Store(error) => error.into(),
            ReplayError::Log(error) => error.into(),
            other @ (ReplayError::Misfolded(_)
            | ReplayError::Scratch { .. }
            | ReplayError::Origin(_)) => Self::Rebuild(other.into()),
        }
    }
}

impl From<RebuildError> for CliError {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Replay(ReplayError::Store(error)) => error.into(),
            RebuildError::Replay(ReplayError::Log(error)) => error.into(),
            other @ (RebuildError::Replay(
                ReplayError::Misfolded(_) | ReplayError::Scratch { .. } | ReplayError::Origin(_),
            )
            | RebuildError::Poison(_)
            | RebuildError::TakenOver
            | RebuildError::NeverCaughtUp
            | RebuildError::Locked) => Self::Rebuild(other),
        }
    }
}
