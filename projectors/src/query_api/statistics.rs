//! `GET /v1/stats`: statistics of orders, queue and read model.
//!
//! Operators read the statistics when something is down. Members of a source that does not answer in time
//! are null, and all others are present.

use std::path::Path;

use api_types::{
    EventStoreUsage, FailureCounts, FulfillmentStatus, MinuteStatistics, OrderCounts,
    ProjectionStatus, QueueStatus, Statistics, StatisticsQuery, SuccessRate, Unavailable,
};
use axum::Json;
use axum::extract::State;
use event_log::GroupStats;
use jiff::Timestamp;
use service_kit::extract::QueryParameters;
use service_kit::problem::{Code, Problem};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::sources::{
    SOURCE_TIMEOUT, note_late, note_log, note_store, note_timed_log, to_last_verification,
};
use super::{Queries, QueryState};
use crate::projection::{Completions, Minute};
use crate::status::{self, StatusError, projection_status};
use crate::store::{self, StoreError};

/// Number of minutes for which statistics are kept.
const MAX_MINUTES: u32 = 24 * 60;

/// Get statistics of orders, queue and read model
///
/// Responds within a second. Members of a source that does not answer in time are null, and
/// `unavailable` has the reason.
#[utoipa::path(
    get, path = "/v1/stats", operation_id = "getStatistics", tag = "operations",
    security(("api_key" = ["ops:read"])),
    params(StatisticsQuery),
    responses((status = 200, description = "The statistics", body = Statistics)),
)]
pub(super) async fn get_statistics(
    State(QueryState { queries, .. }): State<QueryState>,
    QueryParameters(query): QueryParameters<StatisticsQuery>,
) -> Result<Json<Statistics>, Problem> {
    if query.minutes.is_some_and(|minutes| !(1..=MAX_MINUTES).contains(&minutes)) {
        let reason = format!("must be from 1 to {MAX_MINUTES}");
        return Err(Problem::invalid_parameter("minutes", reason));
    }
    let now = queries.clock.now();
    let (tables, status, projection, oldest_event_at) = tokio::join!(
        timeout(SOURCE_TIMEOUT, read_tables(&queries, query.minutes)),
        timeout(SOURCE_TIMEOUT, queries.log.fulfillment_status(&queries.group, now)),
        timeout(SOURCE_TIMEOUT, projection_status(&queries.log, &queries.store, now)),
        timeout(SOURCE_TIMEOUT, queries.log.store().oldest_event_at()),
    );
    let disk_bytes = read_disk_use(&queries).await;
    let mut unavailable = Unavailable::default();
    let tables = tables.unwrap_or(Err(StoreError::Timeout));
    let tables = note_store(&mut unavailable, tables);
    let status = note_timed_log(&mut unavailable, status);
    if tables.is_none() && status.is_none() {
        return Err(Problem::unavailable("Neither read model nor event store answers")
            .with_code(Code::ReadModelUnavailable));
    }
    let projection = match projection {
        Ok(Ok(projection)) => Some(projection),
        Ok(Err(StatusError::Store(error))) => note_store(&mut unavailable, Err(error)),
        Ok(Err(StatusError::Log(error))) => note_log(&mut unavailable, Err(error)),
        Err(_) => {
            // The status needs both sources. The one that did not answer above is named.
            if tables.is_none() {
                note_late("read_model", &mut unavailable.read_model);
            } else {
                note_late("event_store", &mut unavailable.event_store);
            }
            None
        }
    };
    let counts = tables.as_ref().map(|tables| &tables.counts);
    let oldest = tables.as_ref().and_then(|tables| tables.oldest_processing);
    let verification = tables.as_ref().and_then(|tables| tables.verification);
    Ok(Json(Statistics {
        orders: counts.map(to_order_counts),
        failed_by_stage: counts.map(to_failure_counts),
        queue: QueueStatus {
            oldest_waiting_seconds: oldest.map(|at| now.duration_since(at).as_secs_f64().max(0.0)),
            ..status
                .as_ref()
                .map_or_else(QueueStatus::default, |status| to_queue_status(counts, status.stats))
        },
        fulfillment: status.as_ref().map(to_fulfillment_status).unwrap_or_default(),
        projection: ProjectionStatus {
            verification: verification.map(to_last_verification),
            ..projection.as_ref().map(to_projection_status).unwrap_or_default()
        },
        event_store: EventStoreUsage {
            oldest_event_at: oldest_event_at.ok().and_then(Result::ok).flatten(),
            disk_bytes,
        },
        success_rate: SuccessRate {
            observed: counts.and_then(observed_success_rate),
            configured: queries.success_rate,
        },
        per_minute: tables.and_then(|tables| tables.minutes),
        unavailable,
    }))
}

fn to_order_counts(counts: &store::OrderCounts) -> OrderCounts {
    OrderCounts {
        processing: counts.n_processing,
        fulfilled: counts.n_fulfilled,
        failed: counts.n_failed,
    }
}

fn to_failure_counts(counts: &store::OrderCounts) -> FailureCounts {
    FailureCounts {
        validation: counts.n_failed_validation,
        fulfillment: counts.n_failed_fulfillment,
        dead_letter: counts.n_failed_dead_letter,
    }
}

fn to_projection_status(status: &status::ProjectionStatus) -> ProjectionStatus {
    ProjectionStatus {
        lag_events: Some(status.lag.lag_events),
        lag_seconds: Some(status.lag.lag_seconds),
        stuck: Some(status.lag.stuck),
        ahead_events: Some(status.ahead.map_or(0, |ahead| ahead.n_events)),
        advice: status.ahead.map(|ahead| ahead.to_string()),
        verification: None,
    }
}

/// Returns the size of the event store's files, if this process hosts the store.
async fn read_disk_use(queries: &Queries) -> Option<u64> {
    let folder = queries.store_folder.clone()?;
    spawn_blocking(move || sum_file_sizes(&folder)).await.ok().flatten()
}

/// Returns the total size of the files in a folder in bytes; `None` if the folder cannot be read.
fn sum_file_sizes(folder: &Path) -> Option<u64> {
    let files = std::fs::read_dir(folder).ok()?;
    // A file that is deleted meanwhile is left out.
    Some(files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum())
}

/// Statistics from the read model.
struct TableStatistics {
    counts: store::OrderCounts,
    oldest_processing: Option<Timestamp>,
    verification: Option<store::LastVerification>,
    /// `None` unless the request asks for them.
    minutes: Option<Vec<MinuteStatistics>>,
}

async fn read_tables(
    queries: &Queries,
    n_minutes: Option<u32>,
) -> Result<TableStatistics, StoreError> {
    let minutes = async {
        match n_minutes {
            Some(n_minutes) => read_minutes(queries, n_minutes).await.map(Some),
            None => Ok(None),
        }
    };
    let (counts, oldest_processing, verification, minutes) = tokio::try_join!(
        queries.store.count_orders(),
        queries.store.oldest_processing(),
        queries.store.last_verification(),
        minutes
    )?;
    Ok(TableStatistics { counts, oldest_processing, verification, minutes })
}

async fn read_minutes(
    queries: &Queries,
    n_minutes: u32,
) -> Result<Vec<MinuteStatistics>, StoreError> {
    let newest = queries.clock.now().as_second().div_euclid(60);
    let from = newest - i64::from(n_minutes) + 1;
    let minutes = queries.store.minutes(from).await?;
    let to_statistics = |(number, happened): (i64, Minute)| {
        Some(MinuteStatistics {
            minute: Timestamp::from_second(number.checked_mul(60)?).ok()?,
            events: happened.n_events,
            received: happened.n_received,
            fulfilled: happened.n_fulfilled,
            failed: happened.n_failed,
            success_rate: happened.success_rate(),
            mean_completion_seconds: happened.completions.and_then(Completions::mean_seconds),
            max_completion_seconds: happened.completions.and_then(Completions::max_seconds),
        })
    };
    Ok(minutes.into_iter().filter_map(to_statistics).collect())
}

fn to_fulfillment_status(status: &event_log::FulfillmentStatus) -> FulfillmentStatus {
    FulfillmentStatus {
        paused: Some(status.is_paused()),
        breaker: Some(status.worst_breaker().into()),
        watchdog_reconnects: Some(status.watchdog_reconnects()),
    }
}

/// Orders that are processing and not with the subscription are waiting. Read model and subscription are read
/// at different times, so that the difference may be off by the changes between.
fn to_queue_status(counts: Option<&store::OrderCounts>, group: GroupStats) -> QueueStatus {
    let [in_flight, retrying, parked] =
        [group.in_flight, group.retrying, group.parked].map(|count| count as u64);
    let waiting = |counts: &store::OrderCounts| {
        counts.n_processing.saturating_sub(in_flight).saturating_sub(retrying)
    };
    QueueStatus {
        waiting: counts.map(waiting),
        in_flight: Some(in_flight),
        parked: Some(parked),
        retrying: Some(retrying),
        oldest_waiting_seconds: None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate of more than 2^53 orders may be imprecise")]
fn observed_success_rate(counts: &store::OrderCounts) -> Option<f64> {
    let n_answered = counts.n_fulfilled + counts.n_failed_fulfillment;
    (n_answered > 0).then(|| counts.n_fulfilled as f64 / n_answered as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_orders_are_never_negative() {
        let counts = store::OrderCounts { n_processing: 5, ..store::OrderCounts::default() };
        let group = |in_flight| GroupStats { waiting: 0, in_flight, retrying: 1, parked: 7 };
        assert_eq!(to_queue_status(Some(&counts), group(2)).waiting, Some(2));
        assert_eq!(to_queue_status(Some(&counts), group(9)).waiting, Some(0));
        assert_eq!(to_queue_status(None, group(2)).waiting, None);
    }

    #[test]
    fn success_rate_counts_answers_of_the_gateway() {
        let counts = store::OrderCounts {
            n_fulfilled: 7,
            n_failed: 8,
            n_failed_fulfillment: 3,
            n_failed_validation: 5,
            ..store::OrderCounts::default()
        };
        assert_eq!(observed_success_rate(&counts), Some(0.7));
        assert_eq!(observed_success_rate(&store::OrderCounts::default()), None);
    }
}
