//! Redrives of many orders: planned, confirmed, begun, followed, cancelled.

use std::process::ExitCode;

use domain::order::Stage;
use reqwest::Method;
use serde_json::{Map, Value};

use super::follow::{Followed, follow};
use super::{acting, given, show, text};
use crate::cli::{Global, Redrive, RedrivesCommand, Which};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{check_can_ask, confirm, print, say};
use crate::process;

/// Where redrives are begun, listed and cancelled.
const REDRIVES: &str = "/v1/ops/dead-letters/redrives";
/// What a process that was interrupted by Ctrl-C ends with.
const INTERRUPTED: u8 = 130;

/// Redrives what was chosen, after a confirmation, and follows the task.
pub(super) async fn redrive(
    client: &ApiClient,
    global: &Global,
    redrive: Redrive,
) -> Result<ExitCode, CliError> {
    let Redrive { which, many, reason, actor, .. } = redrive;
    let mut body = acting(actor, reason);
    body.insert("filter".to_owned(), Value::Object(filter(&which)));
    body.extend(given([("rate_per_second", many.rate.map(Value::from))]));

    if !many.dry_run && !many.yes {
        check_can_ask()?;
    }
    if many.dry_run || !many.yes {
        let plan = plan(client, &body).await?;
        if many.dry_run || plan["redrive"] == 0 {
            show(global, &plan, text::plan)?;
            return Ok(ExitCode::SUCCESS);
        }
        confirm(&text::question(&plan, many.rate), many.yes)?;
    }
    let begun = client.command(REDRIVES, &Value::Object(body), None).await?;
    let task = begun.accepted()?;
    if many.detach {
        show(global, &task, text::begun)?;
        return Ok(ExitCode::SUCCESS);
    }
    follow_to_its_end(client, global, task).await
}

/// What is asked of the API. Named orders are looked at whatever stage they failed at; without
/// names, dead letters are meant.
fn filter(which: &Which) -> Map<String, Value> {
    let failures = &which.failures;
    let usual = Some(Stage::DeadLetter).filter(|_| which.orders.is_empty());
    let orders: Vec<_> = which.orders.iter().map(ToString::to_string).collect();
    given([
        ("stage", failures.stage.or(usual).map(|it| it.as_str().into())),
        ("code", failures.code.clone().map(Value::from)),
        ("older_than", failures.older_than.map(|it| it.to_string().into())),
        ("order_ids", Some(orders).filter(|it| !it.is_empty()).map(Value::from)),
        ("customer_id", failures.customer.clone().map(Value::from)),
    ])
}

async fn plan(client: &ApiClient, body: &Map<String, Value>) -> Result<Value, CliError> {
    let mut body = body.clone();
    body.insert("dry_run".to_owned(), true.into());
    client.command(REDRIVES, &Value::Object(body), None).await?.accepted()
}

/// What `dofs dead-letters redrives` does.
pub(super) async fn redrives(
    client: &ApiClient,
    global: &Global,
    command: Option<RedrivesCommand>,
) -> Result<ExitCode, CliError> {
    let ask =
        async |method, path: &str, query: &[_]| client.ask(method, path, query).await?.accepted();
    match command.unwrap_or(RedrivesCommand::List) {
        RedrivesCommand::List => {
            show(global, &ask(Method::GET, REDRIVES, &[]).await?, text::tasks)?;
        }
        RedrivesCommand::Show { task } => {
            let task = ask(Method::GET, &format!("{REDRIVES}/{task}"), &[]).await?;
            show(global, &task, text::task)?;
        }
        RedrivesCommand::Watch { task } => {
            let task = ask(Method::GET, &format!("{REDRIVES}/{task}"), &[]).await?;
            return follow_to_its_end(client, global, task).await;
        }
        RedrivesCommand::Cancel { task, actor } => {
            let actor = actor.name.or_else(process::user_name).map(|it| ("actor", it));
            let path = format!("{REDRIVES}/{task}");
            let query: Vec<_> = actor.into_iter().collect();
            show(global, &ask(Method::DELETE, &path, &query).await?, text::task)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Success if every order was redriven or had a reason not to be.
async fn follow_to_its_end(
    client: &ApiClient,
    global: &Global,
    task: Value,
) -> Result<ExitCode, CliError> {
    match follow(client, global, REDRIVES, task).await? {
        Followed::Ended(task) => {
            show(global, &task, text::task)?;
            let is_well = task["state"] == "succeeded" && task["failed"] == 0;
            Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Followed::Left(task) => {
            if global.json {
                print(&task)?;
            }
            say(text::left(&task));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}
