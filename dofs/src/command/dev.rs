//! `dofs dev`: all roles in one process, with all data in one folder.

use std::process::ExitCode;

use service_kit::telemetry::LogFormat;

use crate::api_client::local_api_url;
use crate::cli::{Dev, Global};
use crate::error::CliError;
use crate::settings;
use crate::system::{ALL_ROLES, System};
use crate::{output, process};

pub(crate) async fn run(arguments: &Dev, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load_for_folder(
        global,
        &arguments.data,
        &[
            ("--listen", "api", "listen", arguments.listen.as_deref()),
            ("--node-listen", "node", "listen", arguments.node_listen.as_deref()),
            ("--allow-empty", "node", "allow_empty", arguments.allow_empty.then_some("true")),
        ],
    )?;
    let system = start_system(settings).await?;
    if process::log_format() == LogFormat::Text && !global.quiet {
        let message = welcome_message(&system, &arguments.data.display().to_string());
        // The message is not a result: a closed standard output does not stop the system.
        drop(output::print_result(message));
    }
    system.wait_until_stopped().await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the embedded event store and all roles.
pub(crate) async fn start_system(settings: settings::Settings) -> Result<System, CliError> {
    settings.check_for_environment(&ALL_ROLES)?;
    // The roles connect without credentials.
    if settings.node.has_tls() || settings.node.has_users() {
        return Err(CliError::SecuredDevStore);
    }
    let listen = settings.api.listen.clone();
    let mut system = System::new(settings);
    // In this order: the tables are needed by the roles, and all roles connect to the node.
    system.start_node().await?;
    system.migrate_read_model().await?;
    system.start_roles(&ALL_ROLES, Some(&listen)).await?;
    Ok(system)
}

fn welcome_message(system: &System, data: &str) -> String {
    let api = &system.settings().api;
    let address = system.http_address();
    let http = address.map_or_else(String::new, |address| local_api_url(api, &address.into()));
    let console = if system.settings().console.enabled {
        format!("{http}{}", console::ROOT)
    } else {
        "off".to_owned()
    };
    let node = system.node_address();
    let node = node.map_or_else(String::new, |address| format!("esdb://{address}?tls=false"));
    let ops = system.ops_address();
    let ops = ops.map_or_else(|| "off".to_owned(), |address| format!("http://{address}/metrics"));
    format!(
        "\nDOFS is running.\n\n  \
         Console      {console}\n  \
         HTTP API     {http}\n  \
         Event store  {node}\n  \
         Operations   {ops}\n  \
         Data         {data}\n\n\
         Place an order:\n  \
         curl -s {http}/order -d '{{\"customer_id\": \"cust-retail-001\", \"items\": \
         [{{\"product_id\": \"prod-widget-001\", \"quantity\": 2}}]}}'\n\n\
         Show the order and its history (ORDER_ID is in the response):\n  \
         curl -s {http}/v1/orders/ORDER_ID\n  \
         curl -s {http}/v1/orders/ORDER_ID/history\n\n\
         List all orders, failed orders and statistics:\n  \
         curl -s {http}/v1/orders\n  \
         curl -s {http}/v1/failed-orders\n  \
         curl -s {http}/v1/stats\n\n\
         Press Ctrl-C to stop.\n"
    )
}
