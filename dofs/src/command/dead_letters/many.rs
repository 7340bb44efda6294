//! Redrives of many orders: planned, confirmed, begun, followed, cancelled.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use domain::order::Stage;
use reqwest::Method;
use serde_json::{Map, Value};

use super::follow::{Followed, follow};
use super::{acting, given, show, text};
use crate::cli::{Global, Redrive, RedrivesCommand, Which};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{print, say};
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
    actor: Option<String>,
) -> Result<ExitCode, CliError> {
    let Redrive { which, many, reason, .. } = redrive;
    let mut body = acting(actor, reason);
    body.insert("filter".to_owned(), Value::Object(filter(&which)));
    body.extend(given([("rate_per_second", many.rate.map(Value::from))]));

    let may_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !many.dry_run && !global.yes && !may_ask {
        return Err(CliError::Unconfirmed);
    }
    if many.dry_run || !global.yes {
        let plan = plan(client, global, &body).await?;
        if many.dry_run || plan["redrive"] == 0 {
            show(global, &plan, text::plan);
            return Ok(ExitCode::SUCCESS);
        }
        if !is_confirmed(&text::question(&plan, many.rate)) {
            return Err(CliError::Declined);
        }
    }
    let begun = client.command(REDRIVES, &Value::Object(body), None).await?;
    let task = begun.accepted_for(global)?;
    if many.detach {
        show(global, &task, text::begun);
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

async fn plan(
    client: &ApiClient,
    global: &Global,
    body: &Map<String, Value>,
) -> Result<Value, CliError> {
    let mut body = body.clone();
    body.insert("dry_run".to_owned(), true.into());
    client.command(REDRIVES, &Value::Object(body), None).await?.accepted_for(global)
}

/// Asks on the terminal. Whatever is not a yes is a no.
fn is_confirmed(question: &str) -> bool {
    let mut stderr = std::io::stderr();
    drop(write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && is_yes(&answer)
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

/// What `dofs dead-letters redrives` does.
pub(super) async fn redrives(
    client: &ApiClient,
    global: &Global,
    command: Option<RedrivesCommand>,
    actor: Option<String>,
) -> Result<ExitCode, CliError> {
    let ask = async |method, path: &str, query: &[_]| {
        client.ask(method, path, query).await?.accepted_for(global)
    };
    match command.unwrap_or(RedrivesCommand::List) {
        RedrivesCommand::List => {
            show(global, &ask(Method::GET, REDRIVES, &[]).await?, text::tasks);
        }
        RedrivesCommand::Show { task } => {
            let task = ask(Method::GET, &format!("{REDRIVES}/{task}"), &[]).await?;
            show(global, &task, text::task);
        }
        RedrivesCommand::Watch { task } => {
            let task = ask(Method::GET, &format!("{REDRIVES}/{task}"), &[]).await?;
            return follow_to_its_end(client, global, task).await;
        }
        RedrivesCommand::Cancel { task } => {
            let actor = actor.or_else(process::user_name).map(|it| ("actor", it));
            let path = format!("{REDRIVES}/{task}");
            let query: Vec<_> = actor.into_iter().collect();
            show(global, &ask(Method::DELETE, &path, &query).await?, text::task);
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
            show(global, &task, text::task);
            let is_well = task["state"] == "succeeded" && task["failed"] == 0;
            Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Followed::Left(task) => {
            if global.json {
                print(&task);
            }
            say(text::left(&task));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for yes in ["y\n", "Y\r\n", " yes \n", "YES"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yep\n", "no\n", "y y\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
