//! Runs redrives of many: in one API process at a time; if that one is gone, another goes on.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{CommandId, OrderId};
use domain::operations::{RedriveBegun, RedriveCounts, RedriveEntry, RedriveMoved, RedriveTask};
use domain::order::{OrderCommand, Redrive};
use event_log::{Cause, EventLog, Loaded, LogError, LoggedEvent};
use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::lifecycle::RoleError;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::judge::why_not;
use super::record::{Redrives, is_running};
use super::source::Source;
use crate::dead_letters::failures::Failures;

/// Between two looks whether there is something to run; and between two records of progress.
const LOOK: Duration = Duration::from_secs(1);
/// How long a redrive may be silent before another process goes on with it.
const LEASE: Duration = Duration::from_secs(8);
/// A redrive that makes no progress says so this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// How many orders are redriven at once.
const CONCURRENCY: usize = 64;
/// How long to wait before something is tried again that was away.
const RETRY: Duration = Duration::from_secs(1);

/// The process that runs redrives, as the record names it.
#[derive(Debug)]
pub struct Runner {
    id: Uuid,
    woken: Notify,
}

impl Runner {
    /// A runner with an id that no other has.
    pub fn new(clock: &Clock) -> Self {
        Self { id: clock.new_id(), woken: Notify::new() }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// There is something to run.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }
}

/// Runs redrives until `stop`.
///
/// # Errors
/// Never: what cannot be read now is read later.
pub async fn run(
    runner: Arc<Runner>,
    log: EventLog,
    failures: Arc<dyn Failures>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), RoleError> {
    let redrives = Redrives::new(&log);
    let mut running = Running { runner, redrives, log, failures, clock, stop, seen: None };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = running.stop.cancelled() => return Ok(()),
            () = running.runner.woken.notified() => {}
            _ = looks.tick() => {}
        }
        if let Err(error) = running.look().await {
            let error = &*error as &dyn std::error::Error;
            tracing::warn!(error, "Redrive of many interrupted, to go on soon");
        }
    }
}

struct Running {
    runner: Arc<Runner>,
    redrives: Redrives,
    log: EventLog,
    failures: Arc<dyn Failures>,
    clock: Clock,
    stop: CancellationToken,
    /// The record's revision as last seen, since when, and the newest redrive.
    seen: Option<(Option<u64>, Instant, Option<RedriveTask>)>,
}

/// How the work on one order ended.
enum Redriven {
    Yes,
    Skipped,
    Failed,
}

impl Running {
    /// Runs what is this process's to run, or nobody's any more.
    async fn look(&mut self) -> Result<(), RoleError> {
        let revision = self.redrives.revision().await?;
        if self.seen.as_ref().is_none_or(|(seen, ..)| *seen != revision) {
            let (task, revision) = self.redrives.latest().await?;
            self.seen = Some((revision, Instant::now(), task));
        }
        let Some((revision, since, Some(task))) = &self.seen else { return Ok(()) };
        let is_ours = task.runner == self.runner.id;
        if !is_running(task) || !(is_ours || since.elapsed() > LEASE) {
            return Ok(());
        }
        let (task, revision) = (task.clone(), *revision);
        self.seen = None;
        let mut progress = Progress { counts: task.counts, revision, recorded: task.counts };
        if !is_ours {
            tracing::info!(task.id = %task.begun.task_id, "Going on with a redrive of many");
            if !self.record(&task.begun, &mut progress, None).await? {
                return Ok(());
            }
        }
        self.redrive(&task.begun, &mut progress).await
    }

    /// Redrives one after another until there is none left, somebody cancels it, or `stop`.
    async fn redrive(
        &self,
        begun: &RedriveBegun,
        progress: &mut Progress,
    ) -> Result<(), RoleError> {
        let mut source = Source::new(&*self.failures, &begun.filter);
        let mut pace = Pace::new(begun.rate_per_second);
        let shared = Arc::new(begun.clone());
        let mut in_progress = JoinSet::new();
        let mut is_exhausted = false;
        let mut records = interval(LOOK);
        records.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recorded_at = Instant::now();
        while !(is_exhausted && in_progress.is_empty()) {
            tokio::select! {
                () = self.stop.cancelled() => {
                    while let Some(ended) = in_progress.join_next().await {
                        progress.count(ended);
                    }
                    self.record(begun, progress, None).await?;
                    return Ok(());
                }
                Some(ended) = in_progress.join_next() => progress.count(ended),
                _ = records.tick() => {
                    if progress.has_moved() || recorded_at.elapsed() > SIGN_OF_LIFE {
                        recorded_at = Instant::now();
                        if !self.record(begun, progress, None).await? {
                            return Ok(());
                        }
                    }
                }
                next = pace.next(&mut source), if !is_exhausted && in_progress.len() < CONCURRENCY
                => match next {
                    Some(order_id) => {
                        let work = Work {
                            log: self.log.clone(),
                            clock: self.clock.clone(),
                            begun: Arc::clone(&shared),
                        };
                        in_progress.spawn(async move { work.redrive(order_id).await });
                    }
                    None => is_exhausted = true,
                },
            }
        }
        self.record(begun, progress, Some(self.clock.now())).await?;
        let RedriveCounts { n_redriven, n_skipped, n_failed } = progress.counts;
        tracing::info!(task.id = %begun.task_id, n_redriven, n_skipped, n_failed, "Redrive of many ended");
        Ok(())
    }

    /// Puts on record how far it came. `false`: it was cancelled, or another process runs it.
    async fn record(
        &self,
        begun: &RedriveBegun,
        progress: &mut Progress,
        ended_at: Option<Timestamp>,
    ) -> Result<bool, LogError> {
        let moved = RedriveEntry::Moved(RedriveMoved {
            task_id: begun.task_id,
            runner: self.runner.id,
            counts: progress.counts,
            ended_at,
            error: None,
        });
        let cause = cause(begun, self.clock.new_id(), self.clock.now());
        match self.redrives.append(&moved, progress.revision, &cause).await {
            Ok(revision) => {
                progress.revision = Some(revision);
                progress.recorded = progress.counts;
                Ok(true)
            }
            Err(LogError::Conflict { current, .. }) => {
                // Whoever was cancelled says how far it came, for the record.
                if let (Some((task, _)), Some(_)) =
                    (self.redrives.find(begun.task_id).await?, current)
                    && !is_running(&task)
                {
                    self.redrives.append(&moved, current, &cause).await?;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// How far a redrive has come, and what of that is on record.
struct Progress {
    counts: RedriveCounts,
    recorded: RedriveCounts,
    revision: Option<u64>,
}

impl Progress {
    fn count(&mut self, ended: Result<Redriven, tokio::task::JoinError>) {
        match ended {
            Ok(Redriven::Yes) => self.counts.n_redriven += 1,
            Ok(Redriven::Skipped) => self.counts.n_skipped += 1,
            Ok(Redriven::Failed) => self.counts.n_failed += 1,
            Err(panic) => {
                tracing::error!(error = &panic as &dyn std::error::Error, "Redrive failed");
                self.counts.n_failed += 1;
            }
        }
    }

    fn has_moved(&self) -> bool {
        self.counts != self.recorded
    }
}

/// Not more orders per second than asked for.
struct Pace {
    rate_per_second: Option<u32>,
    began: Instant,
    n_taken: u32,
}

impl Pace {
    fn new(rate_per_second: Option<u32>) -> Self {
        Self { rate_per_second, began: Instant::now(), n_taken: 0 }
    }

    /// The next order, once it may be taken; waits while the read model is away.
    async fn next(&mut self, source: &mut Source<'_>) -> Option<OrderId> {
        if let Some(rate) = self.rate_per_second {
            sleep_until(self.began + Duration::from_secs(1) * self.n_taken / rate).await;
        }
        loop {
            match source.next().await {
                Ok(next) => {
                    self.n_taken = self.n_taken.saturating_add(1);
                    return next;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &*error as &dyn std::error::Error,
                        "Read model unavailable, redrive waits for it"
                    );
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// The work on one order.
struct Work {
    log: EventLog,
    clock: Clock,
    begun: Arc<RedriveBegun>,
}

impl Work {
    async fn redrive(&self, order_id: OrderId) -> Redriven {
        loop {
            match self.try_redrive(order_id).await {
                Ok(redriven) => return redriven,
                Err(error) if error.is_unavailable() => sleep(RETRY).await,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(order.id = %order_id, error, "Order could not be redriven");
                    return Redriven::Failed;
                }
            }
        }
    }

    async fn try_redrive(&self, order_id: OrderId) -> Result<Redriven, LogError> {
        let loaded = self.log.load(order_id).await?;
        // Whoever ran it before may not have had the time to count it.
        if is_caused_by(&loaded, self.begun.task_id) {
            return Ok(Redriven::Yes);
        }
        if why_not(loaded.order.as_ref(), &self.begun.filter).is_some() {
            return Ok(Redriven::Skipped);
        }
        let (head, correlation_id) = (loaded.head(), loaded.correlation_id());
        let Some(order) = loaded.order else { return Ok(Redriven::Skipped) };
        let reason = self.begun.reason.clone();
        let command = OrderCommand::Redrive(Redrive { reason, customer_id: None, items: None });
        let id = Uuid::new_v5(&self.begun.task_id, order_id.0.as_bytes());
        let cause = cause(&self.begun, id, self.clock.now());
        let correlation_id = correlation_id.unwrap_or(cause.correlation_id);
        let cause = Cause { correlation_id, ..cause };
        match self.log.change_as_known(order, head, &command, &cause).await {
            Ok(Ok(_)) => Ok(Redriven::Yes),
            Ok(Err(_)) | Err(LogError::Conflict { .. }) => Ok(Redriven::Skipped),
            Err(error) => Err(error),
        }
    }
}

/// Whether the order's current attempt was begun by that redrive.
fn is_caused_by(loaded: &Loaded, task_id: Uuid) -> bool {
    let queued = loaded.history.iter().rfind(|it| it.event_type == "OrderQueued");
    queued.and_then(LoggedEvent::metadata).is_some_and(|it| it.causation_id == task_id)
}

fn cause(begun: &RedriveBegun, id: Uuid, at: Timestamp) -> Cause {
    Cause {
        command_id: CommandId::of_request(id),
        correlation_id: begun.task_id,
        causation_id: begun.task_id,
        actor: begun.actor.clone(),
        // The task has the id of the request that began it.
        request_id: Some(begun.task_id.to_string()),
        request_name: None,
        traceparent: None,
        request_fingerprint: None,
        tenant: None,
        at,
    }
}
