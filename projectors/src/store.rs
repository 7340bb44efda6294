//! The tables of the projections, in PostgreSQL or SQLite.

mod address;
mod checkpoint;
mod customers;
mod database;
mod examine;
mod installation;
mod lease;
mod migrations;
mod operator_actions;
mod orders;
mod postgres;
mod query;
mod rows;
mod sets;
mod sqlite;
mod statistics;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::OrderId;
use futures::future::try_join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::orders::{FailedOrder, ORDERS, OrderRow};
use crate::projection::{ColumnType, Projection, Row, UnreadableRow, row};
use address::Address;
use database::Database;
use migrations::AppliedMigrations;
use postgres::PostgresPool;
use query::Query;
use sqlite::{Durability, SqlitePools};

pub use address::ReadModelUrl;
pub use checkpoint::Checkpoint;
pub use customers::{Customer, CustomerFilter};
pub use domain::operations::FailureFilter;
pub use examine::{IdRange, LastVerification, RowsPage, RowsText};
pub use installation::{
    ClockReading, ConnectionLimits, Installation, InstallationError, MAX_CONNECTIONS_PER_PROCESS,
    Pooler, PostgresInstallation, SqliteInstallation,
};
pub use lease::Lease;
pub use migrations::{SCHEMA_VERSION, SchemaMigration};
pub use operator_actions::{ActionPlace, OrderActionFilter};
pub use orders::{FailedOrderFilter, FailureGroup, OrderFilter};
pub use rows::Newest;
pub(crate) use sets::PREVIOUS_KEPT_FOR;
pub use sets::{Begin, SetInfo, Steps, SwapWhen, Swapped, Unfinished};
pub use statistics::OrderCounts;

/// A result of the read model.
type Result<T, E = StoreError> = std::result::Result<T, E>;

/// How long to wait for a connection: an unreachable database is reported soon.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

row! {
    /// The declaration of a migration.
    struct Compatibility in "schema_compatibility" {
        version: i64,
        works_with: i64,
    }
}

/// Where the read model is (`[read_model]` in the configuration).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadModelConfig {
    /// `sqlite://path` or `postgres://user@host:port/database`.
    pub url: ReadModelUrl,
}

/// One set of tables of one projection. Every read is one statement, so its answer is of one moment.
#[derive(Clone)]
pub struct ReadModel {
    database: Database,
    /// For messages, without secrets.
    url: Arc<str>,
    projection: &'static Projection,
    /// The key of the set in `projection_checkpoints`.
    set: String,
}

impl ReadModel {
    /// Makes the live set of a projection from the pools of its database.
    fn new(database: Database, url: &str, projection: &'static Projection) -> Self {
        Self { database, url: url.into(), projection, set: projection.name.to_owned() }
    }

    /// Returns the projection whose tables are read and written.
    pub fn projection(&self) -> &'static Projection {
        self.projection
    }

    /// Returns the tables of another projection in the same database, with the same connections.
    pub fn for_projection(&self, projection: &'static Projection) -> Arc<Self> {
        Arc::new(Self::new(self.database.clone(), &self.url, projection))
    }

    /// Publishes the use of the connections as metrics.
    pub(crate) fn publish_pool_use(&self) {
        self.database.publish_pool_use();
    }

    /// Returns the address without its secrets.
    pub fn address(&self) -> &str {
        &self.url
    }

    /// Succeeds if the database answers and has the tables.
    pub async fn ping(&self) -> Result<()> {
        let table = self.projection.main_table().name;
        let ping =
            format!("/* ping */ select count(*) from (select 1 from {table} limit 1) as found");
        self.fetch_value::<i64>(Query::new(ping)).await.map(drop)
    }

    /// Checks that this release works with the schema: it is the one that the release was written for, or
    /// a newer one that does not break it.
    ///
    /// # Errors
    /// [`StoreError::SchemaOlder`] and [`StoreError::SchemaNewer`] say what to do about it.
    pub async fn check_schema(&self) -> Result<()> {
        self.applied_migrations().await?.check(&self.url)
    }

    /// Returns the version of the newest migration that the database has had; `None` before the first.
    pub async fn schema_version(&self) -> Result<Option<i64>> {
        Ok(self.applied_migrations().await?.versions.last().copied())
    }

    /// Returns the migrations that [`ReadModelUrl::migrate`] would apply, oldest first. Empty also if a
    /// newer release has migrated the database and this release works with it.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] if this release does not work with it.
    pub async fn plan_migrations(&self) -> Result<Vec<SchemaMigration>> {
        self.applied_migrations().await?.plan(&self.url)
    }

    /// Returns the migrations that the database has had.
    async fn applied_migrations(&self) -> Result<AppliedMigrations> {
        let mut applied = AppliedMigrations::default();
        if !self.database.exists() {
            return Ok(applied);
        }
        let mut connection = self.database.acquire_reader().await?;
        let exists = connection.dialect().table_exists("_sqlx_migrations");
        let exists = Query::new(format!("/* schema.exists */ select count(*) where {exists}"));
        if !connection.finds_any(exists).await? {
            return Ok(applied);
        }
        let versions = Query::new("/* schema.versions */ select version from _sqlx_migrations");
        applied.versions = connection.fetch_values(versions).await?.into_iter().collect();
        // A database that a newer release has migrated has this table.
        if applied.has_unknown() {
            let declared = Query::select::<Compatibility>("schema.compatibility");
            let declared: Vec<Compatibility> = connection.fetch_rows(declared).await?;
            let declared = declared.into_iter().map(|row| (row.version, row.works_with));
            applied.works_with = declared.collect();
        }
        Ok(applied)
    }

    /// Returns the key of the live set.
    fn live_key(&self) -> String {
        self.projection.name.to_owned()
    }

    /// Runs a call that writes, and notes its failure.
    async fn watch<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        call.await.inspect_err(|error| self.database.note_failure(error))
    }

    /// Runs one statement in a transaction and returns the number of rows that it changed.
    async fn execute_committed(&self, query: Query) -> Result<u64> {
        self.watch(async {
            let mut transaction = self.database.begin().await?;
            let n_changed = transaction.execute(query).await?;
            transaction.commit().await?;
            Ok(n_changed)
        })
        .await
    }

    async fn fetch_rows<R: Row>(&self, query: Query) -> Result<Vec<R>> {
        self.database.acquire_reader().await?.fetch_rows(query).await
    }

    /// Returns the first row, if there is any.
    async fn fetch_row<R: Row>(&self, query: Query) -> Result<Option<R>> {
        self.database.acquire_reader().await?.fetch_row(query).await
    }

    /// Returns the only column of the first row, if there is any.
    async fn fetch_value<C: ColumnType>(&self, query: Query) -> Result<Option<C>> {
        self.database.acquire_reader().await?.fetch_value(query).await
    }
}

impl ReadModelUrl {
    /// Opens the tables of the projection `orders`. Connects at the first call, not here, so that a
    /// database that is down does not keep a process from starting.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn open(&self) -> Arc<ReadModel> {
        let database = match self.address.clone() {
            Address::Postgres(options, sessions) => {
                Database::Postgres(PostgresPool::open(*options, sessions, ""))
            }
            Address::Sqlite(path) => {
                Database::Sqlite(SqlitePools::open(path, Durability::PowerCut))
            }
        };
        Arc::new(ReadModel::new(database, &self.shown, &ORDERS))
    }

    /// Brings the schema to what this release needs, making the SQLite database if it is missing, and
    /// returns the migrations that were run.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] if a newer release migrated it and this release does not work with it.
    /// A newer schema is left as it is.
    pub async fn migrate(&self) -> Result<Vec<SchemaMigration>> {
        if self.open().applied_migrations().await?.is_newer_and_works(&self.shown)? {
            return Ok(Vec::new());
        }
        match self.address.clone() {
            Address::Postgres(options, sessions) => {
                postgres::migrate(*options, sessions, &self.shown).await
            }
            Address::Sqlite(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
                }
                sqlite::migrate(&path, Durability::PowerCut, &self.shown).await
            }
        }
    }
}

/// Opens the read model at `url`, as [`ReadModelUrl::open`] does.
///
/// # Errors
/// [`StoreError::Address`] if the URL is not valid.
pub fn open(url: &str) -> Result<Arc<ReadModel>> {
    Ok(url.parse::<ReadModelUrl>()?.open())
}

/// Migrates the read model at `url`, as [`ReadModelUrl::migrate`] does.
///
/// # Errors
/// [`StoreError::Address`] if the URL is not valid.
pub async fn migrate(url: &str) -> Result<Vec<SchemaMigration>> {
    url.parse::<ReadModelUrl>()?.migrate().await
}

/// Opens the tables of a projection in a file that is to be thrown away: quicker than one that must
/// survive a power cut, and without the indexes of lists.
pub(crate) async fn open_scratch(
    path: &Path,
    projection: &'static Projection,
) -> Result<Arc<ReadModel>> {
    let url = format!("sqlite://{}", path.display());
    sqlite::migrate(path, Durability::Process, &url).await?;
    let pools = SqlitePools::open(path.to_owned(), Durability::Process);
    let scratch = ReadModel::new(Database::Sqlite(pools), &url, projection);
    // All connections are opened now: another process may put a file of its own in the place of this
    // one, and a connection that is opened later would be to that file.
    try_join_all((0..sqlite::MAX_READERS).map(|_reader| scratch.database.acquire_reader())).await?;
    let mut transaction = scratch.database.begin().await?;
    sets::sqlite::drop_indexes(&mut transaction, projection).await?;
    transaction.commit().await?;
    Ok(Arc::new(scratch))
}

/// A part of a list that is sorted by time and id, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The last place of the page before; `None` for the first page.
    pub after: Option<Place>,
    /// Maximum number of rows to return.
    pub limit: u32,
}

/// The place of a row in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub at: Timestamp,
    pub order_id: OrderId,
}

impl Place {
    /// Returns an order's place among the orders. An order without a known time of receipt comes last.
    pub fn of_order(order: &OrderRow) -> Self {
        let at = order.received_at.unwrap_or(Timestamp::UNIX_EPOCH);
        Self { at, order_id: order.order_id }
    }

    /// Returns a failure's place among the failures.
    pub fn of_failure(failed: &FailedOrder) -> Self {
        Self { at: failed.failed_at, order_id: failed.order_id }
    }
}

/// Why a call to the read model failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is not valid. No retry helps.
    #[error("read model address `{url}` is not usable: {reason}")]
    Address { url: String, reason: String },
    /// No retry helps until the database is migrated.
    #[error(
        "schema of the read model `{url}` is at version {found}, older than the {needed} that this \
         release needs: run `dofs migrate`"
    )]
    SchemaOlder { url: String, found: i64, needed: i64 },
    /// No retry helps.
    #[error(
        "schema of the read model `{url}` is at version {found}, newer than the {needed} that this \
         release knows, and breaks this release: run the release of `dofs` that migrated it, or a \
         newer one; to go back to this release, give it an empty database (docs/UPGRADING.md)"
    )]
    SchemaNewer { url: String, found: i64, needed: i64 },
    /// No retry helps until the tables are built anew by this release, or written by the newer one.
    #[error(
        "tables of the projection `{projection}` were written by its version {found}, newer than the \
         {known} of this release: run the newer release, or go back for good with `dofs projections \
         --projection {projection} rebuild` of this release"
    )]
    ProjectionNewer { projection: &'static str, found: u32, known: u32 },
    #[error("schema of the read model `{url}` could not be migrated")]
    Migration {
        url: String,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// No retry helps until the database is made anew.
    #[error(
        "database of the read model `{url}` has the encoding {encoding}, and names of customers may \
         be in any script: make it with `create database NAME template template0 encoding 'UTF8'`"
    )]
    Encoding { url: String, encoding: String },
    /// Another process moves the same checkpoint, or a commit took effect although its answer was lost:
    /// read the checkpoint again and go on from there.
    #[error("checkpoint of the read model was moved by another process")]
    CheckpointMoved,
    /// A set of tables is missing, or of another schema.
    #[error("{0}")]
    Set(&'static str),
    /// An interrupted or running rebuild has left tables that are in the way.
    #[error(
        "an unfinished rebuild is kept beside the live tables, built up to event {n_events} of all \
         orders{}: let it end, finish it with `dofs projections rebuild --resume`, or drop it and \
         go back with `dofs projections rollback --discard`",
        .moved_at.map_or_else(String::new, |time| format!(" at {time}"))
    )]
    Unfinished { n_events: u64, moved_at: Option<Timestamp> },
    /// A retry helps after the other transaction has ended.
    #[error(
        "tables of the read model `{url}` are in use by another transaction, and nothing was \
         changed: end long transactions on its database, then try again"
    )]
    Locked { url: String },
    #[error(transparent)]
    Row(#[from] UnreadableRow),
    #[error("database of the read model did not answer in time")]
    Timeout,
    #[error("database of the read model failed")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Returns whether the database refused the call because its user lacks the privilege.
    pub fn is_denied(&self) -> bool {
        self.code().is_some_and(|code| code == "42501")
    }

    /// Returns the database's code for the failure, if the failure comes from the database.
    fn code(&self) -> Option<Cow<'_, str>> {
        let Self::Database(sqlx::Error::Database(error)) = self else { return None };
        error.code()
    }
}
