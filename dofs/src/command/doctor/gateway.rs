//! Check of the gateway: whether it responds. No order is sent to it.

use std::time::Duration;

use fulfillment_worker::{GatewayKind, GatewayProbe, HttpGateway};
use service_kit::error::Chain;
use tokio::time::timeout;

use super::Installation;
use super::configuration::judge_expiry;
use super::finding::Finding;
use crate::cli::Role;

/// Names of the checks.
const GATEWAY: &str = "gateway";
const TLS: &str = "gateway.tls";

/// Maximum time for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(4);
const REACH_ADVICE: &str = "check that the gateway runs, `fulfillment.url`, and the network";

pub(super) async fn examine(installation: &Installation<'_>, findings: &mut Vec<Finding>) {
    let config = &installation.settings.fulfillment;
    if !installation.has_role(Role::Worker) {
        return;
    }
    if config.gateway == GatewayKind::Simulated {
        findings.push(Finding::ok(GATEWAY, "simulated"));
        return;
    }
    let url = &config.url;
    let gateway = match HttpGateway::new(config, installation.clock.clone()) {
        Ok(gateway) => gateway,
        Err(error) => {
            findings.push(Finding::fail(GATEWAY, Chain(&error), "correct `fulfillment.url`"));
            return;
        }
    };
    match timeout(RESPONSE_TIMEOUT, gateway.probe()).await {
        Ok(Ok(probe)) => {
            findings.push(judge_probe(&url.to_string(), probe, gateway.sends_in_the_clear()));
            if probe.certificate_expires_at.is_some() {
                let expires_at = probe.certificate_expires_at;
                findings.push(judge_expiry(TLS, expires_at, installation.clock.now()));
            }
        }
        Ok(Err(error)) => {
            findings.push(Finding::fail(GATEWAY, format!("{url}: {error}"), REACH_ADVICE));
        }
        Err(_) => {
            let seconds = RESPONSE_TIMEOUT.as_secs();
            let detail = format!("{url}: no response within {seconds} s");
            findings.push(Finding::fail(GATEWAY, detail, REACH_ADVICE));
        }
    }
}

/// Judges the response to `OPTIONS`. Most gateways refuse the method, which shows that they respond.
fn judge_probe(url: &str, probe: GatewayProbe, is_unencrypted: bool) -> Finding {
    let status = probe.status;
    let detail = format!("{url} responds with {status}");
    match status {
        401 | 403 => Finding::warn(
            GATEWAY,
            detail,
            "check user and password in `fulfillment.url`: the gateway may refuse orders, too",
        ),
        // 501 is the answer of a server that does not know the method.
        500 | 502..=599 => Finding::warn(GATEWAY, detail, "check the log of the gateway"),
        _ if is_unencrypted => Finding::warn(
            GATEWAY,
            format!("{detail}, without TLS"),
            "use an `https://` URL: orders can be read on their way",
        ),
        _ => Finding::ok(GATEWAY, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn gateway_that_refuses_the_method_responds() {
        let judge = |status, is_unencrypted| {
            let probe = GatewayProbe { status, certificate_expires_at: None };
            judge_probe("http://warehouse", probe, is_unencrypted).status
        };
        for status in [200, 204, 404, 405, 422, 501] {
            assert_eq!(judge(status, false), Status::Ok, "{status}");
        }
        for status in [401, 403, 500, 503] {
            assert_eq!(judge(status, false), Status::Warn, "{status}");
        }
        assert_eq!(judge(405, true), Status::Warn);
    }
}
