//! `GET /v1/ops/projections`: position, lag and sets of tables of each projection.

use api_types::{
    Projection, ProjectionList, ProjectionSet, ProjectionSetState, RebuildProgress, Unavailable,
};
use axum::Json;
use axum::extract::State;
use event_log::{Backlog, LogError, Position};
use futures::future::try_join_all;
use jiff::Timestamp;
use service_kit::problem::{Code, Problem};
use tokio::time::{Instant, timeout_at};

use super::sources::{SOURCE_TIMEOUT, note_store, note_timed_log, to_last_verification};
use super::{Queries, QueryState};
use crate::PROJECTIONS;
use crate::lag::{Lag, MAX_LAG_EVENTS, compute_lag};
use crate::projection;
use crate::store::{Checkpoint, LastVerification, Lease, ReadModel, SetInfo, StoreError};

/// List the projections of the read model
///
/// Responds within a second. Members of a source that does not answer in time are null, and
/// `unavailable` has the reason.
#[utoipa::path(
    get, path = "/v1/ops/projections", operation_id = "listProjections", tag = "operations",
    security(("api_key" = ["ops:read"])),
    responses((status = 200, description = "All projections", body = ProjectionList)),
)]
pub(super) async fn list_projections(
    State(QueryState { queries, .. }): State<QueryState>,
) -> Result<Json<ProjectionList>, Problem> {
    let now = queries.clock.now();
    let deadline = Instant::now() + SOURCE_TIMEOUT;
    let (tables, head) = tokio::join!(
        timeout_at(deadline, read_all_tables(&queries, now)),
        timeout_at(deadline, queries.log.store().head()),
    );
    let mut unavailable = Unavailable::default();
    let tables = note_store(&mut unavailable, tables.unwrap_or(Err(StoreError::Timeout)));
    let head = note_timed_log(&mut unavailable, head);
    if tables.is_none() && head.is_none() {
        return Err(Problem::unavailable("Neither read model nor event store answers")
            .with_code(Code::ReadModelUnavailable));
    }
    // After the checkpoints: events in between count as lag, never as progress.
    let backlogs = if let (Some(tables), Some(_)) = (&tables, head) {
        let counted = timeout_at(deadline, count_backlogs(&queries, tables)).await;
        note_timed_log(&mut unavailable, counted)
    } else {
        None
    };
    let items = PROJECTIONS.iter().enumerate().map(|(index, projection)| {
        let tables = tables.as_ref().and_then(|tables| tables.get(index));
        let backlog = backlogs.as_ref().and_then(|backlogs| backlogs.get(index));
        let lag = tables.zip(backlog).map(|(tables, backlog)| tables.lag(backlog, now));
        to_projection(projection, tables, lag.as_ref(), head.flatten())
    });
    Ok(Json(ProjectionList { items: items.collect(), unavailable }))
}

/// The tables of a projection and its lease.
struct ProjectionTables {
    sets: Vec<SetInfo>,
    lease: Lease,
    verification: Option<LastVerification>,
    /// Events that were recorded in the last full minute; `None` without statistics.
    n_events_of_minute: Option<u64>,
}

impl ProjectionTables {
    fn live(&self) -> Checkpoint {
        let live = self.sets.iter().find(|set| set.name == "live");
        live.map(|live| live.checkpoint).unwrap_or_default()
    }

    fn lag(&self, backlog: &Backlog, now: Timestamp) -> Lag {
        compute_lag(&self.live(), *backlog, now)
    }
}

async fn read_all_tables(
    queries: &Queries,
    now: Timestamp,
) -> Result<Vec<ProjectionTables>, StoreError> {
    try_join_all(
        PROJECTIONS.map(async |projection| {
            read_tables(&queries.store.for_projection(projection), now).await
        }),
    )
    .await
}

async fn read_tables(store: &ReadModel, now: Timestamp) -> Result<ProjectionTables, StoreError> {
    let minute = now.as_second().div_euclid(60) - 1;
    let n_events_of_minute = async {
        if !store.projection().has_statistics {
            return Ok(None);
        }
        let minutes = store.minutes(minute).await?;
        Ok(Some(minutes.get(&minute).map_or(0, |minute| minute.n_events)))
    };
    let (sets, lease, verification, n_events_of_minute) = tokio::try_join!(
        store.sets(),
        store.lease(),
        store.last_verification(),
        n_events_of_minute
    )?;
    Ok(ProjectionTables { sets, lease, verification, n_events_of_minute })
}

async fn count_backlogs(
    queries: &Queries,
    tables: &[ProjectionTables],
) -> Result<Vec<Backlog>, LogError> {
    try_join_all(tables.iter().map(async |tables| {
        queries.log.store().count_backlog(tables.live().position, MAX_LAG_EVENTS).await
    }))
    .await
}

#[expect(clippy::cast_precision_loss, reason = "a rate of more than 2^53 may be imprecise")]
fn to_projection(
    projection: &projection::Projection,
    tables: Option<&ProjectionTables>,
    lag: Option<&Lag>,
    head: Option<Position>,
) -> Projection {
    let n_events = tables.and_then(|tables| tables.n_events_of_minute);
    let to_sets = |tables: &ProjectionTables| {
        // Without the event store, the live set is nearest to the end of the log.
        let end = head.max(tables.live().position).map_or(0, |position| position.commit);
        tables.sets.iter().map(|set| to_set(projection, set, end)).collect()
    };
    Projection {
        name: projection.name.to_owned(),
        lag_events: lag.map(|lag| lag.lag_events),
        lag_seconds: lag.map(|lag| lag.lag_seconds),
        stuck: lag.map(|lag| lag.stuck),
        events_per_second: n_events.map(|n_events| n_events as f64 / 60.0),
        holder: tables.and_then(|tables| tables.lease.holder.clone()),
        verification: tables.and_then(|tables| tables.verification).map(to_last_verification),
        sets: tables.map(to_sets).unwrap_or_default(),
    }
}

/// Returns a set; `end` is the commit position of the end of the log.
#[expect(clippy::cast_precision_loss, reason = "a share of a log beyond 2^53 may be imprecise")]
fn to_set(projection: &projection::Projection, set: &SetInfo, end: u64) -> ProjectionSet {
    let Checkpoint { position, events_applied, last_event_at, moved_at, .. } = set.checkpoint;
    let position = position.map(|position| position.commit);
    let (state, suffix) = match set.name {
        "next" => (ProjectionSetState::Building, "_next"),
        "previous" => (ProjectionSetState::Previous, "_previous"),
        _ => (ProjectionSetState::Live, ""),
    };
    let share = position.unwrap_or_default() as f64 / end.max(1) as f64;
    let progress = RebuildProgress { share: share.min(1.0), updated_at: moved_at };
    ProjectionSet {
        set: format!("{}{suffix}", projection.name),
        state,
        version: set.projection_version,
        position,
        events_applied,
        last_event_at,
        progress: (state == ProjectionSetState::Building).then_some(progress),
    }
}
