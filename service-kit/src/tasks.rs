//! Long work that a request begins and that outlives it: begun, watched, cancelled.
//!
//! The process remembers its tasks and nobody else does: work that has to survive the process
//! keeps its own record of how far it came.

mod routes;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::Chain;
use crate::lifecycle::RoleError;

pub use routes::routes;

/// How many tasks are remembered. The oldest that has ended makes room.
const MAX_REMEMBERED: usize = 100;

/// Begins tasks and tells of them. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    list: Arc<List>,
    begin: mpsc::UnboundedSender<Work>,
    clock: Clock,
}

/// Runs the tasks of one process: a role.
pub struct TaskRunner {
    queue: mpsc::UnboundedReceiver<Work>,
}

struct Work {
    run: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    cancel: CancellationToken,
}

/// A task as answers show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    pub task_id: Uuid,
    /// What it does, e.g. `rebuild`. One of a kind runs at a time.
    pub kind: &'static str,
    pub state: TaskState,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub progress: Progress,
    /// What came of it.
    pub result: Option<Value>,
    /// Why it failed, for an operator.
    pub error: Option<String>,
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    Running,
    Succeeded,
    Failed,
    /// Somebody cancelled it, or the process ended before it did.
    Cancelled,
}

/// How much of a task is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What it is doing now, e.g. `comparing`.
    pub phase: &'static str,
    pub done: u64,
    /// What `done` will be in the end, if that is known.
    pub total: Option<u64>,
}

/// A task of the same kind is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("task {task_id} of the same kind is running: wait for it, or cancel it")]
pub struct AlreadyRunning {
    pub task_id: Uuid,
}

/// What a task is given to tell of itself.
#[derive(Clone)]
pub struct TaskContext {
    task_id: Uuid,
    list: Arc<List>,
    /// Ends the task soon, with what it has so far.
    pub cancel: CancellationToken,
}

impl TaskContext {
    /// Tells how far it has come.
    pub fn progress(&self, progress: Progress) {
        self.list.change(self.task_id, |task| task.progress = progress);
    }
}

impl Tasks {
    /// No tasks yet, and the role that runs those to come.
    pub fn new(clock: Clock) -> (Self, TaskRunner) {
        let (begin, queue) = mpsc::unbounded_channel();
        (Self { list: Arc::default(), begin, clock }, TaskRunner { queue })
    }

    /// Begins a task. It is cancelled by its context's token; what it returns then is its result.
    ///
    /// # Errors
    /// [`AlreadyRunning`] if one of the kind runs.
    pub fn begin<F>(
        &self,
        kind: &'static str,
        work: impl FnOnce(TaskContext) -> F,
    ) -> Result<Task, AlreadyRunning>
    where
        F: Future<Output = Result<Value, RoleError>> + Send + 'static,
    {
        let task = Task {
            task_id: self.clock.new_id(),
            kind,
            state: TaskState::Running,
            started_at: self.clock.now(),
            ended_at: None,
            progress: Progress::default(),
            result: None,
            error: None,
        };
        let cancel = CancellationToken::new();
        self.list.add(task.clone(), cancel.clone())?;
        let context = TaskContext {
            task_id: task.task_id,
            list: Arc::clone(&self.list),
            cancel: cancel.clone(),
        };
        let work = work(context);
        let (list, clock, task_id) = (Arc::clone(&self.list), self.clock.clone(), task.task_id);
        // A panic, or a process that ends, leaves the task to this guard.
        let ended = Ended { list, clock, task_id, outcome: None };
        let run = Box::pin(async move {
            let outcome = work.await;
            ended.with(outcome);
        });
        if self.begin.send(Work { run, cancel }).is_err() {
            tracing::debug!(task.id = %task_id, "Task came after the last");
        }
        Ok(task)
    }

    /// Every remembered task, the newest first.
    pub fn all(&self) -> Vec<Task> {
        self.list.entries().iter().rev().map(|it| it.task.clone()).collect()
    }

    /// One task.
    pub fn get(&self, task_id: Uuid) -> Option<Task> {
        self.list.entries().iter().map(|it| &it.task).find(|it| it.task_id == task_id).cloned()
    }

    /// Asks a task to end, and returns it. One that has ended stays as it is.
    pub fn cancel(&self, task_id: Uuid) -> Option<Task> {
        let entries = self.list.entries();
        let entry = entries.iter().find(|it| it.task.task_id == task_id)?;
        entry.cancel.cancel();
        Some(entry.task.clone())
    }
}

impl TaskRunner {
    /// Runs tasks until `stop`; then cancels those that run, and waits for them.
    ///
    /// # Errors
    /// None; the type is that of every role.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RoleError> {
        let mut running = JoinSet::new();
        let mut cancels: Vec<CancellationToken> = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(Work { run, cancel }) = self.queue.recv() => {
                    cancels.retain(|it| !it.is_cancelled());
                    cancels.push(cancel);
                    running.spawn(run);
                }
                Some(ended) = running.join_next() => report(ended),
            }
        }
        self.queue.close();
        for cancel in cancels {
            cancel.cancel();
        }
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
        Ok(())
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        let error = &panic as &dyn std::error::Error;
        tracing::error!(error, "Task ended without a result");
    }
}

/// Notes the end of a task, however it came.
struct Ended {
    list: Arc<List>,
    clock: Clock,
    task_id: Uuid,
    outcome: Option<Result<Value, RoleError>>,
}

impl Ended {
    fn with(mut self, outcome: Result<Value, RoleError>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let ended_at = self.clock.now();
        let cancelled = self.list.is_cancelled(self.task_id);
        self.list.change(self.task_id, |task| {
            task.ended_at = Some(ended_at);
            match outcome {
                Some(Ok(result)) => {
                    task.state =
                        if cancelled { TaskState::Cancelled } else { TaskState::Succeeded };
                    task.result = Some(result);
                }
                Some(Err(error)) => {
                    task.state = TaskState::Failed;
                    task.error = Some(Chain(&*error).to_string());
                }
                None if cancelled => task.state = TaskState::Cancelled,
                None => {
                    task.state = TaskState::Failed;
                    task.error = Some("it ended without a result: see the log".to_owned());
                }
            }
        });
    }
}

/// The remembered tasks, the oldest first.
#[derive(Default)]
struct List(Mutex<VecDeque<Entry>>);

struct Entry {
    task: Task,
    cancel: CancellationToken,
}

impl List {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Entries are whole at every moment: nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, task: Task, cancel: CancellationToken) -> Result<(), AlreadyRunning> {
        let mut entries = self.entries();
        let is_running = |it: &&Entry| it.task.state == TaskState::Running;
        if let Some(entry) = entries.iter().filter(is_running).find(|it| it.task.kind == task.kind)
        {
            return Err(AlreadyRunning { task_id: entry.task.task_id });
        }
        if entries.len() >= MAX_REMEMBERED
            && let Some(oldest) = entries.iter().position(|it| !is_running(&it))
        {
            entries.remove(oldest);
        }
        entries.push_back(Entry { task, cancel });
        Ok(())
    }

    fn change(&self, task_id: Uuid, change: impl FnOnce(&mut Task)) {
        let mut entries = self.entries();
        if let Some(entry) = entries.iter_mut().find(|it| it.task.task_id == task_id) {
            change(&mut entry.task);
        }
    }

    fn is_cancelled(&self, task_id: Uuid) -> bool {
        let entries = self.entries();
        entries.iter().any(|it| it.task.task_id == task_id && it.cancel.is_cancelled())
    }
}
