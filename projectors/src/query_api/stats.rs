//! `GET /v1/stats`: how many orders there are, what is waiting, and how far the tables are behind.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::operations::BreakerPhase;
use event_log::GroupStats;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;
use utoipa::ToSchema;

use super::{Queries, log_failed, read, read_model_failed};
use crate::lag::{Lag, MAX_LAG_EVENTS, lag};
use crate::orders::statistics::Minute;
use crate::store::OrderCounts;

/// For how many minutes the statistics are kept.
const MAX_MINUTES: u32 = 24 * 60;

#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    orders: OrdersByStatus,
    failed_by_stage: FailedByStage,
    queue: Queue,
    fulfillment: Fulfillment,
    projection: Lag,
    success_rate: SuccessRate,
    /// Only if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_minute: Option<Vec<OfMinute>>,
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

#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct Queue {
    waiting: u64,
    in_flight: u64,
    parked: u64,
    retrying: u64,
}

#[derive(Serialize, ToSchema)]
struct Fulfillment {
    /// An operator told the workers to take no work.
    paused: bool,
    /// Of the workers' breakers, the one that stands worst.
    #[schema(value_type = String, example = "closed")]
    breaker: BreakerPhase,
    /// How often a subscription was silent while work waited, and was made anew.
    watchdog_reconnects: u64,
}

#[derive(Serialize, ToSchema)]
struct SuccessRate {
    /// Of the orders that the gateway answered for; null before the first.
    #[schema(required)]
    observed: Option<f64>,
    /// Null if the gateway is none of ours.
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
        return Err(Problem::invalid_parameters());
    }
    let counts = read(queries.store.count_orders()).await.map_err(read_model_failed)?;
    let checkpoint = read(queries.store.checkpoint()).await.map_err(read_model_failed)?;
    let now = queries.clock.now();
    let status = queries.log.fulfillment_status(&queries.group, now).await.map_err(log_failed)?;
    let backlog =
        queries.log.backlog(checkpoint.position, MAX_LAG_EVENTS).await.map_err(log_failed)?;
    Ok(Json(Stats {
        orders: OrdersByStatus {
            processing: counts.n_processing,
            fulfilled: counts.n_fulfilled,
            failed: counts.n_failed,
        },
        failed_by_stage: FailedByStage {
            validation: counts.n_failed_validation,
            fulfillment: counts.n_failed_fulfillment,
            dead_letter: counts.n_failed_dead_letter,
        },
        queue: queue(&counts, status.stats),
        fulfillment: Fulfillment {
            paused: status.is_paused(),
            breaker: status.breaker(),
            watchdog_reconnects: status.watchdog_reconnects(),
        },
        projection: lag(&checkpoint, backlog, now),
        success_rate: SuccessRate {
            observed: observed_rate(&counts),
            configured: queries.success_rate,
        },
        per_minute: match parameters.minutes {
            Some(n_minutes) => Some(per_minute(&queries, n_minutes).await?),
            None => None,
        },
    }))
}

async fn per_minute(queries: &Queries, n_minutes: u32) -> Result<Vec<OfMinute>, Problem> {
    let newest = queries.clock.now().as_second().div_euclid(60);
    let from = newest - i64::from(n_minutes) + 1;
    let minutes = read(queries.store.minutes(from)).await.map_err(read_model_failed)?;
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

/// What the group does not have in hand yet waits. Tables and group are not read at one moment, so
/// the difference may be off by what happens between.
fn queue(counts: &OrderCounts, group: GroupStats) -> Queue {
    let [in_flight, retrying, parked] =
        [group.in_flight, group.retrying, group.parked].map(|it| it as u64);
    let waiting = counts.n_processing.saturating_sub(in_flight).saturating_sub(retrying);
    Queue { waiting, in_flight, parked, retrying }
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
        assert_eq!(queue(&counts, group(2)).waiting, 2);
        assert_eq!(queue(&counts, group(9)).waiting, 0);
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
