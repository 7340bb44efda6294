//! Redrives of many orders: preview, confirmation, start, progress and cancellation.

use std::process::ExitCode;

use api_types::{
    CancelRedriveQuery, FailureStage, RedriveFilter, RedrivePreview, RedriveTask, RedriveTaskPage,
    RedriveTaskState, StartRedriveRequest,
};
use reqwest::Method;

use super::task_progress::{Followed, follow_task};
use crate::api_client::{ApiClient, Response};
use crate::cli::{BulkSelection, Global, Redrive, RedrivesCommand};
use crate::error::CliError;
use crate::output::{check_terminal, confirm_action, format_cell, format_table, print_notice};

/// Path of the redrive tasks.
const REDRIVES: &str = "/v1/ops/dead-letters/redrives";
/// Exit code of a command interrupted by Ctrl-C: 128 plus the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Previews the redrive, asks for confirmation, starts the task and follows it.
pub(super) async fn start_redrive(
    client: &ApiClient,
    global: &Global,
    redrive: Redrive,
) -> Result<ExitCode, CliError> {
    let Redrive { selection, bulk, reason, actor, .. } = redrive;
    let request = StartRedriveRequest {
        actor: actor.into_name(),
        reason,
        filter: Some(to_filter(selection)),
        rate_per_second: bulk.rate,
        dry_run: None,
    };
    if !bulk.dry_run && !bulk.yes {
        // Before the preview, which reads up to every failed order.
        check_terminal()?;
    }
    if bulk.dry_run || !bulk.yes {
        let preview = StartRedriveRequest { dry_run: Some(true), ..request.clone() };
        let preview = client.post::<RedrivePreview>(REDRIVES, &preview).await?;
        if bulk.dry_run || preview.body.redrive == 0 {
            preview.print(global, format_preview)?;
            return Ok(ExitCode::SUCCESS);
        }
        // The preview binds nothing: the task decides on each order when it reaches it.
        confirm_action(&format_question(&preview.body, bulk.rate), bulk.yes)?;
    }
    let task = client.post::<RedriveTask>(REDRIVES, &request).await?;
    if bulk.detach {
        task.print(global, |task| format!("started: {}", format_commands(task)))?;
        return Ok(ExitCode::SUCCESS);
    }
    follow_to_end(client, global, task).await
}

/// Returns the filter of the selected orders. Orders selected by id may have failed at any stage; every
/// other selection is limited to dead letters by default.
fn to_filter(selection: BulkSelection) -> api_types::FailureFilter {
    let BulkSelection { filter, orders, all: _ } = selection;
    let default_stage = orders.is_empty().then_some(FailureStage::DeadLetter);
    let stage = filter.stage.or(default_stage);
    let order_ids = Some(orders).filter(|ids| !ids.is_empty());
    api_types::FailureFilter { stage, order_ids, ..filter.into() }
}

/// Runs `dofs dead-letters redrives`.
pub(super) async fn manage_redrives(
    client: &ApiClient,
    global: &Global,
    command: Option<RedrivesCommand>,
) -> Result<ExitCode, CliError> {
    match command.unwrap_or(RedrivesCommand::List) {
        RedrivesCommand::List => client.get(REDRIVES).await?.print(global, format_tasks)?,
        RedrivesCommand::Show { task } => {
            client.get(&format!("{REDRIVES}/{task}")).await?.print(global, format_task)?;
        }
        RedrivesCommand::Watch { task } => {
            let task = client.get(&format!("{REDRIVES}/{task}")).await?;
            return follow_to_end(client, global, task).await;
        }
        RedrivesCommand::Cancel { task, actor } => {
            let query = CancelRedriveQuery { actor: actor.into_name() };
            let request = client.request(Method::DELETE, &format!("{REDRIVES}/{task}"));
            client.send(request.query(&query)).await?.print(global, format_task)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Follows a task. Succeeds if every order was redriven or skipped.
async fn follow_to_end(
    client: &ApiClient,
    global: &Global,
    task: Response<RedriveTask>,
) -> Result<ExitCode, CliError> {
    let path = format!("{REDRIVES}/{}", task.body.task_id);
    match follow_task(client, global, &path, task).await? {
        Followed::Ended(task) => {
            task.print(global, format_task)?;
            let RedriveTask { state, failed, .. } = task.body;
            let is_success = state == RedriveTaskState::Succeeded && failed == 0;
            Ok(if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Followed::Interrupted(task) => {
            if global.json {
                task.print(global, format_task)?;
            }
            print_notice(format_commands(&task.body));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

fn format_preview(preview: &RedrivePreview) -> String {
    let RedrivePreview { total, redrive, skip, truncated, items } = preview;
    let summary = format!("{total} orders: {redrive} would be redriven, {skip} would be skipped");
    if items.is_empty() {
        return summary;
    }
    let rows = items.iter().map(|item| {
        (item.order_id, item.failed_at, &item.code, item.attempt, item.action, &item.why)
    });
    let rows = format_table(&["order", "failed", "code", "attempt", "action", "why"], rows);
    let truncation = if *truncated { " (list truncated)" } else { "" };
    format!("{rows}\n\n{summary}{truncation}")
}

fn format_question(preview: &RedrivePreview, rate: Option<u32>) -> String {
    let RedrivePreview { redrive, skip, .. } = preview;
    let rate = rate.map_or_else(String::new, |rate| format!(", at most {rate} per second"));
    format!("Redrive {redrive} orders ({skip} are skipped){rate}?")
}

fn format_task(task: &RedriveTask) -> String {
    let RedriveTask { total, redriven, skipped, failed, .. } = task;
    let optional = |value: &Option<String>| value.as_ref().map(format_cell);
    let lines = [
        ("task", Some(format_cell(task.task_id))),
        ("state", Some(format_cell(task.state))),
        ("filter", Some(format_filter(&task.filter))),
        (
            "orders",
            Some(format!("{total}: {redriven} redriven, {skipped} skipped, {failed} failed")),
        ),
        ("rate", task.rate_per_second.map(|rate| format!("{rate} per second"))),
        ("by", Some(format_cell(&task.actor))),
        ("reason", Some(format_cell(&task.reason)).filter(|reason| !reason.is_empty())),
        ("started", Some(format_cell(task.started_at))),
        ("ended", task.ended_at.map(format_cell)),
        ("waiting", optional(&task.waiting_for)),
        ("error", optional(&task.error)),
    ];
    let lines = lines.into_iter().filter_map(|(name, value)| Some(format!("{name:<8} {}", value?)));
    lines.collect::<Vec<_>>().join("\n")
}

fn format_filter(filter: &RedriveFilter) -> String {
    let RedriveFilter { stage, code, failed_before, order_ids, customer_id } = filter;
    let members = [
        stage.map(|stage| format!("stage {}", stage.as_str())),
        code.as_ref().map(|code| format!("code {}", format_cell(code))),
        failed_before.map(|time| format!("failed before {time}")),
        order_ids.as_ref().map(|ids| format!("{} order ids", ids.len())),
        customer_id.as_ref().map(|id| format!("customer {}", format_cell(id))),
    ];
    let members: Vec<_> = members.into_iter().flatten().collect();
    if members.is_empty() { "all".to_owned() } else { members.join(", ") }
}

/// Formats the commands to watch and to cancel a running task.
fn format_commands(task: &RedriveTask) -> String {
    let id = task.task_id;
    format!(
        "task {id} continues\n  watch it:  dofs dead-letters redrives watch {id}\n  \
         cancel it: dofs dead-letters redrives cancel {id}"
    )
}

fn format_tasks(page: &RedriveTaskPage) -> String {
    let columns = ["task", "state", "started", "by", "total", "redriven", "skipped", "failed"];
    let rows = page.items.iter().map(|task| {
        let RedriveTask { total, redriven, skipped, failed, .. } = task;
        (task.task_id, task.state, task.started_at, &task.actor, total, redriven, skipped, failed)
    });
    format_table(&columns, rows)
}
