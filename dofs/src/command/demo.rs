//! `dofs demo`: the whole system in a temporary folder, with 60 orders.

use std::path::Path;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::dev;
use super::order_format::format_history;
use crate::api_client::ApiClient;
use crate::cli::{Demo, Global, Preset};
use crate::error::CliError;
use crate::load_generator::{self, LoadPlan};
use crate::{output, process, settings};

/// Orders per second while the demonstration stays.
const STAY_RATE: u64 = 2;

pub(crate) async fn run(arguments: &Demo, global: &Global) -> Result<ExitCode, CliError> {
    let folder = tempfile::Builder::new().prefix("dofs-demo-").tempdir();
    let folder = folder.map_err(|source| CliError::Folder {
        path: std::env::temp_dir().display().to_string(),
        source,
    })?;
    // Flags override the environment: the demonstration must not write to configured stores.
    let events = folder.path().join("events").display().to_string();
    let read_model = format!("sqlite://{}", folder.path().join("read-model.sqlite").display());
    // Without failures there would be nothing to mend.
    let only_if_staying = |value| arguments.stay.then_some(value);
    let settings = settings::load(
        global,
        &[
            ("--stay", "fulfillment", "error_rate", only_if_staying("0.3")),
            ("--stay", "fulfillment", "max_retries", only_if_staying("2")),
            ("--stay", "fulfillment", "latency_ms", only_if_staying("300")),
            ("demo", "api", "listen", Some("127.0.0.1:0")),
            ("demo", "node", "listen", Some("127.0.0.1:0")),
            ("demo", "node", "data", Some(&events)),
            ("demo", "read_model", "url", Some(&read_model)),
            ("demo", "auth", "mode", Some("none")),
            ("demo", "api", "tls_certificate", Some("")),
            ("demo", "api", "tls_key", Some("")),
            ("demo", "node", "tls_certificate", Some("")),
            ("demo", "node", "tls_key", Some("")),
            ("demo", "node", "tls_client_ca", Some("")),
            ("demo", "node", "users", Some("")),
            ("demo", "ops", "listen", Some("")),
            ("demo", "console", "enabled", Some("true")),
        ],
    )?;
    let system = dev::start_system(settings).await?;
    let stop = system.stop_token();
    // Known: the HTTP server was started above.
    let address = system.http_address().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let client = ApiClient::for_address(address)?;
    let serving = system.wait_until_stopped();
    let demonstration = demonstrate(client, folder.path(), arguments, global, stop);
    // Each ends the other: a failing role cancels the token, and the demonstration cancels it too.
    let (served, demonstrated) = tokio::join!(serving, demonstration);
    served?;
    demonstrated
}

/// Demonstrates the system until `stop`, then stops it unless it shall be kept.
async fn demonstrate(
    client: ApiClient,
    folder: &Path,
    arguments: &Demo,
    global: &Global,
    stop: CancellationToken,
) -> Result<ExitCode, CliError> {
    let outcome = tokio::select! {
        // A role has failed, or the user pressed Ctrl-C.
        () = stop.cancelled() => return Ok(ExitCode::FAILURE),
        outcome = place_and_report(&client, global) => outcome,
    };
    if (arguments.keep || arguments.stay) && outcome.is_ok() {
        let url = client.base_url();
        output::print_result(format!(
            "\nStill serving at {url}; press Ctrl-C to stop.\nConsole: {url}{}\nData: {} (deleted at \
             the end)",
            console::ROOT,
            folder.display()
        ))?;
        if arguments.stay {
            let orders = load_generator::place_forever(&client, STAY_RATE, process::random_seed());
            // Only the stop ends it.
            let _: Option<()> = stop.run_until_cancelled(orders).await;
        }
    } else {
        stop.cancel();
    }
    outcome
}

async fn place_and_report(client: &ApiClient, global: &Global) -> Result<ExitCode, CliError> {
    if !global.json {
        output::print_result(format!(
            "Placing 60 orders, 5 at a time, at {}: command API, event store, worker and \
             projector run in this process.\n",
            client.base_url()
        ))?;
    }
    let plan = LoadPlan::for_preset(Preset::Dev, process::random_seed());
    let progress = load_generator::progress_bar(&plan, global.quiet);
    let report = load_generator::run(&plan, client, progress).await;
    if global.json {
        output::print_result(report.to_json())?;
        return Ok(ExitCode::from(report.exit_code()));
    }
    output::print_result(report.to_text())?;
    if let Some(id) = report.example_order() {
        let history = client.order_history(id).await?;
        let timeline = format_history(&history);
        output::print_result(format!("\nHistory of one of the orders:\n\n{timeline}"))?;
    }
    output::print_result(NEXT_STEPS)?;
    Ok(ExitCode::from(report.exit_code()))
}

const NEXT_STEPS: &str = "
What to try next:

  cargo run -- dev             run the system, with its data in .dofs
  cargo run -- demo --stay     look around in the console; orders arrive, and some fail
  cargo run -- order place --customer cust-retail-001 --item prod-widget-001:2
  cargo run -- order list --status failed
  cargo run -- audit show ORDER_ID
  cargo run -- stress --orders 2000 --concurrency 32";
