//! `GET /v1/stats`: how many orders there are, what is waiting, and how far the tables are behind.
//!
//! The statistics are asked for when something is down: what does not answer in time is null, with
//! the reason, and all else is there.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use domain::operations::BreakerPhase;
use event_log::{FulfillmentStatus, GroupStats, LogError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::{Code, Problem};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::Queries;
use crate::orders::statistics::Minute;
use crate::status::{ProjectionStatus, StatusError, projection_status};
use crate::store::{LastVerification, OrderCounts, StoreError};

/// For how many minutes the statistics are kept.
const MAX_MINUTES: u32 = 24 * 60;
/// How long either side may take to answer: the whole answer takes less than a second.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);

#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// Null if the read model does not answer.
    #[schema(required)]
    orders: Option<OrdersByStatus>,
    /// Null if the read model does not answer.
    #[schema(required)]
    failed_by_stage: Option<FailedByStage>,
    queue: Queue,
    fulfillment: Fulfillment,
    projection: Projection,
    event_store: StoreUse,
    success_rate: SuccessRate,
    /// Only if it was asked for and the read model answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_minute: Option<Vec<OfMinute>>,
    /// Why members are null that need not be: what did not answer, `read_model` or `event_store`, and
    /// the reason. Empty if everything answered.
    unavailable: BTreeMap<&'static str, String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct OrdersByStatus {
    processing: u64,
    fulfilled: u64,
    failed: u64,
}

#[derive(Serialize, ToSchema)]
struct FailedByStage {
    validation: u64,
    fulfillment: u64,
    dead_letter: u64,
}

/// What waits for the workers. Numbers are null if the event store does not answer, that of waiting
/// orders also if the read model does not.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
struct Queue {
    #[schema(required)]
    waiting: Option<u64>,
    #[schema(required)]
    in_flight: Option<u64>,
    #[schema(required)]
    parked: Option<u64>,
    #[schema(required)]
    retrying: Option<u64>,
    /// For how long nothing has happened to the order in `PROCESSING` that waits longest; null if
    /// there is none, or if the read model does not answer.
    #[schema(required)]
    oldest_waiting_seconds: Option<f64>,
}

/// What the workers do; null if the event store does not answer.
#[derive(Default, Serialize, ToSchema)]
struct Fulfillment {
    /// An operator told the workers to take no work.
    #[schema(required)]
    paused: Option<bool>,
    /// Worst circuit-breaker state of all workers.
    #[schema(required, value_type = Option<String>, example = "closed")]
    breaker: Option<BreakerPhase>,
    /// How often a subscription was silent while work waited, and was made anew.
    #[schema(required)]
    watchdog_reconnects: Option<u64>,
}

/// How far the tables are behind the event store, or ahead of it; null if one of them does not
/// answer.
#[derive(Default, Serialize, ToSchema)]
struct Projection {
    /// Counted up to 10,000.
    #[schema(required)]
    lag_events: Option<u64>,
    /// The age of the oldest event that is not applied; 0 if there is none.
    #[schema(required)]
    lag_seconds: Option<f64>,
    /// Events wait, and nothing moves.
    #[schema(required)]
    stuck: Option<bool>,
    /// Events that the newest rows reflect and the event store lacks, because it was restored from an
    /// older backup or replaced; 0 if there are none.
    #[schema(required)]
    ahead_events: Option<u64>,
    /// What the projector's last own verification came to; null before the first.
    #[schema(required)]
    verification: Option<LastVerified>,
    /// What to do if the tables are ahead of the event store, else null.
    #[schema(required)]
    advice: Option<String>,
}

/// What a verification of all rows came to.
#[derive(Serialize, ToSchema)]
struct LastVerified {
    verified_at: Timestamp,
    orders: u64,
    /// Orders whose rows are not as their events say, events that cannot be projected, and statistics
    /// that are off.
    findings: u64,
}

impl LastVerified {
    fn of(last: LastVerification) -> Self {
        let LastVerification { verified_at, n_orders, n_findings } = last;
        Self { verified_at, orders: n_orders, findings: n_findings }
    }
}

impl Projection {
    fn of(status: &ProjectionStatus) -> Self {
        Self {
            lag_events: Some(status.lag.lag_events),
            lag_seconds: Some(status.lag.lag_seconds),
            stuck: Some(status.lag.stuck),
            ahead_events: Some(status.ahead.map_or(0, |it| it.n_events)),
            advice: status.ahead.map(|it| it.to_string()),
            verification: None,
        }
    }
}

/// What the event store keeps.
#[derive(Serialize, ToSchema)]
struct StoreUse {
    /// When the oldest event was written that it still has; null if it does not answer or is empty.
    #[schema(required)]
    oldest_event_at: Option<Timestamp>,
    /// Bytes of its files; null unless this process hosts it.
    #[schema(required)]
    disk_bytes: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct SuccessRate {
    /// Of the orders that the gateway answered for; null before the first, or if the read model does
    /// not answer.
    #[schema(required)]
    observed: Option<f64>,
    /// Null unless the gateway is simulated.
    configured: Option<f64>,
}

/// What happened in a minute; those in which nothing did are left out.
#[derive(Serialize, ToSchema)]
struct OfMinute {
    minute: Timestamp,
    events: u64,
    received: u64,
    fulfilled: u64,
    failed: u64,
    success_rate: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct StatsParameters {
    /// For how many minutes, the current one included, to say what happened in each.
    minutes: Option<u32>,
}

/// Count orders, what waits, and how far the tables are behind
///
/// Answers within a second. What does not answer in time is null, with the reason.
#[utoipa::path(
    get, path = "/v1/stats", tag = "operations",
    params(("minutes" = u32, Query, minimum = 1, maximum = 1440, description = "For so many minutes, also say what happened in each")),
    responses((status = 200, description = "The statistics", body = Stats)),
)]
pub(super) async fn get_stats(
    State(queries): State<Arc<Queries>>,
    QueryParameters(parameters): QueryParameters<StatsParameters>,
) -> Result<Json<Stats>, Problem> {
    if parameters.minutes.is_some_and(|it| !(1..=MAX_MINUTES).contains(&it)) {
        let reason = format!("must be from 1 to {MAX_MINUTES}");
        return Err(Problem::invalid_parameter("minutes", reason));
    }
    let now = queries.clock.now();
    let (tables, status, projection, oldest_event_at) = tokio::join!(
        timeout(ANSWER_TIMEOUT, read_tables(&queries, parameters.minutes)),
        timeout(ANSWER_TIMEOUT, queries.log.fulfillment_status(&queries.group, now)),
        timeout(ANSWER_TIMEOUT, projection_status(&queries.log, &*queries.store, now)),
        timeout(ANSWER_TIMEOUT, queries.log.oldest_event_at()),
    );
    let disk_bytes = match queries.store_folder.clone() {
        Some(folder) => spawn_blocking(move || disk_use(&folder)).await.ok().flatten(),
        None => None,
    };
    let mut unavailable = Unavailable::default();
    let tables = unavailable.note_store(tables.unwrap_or(Err(StoreError::Timeout)));
    let status = match status {
        Ok(status) => unavailable.note_log(status),
        Err(_) => unavailable.note_late(EVENT_STORE),
    };
    if tables.is_none() && status.is_none() {
        return Err(Problem::unavailable("Neither read model nor event store answers")
            .with_code(Code::ReadModelUnavailable));
    }
    let projection = match projection {
        Ok(Ok(projection)) => Some(projection),
        Ok(Err(StatusError::Store(error))) => unavailable.note_store(Err(error)),
        Ok(Err(StatusError::Log(error))) => unavailable.note_log(Err(error)),
        Err(_) => unavailable.note_late(if tables.is_none() { READ_MODEL } else { EVENT_STORE }),
    };
    let counts = tables.as_ref().map(|it| &it.counts);
    let oldest = tables.as_ref().and_then(|it| it.oldest_processing);
    Ok(Json(Stats {
        orders: counts.map(|it| OrdersByStatus {
            processing: it.n_processing,
            fulfilled: it.n_fulfilled,
            failed: it.n_failed,
        }),
        failed_by_stage: counts.map(|it| FailedByStage {
            validation: it.n_failed_validation,
            fulfillment: it.n_failed_fulfillment,
            dead_letter: it.n_failed_dead_letter,
        }),
        queue: Queue {
            oldest_waiting_seconds: oldest.map(|at| now.duration_since(at).as_secs_f64().max(0.0)),
            ..status.as_ref().map_or_else(Queue::default, |it| queue(counts, it.stats))
        },
        fulfillment: status.as_ref().map_or_else(Fulfillment::default, fulfillment),
        projection: Projection {
            verification: tables.as_ref().and_then(|it| it.verification).map(LastVerified::of),
            ..projection.as_ref().map_or_else(Projection::default, Projection::of)
        },
        event_store: StoreUse {
            oldest_event_at: oldest_event_at.ok().and_then(Result::ok).flatten(),
            disk_bytes,
        },
        success_rate: SuccessRate {
            observed: counts.and_then(observed_rate),
            configured: queries.success_rate,
        },
        per_minute: tables.and_then(|it| it.minutes),
        unavailable: unavailable.0,
    }))
}

/// Bytes of the files in a folder; `None` if it cannot be read.
fn disk_use(folder: &Path) -> Option<u64> {
    let files = std::fs::read_dir(folder).ok()?;
    // A file that is replaced meanwhile counts for nothing.
    Some(files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum())
}

const READ_MODEL: &str = "read_model";
const EVENT_STORE: &str = "event_store";

/// What did not answer, and why, in words without addresses.
#[derive(Default)]
struct Unavailable(BTreeMap<&'static str, String>);

impl Unavailable {
    fn note_store<T>(&mut self, outcome: Result<T, StoreError>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                super::log_read_model_failure(error);
                let is_late = matches!(error, StoreError::Timeout);
                let reason =
                    if is_late { "it did not answer in time" } else { "it does not answer" };
                self.0.insert(READ_MODEL, reason.to_owned());
            })
            .ok()
    }

    fn note_log<T>(&mut self, outcome: Result<T, LogError>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                tracing::warn!(error = error as &dyn Error, "Event store unavailable");
                let reason =
                    if error.is_refusal() { "it refused to answer" } else { "it does not answer" };
                self.0.insert(EVENT_STORE, reason.to_owned());
            })
            .ok()
    }

    fn note_late<T>(&mut self, what: &'static str) -> Option<T> {
        tracing::warn!(what, "No answer in time for statistics");
        self.0.entry(what).or_insert_with(|| "it did not answer in time".to_owned());
        None
    }
}

/// What only the tables know.
struct Tables {
    counts: OrderCounts,
    oldest_processing: Option<Timestamp>,
    verification: Option<LastVerification>,
    /// If they were asked for.
    minutes: Option<Vec<OfMinute>>,
}

async fn read_tables(queries: &Queries, n_minutes: Option<u32>) -> Result<Tables, StoreError> {
    let minutes = async {
        match n_minutes {
            Some(n_minutes) => per_minute(queries, n_minutes).await.map(Some),
            None => Ok(None),
        }
    };
    let (counts, oldest_processing, verification, minutes) = tokio::try_join!(
        queries.store.count_orders(),
        queries.store.oldest_processing(),
        queries.store.last_verification(),
        minutes
    )?;
    Ok(Tables { counts, oldest_processing, verification, minutes })
}

async fn per_minute(queries: &Queries, n_minutes: u32) -> Result<Vec<OfMinute>, StoreError> {
    let newest = queries.clock.now().as_second().div_euclid(60);
    let from = newest - i64::from(n_minutes) + 1;
    let minutes = queries.store.minutes(from).await?;
    let of_minute = |(number, happened): (i64, Minute)| {
        Some(OfMinute {
            minute: Timestamp::from_second(number.checked_mul(60)?).ok()?,
            events: happened.n_events,
            received: happened.n_received,
            fulfilled: happened.n_fulfilled,
            failed: happened.n_failed,
            success_rate: happened.success_rate(),
        })
    };
    Ok(minutes.into_iter().filter_map(of_minute).collect())
}

fn fulfillment(status: &FulfillmentStatus) -> Fulfillment {
    Fulfillment {
        paused: Some(status.is_paused()),
        breaker: Some(status.worst_breaker()),
        watchdog_reconnects: Some(status.watchdog_reconnects()),
    }
}

/// What the group does not have in hand yet waits. Tables and group are not read at one moment, so
/// the difference may be off by what happens between.
fn queue(counts: Option<&OrderCounts>, group: GroupStats) -> Queue {
    let [in_flight, retrying, parked] =
        [group.in_flight, group.retrying, group.parked].map(|it| it as u64);
    let waiting =
        |it: &OrderCounts| it.n_processing.saturating_sub(in_flight).saturating_sub(retrying);
    Queue {
        waiting: counts.map(waiting),
        in_flight: Some(in_flight),
        parked: Some(parked),
        retrying: Some(retrying),
        oldest_waiting_seconds: None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate of more than 2^53 orders may be imprecise")]
fn observed_rate(counts: &OrderCounts) -> Option<f64> {
    let n_answered = counts.n_fulfilled + counts.n_failed_fulfillment;
    (n_answered > 0).then(|| counts.n_fulfilled as f64 / n_answered as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_rather_than_less_than_nothing() {
        let counts = OrderCounts { n_processing: 5, ..OrderCounts::default() };
        let group = |in_flight| GroupStats { waiting: 0, in_flight, retrying: 1, parked: 7 };
        assert_eq!(queue(Some(&counts), group(2)).waiting, Some(2));
        assert_eq!(queue(Some(&counts), group(9)).waiting, Some(0));
        assert_eq!(queue(None, group(2)).waiting, None);
    }

    #[test]
    fn rate_counts_what_the_gateway_answered() {
        let counts = OrderCounts {
            n_fulfilled: 7,
            n_failed: 8,
            n_failed_fulfillment: 3,
            n_failed_validation: 5,
            ..OrderCounts::default()
        };
        assert_eq!(observed_rate(&counts), Some(0.7));
        assert_eq!(observed_rate(&OrderCounts::default()), None);
    }
}
