//! Subscription to rows to query: the read model, who writes it and who reads it.
//!
//! [`run`] follows the log and keeps the tables, [`routes`] answers from them. The rows, the SQL
//! that writes them and the SQL that reads them live here together; the dialect of a database is
//! known below `store` only.

mod orders;
mod query_api;
mod runner;
mod store;

pub use orders::apply::apply;
pub use orders::row::{Changes, FailedOrder, Rows};
pub use query_api::{Queries, only_own_orders, routes};
pub use runner::{ProjectorConfig, ProjectorError, run};
pub use store::{
    Checkpoint, FailedOrderFilter, FailureFilter, FailureGroup, Migrated, OrderCounts, OrderFilter,
    Page, Place, ReadModel, ReadModelConfig, StoreError, migrate, open,
};
