//! GET to rows: what can be asked about orders. Handlers translate, the tables and the log answer.

mod api_doc;
mod as_of;
mod compare;
mod cursor;
mod dead_letter;
mod dead_letters;
mod failed_orders;
mod feed;
mod histories;
mod history;
mod lookups;
mod order;
mod orders;
mod owners;
mod ownership;
mod stats;

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use domain::ids::OrderId;
use event_log::{EventLog, LogError};
use service_kit::auth::Access;
use service_kit::clock::Clock;
use service_kit::error::Chain;
use service_kit::outage::Outage;
use service_kit::problem::{Code, Problem};
use tokio::time::timeout;

use crate::store::{ReadModel, StoreError};
use histories::Histories;

pub use lookups::Lookups;
pub use owners::Owners;

/// How long a read may take before the read model counts as down.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

const READ_MODEL_HINT: &str = "is the database running, and is `read_model.url` right?";

/// The read model that this process asks, since its routes were made: the log is the process's, too.
static READ_MODEL: OnceLock<Outage> = OnceLock::new();

/// What the answers come from.
#[derive(Clone)]
pub struct Queries {
    pub store: Arc<dyn ReadModel>,
    pub lookups: Lookups,
    pub log: EventLog,
    pub owners: Owners,
    /// Who may ask, for answers that go on.
    pub access: Access,
    /// The group that delivers orders to the worker.
    pub group: String,
    /// The success rate that the gateway is configured with, if it is.
    pub success_rate: Option<f64>,
    /// The folder of the event store that this process hosts, if it hosts one.
    pub store_folder: Option<PathBuf>,
    pub clock: Clock,
}

/// What handlers take their parts from.
#[derive(Clone)]
struct QueryState {
    queries: Arc<Queries>,
    histories: Histories,
}

impl FromRef<QueryState> for Arc<Queries> {
    fn from_ref(state: &QueryState) -> Self {
        Self::clone(&state.queries)
    }
}

impl FromRef<QueryState> for Histories {
    fn from_ref(state: &QueryState) -> Self {
        state.histories.clone()
    }
}

/// The query routes.
pub fn routes(queries: Queries) -> Router {
    READ_MODEL.get_or_init(|| Outage::new("Read model", queries.store.address().to_owned()));
    let feed = feed::routes(feed::Source {
        log: queries.log.clone(),
        owners: queries.owners.clone(),
        access: queries.access.clone(),
        clock: queries.clock.clone(),
        places: feed::Places::default(),
    });
    let histories = Histories::new(queries.log.clone());
    Router::<QueryState>::new()
        .route("/order/{id}", get(order::get_order))
        .route("/v1/orders/{id}", get(order::get_order))
        .route("/v1/orders/{id}/history", get(history::get_history))
        .route("/v1/orders/{id}/history/compare", get(compare::get_comparison))
        .route("/v1/orders", get(orders::list_orders))
        .route("/v1/failed-orders", get(failed_orders::list_failed_orders))
        .route("/v1/dead-letters", get(dead_letters::count_dead_letters))
        .route("/v1/dead-letters/{id}", get(dead_letter::get_dead_letter))
        .route("/v1/stats", get(stats::get_stats))
        .with_state(QueryState { histories, queries: Arc::new(queries) })
        .merge(feed)
}

/// The same routes of a process that has no event store to ask: each says so.
pub fn routes_without_store() -> Router {
    let paths = api_doc().paths.paths.into_keys().chain(["/order/{id}".to_owned()]);
    paths.fold(Router::new(), |router, path| router.route(&path, get(not_configured)))
}

async fn not_configured() -> Problem {
    Problem::unavailable("Event store not configured").with_code(Code::EventStoreUnavailable)
}

/// The description of the query routes.
pub fn api_doc() -> utoipa::openapi::OpenApi {
    <api_doc::QueryRoutes as utoipa::OpenApi>::openapi()
}

/// The id in a path. Taken as text first, so that a malformed one is refused in our words.
fn order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse().map_err(|_| Problem::invalid_parameter("id", "must be a hyphenated UUID"))
}

/// Reads the read model, for a limited time.
async fn read<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let read = timeout(READ_TIMEOUT, call).await.unwrap_or(Err(StoreError::Timeout));
    if read.is_ok() {
        note_read_model_answers();
    }
    read
}

/// Notes that the read model answers.
fn note_read_model_answers() {
    if let Some(outage) = READ_MODEL.get() {
        outage.note_success();
    }
}

/// Logs that the read model cannot say, once for an outage and not for each request.
fn log_read_model_failure(error: &StoreError) {
    let is_away = matches!(error, StoreError::Database(_) | StoreError::Timeout);
    if let Some(outage) = READ_MODEL.get().filter(|_| is_away) {
        outage.note_failure(&Chain(error).to_string(), READ_MODEL_HINT);
    } else {
        tracing::warn!(error = error as &dyn Error, "Read model unavailable");
    }
}

/// The answer when the read model cannot say.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn read_model_failed(error: StoreError) -> Problem {
    match error {
        StoreError::Row { .. } => {
            tracing::error!(error = &error as &dyn Error, "Row of the read model cannot be read");
            Problem::internal()
        }
        StoreError::Address { .. }
        | StoreError::SchemaOlder { .. }
        | StoreError::SchemaNewer { .. }
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

/// The answer when the event store cannot say.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn log_failed(error: LogError) -> Problem {
    let cause = &error as &dyn Error;
    if matches!(error, LogError::Deleted) {
        return Problem::order_deleted();
    }
    if error.is_unavailable() {
        // The log of an outage says it once, and not for each request.
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
