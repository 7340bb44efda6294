//! `dofs dev`: everything in one process, in one folder.

use std::process::ExitCode;

use service_kit::telemetry::LogFormat;

use crate::cli::{Dev, Global};
use crate::client::reachable;
use crate::error::CliError;
use crate::settings;
use crate::system::{ALL_ROLES, System};
use crate::{output, process};

pub(crate) async fn run(arguments: &Dev, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load_for_folder(
        &arguments.data,
        &[
            ("--listen", "api", "listen", arguments.listen.as_deref()),
            ("--node-listen", "node", "listen", arguments.node_listen.as_deref()),
            ("--allow-empty", "node", "allow_empty", arguments.allow_empty.then_some("true")),
        ],
    )?;
    let system = start(settings).await?;
    if process::log_format() == LogFormat::Text && !global.quiet {
        // No result: what runs does not depend on who reads this.
        drop(output::print(welcome(&system, &arguments.data.display().to_string())));
    }
    system.finish().await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the embedded event store and every role over it.
pub(crate) async fn start(settings: settings::Settings) -> Result<System, CliError> {
    settings.check_for_environment(&ALL_ROLES)?;
    let listen = settings.api.listen.clone();
    let mut system = System::new(settings);
    system.start_node().await?;
    system.migrate().await?;
    system.start_roles(&ALL_ROLES, Some(&listen)).await?;
    Ok(system)
}

fn welcome(system: &System, data: &str) -> String {
    let api = &system.settings().api;
    let http = system.http().map_or_else(String::new, |it| reachable(api, &it.into()));
    let node = system.node().map_or_else(String::new, |it| format!("esdb://{it}?tls=false"));
    format!(
        "\nDOFS is running.\n\n  \
         HTTP API     {http}\n  \
         Event store  {node}\n  \
         Data         {data}\n\n\
         Place an order:\n  \
         curl -s {http}/order -d '{{\"customer_id\": \"cust-retail-001\", \"items\": \
         [{{\"product_id\": \"prod-widget-001\", \"quantity\": 2}}]}}'\n\n\
         Look at it, with the order_id of the answer:\n  \
         curl -s {http}/v1/orders/ORDER_ID\n  \
         curl -s {http}/v1/orders/ORDER_ID/history\n\n\
         All orders, the failed ones, the statistics:\n  \
         curl -s {http}/v1/orders\n  \
         curl -s {http}/v1/failed-orders\n  \
         curl -s {http}/v1/stats\n\n\
         Ctrl-C stops it.\n"
    )
}
