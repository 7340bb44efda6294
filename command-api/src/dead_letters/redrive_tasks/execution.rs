//! Execution of a redrive task by one process: batch after batch, each recorded before it begins.

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
use service_kit::telemetry::traces;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, info_span};
use uuid::Uuid;

use super::order_redrive::{OrderRedrive, Redriven, task_cause};
use super::order_source::{Batch, next_batch};
use super::task_journal::TaskJournal;
use crate::metrics::{RunningRedrive, count_redrives};
use crate::read_model::Failures;

/// Interval in which the runner of a task renews its lease by an entry.
const LEASE_RENEWAL: Duration = Duration::from_secs(3);
/// Interval between attempts while the read model is unavailable.
const RETRY: Duration = Duration::from_secs(1);
/// Maximum number of orders in a batch; with a rate, at most those of one second.
const MAX_BATCH: u32 = 500;
/// Maximum number of orders that are redriven concurrently.
const CONCURRENCY: usize = 64;
/// Bursts per second into which the rate is split: timers have a resolution of a millisecond. Orders that a
/// longer stall delays are not caught up.
const BURSTS_PER_SECOND: u32 = 100;
/// `waiting_for` of a task while the read model is unavailable. The log has the cause.
const READ_MODEL_UNAVAILABLE: &str = "the read model does not answer";

/// Why this process stops running a task before the task ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interruption {
    #[error("the task was cancelled, or another process runs it")]
    Lost,
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Runs redrive tasks in one process.
pub(super) struct Execution {
    runner: Uuid,
    journal: TaskJournal,
    log: EventLog,
    failures: Arc<dyn Failures>,
    clock: Clock,
    max_batch: u32,
}

/// Progress of a task.
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
        let journal = TaskJournal::new(&log);
        Self { runner, journal, log, failures, clock, max_batch: MAX_BATCH }
    }

    /// Continues a task after its last entry, until no order is left or the task is cancelled. The future may
    /// be dropped at any point: the next runner starts with the recorded batch.
    ///
    /// # Errors
    /// [`Interruption::Log`] if the progress cannot be recorded.
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
        // The last batch was begun, not counted. Its orders that were not redriven stay failed.
        if is_cancelled {
            progress.counts.n_redriven += self.count_redriven(&progress).await?;
            progress.batch.clear();
            return self.record(&mut progress, None).await;
        }
        if is_taken_over {
            tracing::info!(task.id = %progress.begun.task_id, "Redrive task taken over from another process");
            self.record(&mut progress, None).await?;
        }
        match self.redrive_all(&mut progress).await {
            Err(Interruption::Lost) => self.record_cancelled(&mut progress).await,
            ended => ended,
        }
    }

    async fn redrive_all(&self, progress: &mut Progress) -> Result<(), Interruption> {
        let rate = progress.begun.rate_per_second.and_then(NonZeroU32::new);
        let limiter = rate.map(|rate| RateLimiter::direct(to_quota(rate)));
        let running = RunningRedrive::begin();
        loop {
            running.set_progress(progress.counts.n_total(), progress.begun.n_total);
            let begun = Arc::clone(&progress.begun);
            // First the recorded batch, which a former runner may not have finished.
            let redriving = self.redrive(begun, progress.batch.clone(), limiter.as_ref());
            let counts = self.keep_lease(progress, redriving).await?;
            count_redrives(counts);
            progress.counts = progress.counts + counts;
            progress.batch.clear();

            let Batch { order_ids, end } = self.next_batch(progress).await?;
            if order_ids.is_empty() {
                self.record(progress, Some(self.clock.now())).await?;
                let RedriveCounts { n_redriven, n_skipped, n_failed } = progress.counts;
                let task_id = progress.begun.task_id;
                tracing::info!(task.id = %task_id, n_redriven, n_skipped, n_failed, "Redrive task ended");
                return Ok(());
            }
            // Before the first order is redriven: after a crash the next runner begins here.
            (progress.batch, progress.batch_end) = (order_ids, end);
            self.record(progress, None).await?;
        }
    }

    /// Returns the next orders. While the read model is unavailable, it waits and records the reason.
    async fn next_batch(&self, progress: &mut Progress) -> Result<Batch, Interruption> {
        let begun = Arc::clone(&progress.begun);
        let limit =
            // A cancellation takes effect between batches: at most a second's orders follow it.
            begun.rate_per_second.map_or(self.max_batch, |rate| rate.clamp(1, self.max_batch));
        loop {
            let (after, n_done) = (progress.batch_end, progress.counts.n_total());
            let reading = next_batch(&*self.failures, &begun.filter, after, n_done, limit);
            let error = match self.keep_lease(progress, reading).await? {
                Ok(batch) => {
                    progress.waiting_for = None;
                    return Ok(batch);
                }
                Err(error) => error,
            };
            let is_new = progress.waiting_for.replace(READ_MODEL_UNAVAILABLE).is_none();
            if is_new {
                let error = &*error as &dyn std::error::Error;
                tracing::warn!(task.id = %begun.task_id, error, "Redrive task waits for the read model");
            }
            if is_new || progress.recorded.elapsed() >= LEASE_RENEWAL {
                self.record(progress, None).await?;
            }
            sleep(RETRY).await;
        }
    }

    /// Redrives a batch, and counts the outcomes.
    async fn redrive(
        &self,
        begun: Arc<RedriveBegun>,
        batch: Vec<OrderId>,
        limiter: Option<&DefaultDirectRateLimiter>,
    ) -> RedriveCounts {
        if batch.is_empty() {
            return RedriveCounts::default();
        }
        let span = info_span!("redrive orders", otel.kind = "internal", task.id = %begun.task_id);
        // Each redrive belongs to the trace of its order, and is linked to this span.
        traces::continue_trace(&span, None);
        let work =
            Arc::new(OrderRedrive { log: self.log.clone(), clock: self.clock.clone(), begun });
        let mut counts = RedriveCounts::default();
        let mut in_progress = JoinSet::new();
        for order_id in batch {
            if in_progress.len() >= CONCURRENCY
                && let Some(ended) = in_progress.join_next().await
            {
                counts = counts + count_outcome(ended);
            }
            if let Some(limiter) = limiter {
                limiter.until_ready().await;
            }
            let work = Arc::clone(&work);
            // If the future is dropped, so is this task. An append that it has sent may still be
            // recorded; the next runner recognises it by its cause.
            let redrive = async move { work.redrive(order_id).await };
            in_progress.spawn(redrive.instrument(span.clone()));
        }
        while let Some(ended) = in_progress.join_next().await {
            counts = counts + count_outcome(ended);
        }
        counts
    }

    /// Returns how many orders of the batch have an attempt of this task in their streams.
    async fn count_redriven(&self, progress: &Progress) -> Result<u64, LogError> {
        let (log, clock) = (self.log.clone(), self.clock.clone());
        let work = OrderRedrive { log, clock, begun: Arc::clone(&progress.begun) };
        let mut n_redriven = 0;
        for order_id in &progress.batch {
            n_redriven += u64::from(work.has_redriven(*order_id).await?);
        }
        Ok(n_redriven)
    }

    /// Waits for `work`, and renews the lease meanwhile. The work is completed even if the task is lost: its
    /// outcomes must be counted.
    async fn keep_lease<T>(
        &self,
        progress: &mut Progress,
        work: impl Future<Output = T>,
    ) -> Result<T, LogError> {
        let mut work = pin!(work);
        loop {
            match timeout(LEASE_RENEWAL, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => match self.record(progress, None).await {
                    Ok(()) | Err(Interruption::Lost) => {}
                    Err(Interruption::Log(error)) => return Err(error),
                },
            }
        }
    }

    /// Records the progress.
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
        let cause = task_cause(begun, self.clock.new_id(), self.clock.now());
        match self.journal.append(&moved, progress.revision, &cause).await {
            Ok(revision) => {
                progress.revision = Some(revision);
                progress.recorded = Instant::now();
                Ok(())
            }
            // An operator or another runner has written since.
            Err(LogError::Conflict { .. }) => Err(Interruption::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the counts of a task that was cancelled while it ran here. The next batch has not begun.
    async fn record_cancelled(&self, progress: &mut Progress) -> Result<(), Interruption> {
        progress.batch.clear();
        loop {
            let Some((task, last)) = self.journal.find(progress.begun.task_id).await? else {
                return Ok(());
            };
            if task.state != RedriveState::Cancelled || task.runner != self.runner {
                return Ok(());
            }
            progress.revision = last;
            match self.record(progress, None).await {
                // An entry of the next task came first: read the journal again.
                Err(Interruption::Lost) => {}
                recorded => return recorded,
            }
        }
    }
}

/// Returns the rate limit: evenly spread over a second, without catching up after a stall.
fn to_quota(rate: NonZeroU32) -> Quota {
    let burst = NonZeroU32::new(rate.get() / BURSTS_PER_SECOND).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(rate).allow_burst(burst)
}

fn count_outcome(ended: Result<Redriven, tokio::task::JoinError>) -> RedriveCounts {
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
