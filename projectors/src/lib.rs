//! The read model: projectors that write its tables, and the query routes that read them.
//!
//! A [`Projection`] is a name, tables and a pure fold. A [`Projector`] follows the log and writes the tables
//! of one projection; [`routes`] reads them. Only the module `store` knows SQL and the dialects.

mod ahead;
mod customer_orders;
mod lag;
pub mod metrics;
mod metrics_sampler;
mod orders;
mod pace;
mod progress;
mod projection;
mod query_api;
mod rebuild;
mod replay;
mod runner;
mod status;
mod store;
mod sweeper;
mod trouble;
mod verify;

pub use ahead::Ahead;
pub use customer_orders::{CUSTOMER_ORDERS, CustomerOrder};
pub use lag::Lag;
pub use metrics_sampler::{sample_metrics, sample_pools};
pub use orders::{
    Changes, FailedOrder, ORDERS, OrderAction, OrderActionKind, OrderRow, Rows, apply,
};
pub use pace::Pace;
pub use progress::{Phase, Progress};
pub use projection::{
    Apply, Column, ColumnType, Completions, CountChange, Deletion, Events, Kind, Minute,
    MinuteDifference, OperatorCommand, OrderRecords, Projection, Record, Row, RowChanges,
    Statistics, Step, Table, TableRow, UnreadableRow, Value,
};
pub use query_api::{Lookups, Owners, Queries, api_doc, routes, routes_without_store};
pub use rebuild::{Rebuild, RebuildError, Rebuilt, SwapAtEnd};
pub use replay::ReplayError;
pub use runner::batch::Poison;
pub use runner::{OtherEventStore, Projector, ProjectorConfig, ProjectorError, ProjectorHealth};
pub use status::{ProjectionStatus, StatusError, check_event_store, projection_status};
pub use store::{
    ActionPlace, Begin, Checkpoint, ClockReading, ConnectionLimits, Customer, CustomerFilter,
    FailedOrderFilter, FailureFilter, FailureGroup, IdRange, Installation, InstallationError,
    LastVerification, Lease, MAX_CONNECTIONS_PER_PROCESS, Newest, OrderActionFilter, OrderCounts,
    OrderFilter, Page, Place, Pooler, PostgresInstallation, ReadModel, ReadModelConfig,
    ReadModelUrl, RowsPage, RowsText, SCHEMA_VERSION, SchemaMigration, SetInfo, SqliteInstallation,
    Steps, StoreError, SwapWhen, Swapped, Unfinished, migrate, open,
};
pub use sweeper::Sweeper;
pub use trouble::{ReadModelTrouble, find_trouble};
pub use verify::{Difference, Finding, Repair, Verification, Verified};

/// Every projection, the one of the orders first.
pub static PROJECTIONS: [&Projection; 2] = [&ORDERS, &CUSTOMER_ORDERS];
