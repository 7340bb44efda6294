//! Tasks: begun, watched, cancelled, and ended with their process.

use serde_json::{Value, json};
use service_kit::lifecycle::RoleError;
use service_kit::tasks::{Progress, Task, TaskContext, TaskState, Tasks};
use testkit::store::clock;
use testkit::wait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct Running {
    tasks: Tasks,
    stop: CancellationToken,
    roles: JoinSet<Result<(), RoleError>>,
}

fn running() -> Running {
    let (tasks, runner) = Tasks::new(clock());
    let stop = CancellationToken::new();
    let mut roles = JoinSet::new();
    roles.spawn(runner.run(stop.clone()));
    Running { tasks, stop, roles }
}

async fn ended(tasks: &Tasks, task_id: Uuid) -> Task {
    wait::until_async("the task ends", async || {
        tasks.get(task_id).filter(|it| it.state != TaskState::Running)
    })
    .await
}

async fn until_cancelled(context: TaskContext) -> Result<Value, RoleError> {
    context.progress(Progress { phase: "waiting", done: 1, total: Some(2) });
    context.cancel.cancelled().await;
    Ok(json!({"so_far": 1}))
}

#[tokio::test]
async fn result_and_failure_are_told() {
    let Running { tasks, stop: _stop, roles: _roles } = running();
    let task = tasks.begin("good", async |_| Ok(json!(7))).unwrap();
    let good = ended(&tasks, task.task_id).await;
    assert_eq!((good.state, good.result), (TaskState::Succeeded, Some(json!(7))));
    assert!(good.ended_at.is_some());

    let task = tasks.begin("bad", async |_| Err("the disk is full".into())).unwrap();
    let bad = ended(&tasks, task.task_id).await;
    assert_eq!((bad.state, bad.error.as_deref()), (TaskState::Failed, Some("the disk is full")));
    let order: Vec<_> = tasks.all().iter().map(|it| it.kind).collect();
    assert_eq!(order, ["bad", "good"], "newest first");
}

#[tokio::test]
async fn one_of_a_kind_runs_at_a_time_and_can_be_cancelled() {
    let Running { tasks, stop: _stop, roles: _roles } = running();
    let first = tasks.begin("same", until_cancelled).unwrap();
    let refused = tasks.begin("same", until_cancelled).unwrap_err();
    assert_eq!(refused.task_id, first.task_id);
    wait::until_async("progress is told", async || {
        tasks.get(first.task_id).filter(|it| it.progress.done == 1)
    })
    .await;
    tasks.cancel(first.task_id).unwrap();
    let cancelled = ended(&tasks, first.task_id).await;
    assert_eq!(cancelled.state, TaskState::Cancelled);
    assert_eq!(cancelled.result, Some(json!({"so_far": 1})));
    tasks.begin("same", async |_| Ok(Value::Null)).unwrap();
    assert_eq!(tasks.cancel(Uuid::nil()), None);
}

#[tokio::test]
async fn panic_is_a_failure_and_harms_no_other_task() {
    let Running { tasks, stop: _stop, roles: _roles } = running();
    let task = tasks.begin("panics", async |_| panic!("on purpose")).unwrap();
    assert_eq!(ended(&tasks, task.task_id).await.state, TaskState::Failed);
    let task = tasks.begin("works", async |_| Ok(Value::Null)).unwrap();
    assert_eq!(ended(&tasks, task.task_id).await.state, TaskState::Succeeded);
}

#[tokio::test]
async fn task_of_a_process_that_has_ended_has_failed() {
    let Running { tasks, .. } = running();
    let task = tasks.begin("late", until_cancelled).unwrap();
    assert_eq!(ended(&tasks, task.task_id).await.state, TaskState::Failed);
}

#[tokio::test]
async fn stop_cancels_what_runs_and_waits_for_it() {
    let Running { tasks, stop, mut roles } = running();
    let task = tasks.begin("long", until_cancelled).unwrap();
    wait::until_async("it runs", async || {
        tasks.get(task.task_id).filter(|it| it.progress.done == 1)
    })
    .await;
    stop.cancel();
    roles.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(tasks.get(task.task_id).unwrap().state, TaskState::Cancelled);
}
