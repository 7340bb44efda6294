//! `dofs demo`: everything once, on a folder that goes away.

use std::path::Path;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{audit, dev};
use crate::cli::{Demo, Global, Preset};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::stress::{self, Plan};
use crate::{output, process, settings};

pub(crate) async fn run(arguments: &Demo, global: &Global) -> Result<ExitCode, CliError> {
    let folder = tempfile::Builder::new().prefix("dofs-demo-").tempdir();
    let folder = folder.map_err(|source| CliError::Folder {
        path: std::env::temp_dir().display().to_string(),
        source,
    })?;
    // Above the environment: nothing of a demonstration may reach a store that somebody works with.
    let events = folder.path().join("events").display().to_string();
    let read_model = format!("sqlite://{}", folder.path().join("read-model.sqlite").display());
    let settings = settings::load(&[
        ("demo", "api", "listen", Some("127.0.0.1:0")),
        ("demo", "node", "listen", Some("127.0.0.1:0")),
        ("demo", "node", "data", Some(&events)),
        ("demo", "read_model", "url", Some(&read_model)),
        ("demo", "auth", "mode", Some("none")),
        ("demo", "api", "tls_certificate", Some("")),
        ("demo", "api", "tls_key", Some("")),
    ])?;
    let system = dev::start(settings).await?;
    let stop = system.stop();
    let address = system.http().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let client = ApiClient::at(address)?;
    let serving = system.finish();
    let showing = show(client, folder.path(), arguments.keep, global, stop);
    // Whatever ends the system early ends the demonstration, and the other way round.
    let (served, shown) = tokio::join!(serving, showing);
    served?;
    shown
}

async fn show(
    client: ApiClient,
    folder: &Path,
    keep: bool,
    global: &Global,
    stop: CancellationToken,
) -> Result<ExitCode, CliError> {
    let shown = tokio::select! {
        () = stop.cancelled() => return Ok(ExitCode::FAILURE),
        shown = demonstrate(&client, global) => shown,
    };
    if keep && shown.is_ok() {
        output::print(format!("\nServing on at {}; Ctrl-C stops it.", client.base()))?;
        output::print(format!("Data: {} (removed at the end)", folder.display()))?;
    } else {
        stop.cancel();
    }
    shown
}

async fn demonstrate(client: &ApiClient, global: &Global) -> Result<ExitCode, CliError> {
    if !global.json {
        output::print(format!(
            "Placing 60 orders, 5 at a time, at {}: command API, event store, worker and \
             projector run in this process.\n",
            client.base()
        ))?;
    }
    let plan = Plan::of_preset(Preset::Dev, process::random_seed());
    let progress = stress::progress_bar(&plan, global.quiet);
    let report = stress::run(&plan, client, progress).await;
    if global.json {
        output::print(report.to_json())?;
        return Ok(ExitCode::from(report.exit_code()));
    }
    output::print(report.to_text())?;
    if let Some(id) = report.example() {
        let history = client.get(&format!("/v1/orders/{id}/history"), &[]).await?;
        output::print(format!(
            "\nEverything that happened to one of them:\n\n{}",
            audit::timeline(&history)
        ))?;
    }
    output::print(NEXT)?;
    Ok(ExitCode::from(report.exit_code()))
}

const NEXT: &str = "
What to try next:

  cargo run -- dev             keep it running, with its data in .dofs
  cargo run -- order place --customer cust-retail-001 --item prod-widget-001:2
  cargo run -- order list --status failed
  cargo run -- audit show ORDER_ID
  cargo run -- stress --orders 2000 --concurrency 32";
