//! Queries over HTTP: handlers read rows of the read model, or events of the log.

mod compare_history;
mod dead_letter_detail;
mod dead_letter_summary;
mod event_filter;
mod event_stream;
mod get_customer;
mod get_order;
mod history_point;
mod history_reader;
mod list_customers;
mod list_events;
mod list_failed_orders;
mod list_operator_actions;
mod list_orders;
mod list_projections;
mod lookups;
mod operator_journals;
mod order_history;
mod owners;
mod ownership;
mod pagination;
mod sources;
mod statistics;

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use domain::ids::OrderId;
use event_log::{EventLog, LogError};
use service_kit::api_doc::alias;
use service_kit::auth::Access;
use service_kit::clock::Clock;
use service_kit::error::Chain;
use service_kit::outage::Outage;
use service_kit::problem::{Code, Problem};
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::store::{ReadModel, StoreError};
use event_stream::ClientSlots;
use history_reader::HistoryReaders;

pub use lookups::Lookups;
pub use owners::Owners;

/// Maximum time for a read before the read model counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

const READ_MODEL_HINT: &str = "is the database running, and is `read_model.url` right?";

/// Outage of this process's read model. It is static because the log it writes to is the process's, too.
static READ_MODEL: OnceLock<Outage> = OnceLock::new();

/// Dependencies of the query routes.
#[derive(Clone)]
pub struct Queries {
    pub store: Arc<ReadModel>,
    pub lookups: Lookups,
    pub log: EventLog,
    pub owners: Owners,
    /// Ends streams whose key is revoked or expires.
    pub access: Access,
    /// Persistent subscription that delivers orders to the workers.
    pub group: String,
    /// Configured success rate of a simulated gateway.
    pub success_rate: Option<f64>,
    /// Folder of the event store, if this process hosts it.
    pub store_folder: Option<PathBuf>,
    pub clock: Clock,
}

/// State of the handlers.
#[derive(Clone)]
struct QueryState {
    queries: Arc<Queries>,
    readers: HistoryReaders,
    slots: ClientSlots,
}

/// Returns the query routes with their declarations.
pub fn routes(queries: Queries) -> OpenApiRouter {
    READ_MODEL.get_or_init(|| Outage::new("Read model", queries.store.address().to_owned()));
    let readers = HistoryReaders::new(queries.log.clone());
    let (queries, slots) = (Arc::new(queries), ClientSlots::default());
    declared_routes().with_state(QueryState { queries, readers, slots })
}

/// Returns the routes of a process without an event store: each responds 503.
pub fn routes_without_store() -> Router {
    let paths = api_doc().paths.paths.into_keys();
    paths.fold(Router::new(), |router, path| router.route(&path, get(refuse_without_store)))
}

async fn refuse_without_store() -> Problem {
    Problem::unavailable("Event store not configured").with_code(Code::EventStoreUnavailable)
}

/// Returns the declarations of the query routes.
pub fn api_doc() -> utoipa::openapi::OpenApi {
    declared_routes().into_openapi()
}

fn declared_routes() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new()
        .routes(routes!(get_order::get_order))
        .routes(alias(routes!(get_order::get_order), "/order/{id}"))
        .routes(routes!(list_orders::list_orders))
        .routes(routes!(list_failed_orders::list_failed_orders))
        .routes(routes!(order_history::get_order_history))
        .routes(routes!(compare_history::compare_order_history))
        .routes(routes!(dead_letter_summary::count_dead_letters))
        .routes(routes!(dead_letter_detail::get_dead_letter))
        .routes(routes!(statistics::get_statistics))
        .routes(routes!(list_customers::list_customers))
        .routes(routes!(get_customer::get_customer))
        .routes(routes!(event_stream::stream_events))
        .routes(routes!(list_operator_actions::list_operator_actions))
        .routes(routes!(list_events::list_events))
        .routes(routes!(list_projections::list_projections))
}

/// Reads the id of an order in a path. The path is taken as text, so that the error is ours.
fn parse_order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse().map_err(|_| Problem::invalid_parameter("id", "must be a hyphenated UUID"))
}

/// Reads from the read model, for a limited time.
async fn read<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, Problem> {
    let read = timeout(READ_TIMEOUT, call).await.unwrap_or(Err(StoreError::Timeout));
    read.inspect(|_| note_read_model_answers()).map_err(read_model_failed)
}

/// Notes that the read model answers.
fn note_read_model_answers() {
    if let Some(outage) = READ_MODEL.get() {
        outage.note_success();
    }
}

/// Logs a failed read: an outage once, and not for each request.
fn log_read_model_failure(error: &StoreError) {
    // Other errors are not outages: each is worth a line.
    let is_away = matches!(error, StoreError::Database(_) | StoreError::Timeout);
    if let Some(outage) = READ_MODEL.get().filter(|_| is_away) {
        outage.note_failure(&Chain(error).to_string(), READ_MODEL_HINT);
    } else {
        tracing::warn!(error = error as &dyn Error, "Read model unavailable");
    }
}

/// Returns the error for a failed read of the read model.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn read_model_failed(error: StoreError) -> Problem {
    match error {
        StoreError::Row { .. } => {
            tracing::error!(error = &error as &dyn Error, "Row of the read model is unreadable");
            Problem::internal()
        }
        StoreError::Address { .. }
        | StoreError::SchemaOlder { .. }
        | StoreError::SchemaNewer { .. }
        | StoreError::ProjectionNewer { .. }
        | StoreError::Migration { .. }
        | StoreError::Encoding { .. }
        | StoreError::CheckpointMoved
        | StoreError::Set(_)
        | StoreError::Unfinished { .. }
        | StoreError::Locked { .. }
        | StoreError::Timeout
        | StoreError::Database(_) => {
            log_read_model_failure(&error);
            Problem::unavailable("Read model unavailable").with_code(Code::ReadModelUnavailable)
        }
    }
}

/// Returns the error for a failed read of the event store.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn log_failed(error: LogError) -> Problem {
    let cause = &error as &dyn Error;
    if matches!(error, LogError::Deleted) {
        return Problem::order_deleted();
    }
    if error.is_unavailable() {
        // An outage is logged once, not for each request.
        tracing::debug!(error = cause, "Event store unavailable");
        return Problem::unavailable("Event store unavailable")
            .with_code(Code::EventStoreUnavailable);
    }
    tracing::error!(error = cause, "Event store cannot be read");
    if error.is_refusal() {
        return Problem::unavailable("Event store refused the read")
            .with_code(Code::EventStoreUnavailable);
    }
    Problem::internal()
}
