//! The read model's tables: one contract, two databases.

mod address;
mod columns;
mod examine;
mod failures;
mod lease;
mod migrations;
mod postgres;
mod record;
mod rows_text;
mod sets;
mod sqlite;
mod transaction;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::order::{Order, Stage, Status};
use event_log::Position;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::orders::row::{Changes, FailedOrder, Rows};
use crate::orders::statistics::Minute;
use address::Address;

pub use address::ReadModelUrl;
pub use domain::operations::FailureFilter;
pub use examine::{Examined, IdRange, LastVerification, RowsPage};
pub use failures::FailureGroup;
pub use lease::{Lease, Leased};
pub use migrations::Migrated;
pub use rows_text::RowsText;
pub use sets::{Begin, SetInfo, Sets, Steps, SwapWhen, Swapped, Unfinished};

/// The name of the set of tables that queries are answered from.
const LIVE: &str = "orders";
/// For how many minutes before the newest the statistics say what happened in each.
const KEPT_MINUTES: i64 = 24 * 60;
/// How long to wait for a connection: a database that is down is an error soon.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the read model is (`[read_model]` in the configuration).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadModelConfig {
    /// `sqlite://path` or `postgres://user@host:port/database`.
    pub url: ReadModelUrl,
}

/// The tables `orders`, `failed_orders` and `projection_checkpoints` of one database. Every read
/// is one statement, so its answer is of one moment.
#[async_trait]
pub trait ReadModel: Leased + Examined + Sets + Send + Sync {
    /// Whether the database answers, and has the orders.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Where it is, without what is secret.
    fn address(&self) -> &str;

    /// Whether the schema is the one that this release was written for.
    ///
    /// # Errors
    /// [`StoreError::SchemaOlder`] and [`StoreError::SchemaNewer`] say what to do about it.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// The version of the newest migration that the database has had; `None` before the first.
    async fn schema_version(&self) -> Result<Option<i64>, StoreError>;

    /// How far the projection has come.
    async fn checkpoint(&self) -> Result<Checkpoint, StoreError>;

    /// The rows of these orders; those without any are left out.
    async fn rows(&self, orders: &[OrderId]) -> Result<BTreeMap<OrderId, Rows>, StoreError>;

    /// Writes rows and statistics and moves the checkpoint, in one transaction. A row that reflects a newer
    /// revision already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if the checkpoint is not at `from`: then nothing is written.
    async fn write(
        &self,
        changes: &Changes,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError>;

    /// One order.
    async fn order(&self, order_id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.orders_by_id(&[order_id]).await?.pop())
    }

    /// Those of these orders that there are, in any sequence.
    async fn orders_by_id(&self, order_ids: &[OrderId]) -> Result<Vec<Order>, StoreError>;

    /// Orders, newest first by the time they were received.
    async fn orders(&self, filter: &OrderFilter, page: &Page) -> Result<Vec<Order>, StoreError>;

    /// Failures, newest first by the time of the failure.
    async fn failed_orders(
        &self,
        filter: &FailedOrderFilter,
        page: &Page,
    ) -> Result<Vec<FailedOrder>, StoreError>;

    /// Failures that are not resolved, oldest first by the time of the failure, beginning behind a
    /// place.
    async fn failures_now(
        &self,
        filter: &FailureFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<FailedOrder>, StoreError>;

    /// Failures that are not resolved, counted by stage and code, the largest number first.
    async fn failure_groups(&self, filter: &FailureFilter)
    -> Result<Vec<FailureGroup>, StoreError>;

    /// How many orders there are, by what became of them.
    async fn count_orders(&self) -> Result<OrderCounts, StoreError>;

    /// When something last happened to the order in `PROCESSING` that has waited longest; `None` if
    /// no order is in `PROCESSING`.
    async fn oldest_processing(&self) -> Result<Option<Timestamp>, StoreError>;

    /// What happened in each minute from this one on, counted from 1970, as far back as is kept.
    async fn minutes(&self, from: i64) -> Result<BTreeMap<i64, Minute>, StoreError>;
}

impl ReadModelUrl {
    /// Opens the read model. Connects at the first call, not yet here, so a database that is down
    /// does not keep a process from starting. To be called within a Tokio runtime.
    pub fn open(&self) -> Arc<dyn ReadModel> {
        let shown = self.shown.clone();
        match self.address.clone() {
            Address::Postgres(options, sessions) => {
                Arc::new(postgres::Postgres::open(*options, sessions, shown))
            }
            Address::Sqlite(path) => Arc::new(sqlite::Sqlite::open(path, shown)),
        }
    }

    /// Brings the read model's schema to what this release needs, making the SQLite database if it
    /// is not there, and returns what was done; nothing if it was up to date.
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
/// [`StoreError::Address`] if the URL is of no kind that can be opened.
pub fn open(url: &str) -> Result<Arc<dyn ReadModel>, StoreError> {
    Ok(url.parse::<ReadModelUrl>()?.open())
}

/// A read model in a new file, to be thrown away: quicker than one that must outlive a power cut, and
/// without what makes lists quick.
pub(crate) async fn open_scratch(path: &Path) -> Result<Arc<dyn ReadModel>, StoreError> {
    Ok(Arc::new(sqlite::open_scratch(path).await?))
}

/// Migrates the read model at `url`, as [`ReadModelUrl::migrate`] does.
///
/// # Errors
/// [`StoreError::Address`] if the URL is of no kind that can be opened.
pub async fn migrate(url: &str) -> Result<Vec<Migrated>, StoreError> {
    url.parse::<ReadModelUrl>()?.migrate().await
}

/// How far the projection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The last position that the rows reflect; `None` before the first.
    pub position: Option<Position>,
    /// Which holder of the projection moved it.
    pub epoch: u64,
    /// Events that were applied.
    pub events_applied: u64,
    /// Events that could not be read and were passed over.
    pub events_skipped: u64,
    /// When the last applied event was recorded.
    pub last_event_at: Option<Timestamp>,
    /// When the projector moved it, by its own clock.
    pub moved_at: Option<Timestamp>,
    /// The first event of any order in the event store that the rows come from: it tells one store
    /// from another.
    pub first_event_id: Option<Uuid>,
}

impl Checkpoint {
    /// Events of orders up to here: those that were applied and those that were passed over.
    pub fn n_events(&self) -> u64 {
        self.events_applied + self.events_skipped
    }
}

/// Which orders a list has. What is not given does not restrict it.
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

/// Which failures a list has. What is not given does not restrict it.
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
    /// Also those that a redrive has mended or an operator discarded.
    pub include_resolved: bool,
}

/// A part of a list that is sorted by time and id, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The last place of the page before; `None` for the first page.
    pub after: Option<Place>,
    /// The most rows to return.
    pub limit: u32,
}

/// Where a row stands in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub at: Timestamp,
    pub order_id: OrderId,
}

impl Place {
    /// An order's place among the orders. If nobody knows when it was received, it is the oldest.
    pub fn of_order(order: &Order) -> Self {
        let at = order.received_at.unwrap_or(Timestamp::UNIX_EPOCH);
        Self { at, order_id: order.order_id }
    }

    /// A failure's place among the failures.
    pub fn of_failure(failed: &FailedOrder) -> Self {
        Self { at: failed.failed_at, order_id: failed.order_id }
    }
}

/// How many orders there are, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderCounts {
    pub n_processing: u64,
    pub n_fulfilled: u64,
    pub n_failed: u64,
    /// Of those that failed, by where.
    pub n_failed_validation: u64,
    pub n_failed_fulfillment: u64,
    pub n_failed_dead_letter: u64,
}

impl OrderCounts {
    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.n_processing + self.n_fulfilled + self.n_failed
    }

    /// Adds orders of one kind.
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

/// Why the read model could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL cannot be used. No retry helps.
    #[error("read model address `{url}` is not usable: {reason}")]
    Address { url: String, reason: String },
    /// No retry helps until somebody migrates it.
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
    /// Somebody else moves the same checkpoint, or a commit took effect without our hearing of it:
    /// read the checkpoint again and go on from there.
    #[error("checkpoint of the read model moved under us")]
    CheckpointMoved,
    /// A set of tables is not there, or not fit.
    #[error("{0}")]
    Set(&'static str),
    /// A rebuild was cut off, or is at work, and what it has built is in the way.
    #[error(
        "an unfinished rebuild is kept beside the live tables, built up to event {n_events} of all \
         orders{}: let it end, finish it with `dofs projections rebuild --resume`, or drop it and \
         go back with `dofs projections rollback --discard`",
        .moved_at.map_or_else(String::new, |it| format!(" at {it}"))
    )]
    Unfinished { n_events: u64, moved_at: Option<Timestamp> },
    /// A retry helps once the other transaction has ended.
    #[error(
        "tables of the read model `{url}` are in use by another transaction, and nothing was \
         changed: end long transactions on its database, then try again"
    )]
    Locked { url: String },
    /// A row that no release of ours wrote.
    #[error("row of {of} cannot be read: {reason}")]
    Row { of: String, reason: String },
    #[error("database of the read model did not answer in time")]
    Timeout,
    #[error("database of the read model failed")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether the database answered, and refused because its user has no right to do it.
    pub fn is_denied(&self) -> bool {
        self.code().is_some_and(|it| it == "42501")
    }

    /// What the database calls the failure, if it is the one that says so.
    fn code(&self) -> Option<Cow<'_, str>> {
        let Self::Database(sqlx::Error::Database(error)) = self else { return None };
        error.code()
    }
}
