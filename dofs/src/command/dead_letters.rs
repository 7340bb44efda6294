//! `dofs dead-letters`: orders that gave up, and what is done about them.

mod follow;
mod letter;
mod many;
mod text;

use std::process::ExitCode;

use domain::order::Stage;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{acting, given};
use crate::cli::{DeadLetters, DeadLettersCommand, Failures, Global, Redrive};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{cell, confirm, print};
use crate::settings;

pub(crate) async fn run(arguments: DeadLetters, global: &Global) -> Result<ExitCode, CliError> {
    let DeadLetters { command, api } = arguments;
    let client = ApiClient::new(&api, &settings::load(&[])?)?;
    match command {
        DeadLettersCommand::List { failures, limit } => {
            list(&client, global, &failures, limit).await?;
        }
        DeadLettersCommand::Show { id } => {
            let path = format!("/v1/dead-letters/{id}");
            let letter = client.ask(Method::GET, &path, &[]).await?.accepted()?;
            show(global, &letter, letter::told)?;
        }
        DeadLettersCommand::Redrive(redrive) => match redrive.id {
            Some(id) => redrive_one(&client, global, id, redrive).await?,
            None => return many::redrive(&client, global, redrive).await,
        },
        DeadLettersCommand::Redrives { command } => {
            return many::redrives(&client, global, command).await;
        }
        DeadLettersCommand::Discard { id, reason, actor, yes } => {
            confirm(
                &format!("Give up on order {id}? It stays failed and is no longer listed."),
                yes,
            )?;
            let body = Value::Object(acting(actor, Some(reason)));
            let path = format!("/v1/dead-letters/{id}/discard");
            let answer = client.command(&path, &body, None).await?.accepted()?;
            show(global, &answer, |answer| {
                format!("discarded: order {id} stays {}", cell(&answer["status"]))
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an answer as it is, or in words.
fn show(global: &Global, answer: &Value, words: impl Fn(&Value) -> String) -> Result<(), CliError> {
    if global.json { print(answer) } else { print(words(answer)) }
}

async fn list(
    client: &ApiClient,
    global: &Global,
    failures: &Failures,
    limit: u16,
) -> Result<(), CliError> {
    let stage = failures.stage.unwrap_or(Stage::DeadLetter);
    let mut query = vec![("stage", stage.as_str().to_owned())];
    query.extend(failures.code.clone().map(|it| ("code", it)));
    query.extend(failures.customer.clone().map(|it| ("customer_id", it)));
    query.extend(failures.older_than.map(|it| ("older_than", it.to_string())));
    let counts = client.ask(Method::GET, "/v1/dead-letters", &query).await?;
    let mut answer = counts.accepted()?;
    query.push(("limit", limit.to_string()));
    let page = client.ask(Method::GET, "/v1/failed-orders", &query).await?.accepted()?;
    for member in ["items", "next_cursor"] {
        answer[member] = page[member].clone();
    }
    show(global, &answer, text::list)
}

async fn redrive_one(
    client: &ApiClient,
    global: &Global,
    id: Uuid,
    redrive: Redrive,
) -> Result<(), CliError> {
    let Redrive { correction, reason, actor, .. } = redrive;
    let items = correction.items.iter();
    let items: Vec<_> = items.map(|(id, n)| json!({"product_id": id, "quantity": n})).collect();
    let mut body = acting(actor, reason);
    body.extend(given([
        ("customer_id", correction.customer_id.map(Value::from)),
        ("items", Some(Value::from(items)).filter(|_| !correction.items.is_empty())),
    ]));
    let path = format!("/v1/orders/{id}/redrive");
    let answer = client.command(&path, &Value::Object(body), correction.if_match).await?;
    show(global, &answer.accepted()?, |answer| {
        let (status, attempt) = (cell(&answer["status"]), cell(&answer["attempt"]));
        format!("redriven: order {id} is {status}, attempt {attempt}")
    })
}
