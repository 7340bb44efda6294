//! `dofs stress`: many orders, and the figures.

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{Global, Stress};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::stress::{self, Plan};
use crate::{output, process, settings};

pub(crate) async fn run(arguments: &Stress, global: &Global) -> Result<ExitCode, CliError> {
    let client = ApiClient::new(&arguments.api, &settings::load(&[])?)?;
    // Before anything is measured: is anybody there?
    client.get("/livez", &[]).await?;
    let plan = plan(arguments);
    let progress = stress::progress_bar(&plan, global.quiet);
    let report = stress::run(&plan, &client, progress).await;
    if global.json {
        output::print(report.to_json())?;
    } else {
        output::print(report.to_text())?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn plan(arguments: &Stress) -> Plan {
    let seed = arguments.seed.unwrap_or_else(process::random_seed);
    let preset = Plan::of_preset(arguments.preset, seed);
    let concurrency = arguments.concurrency.and_then(|it| usize::try_from(it).ok());
    Plan {
        n_orders: arguments.orders.unwrap_or(preset.n_orders),
        concurrency: concurrency.unwrap_or(preset.concurrency),
        per_second: arguments.rate,
        duration: arguments.duration.map(Duration::from_secs),
        ..preset
    }
}
