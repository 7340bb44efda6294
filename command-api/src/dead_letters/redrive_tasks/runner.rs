//! Runner of redrive tasks: one API process runs a task, and another takes over if that process stops.

use std::sync::Arc;
use std::time::Duration;

use domain::operations::RedriveTask;
use event_log::{EventLog, LogError};
use service_kit::clock::Clock;
use service_kit::lifecycle::RoleError;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::execution::Execution;
use super::task_journal::TaskJournal;
use crate::read_model::Failures;

/// Interval between reads of the journal.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time without an entry after which another process takes over a task. A lease that is too short does no
/// harm: of two processes that run a task, the second to record its progress stops.
const LEASE: Duration = Duration::from_secs(8);

/// The process that runs tasks, as the journal names it.
#[derive(Debug)]
pub struct Runner {
    id: Uuid,
    woken: Notify,
}

impl Runner {
    /// Returns a runner with a unique id.
    pub fn new(clock: &Clock) -> Self {
        Self { id: clock.new_id(), woken: Notify::new() }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// Makes the runner read the journal at once.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }
}

/// Runs redrive tasks until `stop`.
///
/// # Errors
/// Never: a failed read is repeated.
pub async fn run(
    runner: Arc<Runner>,
    log: EventLog,
    failures: Arc<dyn Failures>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), RoleError> {
    let journal = TaskJournal::new(&log);
    let execution = Execution::new(runner.id, log, failures, clock);
    let mut watch = Watch { runner, journal, execution, seen: None };
    // Dropping the future at any point is safe: the journal has the whole state.
    let _: Option<()> = stop.run_until_cancelled(watch.run_due_tasks()).await;
    Ok(())
}

/// Finds the tasks that this process has to run.
struct Watch {
    runner: Arc<Runner>,
    journal: TaskJournal,
    execution: Execution,
    /// The journal as last read.
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Revision of the last entry.
    revision: u64,
    since: Instant,
    /// Whether every task is finished.
    is_finished: bool,
}

impl Watch {
    async fn run_due_tasks(&mut self) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.runner.woken.notified() => {}
                _ = ticks.tick() => {}
            }
            match self.next_due().await {
                Ok(Some((task, revision))) => {
                    // The task appends entries: what was seen of the journal is outdated.
                    self.seen = None;
                    let task_id = task.begun.task_id;
                    if let Err(error) = Box::pin(self.execution.run(task, revision)).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(task.id = %task_id, error, "Redrive task interrupted");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    // An outage is logged once, by the connection to the event store.
                    tracing::debug!(error, "Journal of redrive tasks is unreadable");
                }
            }
        }
    }

    /// Returns a task that this process runs, or whose runner has lost its lease, and the revision of the last
    /// entry.
    async fn next_due(&mut self) -> Result<Option<(RedriveTask, Option<u64>)>, LogError> {
        let Some((revision, runner)) = self.journal.last().await? else { return Ok(None) };
        // Measured from the first sight of the entry: clocks of two machines may differ.
        let unchanged = self.seen.filter(|seen| seen.revision == revision);
        let new = Seen { revision, since: Instant::now(), is_finished: false };
        let seen = self.seen.insert(unchanged.unwrap_or(new));
        let is_silent = seen.since.elapsed() > LEASE;
        // Every entry of another process renews its lease.
        let is_run_elsewhere = runner.is_some_and(|runner| runner != self.runner.id) && !is_silent;
        if seen.is_finished || is_run_elsewhere {
            return Ok(None);
        }
        // Two: a cancelled task may have to be counted after the next task has begun.
        let (tasks, last) = self.journal.newest(2).await?;
        seen.is_finished = !tasks.iter().any(RedriveTask::is_unfinished);
        let is_due = |task: &RedriveTask| {
            task.is_unfinished() && (task.runner == self.runner.id || is_silent)
        };
        Ok(tasks.into_iter().find(is_due).map(|task| (task, last)))
    }
}
