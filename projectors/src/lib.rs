//! Subscription to rows to query: the read model, who writes it and who reads it.
//!
//! [`Projector`] follows the log and keeps the tables, [`routes`] answers from them. The rows, the SQL
//! that writes them and the SQL that reads them live here together; the dialect of a database is
//! known below `store` only.

mod ahead;
mod lag;
mod orders;
mod pace;
mod progress;
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
pub use lag::Lag;
pub use orders::apply::apply;
pub use orders::row::{Changes, FailedOrder, Rows};
pub use orders::statistics::{CountChange, Minute, Statistics};
pub use pace::Pace;
pub use progress::{Phase, Progress};
pub use query_api::{Lookups, Owners, Queries, api_doc, routes, routes_without_store};
pub use rebuild::{Rebuild, RebuildError, Rebuilt, SwapAtEnd};
pub use replay::ReplayError;
pub use runner::batch::Poison;
pub use runner::{OtherEventStore, Projector, ProjectorConfig, ProjectorError, ProjectorHealth};
pub use status::{ProjectionStatus, StatusError, projection_status};
pub use store::{
    Begin, Checkpoint, Examined, FailedOrderFilter, FailureFilter, FailureGroup, IdRange,
    LastVerification, Lease, Leased, Migrated, OrderCounts, OrderFilter, Page, Place, ReadModel,
    ReadModelConfig, ReadModelUrl, RowsPage, RowsText, SetInfo, Sets, Steps, StoreError, SwapWhen,
    Swapped, Unfinished, migrate, open,
};
pub use sweeper::Sweeper;
pub use trouble::{ReadModelTrouble, find_trouble};
pub use verify::{Difference, Finding, MinuteDifference, Repair, Verification, Verified};
