//! One process's work on a redrive of many: batch after batch, each on record before it is begun.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::OrderId;
use domain::operations::{
    RedriveBegun, RedriveCounts, RedriveEntry, RedriveMark, RedriveMoved, RedriveState, RedriveTask,
};
use event_log::{EventLog, LogError};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use service_kit::clock::Clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::record::Redrives;
use super::source::{Batch, next_batch};
use super::work::{Redriven, Work, cause};
use crate::dead_letters::failures::Failures;

/// A redrive that makes no progress shows this often that its process lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// Between two tries to read a read model that is away.
const RETRY: Duration = Duration::from_secs(1);
/// The most orders in a batch; with a rate, one second's worth.
const MAX_BATCH: u32 = 500;
/// How many orders are redriven at once.
const CONCURRENCY: usize = 64;
/// Orders that may be due at one moment, as a part of a second's worth: timers are no finer than a
/// millisecond. A longer stall is not caught up.
const BURSTS_PER_SECOND: u32 = 100;
/// Shown while the read model is away. The log has the cause.
const READ_MODEL_AWAY: &str = "the read model does not answer";

/// Why a redrive ends in this process before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interruption {
    #[error("it was cancelled, or another process goes on with it")]
    Lost,
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Runs redrives as one process.
pub(super) struct Execution {
    runner: Uuid,
    redrives: Redrives,
    log: EventLog,
    failures: Arc<dyn Failures>,
    clock: Clock,
    max_batch: u32,
}

/// How far a redrive has come.
struct Progress {
    begun: Arc<RedriveBegun>,
    counts: RedriveCounts,
    batch: Vec<OrderId>,
    batch_end: Option<RedriveMark>,
    waiting_for: Option<&'static str>,
    /// The last entry's revision, and when this process wrote it.
    revision: Option<u64>,
    recorded: Instant,
}

impl Execution {
    pub(super) fn new(
        runner: Uuid,
        log: EventLog,
        failures: Arc<dyn Failures>,
        clock: Clock,
    ) -> Self {
        let redrives = Redrives::new(&log);
        Self { runner, redrives, log, failures, clock, max_batch: MAX_BATCH }
    }

    /// Goes on with a redrive where its record ends, until no order is left or it is cancelled. It may
    /// be dropped at any point: the next to go on begins with the batch that is on record.
    ///
    /// # Errors
    /// [`Interruption::Log`] if its progress cannot be recorded.
    pub(super) async fn run(
        &self,
        task: RedriveTask,
        revision: Option<u64>,
    ) -> Result<(), Interruption> {
        let is_taken_over = task.runner != self.runner;
        let is_cancelled = task.state == RedriveState::Cancelled;
        let mut progress = Progress {
            begun: Arc::new(task.begun),
            counts: task.counts,
            batch: task.batch,
            batch_end: task.batch_end,
            waiting_for: None,
            revision,
            recorded: Instant::now(),
        };
        if is_cancelled {
            progress.counts.n_redriven += self.count_redriven(&progress).await?;
            progress.batch.clear();
            return self.record(&mut progress, None).await;
        }
        if is_taken_over {
            tracing::info!(task.id = %progress.begun.task_id, "Going on with a redrive of many");
            self.record(&mut progress, None).await?;
        }
        match self.redrive_all(&mut progress).await {
            Err(Interruption::Lost) => self.record_cancelled(&mut progress).await,
            ended => ended,
        }
    }

    async fn redrive_all(&self, progress: &mut Progress) -> Result<(), Interruption> {
        let rate = progress.begun.rate_per_second.and_then(NonZeroU32::new);
        let limiter = rate.map(|rate| RateLimiter::direct(quota(rate)));
        loop {
            let begun = Arc::clone(&progress.begun);
            let redriving = self.redrive(begun, progress.batch.clone(), limiter.as_ref());
            let counts = self.showing_life(progress, redriving).await?;
            progress.counts = progress.counts + counts;
            progress.batch.clear();

            let Batch { order_ids, end } = self.next_batch(progress).await?;
            if order_ids.is_empty() {
                self.record(progress, Some(self.clock.now())).await?;
                let RedriveCounts { n_redriven, n_skipped, n_failed } = progress.counts;
                let task_id = progress.begun.task_id;
                tracing::info!(task.id = %task_id, n_redriven, n_skipped, n_failed, "Redrive of many ended");
                return Ok(());
            }
            (progress.batch, progress.batch_end) = (order_ids, end);
            self.record(progress, None).await?;
        }
    }

    /// The next orders; waits while the read model is away, and says so in the record.
    async fn next_batch(&self, progress: &mut Progress) -> Result<Batch, Interruption> {
        let begun = Arc::clone(&progress.begun);
        let limit =
            begun.rate_per_second.map_or(self.max_batch, |rate| rate.clamp(1, self.max_batch));
        loop {
            let (after, n_done) = (progress.batch_end, progress.counts.n_total());
            let looking = next_batch(&*self.failures, &begun.filter, after, n_done, limit);
            let error = match self.showing_life(progress, looking).await? {
                Ok(batch) => {
                    progress.waiting_for = None;
                    return Ok(batch);
                }
                Err(error) => error,
            };
            let is_new = progress.waiting_for.replace(READ_MODEL_AWAY).is_none();
            if is_new {
                let error = &*error as &dyn std::error::Error;
                tracing::warn!(task.id = %begun.task_id, error, "Redrive of many waits for the read model");
            }
            if is_new || progress.recorded.elapsed() >= SIGN_OF_LIFE {
                self.record(progress, None).await?;
            }
            sleep(RETRY).await;
        }
    }

    /// Redrives a batch, and counts what came of it.
    async fn redrive(
        &self,
        begun: Arc<RedriveBegun>,
        batch: Vec<OrderId>,
        limiter: Option<&DefaultDirectRateLimiter>,
    ) -> RedriveCounts {
        let work = Arc::new(Work { log: self.log.clone(), clock: self.clock.clone(), begun });
        let mut counts = RedriveCounts::default();
        let mut in_progress = JoinSet::new();
        for order_id in batch {
            if in_progress.len() >= CONCURRENCY
                && let Some(ended) = in_progress.join_next().await
            {
                counts = counts + counted(ended);
            }
            if let Some(limiter) = limiter {
                limiter.until_ready().await;
            }
            let work = Arc::clone(&work);
            in_progress.spawn(async move { work.redrive(order_id).await });
        }
        while let Some(ended) = in_progress.join_next().await {
            counts = counts + counted(ended);
        }
        counts
    }

    /// How many orders of the batch are redriven by their own streams.
    async fn count_redriven(&self, progress: &Progress) -> Result<u64, LogError> {
        let (log, clock) = (self.log.clone(), self.clock.clone());
        let work = Work { log, clock, begun: Arc::clone(&progress.begun) };
        let mut n_redriven = 0;
        for order_id in &progress.batch {
            n_redriven += u64::from(work.has_redriven(*order_id).await?);
        }
        Ok(n_redriven)
    }

    /// Waits for `work`, and shows in the record that this process lives if that takes long. The work
    /// is done to its end even if the redrive is lost meanwhile: what it does must be counted.
    async fn showing_life<T>(
        &self,
        progress: &mut Progress,
        work: impl Future<Output = T>,
    ) -> Result<T, LogError> {
        let mut work = pin!(work);
        loop {
            match timeout(SIGN_OF_LIFE, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => match self.record(progress, None).await {
                    Ok(()) | Err(Interruption::Lost) => {}
                    Err(Interruption::Log(error)) => return Err(error),
                },
            }
        }
    }

    /// Puts on record how far the redrive came.
    async fn record(
        &self,
        progress: &mut Progress,
        ended_at: Option<Timestamp>,
    ) -> Result<(), Interruption> {
        let begun = &progress.begun;
        let moved = RedriveEntry::Moved(RedriveMoved {
            task_id: begun.task_id,
            runner: self.runner,
            counts: progress.counts,
            batch: progress.batch.clone(),
            batch_end: progress.batch_end,
            waiting_for: progress.waiting_for.map(str::to_owned),
            ended_at,
            error: None,
        });
        let cause = cause(begun, self.clock.new_id(), self.clock.now());
        match self.redrives.append(&moved, progress.revision, &cause).await {
            Ok(revision) => {
                progress.revision = Some(revision);
                progress.recorded = Instant::now();
                Ok(())
            }
            Err(LogError::Conflict { .. }) => Err(Interruption::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Records what was counted before a redrive of this process was found cancelled. The batch that it
    /// would have begun with next was not begun.
    async fn record_cancelled(&self, progress: &mut Progress) -> Result<(), Interruption> {
        progress.batch.clear();
        loop {
            let Some((task, last)) = self.redrives.find(progress.begun.task_id).await? else {
                return Ok(());
            };
            if task.state != RedriveState::Cancelled || task.runner != self.runner {
                return Ok(());
            }
            progress.revision = last;
            match self.record(progress, None).await {
                // The next redrive has moved on meanwhile.
                Err(Interruption::Lost) => {}
                recorded => return recorded,
            }
        }
    }
}

/// So many orders in a second, evenly, and none to catch up after a stall.
fn quota(rate: NonZeroU32) -> Quota {
    let burst = NonZeroU32::new(rate.get() / BURSTS_PER_SECOND).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(rate).allow_burst(burst)
}

fn counted(ended: Result<Redriven, tokio::task::JoinError>) -> RedriveCounts {
    let redriven = ended.unwrap_or_else(|panic| {
        tracing::error!(error = &panic as &dyn std::error::Error, "Redrive of an order panicked");
        Redriven::Failed
    });
    let mut counts = RedriveCounts::default();
    match redriven {
        Redriven::Yes => counts.n_redriven = 1,
        Redriven::Skipped => counts.n_skipped = 1,
        Redriven::Failed => counts.n_failed = 1,
    }
    counts
}
