//! `dofs healthcheck`: asks a process whether it is ready, for images without a shell.

use std::process::ExitCode;
use std::time::Duration;

use api_types::{HealthReport, HealthState};
use serde_json::json;
use service_kit::config::{ConfigError, Evaluation};
use service_kit::error::Chain;
use service_kit::ops::OpsListen;

use crate::api_client::{local_api_url, parse_url};
use crate::cli::{Global, HealthRole, Healthcheck, Role};
use crate::error::CliError;
use crate::output::{format_cell, print_json_or_text};
use crate::settings;
use crate::system::operations::default_port;

/// State of a process whose answer says nothing about its health.
const UNKNOWN: &str = "unknown";

/// Exits with code 0 or 1 only: container runtimes reserve the other codes.
pub(crate) async fn run(arguments: &Healthcheck, global: &Global) -> Result<ExitCode, CliError> {
    let timeout = Duration::from_secs(arguments.timeout);
    let (url, answer) = match find_url(arguments, global) {
        Ok((url, is_own)) => {
            let answer = ask_readiness(&url, is_own, timeout).await;
            (Some(url), answer)
        }
        Err(cause) => (None, Err(cause)),
    };
    let (is_ready, state, reason) = match answer {
        Ok(report) => {
            let is_ready = matches!(report.status, HealthState::Ok | HealthState::Degraded);
            (is_ready, report.status.as_str(), format_reasons(&report))
        }
        Err(cause) => (false, UNKNOWN, cause),
    };
    let json = json!({"status": state, "url": url, "reason": reason});
    let text = [Some(state.to_owned()), url, Some(reason).filter(|reason| !reason.is_empty())];
    let text: Vec<_> = text.into_iter().flatten().collect();
    print_json_or_text(global, json, format_cell(text.join(": ")))?;
    Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the URL to ask, and whether it is that of this machine's own listener. The error is the
/// reason why there is none.
fn find_url(arguments: &Healthcheck, global: &Global) -> Result<(String, bool), String> {
    if let Some(url) = &arguments.url {
        let url = url.trim_end_matches('/');
        parse_url(url).map_err(|reason| format!("invalid URL `{url}`: {reason}"))?;
        return Ok((format!("{url}/readyz"), false));
    }
    let text = |error: ConfigError| Chain(&error).to_string();
    let Evaluation { settings, problems, .. } = settings::evaluate(global).map_err(text)?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(text(problem));
    }
    let roles: &[Role] = match arguments.role {
        HealthRole::Api => {
            return Ok((
                format!("{}/readyz", local_api_url(&settings.api, &settings.api.listen)),
                true,
            ));
        }
        HealthRole::Worker => &[Role::Worker],
        HealthRole::Projector => &[Role::Projector],
        HealthRole::Node => &[],
    };
    let url = operations_url(&settings.ops.listen, roles)?;
    Ok((format!("{url}/readyz"), true))
}

/// Returns the URL of the operations listener of a process with these roles on this machine.
fn operations_url(listen: &OpsListen, roles: &[Role]) -> Result<String, String> {
    match listen {
        OpsListen::Off => Err("no operations listener: `ops.listen` is empty".to_owned()),
        OpsListen::Auto => Ok(format!("http://127.0.0.1:{}", default_port(roles))),
        OpsListen::At(address) => Ok(format!("http://{}", address.to_local_address())),
    }
}

async fn ask_readiness(url: &str, is_own: bool, timeout: Duration) -> Result<HealthReport, String> {
    let builder = reqwest::Client::builder().timeout(timeout).no_proxy();
    // A certificate names the public host, not the loopback address of this request.
    let client = builder.danger_accept_invalid_certs(is_own).build();
    let client = client.map_err(|error| Chain(&error).to_string())?;
    let no_answer = |error: reqwest::Error| {
        if error.is_timeout() {
            return format!("no answer within {} s", timeout.as_secs());
        }
        format!("no answer: {}", Chain(&error.without_url()))
    };
    let response = client.get(url).send().await.map_err(no_answer)?;
    let status = response.status();
    let body = response.text().await.map_err(no_answer)?;
    serde_json::from_str(&body).map_err(|_| format!("unexpected answer: status {status}"))
}

/// Formats the checks that are not `ok` with their reasons.
fn format_reasons(report: &HealthReport) -> String {
    let reasons = report.reasons.iter().flatten();
    reasons.map(|(check, reason)| format!("{check}: {reason}")).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_listener_is_found_by_role_or_address() {
        let url = |listen: &str, roles: &[Role]| operations_url(&listen.parse().unwrap(), roles);
        assert_eq!(url("auto", &[Role::Worker]).unwrap(), "http://127.0.0.1:9611");
        assert_eq!(url("auto", &[]).unwrap(), "http://127.0.0.1:9613");
        assert_eq!(url("0.0.0.0:9000", &[Role::Projector]).unwrap(), "http://127.0.0.1:9000");
        assert!(url("", &[Role::Worker]).unwrap_err().contains("`ops.listen`"));
    }
}
