//! `dofs node grant`: grants a user of the event store the rights that DOFS needs.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::Global;
use crate::error::CliError;
use crate::settings;
use crate::target_stores::TargetStores;

pub(super) async fn run(
    user: &str,
    is_shared: bool,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let settings = settings::load(global, &[])?;
    settings.fulfillment.check()?;
    let mut stores = TargetStores::default();
    let log = stores.open_event_log(&settings, "dofs-grant", global).await?;
    let group = fulfillment_worker::group_settings(&settings.fulfillment);
    log.grant_rights(user, &group, !is_shared).await?;
    let text = format!("user {user} has the rights that DOFS needs; group {} exists", group.name);
    stores.print(global, json!({"user": user, "group": group.name}), text)?;
    Ok(ExitCode::SUCCESS)
}
