//! `GET /v1/stats`: how many orders there are, what is waiting, and how far the tables are behind.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::operations::BreakerPhase;
use event_log::{Backlog, GroupStats};
use jiff::Timestamp;
use serde::Serialize;
use service_kit::problem::Problem;

use super::{Queries, log_failed, read, read_model_failed};
use crate::store::{Checkpoint, OrderCounts};

/// Beyond this many events the lag is not counted further.
const MAX_LAG_EVENTS: usize = 10_000;
/// The projection is stuck if the oldest event that it has not applied waits for longer than this,
/// and the checkpoint has not moved for as long either.
const STUCK_AFTER_SECS: f64 = 10.0;

#[derive(Serialize)]
pub(super) struct Stats {
    orders: OrdersByStatus,
    failed_by_stage: FailedByStage,
    queue: Queue,
    fulfillment: Fulfillment,
    projection: Projection,
    success_rate: SuccessRate,
}

#[derive(Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct OrdersByStatus {
    processing: u64,
    fulfilled: u64,
    failed: u64,
}

#[derive(Serialize)]
struct FailedByStage {
    validation: u64,
    fulfillment: u64,
    dead_letter: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Queue {
    waiting: u64,
    in_flight: u64,
    parked: u64,
    retrying: u64,
}

#[derive(Serialize)]
struct Fulfillment {
    /// An operator told the workers to take no work.
    paused: bool,
    /// Of the workers' breakers, the one that stands worst.
    breaker: BreakerPhase,
    /// How often a subscription was silent while work waited, and was made anew.
    watchdog_reconnects: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Projection {
    /// Counted up to [`MAX_LAG_EVENTS`].
    lag_events: u64,
    /// The age of the oldest event that is not applied; 0 if there is none.
    lag_seconds: f64,
    stuck: bool,
}

#[derive(Serialize)]
struct SuccessRate {
    /// Of the orders that the gateway answered for; null before the first.
    observed: Option<f64>,
    /// Null if the gateway is none of ours.
    configured: Option<f64>,
}

pub(super) async fn get_stats(State(queries): State<Arc<Queries>>) -> Result<Json<Stats>, Problem> {
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
        projection: projection(&checkpoint, backlog, now),
        success_rate: SuccessRate {
            observed: observed_rate(&counts),
            configured: queries.success_rate,
        },
    }))
}

/// What the group does not have in hand yet waits. Tables and group are not read at one moment, so
/// the difference may be off by what happens between.
fn queue(counts: &OrderCounts, group: GroupStats) -> Queue {
    let [in_flight, retrying, parked] =
        [group.in_flight, group.retrying, group.parked].map(|it| it as u64);
    let waiting = counts.n_processing.saturating_sub(in_flight).saturating_sub(retrying);
    Queue { waiting, in_flight, parked, retrying }
}

fn projection(checkpoint: &Checkpoint, backlog: Backlog, now: Timestamp) -> Projection {
    let age = |time: Timestamp| now.duration_since(time).as_secs_f64().max(0.0);
    let lag_seconds = backlog.oldest.map_or(0.0, age);
    let unmoved_seconds = checkpoint.moved_at.map_or(f64::INFINITY, age);
    Projection {
        lag_events: backlog.n_events,
        lag_seconds,
        stuck: lag_seconds > STUCK_AFTER_SECS && unmoved_seconds > STUCK_AFTER_SECS,
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

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn nothing_waits_rather_than_less_than_nothing() {
        let counts = OrderCounts { n_processing: 5, ..OrderCounts::default() };
        let group = |in_flight| GroupStats { waiting: 0, in_flight, retrying: 1, parked: 7 };
        assert_eq!(queue(&counts, group(2)).waiting, 2);
        assert_eq!(queue(&counts, group(9)).waiting, 0);
    }

    #[test]
    fn projection_is_stuck_only_if_events_wait_and_nothing_moves() {
        let moved = |second| Checkpoint { moved_at: Some(at(second)), ..Checkpoint::default() };
        let waiting = |second| Backlog { n_events: 3, oldest: Some(at(second)) };
        let nothing = Backlog { n_events: 0, oldest: None };
        let stuck = |checkpoint, backlog| projection(&checkpoint, backlog, at(1_000)).stuck;

        assert!(stuck(moved(900), waiting(901)));
        assert!(stuck(Checkpoint::default(), waiting(901)));
        // It is behind and catching up, it was idle until just now, or there is nothing to do.
        assert!(!stuck(moved(999), waiting(901)));
        assert!(!stuck(moved(900), waiting(999)));
        assert!(!stuck(moved(900), nothing));
        let behind = projection(&moved(900), waiting(998), at(1_000));
        assert_eq!(behind, Projection { lag_events: 3, lag_seconds: 2.0, stuck: false });
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
