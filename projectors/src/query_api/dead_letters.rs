//! `GET /v1/dead-letters`: what needs a person now, counted by its cause.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::order::Stage;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;
use service_kit::time::Age;
use utoipa::ToSchema;

use super::{Queries, read, read_model_failed};
use crate::store::{FailureFilter, FailureGroup};

/// The filter as it stands in a query.
#[derive(Debug, Deserialize)]
pub(super) struct DeadLettersFilter {
    /// Another stage than that of dead letters.
    stage: Option<Stage>,
    code: Option<String>,
    customer_id: Option<String>,
    older_than: Option<Age>,
}

/// Dead letters, counted by their cause.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetters {
    total: u64,
    groups: Vec<Group>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterGroup)]
struct Group {
    stage: Stage,
    code: String,
    count: u64,
    oldest_failed_at: Timestamp,
    oldest_age_seconds: i64,
    newest_failed_at: Timestamp,
}

/// Count what needs a person now, by its cause
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "operations",
    params(
        ("stage" = super::api_doc::Stage, Query, description = "Those that failed there, rather than dead letters"),
        ("code" = String, Query, description = "Only those with this code"),
        ("customer_id" = String, Query, description = "Only those of this customer"),
        ("older_than" = String, Query, pattern = "^([0-9]{1,4}[smhd]?|[0-9]{1,3}w)$", description = "Only those that failed longer ago, e.g. `15m`"),
    ),
    responses((status = 200, description = "The counts", body = DeadLetters)),
)]
pub(super) async fn count_dead_letters(
    State(queries): State<Arc<Queries>>,
    QueryParameters(filter): QueryParameters<DeadLettersFilter>,
) -> Result<Json<DeadLetters>, Problem> {
    let now = queries.clock.now();
    let filter = FailureFilter {
        stage: Some(filter.stage.unwrap_or(Stage::DeadLetter)),
        code: filter.code,
        customer_id: filter.customer_id,
        failed_before: filter.older_than.map(|it| it.before(now)),
        order_ids: None,
    };
    let groups = read(queries.store.failure_groups(&filter)).await.map_err(read_model_failed)?;
    Ok(Json(DeadLetters {
        total: groups.iter().map(|it| it.n_orders).sum(),
        groups: groups.into_iter().map(|it| shown(it, now)).collect(),
    }))
}

fn shown(group: FailureGroup, now: Timestamp) -> Group {
    Group {
        stage: group.stage,
        code: group.code,
        count: group.n_orders,
        oldest_failed_at: group.oldest_failed_at,
        // Who recorded it may have a clock that is ahead of ours.
        oldest_age_seconds: now.duration_since(group.oldest_failed_at).as_secs().max(0),
        newest_failed_at: group.newest_failed_at,
    }
}
