//! The tables of the projections: one contract, two databases.

mod address;
mod checkpoint;
mod customers;
mod database;
mod examine;
mod lease;
mod migrations;
mod postgres;
mod query;
mod sets;
mod sqlite;
mod statistics;
mod transaction;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::order::{Stage, Status};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::orders::{FailedOrder, OrderRow};
use crate::projection::{Minute, OrderRecords, Projection, RowChanges, UnreadableRow, row};
use address::Address;

pub use address::ReadModelUrl;
pub use checkpoint::Checkpoint;
pub use customers::{Customer, CustomerFilter, Customers};
pub use domain::operations::FailureFilter;
pub use examine::{Examined, IdRange, LastVerification, RowsPage, RowsText};
pub use lease::{Lease, Leased};
pub use migrations::{Migrated, SCHEMA_VERSION};
pub(crate) use sets::PREVIOUS_KEPT_FOR;
pub use sets::{Begin, SetInfo, Sets, Steps, SwapWhen, Swapped, Unfinished};

/// How long to wait for a connection: an unreachable database is reported soon.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the read model is (`[read_model]` in the configuration).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadModelConfig {
    /// `sqlite://path` or `postgres://user@host:port/database`.
    pub url: ReadModelUrl,
}

/// The tables of a projection, in one database, and what is asked of the tables of `orders`. Every read
/// is one statement, so its answer is of one moment.
#[async_trait]
pub trait ReadModel: Leased + Examined + Sets + Customers + Send + Sync {
    /// Returns the projection whose tables are read and written.
    fn projection(&self) -> &'static Projection;

    /// Returns the tables of another projection in the same database, with the same connections.
    fn for_projection(&self, projection: &'static Projection) -> Arc<dyn ReadModel>;

    /// Succeeds if the database answers and has the tables.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Returns the address without its secrets.
    fn address(&self) -> &str;

    /// Checks that the schema is the one that this release was written for.
    ///
    /// # Errors
    /// [`StoreError::SchemaOlder`] and [`StoreError::SchemaNewer`] say what to do about it.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// Returns the version of the newest migration that the database has had; `None` before the first.
    async fn schema_version(&self) -> Result<Option<i64>, StoreError>;

    /// Returns how far the projection has come.
    async fn checkpoint(&self) -> Result<Checkpoint, StoreError>;

    /// Reads the rows of these orders. Orders without rows are left out.
    async fn rows(
        &self,
        order_ids: &[OrderId],
    ) -> Result<BTreeMap<OrderId, OrderRecords>, StoreError>;

    /// Writes rows and statistics and moves the checkpoint, in one transaction. A row that reflects a
    /// newer revision already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if the checkpoint is not at `from`: then nothing is written.
    async fn write(
        &self,
        changes: &RowChanges,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError>;

    /// Reads the revisions of the newest orders behind `after`, newest first.
    async fn newest(&self, after: Option<Place>, limit: u32) -> Result<Vec<Newest>, StoreError>;

    /// Returns the number of orders that have rows. It may be wrong where statistics are.
    async fn count_rows(&self) -> Result<u64, StoreError>;

    /// Reads one order.
    async fn order(&self, order_id: OrderId) -> Result<Option<OrderRow>, StoreError> {
        Ok(self.orders_by_id(&[order_id]).await?.pop())
    }

    /// Reads orders by their ids, in any sequence. Unknown ids are left out.
    async fn orders_by_id(&self, order_ids: &[OrderId]) -> Result<Vec<OrderRow>, StoreError>;

    /// Lists orders, newest first by the time they were received.
    async fn orders(&self, filter: &OrderFilter, page: &Page) -> Result<Vec<OrderRow>, StoreError>;

    /// Lists failures, newest first by the time of the failure.
    async fn failed_orders(
        &self,
        filter: &FailedOrderFilter,
        page: &Page,
    ) -> Result<Vec<FailedOrder>, StoreError>;

    /// Lists failures that are not resolved and come behind `after`, oldest first by the time of the
    /// failure: a client that works through them handles the past before the present.
    async fn failures_now(
        &self,
        filter: &FailureFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<FailedOrder>, StoreError>;

    /// Counts failures that are not resolved by stage and code, the largest number first.
    async fn failure_groups(&self, filter: &FailureFilter)
    -> Result<Vec<FailureGroup>, StoreError>;

    /// Returns the number of orders in each state.
    async fn count_orders(&self) -> Result<OrderCounts, StoreError>;

    /// Returns the time of the last event of the order in `PROCESSING` that has waited longest; `None`
    /// if no order is in `PROCESSING`.
    async fn oldest_processing(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Returns the events of each minute from this one on, counted from 1970, as far back as is kept.
    async fn minutes(&self, from: i64) -> Result<BTreeMap<i64, Minute>, StoreError>;
}

impl ReadModelUrl {
    /// Opens the tables of the projection `orders`. Connects at the first call, not here, so that a
    /// database that is down does not keep a process from starting.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn open(&self) -> Arc<dyn ReadModel> {
        match self.address.clone() {
            Address::Postgres(options, sessions) => {
                Arc::new(postgres::PostgresStore::open(*options, sessions, &self.shown))
            }
            Address::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path, &self.shown)),
        }
    }

    /// Brings the schema to what this release needs, making the SQLite database if it is missing, and
    /// returns the migrations that were run.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] if a newer release migrated it; it is left as it is.
    pub async fn migrate(&self) -> Result<Vec<Migrated>, StoreError> {
        match self.address.clone() {
            Address::Postgres(options, sessions) => {
                postgres::migrate(*options, sessions, &self.shown).await
            }
            Address::Sqlite(path) => sqlite::migrate(&path, &self.shown).await,
        }
    }
}

/// Opens the read model at `url`, as [`ReadModelUrl::open`] does.
///
/// # Errors
/// [`StoreError::Address`] if the URL is not valid.
pub fn open(url: &str) -> Result<Arc<dyn ReadModel>, StoreError> {
    Ok(url.parse::<ReadModelUrl>()?.open())
}

/// Opens the tables of a projection in a new file that is to be thrown away: quicker than one that must
/// survive a power cut, and without the indexes of lists.
pub(crate) async fn open_scratch(
    path: &Path,
    projection: &'static Projection,
) -> Result<Arc<dyn ReadModel>, StoreError> {
    Ok(Arc::new(sqlite::open_scratch(path, projection).await?))
}

/// Migrates the read model at `url`, as [`ReadModelUrl::migrate`] does.
///
/// # Errors
/// [`StoreError::Address`] if the URL is not valid.
pub async fn migrate(url: &str) -> Result<Vec<Migrated>, StoreError> {
    url.parse::<ReadModelUrl>()?.migrate().await
}

row! {
    /// How far the row of an order is, and its place among the newest.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Newest {
        pub order_id: OrderId,
        pub revision: u64,
        pub listed_at: Timestamp,
    }
}

impl Newest {
    /// Returns the order's place among the orders.
    pub fn place(&self) -> Place {
        Place { at: self.listed_at, order_id: self.order_id }
    }
}

/// Restricts a list of orders. Fields that are `None` do not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    pub tenant: Option<String>,
    pub status: Option<Status>,
    pub customer_id: Option<String>,
    /// Received at this time or later.
    pub from: Option<Timestamp>,
    /// Received before this time.
    pub to: Option<Timestamp>,
}

/// Restricts a list of failures. Fields that are `None` do not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedOrderFilter {
    pub tenant: Option<String>,
    pub stage: Option<Stage>,
    pub code: Option<String>,
    pub customer_id: Option<String>,
    /// Failed at this time or later.
    pub from: Option<Timestamp>,
    /// Failed before this time.
    pub to: Option<Timestamp>,
    /// Includes failures that a redrive has resolved or an operator discarded.
    pub include_resolved: bool,
}

row! {
    /// Unresolved failures of one stage and code.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FailureGroup {
        pub stage: Stage,
        pub code: String,
        pub n_orders: u64,
        pub oldest_failed_at: Timestamp,
        pub newest_failed_at: Timestamp,
    }
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

/// Numbers of orders by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderCounts {
    pub n_processing: u64,
    pub n_fulfilled: u64,
    pub n_failed: u64,
    /// Failed orders by stage.
    pub n_failed_validation: u64,
    pub n_failed_fulfillment: u64,
    pub n_failed_dead_letter: u64,
}

impl OrderCounts {
    /// Returns the number of all orders.
    pub fn total(&self) -> u64 {
        self.n_processing + self.n_fulfilled + self.n_failed
    }

    /// Adds orders of one state.
    fn add(&mut self, status: Status, stage: Option<Stage>, n_orders: u64) {
        match status {
            Status::Processing => self.n_processing += n_orders,
            Status::Fulfilled => self.n_fulfilled += n_orders,
            Status::Failed => self.n_failed += n_orders,
        }
        match stage {
            Some(Stage::Validation) => self.n_failed_validation += n_orders,
            Some(Stage::Fulfillment) => self.n_failed_fulfillment += n_orders,
            Some(Stage::DeadLetter) => self.n_failed_dead_letter += n_orders,
            None => {}
        }
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
         release knows: run the release of `dofs` that migrated it, or a newer one"
    )]
    SchemaNewer { url: String, found: i64, needed: i64 },
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
    /// A row holds a value that no release writes.
    #[error("row of {of} cannot be read: {reason}")]
    Row { of: String, reason: String },
    #[error("database of the read model did not answer in time")]
    Timeout,
    #[error("database of the read model failed")]
    Database(#[from] sqlx::Error),
}

impl From<UnreadableRow> for StoreError {
    fn from(UnreadableRow { of, reason }: UnreadableRow) -> Self {
        Self::Row { of, reason }
    }
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
