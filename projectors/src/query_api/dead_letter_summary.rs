//! `GET /v1/dead-letters`: unresolved failures, counted by cause.

use api_types::{DeadLetterGroup, DeadLetterSummary, FailureFilter};
use axum::Json;
use axum::extract::State;
use domain::order::Stage;
use jiff::Timestamp;
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;

use super::{QueryState, read};
use crate::store::{self, FailureGroup};

/// Count unresolved failures by cause
///
/// Counts dead letters unless `stage` names another stage.
#[utoipa::path(
    get, path = "/v1/dead-letters", operation_id = "countDeadLetters", tag = "operations",
    security(("api_key" = ["ops:read"])),
    params(FailureFilter),
    responses((status = 200, description = "Numbers of failures", body = DeadLetterSummary)),
)]
pub(super) async fn count_dead_letters(
    State(QueryState { queries, .. }): State<QueryState>,
    QueryParameters(filter): QueryParameters<FailureFilter>,
) -> Result<Json<DeadLetterSummary>, Problem> {
    let now = queries.clock.now();
    let filter = store::FailureFilter {
        stage: Some(filter.stage.map_or(Stage::DeadLetter, Stage::from)),
        code: filter.code,
        customer_id: filter.customer_id,
        failed_before: filter.older_than.map(|age| age.before(now)),
        order_ids: None,
    };
    let groups = read(queries.store.failure_groups(&filter, now)).await?;
    Ok(Json(DeadLetterSummary {
        total: groups.iter().map(|group| group.n_orders).sum(),
        groups: groups.into_iter().map(|group| to_group(group, now)).collect(),
    }))
}

fn to_group(group: FailureGroup, now: Timestamp) -> DeadLetterGroup {
    DeadLetterGroup {
        stage: group.stage.into(),
        code: group.code,
        count: group.n_orders,
        oldest_failed_at: group.oldest_failed_at,
        // The clock of the process that recorded the failure may be ahead of ours.
        oldest_age_seconds: now.duration_since(group.oldest_failed_at).as_secs().max(0),
        newest_failed_at: group.newest_failed_at,
        failed_last_hour: group.n_last_hour,
        failed_previous_hour: group.n_previous_hour,
    }
}
