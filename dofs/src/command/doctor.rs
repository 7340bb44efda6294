//! `dofs doctor`: names what is wrong with an installation, from its configuration alone. The
//! processes of the installation may be down.

mod api;
mod clocks;
mod configuration;
mod event_store;
mod finding;
mod gateway;
mod machine;
mod projections;
mod read_model;
mod report;
mod workers;

use std::process::ExitCode;
use std::time::Duration;

use futures::future::join3;
use service_kit::clock::Clock;
use service_kit::error::Chain;
use tokio::time::timeout;

use crate::cli::{Doctor, Global, Role};
use crate::error::CliError;
use crate::process;
use crate::settings::{self, Settings};
use finding::Finding;
use report::Report;

/// Maximum time for the checks of one part, which run at the same time as those of the other parts.
const PART_TIMEOUT: Duration = Duration::from_secs(9);
/// Maximum time for the checks that compare event store and read model, after the other checks.
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(5);

/// The installation that is checked.
struct Installation<'a> {
    settings: &'a Settings,
    roles: &'a [Role],
    clock: Clock,
}

impl Installation<'_> {
    fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Returns whether a role uses the read model. The network of a worker may not reach it.
    fn uses_read_model(&self) -> bool {
        self.has_role(Role::Api) || self.has_role(Role::Projector)
    }
}

pub(crate) async fn run(arguments: &Doctor, global: &Global) -> Result<ExitCode, CliError> {
    let roles = arguments.roles();
    let report = match settings::load(global, &[]) {
        Ok(settings) => {
            let clock = process::system_clock();
            let installation = Installation { settings: &settings, roles: &roles, clock };
            let findings = Box::pin(examine(&installation, arguments)).await;
            Report::new(Some(settings.environment.as_str()), &roles, findings)
        }
        Err(error) => Report::new(None, &roles, configuration::unreadable(&Chain(&error))),
    };
    report.print(global)
}

/// Makes all checks. The result is in the order of what depends on what.
async fn examine(installation: &Installation<'_>, arguments: &Doctor) -> Vec<Finding> {
    let mut findings = configuration::examine(installation);
    findings.extend(machine::examine(installation).await);
    let (mut of_store, mut of_read_model, mut of_neighbours) = (Vec::new(), Vec::new(), Vec::new());
    let neighbours = async {
        gateway::examine(installation, &mut of_neighbours).await;
        api::examine(installation, &arguments.api, &mut of_neighbours).await;
    };
    let (log, store, neighbours) = join3(
        timeout(PART_TIMEOUT, Box::pin(event_store::examine(installation, &mut of_store))),
        timeout(PART_TIMEOUT, Box::pin(read_model::examine(installation, &mut of_read_model))),
        timeout(PART_TIMEOUT, Box::pin(neighbours)),
    )
    .await;
    let parts =
        [("event_store", of_store, log.is_err()), ("read_model", of_read_model, store.is_err())];
    for (part, of_part, is_late) in parts {
        findings.extend(of_part);
        if is_late {
            findings.push(unfinished(part, PART_TIMEOUT));
        }
    }
    let (log, store) = (log.ok().flatten(), store.ok().flatten());
    let mut compared = Vec::new();
    let comparing = async {
        projections::examine(installation, log.as_ref(), store.as_deref(), &mut compared).await;
        workers::examine(installation, log.as_ref(), &mut compared).await;
    };
    let comparing = timeout(COMPARISON_TIMEOUT, Box::pin(comparing)).await;
    findings.extend(compared);
    if comparing.is_err() {
        findings.push(unfinished("projection", COMPARISON_TIMEOUT));
    }
    findings.extend(of_neighbours);
    if neighbours.is_err() {
        findings.push(unfinished("api", PART_TIMEOUT));
    }
    findings
}

/// Returns the finding about checks that were interrupted.
fn unfinished(part: &'static str, limit: Duration) -> Finding {
    let detail = format!("further checks did not end within {} s", limit.as_secs());
    Finding::fail(part, detail, "check load and network of this machine and of the checked server")
}
