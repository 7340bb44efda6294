//! Checks of the HTTP API: whether it responds, is ready, and accepts the key.

use std::time::Duration;

use api_types::{HealthReport, HealthState};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use projectors::ClockReading;
use reqwest::header::DATE;
use reqwest::{Method, Response, StatusCode};
use service_kit::error::Chain;

use super::Installation;
use super::clocks::judge_clock;
use super::finding::Finding;
use crate::api_client::ApiClient;
use crate::cli::{Api, Role};

/// Names of the checks.
const RESPONSE: &str = "api.response";
const READINESS: &str = "api.readiness";
const KEY: &str = "api.key";
const CLOCK: &str = "clock.api";

/// Maximum time for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// The header `Date` is in whole seconds, and servers may keep it for a second.
const DATE_RESOLUTION: SignedDuration = SignedDuration::from_secs(2);

pub(super) async fn examine(
    installation: &Installation<'_>,
    api: &Api,
    findings: &mut Vec<Finding>,
) {
    if !installation.has_role(Role::Api) {
        return;
    }
    let client = match ApiClient::new(api, installation.settings) {
        Ok(client) => client,
        Err(error) => {
            findings.push(Finding::fail(
                RESPONSE,
                Chain(&error),
                "correct `--url` and `--api-key`",
            ));
            return;
        }
    };
    let url = client.base_url();
    let asked_at = installation.clock.now();
    let request = client.request(Method::GET, "/readyz?verbose").timeout(RESPONSE_TIMEOUT);
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            let detail = format!("{url}: {}", Chain(&error.without_url()));
            let advice = "start `dofs serve api`, whose log names the cause if it ends; `--url` \
                          selects another address";
            findings.push(Finding::fail(RESPONSE, detail, advice));
            findings.push(Finding::not_checked(READINESS, "api.response failed"));
            findings.push(Finding::not_checked(KEY, "api.response failed"));
            return;
        }
    };
    let answered_at = installation.clock.now();
    let status = response.status();
    findings.push(Finding::ok(RESPONSE, format!("{url} responds with {}", status.as_u16())));
    let time = read_date(&response);
    findings.push(match response.json::<HealthReport>().await {
        Ok(report) => judge_readiness(&report),
        Err(_) => Finding::fail(
            READINESS,
            format!("{url}/readyz responds with {} and no health report", status.as_u16()),
            "check that `api.listen` or `--url` is the address of a DOFS API, not of another server",
        ),
    });
    findings.push(check_key(&client, api.api_key.is_some()).await);
    if let Some(time) = time {
        let reading = ClockReading { asked_at, time, answered_at };
        findings.push(judge_clock(CLOCK, reading, DATE_RESOLUTION));
    }
}

fn read_date(response: &Response) -> Option<Timestamp> {
    let date = response.headers().get(DATE)?.to_str().ok()?;
    Some(rfc2822::parse(date).ok()?.timestamp())
}

fn judge_readiness(report: &HealthReport) -> Finding {
    let reasons = report.reasons.iter().flatten();
    let reasons: Vec<_> = reasons.map(|(check, reason)| format!("{check}: {reason}")).collect();
    let reasons = reasons.join("; ");
    match report.status {
        HealthState::Ok => Finding::ok(READINESS, "ready"),
        HealthState::Degraded => Finding::warn(
            READINESS,
            format!("degraded: {reasons}"),
            "see the checks of the named part in this list",
        ),
        HealthState::Unavailable => Finding::fail(
            READINESS,
            format!("not ready: {reasons}"),
            "see the checks of the named part in this list",
        ),
        HealthState::Draining => Finding::warn(
            READINESS,
            "the process is stopping",
            "wait, and start it again if needed",
        ),
    }
}

/// Reads one order with the key.
async fn check_key(client: &ApiClient, has_key: bool) -> Finding {
    let request = client.request(Method::GET, "/v1/orders?limit=1").timeout(RESPONSE_TIMEOUT);
    match request.send().await {
        Ok(response) => judge_key(response.status(), has_key),
        Err(error) => Finding::not_checked(KEY, Chain(&error.without_url())),
    }
}

fn judge_key(status: StatusCode, has_key: bool) -> Finding {
    match (status, has_key) {
        (StatusCode::UNAUTHORIZED, true) => Finding::fail(
            KEY,
            "the API refuses the key",
            "use another key: `dofs keys list` shows the valid ones, `dofs keys create` makes one",
        ),
        (StatusCode::UNAUTHORIZED, false) => {
            Finding::not_checked(KEY, "the API requires a key, and DOFS_API_KEY is not set")
        }
        (StatusCode::FORBIDDEN, _) => Finding::warn(
            KEY,
            "the key may not read orders",
            "create a key with this scope: `dofs keys create`",
        ),
        (StatusCode::OK, true) => Finding::ok(KEY, "the API accepts the key"),
        (StatusCode::OK, false) => Finding::ok(KEY, "the API requires none"),
        (status, _) => {
            Finding::not_checked(KEY, format!("a list of orders is answered with {status}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::finding::Status;
    use super::*;

    #[test]
    fn readiness_names_the_failing_part() {
        let report = |status| HealthReport {
            status,
            checks: None,
            reasons: Some(BTreeMap::from([("event_store".to_owned(), "no appends".to_owned())])),
        };
        assert_eq!(judge_readiness(&report(HealthState::Ok)).status, Status::Ok);
        let degraded = judge_readiness(&report(HealthState::Degraded));
        assert_eq!(
            (degraded.status, &*degraded.detail),
            (Status::Warn, "degraded: event_store: no appends")
        );
        assert_eq!(judge_readiness(&report(HealthState::Unavailable)).status, Status::Fail);
        assert_eq!(judge_readiness(&report(HealthState::Draining)).status, Status::Warn);
    }

    #[test]
    fn refused_key_is_a_failure_and_a_missing_one_is_not() {
        assert_eq!(judge_key(StatusCode::OK, true).status, Status::Ok);
        assert_eq!(judge_key(StatusCode::OK, false).status, Status::Ok);
        assert_eq!(judge_key(StatusCode::UNAUTHORIZED, true).status, Status::Fail);
        assert_eq!(judge_key(StatusCode::UNAUTHORIZED, false).status, Status::Warn);
        assert_eq!(judge_key(StatusCode::FORBIDDEN, true).status, Status::Warn);
        assert_eq!(judge_key(StatusCode::SERVICE_UNAVAILABLE, true).status, Status::Warn);
    }
}
