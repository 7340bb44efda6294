//! Runs redrives of many: in one API process at a time; if that one is gone, another goes on.

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
use super::record::Redrives;
use crate::dead_letters::failures::Failures;

/// Between two looks whether there is something to run.
const LOOK: Duration = Duration::from_secs(1);
/// How long a redrive may be silent before another process goes on with it. Too short a time does no
/// harm: of two processes that run one redrive, the second to record its progress stops.
const LEASE: Duration = Duration::from_secs(8);

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
    let execution = Execution::new(runner.id, log, failures, clock);
    let mut watch = Watch { runner, redrives, execution, seen: None };
    // It may be dropped at any point: the record says what is to be done, and nothing else does.
    let _: Option<()> = stop.run_until_cancelled(watch.keep_looking()).await;
    Ok(())
}

/// Looks for redrives that this process is to run.
struct Watch {
    runner: Arc<Runner>,
    redrives: Redrives,
    execution: Execution,
    /// The record as last seen.
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Of the last entry.
    revision: u64,
    since: Instant,
    /// Whether nothing is left to do.
    is_finished: bool,
}

impl Watch {
    async fn keep_looking(&mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.runner.woken.notified() => {}
                _ = looks.tick() => {}
            }
            match self.due().await {
                Ok(Some((task, revision))) => {
                    self.seen = None;
                    let task_id = task.begun.task_id;
                    if let Err(error) = Box::pin(self.execution.run(task, revision)).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(task.id = %task_id, error, "Redrive of many interrupted");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "Record of redrives cannot be read");
                }
            }
        }
    }

    /// A redrive that is this process's to run, or nobody's any more, and the revision of the last
    /// entry.
    async fn due(&mut self) -> Result<Option<(RedriveTask, Option<u64>)>, LogError> {
        let Some((revision, runner)) = self.redrives.last().await? else { return Ok(None) };
        let unchanged = self.seen.filter(|seen| seen.revision == revision);
        let new = Seen { revision, since: Instant::now(), is_finished: false };
        let seen = self.seen.insert(unchanged.unwrap_or(new));
        let is_silent = seen.since.elapsed() > LEASE;
        // Each entry of another process shows that it lives.
        let is_run_elsewhere = runner.is_some_and(|runner| runner != self.runner.id) && !is_silent;
        if seen.is_finished || is_run_elsewhere {
            return Ok(None);
        }
        let (tasks, last) = self.redrives.newest_two().await?;
        seen.is_finished = !tasks.iter().any(RedriveTask::is_unfinished);
        let is_due = |task: &RedriveTask| {
            task.is_unfinished() && (task.runner == self.runner.id || is_silent)
        };
        Ok(tasks.into_iter().find(is_due).map(|task| (task, last)))
    }
}
