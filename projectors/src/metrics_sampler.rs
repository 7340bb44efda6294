//! Samples the state of the read model for the metrics.

use std::sync::Arc;
use std::time::Duration;

use domain::order::Stage;
use event_log::EventLog;
use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::metrics::{note_sample, to_gauge};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ahead::find_ahead;
use crate::lag::compute_lag;
use crate::metrics::{
    ProjectionSample, set_failed_orders, set_oldest_processing, set_orders, set_projection,
};
use crate::projection::Projection;
use crate::status::StatusError;
use crate::store::{ReadModel, StoreError};

/// Interval between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum duration of a sample.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of events that are counted for the lag: they are read from the event store.
const MAX_LAG_EVENTS: usize = 1_000;
/// Source of the samples, as the metrics name it.
const SOURCE: &str = "read_model";

/// Samples these projections and the orders until `stop`. `store` has the tables of any projection.
/// Samples fail silently: the gauges keep their values, and the age of the last sample is a metric.
pub async fn sample_metrics(
    projections: &[&'static Projection],
    log: EventLog,
    store: Arc<ReadModel>,
    clock: Clock,
    stop: CancellationToken,
) {
    let sampling = async {
        loop {
            let sample = sample_once(projections, &log, &store, clock.now());
            match timeout(SAMPLE_TIMEOUT, sample).await {
                Ok(Ok(())) => note_sample(SOURCE, clock.now().as_second()),
                Ok(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "Read model could not be sampled");
                }
                Err(_) => tracing::debug!("Read model could not be sampled in time"),
            }
            sleep(INTERVAL).await;
        }
    };
    let _: Option<()> = Box::pin(stop.run_until_cancelled(sampling)).await;
}

/// Samples the use of the database's connections until `stop`.
pub async fn sample_pools(store: Arc<ReadModel>, stop: CancellationToken) {
    let sampling = async {
        loop {
            store.publish_pool_use();
            sleep(INTERVAL).await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(sampling).await;
}

async fn sample_once(
    projections: &[&'static Projection],
    log: &EventLog,
    store: &ReadModel,
    now: Timestamp,
) -> Result<(), StatusError> {
    sample_orders(store, now).await?;
    let head = log.store().head().await?.map(|head| head.commit);
    for projection in projections {
        let tables = store.for_projection(projection);
        let sample = sample_projection(log, &tables, head, now).await?;
        set_projection(projection.name, &sample);
    }
    Ok(())
}

async fn sample_orders(store: &ReadModel, now: Timestamp) -> Result<(), StoreError> {
    let (counts, oldest) = tokio::try_join!(store.count_orders(), store.oldest_processing())?;
    set_orders([counts.n_processing, counts.n_fulfilled, counts.n_failed]);
    set_failed_orders(Stage::Validation, counts.n_failed_validation);
    set_failed_orders(Stage::Fulfillment, counts.n_failed_fulfillment);
    set_failed_orders(Stage::DeadLetter, counts.n_failed_dead_letter);
    let age = |since| Duration::try_from(now.duration_since(since)).unwrap_or_default();
    set_oldest_processing(oldest.map(age).unwrap_or_default());
    Ok(())
}

async fn sample_projection(
    log: &EventLog,
    store: &ReadModel,
    head: Option<u64>,
    now: Timestamp,
) -> Result<ProjectionSample, StatusError> {
    let (lease, checkpoint, sets, verification) = tokio::try_join!(
        store.lease(),
        store.checkpoint(),
        store.sets(),
        store.last_verification()
    )?;
    let backlog = log.store().count_backlog(checkpoint.position, MAX_LAG_EVENTS).await?;
    let lag = compute_lag(&checkpoint, backlog, now);
    let ahead = find_ahead::<StatusError>(log, store).await?;
    let commit = |position: Option<event_log::Position>| position.map_or(0, |it| it.commit);
    let next = sets.iter().find(|set| set.name == "next");
    let head = to_gauge(head.unwrap_or(0).max(1));
    Ok(ProjectionSample {
        lag_events: lag.lag_events,
        lag_seconds: lag.lag_seconds,
        is_stuck: lag.stuck,
        ahead_events: ahead.map_or(0, |ahead| ahead.n_events),
        position: commit(checkpoint.position),
        epoch: lease.epoch,
        rebuild: next.map(|set| (to_gauge(commit(set.checkpoint.position)) / head).min(1.0)),
        verification: verification.map(|last| (last.verified_at.as_second(), last.n_findings)),
    })
}
