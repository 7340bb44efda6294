//! Errors of the commands, with their exit codes, hints and HTTP statuses.

use std::io::ErrorKind;

use event_log::{CopyError, LogError};
use event_node::{CopyError as NodeCopyError, NodeError, UsersFileError, VerifyError};
use projectors::{RebuildError, ReplayError, StatusError, StoreError};
use reqwest::StatusCode;
use serde_json::Value;
use service_kit::config::ConfigError;
use service_kit::error::Chain;
use service_kit::http::{ApiConfigError, HttpError};
use service_kit::lifecycle::LifecycleError;
use service_kit::telemetry::TelemetryError;
use service_kit::tls::TlsError;

use crate::settings::UnsafeSettings;

const DAMAGED_HINT: &str = "stop the event store; `dofs node verify` locates the damage, `dofs node \
    restore` and `dofs node salvage` repair an embedded event store";

const PERMISSION_HINT: &str =
    "grant it to the user of `event_store.url`, as described in docs/event-store.md";

const CONFIRMATION_HINT: &str =
    "pass `--yes` to confirm; where there is a `--dry-run`, it shows the effects first";

const READ_MODEL_HINT: &str = "check that the database is running and that `read_model.url` is \
    correct; a damaged SQLite file can be deleted: its tables are rebuilt from the events";

const READ_MODEL_OWNER_HINT: &str = "`migrate`, `projections rebuild` and `projections rollback` \
    need a user in `read_model.url` that owns the tables; `scripts/postgres-roles.sql` creates it";

const NO_DATABASE_FILE_HINT: &str =
    "check `read_model.url` and DOFS_ENV; `--create` creates the file";

const BREAKING_MIGRATION_HINT: &str = "stop the projectors and API processes of the running release, \
    then run `dofs migrate` without `--compatible-only`; docs/UPGRADING.md describes the steps";

const CACERT_HINT: &str =
    "if a private authority issued the API's certificate, name the authority's file by `--cacert`";

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
    Console(#[from] console::ShortSecret),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("configuration refused: unsafe in this environment")]
    Unsafe(#[from] UnsafeSettings),
    #[error("`event_store.url` is empty: an event store is required")]
    NoEventStore,
    #[error(transparent)]
    EventLog(#[from] LogError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(
        "`dofs dev` runs its event store without TLS and users, but `node.tls_certificate` or \
         `node.users` is set"
    )]
    SecuredDevStore,
    #[error(transparent)]
    Users(#[from] UsersError),
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
    #[error("invalid API key: it contains characters that no key has")]
    MalformedKey,
    #[error("API key `{0}` not found")]
    NoSuchKey(String),
    #[error(
        "invalid scope `{0}` for a key of one tenant: it grants access to all orders; use \
         `--all-tenants`"
    )]
    OperatorScope(&'static str),
    #[error("cannot use folder `{path}`")]
    Folder {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("event store denies permission to {0}")]
    Denied(event_log::AccessRight),
    #[error("creating the API key failed: the printed key is not valid")]
    KeyNotCreated(#[source] LogError),
    #[error("read model `{url}` has no database file, and DOFS_ENV is not `dev`")]
    NoDatabaseFile { url: String },
    #[error(
        "read model `{url}` was not migrated: the release of schema version {current} would not work \
         after the pending migrations, which need the release of schema version {oldest} or a newer one"
    )]
    BreakingMigration { url: String, current: i64, oldest: i64 },
    #[error("invalid API URL `{url}`: {reason}")]
    ApiUrl { url: String, reason: String },
    #[error("cannot read certificates of authorities from `{path}`: {reason}")]
    Authorities { path: String, reason: String },
    #[error("confirmation required: no terminal to ask on")]
    Unconfirmed,
    #[error("not confirmed: nothing was changed")]
    Declined,
    #[error("cannot write `{path}`")]
    Output {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("Order {0} not found")]
    OrderNotFound(uuid::Uuid),
    #[error("no response from {url}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} responded {}: {message}", .status.as_u16())]
    Rejected { url: String, status: StatusCode, message: String, body: Box<Value> },
    #[error("serializing the API description failed")]
    Description(#[source] serde_json::Error),
    #[error("watching order {id} failed: the API is gone, and the order has not ended")]
    WatchLost {
        id: uuid::Uuid,
        #[source]
        source: Box<CliError>,
    },
    #[error("unexpected response from {url}")]
    UnexpectedResponse {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Errors of `dofs node users`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsersError {
    #[error(transparent)]
    File(#[from] UsersFileError),
    #[error("`node.users` is empty: no users file is configured")]
    NoFile,
    #[error("cannot read the password")]
    UnreadablePassword(#[source] std::io::Error),
    #[error("the two passwords differ: nothing was changed")]
    DifferentPasswords,
}

impl CliError {
    /// Returns the exit code: 1 failure, 2 usage error, 3 failed check, 4 not found, 5 conflict, 7
    /// unavailable.
    pub(crate) fn exit_code(&self) -> u8 {
        self.code_and_hint().0
    }

    /// Returns whether the request may succeed if retried: the API is unreachable, or a proxy in front
    /// of it responds instead.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::UnexpectedResponse { .. })
            || matches!(self, Self::Rejected { status, .. } if (502..=504).contains(&status.as_u16()))
    }

    /// Returns the HTTP status of the problem document for this error.
    pub(crate) fn status(&self) -> StatusCode {
        // Derived from the exit code, so that `--json` and the exit code never disagree.
        match (self, self.exit_code()) {
            (Self::Rejected { status, .. }, _) => *status,
            (Self::Denied(_), _) => StatusCode::FORBIDDEN,
            (_, 2) => StatusCode::BAD_REQUEST,
            (_, 3) => StatusCode::UNPROCESSABLE_ENTITY,
            (_, 4) => StatusCode::NOT_FOUND,
            (_, 5) => StatusCode::CONFLICT,
            (_, 7) => StatusCode::SERVICE_UNAVAILABLE,
            (_, _) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the problem document of the API, if the API rejected the request with one.
    pub(crate) fn problem_document(&self) -> Option<&Value> {
        let Self::Rejected { body, .. } = self else { return None };
        // A proxy in front of the API may respond with a body of another format.
        body.get("status").is_some().then_some(&**body)
    }

    /// Returns advice on how to fix the error, if there is any.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        self.code_and_hint().1
    }

    fn code_and_hint(&self) -> (u8, Option<&'static str>) {
        // The status of the API decides, not the variant of this enum.
        if let Self::Rejected { status, .. } = self {
            return rejection_code_and_hint(*status);
        }
        match self {
            Self::Config(_)
            | Self::Fulfillment(_)
            | Self::Api(_)
            | Self::Console(_)
            | Self::Telemetry(TelemetryError::Filter { .. })
            | Self::Unsafe(_)
            | Self::OperatorScope(_)
            | Self::MalformedKey
            | Self::Authorities { .. }
            | Self::EventLog(LogError::Address { .. })
            | Self::Http(HttpError::Address { .. })
            | Self::Node(NodeError::Config(_) | NodeError::Tls(_) | NodeError::Users(_))
            | Self::Tls(_) => (2, None),
            Self::SecuredDevStore => (2, Some("unset both, or run `dofs node` and `dofs serve`")),
            Self::Users(error) => users_code_and_hint(error),
            Self::Denied(_) => (1, Some(PERMISSION_HINT)),
            Self::ApiUrl { .. } => (2, Some("use the form `http://127.0.0.1:8080`")),
            Self::Unconfirmed => (2, Some(CONFIRMATION_HINT)),
            Self::NoDatabaseFile { .. } => (2, Some(NO_DATABASE_FILE_HINT)),
            Self::BreakingMigration { .. } => (1, Some(BREAKING_MIGRATION_HINT)),
            Self::NoEventStore => {
                (2, Some("set `event_store.url`, e.g. by DOFS__EVENT_STORE__URL"))
            }
            Self::Verify(VerifyError::Damaged { .. } | VerifyError::DamagedIndex { .. })
            | Self::Copy(CopyError::Differs { .. } | CopyError::Unexpected { .. }) => (3, None),
            Self::NodeCopy(error) => (node_copy_exit_code(error), None),
            Self::EventLog(LogError::Damaged { .. }) => (3, Some(DAMAGED_HINT)),
            Self::NoSuchKey(_) => (4, Some("`dofs keys list` shows the keys")),
            Self::OrderNotFound(_)
            | Self::EventLog(LogError::Deleted)
            | Self::Verify(VerifyError::Missing { .. }) => (4, None),
            Self::Output { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                (1, Some("use another file name, or pass `--yes` to replace the file"))
            }
            Self::Rebuild(error) => rebuild_code_and_hint(error),
            Self::ReadModel(error) => read_model_code_and_hint(error),
            Self::EventLog(LogError::Unreachable { cause, .. })
            | Self::Copy(CopyError::Log(LogError::Unreachable { cause, .. })) => {
                (7, Some(cause.hint()))
            }
            Self::EventLog(LogError::Unavailable(_))
            | Self::Copy(CopyError::Log(LogError::Unavailable(_))) => {
                (7, Some("check the log of the event store"))
            }
            Self::WatchLost { .. } => (7, Some("repeat the command once the API is reachable")),
            Self::Unreachable { source, .. } if is_untrusted(source) => (7, Some(CACERT_HINT)),
            Self::Unreachable { .. } => {
                (7, Some("start the API with `dofs dev`, or pass its URL with `--url` or DOFS_URL"))
            }
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
            | Self::KeyNotCreated(_)
            | Self::Output { .. }
            | Self::Rejected { .. }
            | Self::Description(_)
            | Self::UnexpectedResponse { .. } => (1, None),
        }
    }
}

/// Returns whether the certificate of the API was refused.
fn is_untrusted(error: &reqwest::Error) -> bool {
    // The TLS library's error type is not part of the interface of `reqwest`.
    error.is_connect() && Chain(error).to_string().contains("certificate")
}

fn users_code_and_hint(error: &UsersError) -> (u8, Option<&'static str>) {
    match error {
        UsersError::NoFile => (2, Some("set it, or pass `--file`")),
        UsersError::File(UsersFileError::Name(_) | UsersFileError::Password)
        | UsersError::DifferentPasswords => (2, None),
        UsersError::File(UsersFileError::Missing(_)) => {
            (4, Some("`dofs node users list` shows the users"))
        }
        UsersError::File(UsersFileError::Exists(_)) => {
            (5, Some("`dofs node users password` replaces the password"))
        }
        UsersError::File(_) | UsersError::UnreadablePassword(_) => (1, None),
    }
}

fn node_copy_exit_code(error: &NodeCopyError) -> u8 {
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

fn rejection_code_and_hint(status: StatusCode) -> (u8, Option<&'static str>) {
    match status.as_u16() {
        401 | 403 => {
            (1, Some("pass an API key with the required scope by `--api-key` or DOFS_API_KEY"))
        }
        404 | 410 => (4, None),
        409 => (5, None),
        412 => (5, Some("the order has changed: show it again and pass its current revision")),
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
        error if error.is_denied() => (1, Some(READ_MODEL_OWNER_HINT)),
        StoreError::Database(_) | StoreError::Timeout => (7, Some(READ_MODEL_HINT)),
        StoreError::SchemaOlder { .. }
        | StoreError::SchemaNewer { .. }
        | StoreError::ProjectionNewer { .. }
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
            (1, Some("check the free space of its file system; TMPDIR selects another folder"))
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
        RebuildError::from(error).into()
    }
}

impl From<RebuildError> for CliError {
    fn from(error: RebuildError) -> Self {
        match error {
            // Errors of the stores have their own exit codes and hints, whichever command meets them.
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
