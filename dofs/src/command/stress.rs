//! `dofs stress`: places many orders and reports throughput and latency.

use std::process::ExitCode;
use std::time::Duration;

use api_types::HealthReport;

use crate::api_client::ApiClient;
use crate::cli::{Global, Stress};
use crate::error::CliError;
use crate::load_generator::{self, LoadPlan};
use crate::{output, process, settings};

pub(crate) async fn run(arguments: &Stress, global: &Global) -> Result<ExitCode, CliError> {
    let client = ApiClient::new(&arguments.api, &settings::load(global, &[])?)?;
    // Fails early if the API is unreachable, instead of reporting a run of errors.
    client.get::<HealthReport>("/livez").await?;
    let plan = build_plan(arguments);
    let progress = load_generator::progress_bar(&plan, global.quiet);
    let report = load_generator::run(&plan, &client, progress).await;
    output::print_json_or_text(global, report.to_json(), report.to_text())?;
    Ok(ExitCode::from(report.exit_code()))
}

fn build_plan(arguments: &Stress) -> LoadPlan {
    let seed = arguments.seed.unwrap_or_else(process::random_seed);
    let preset = LoadPlan::for_preset(arguments.preset, seed);
    let concurrency = arguments.concurrency.and_then(|number| usize::try_from(number).ok());
    LoadPlan {
        n_orders: arguments.orders.unwrap_or(preset.n_orders),
        concurrency: concurrency.unwrap_or(preset.concurrency),
        per_second: arguments.rate,
        duration: arguments.duration.map(Duration::from_secs),
        ..preset
    }
}
