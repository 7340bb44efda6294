//! Checks of the configuration.

use std::fmt::Display;

use fulfillment_worker::GatewayKind;
use jiff::{SignedDuration, Timestamp};

use super::Installation;
use super::finding::Finding;
use crate::cli::Role;
use crate::settings::{AuthMode, Environment, Settings};

/// A certificate that expires within this time is a warning: time enough to renew it.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(21 * 24);
/// A process that serves for longer than this after the signal to stop is likely to be killed by its
/// supervisor.
const LONG_DRAIN_DELAY_MS: u64 = 60_000;

/// Returns the findings about a configuration that cannot be read.
pub(super) fn unreadable(error: &dyn Display) -> Vec<Finding> {
    let advice = "correct the setting; `config/default.toml` lists every key";
    let rest = "stores, machine, gateway and API";
    vec![
        Finding::fail("configuration", error, advice),
        Finding::not_checked("installation", format!("{rest}: configuration failed")),
    ]
}

pub(super) fn examine(installation: &Installation<'_>) -> Vec<Finding> {
    let Installation { settings, roles, clock } = installation;
    let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    let environment = settings.environment.as_str();
    let read = format!("environment {environment}, roles {}", names.join(", "));
    let mut findings = vec![Finding::ok("configuration", read)];
    let refused = settings.find_unsafe_settings(roles);
    if refused.is_empty() {
        let permitted = format!("permitted in {environment}");
        findings.push(Finding::ok("configuration.safety", permitted));
    }
    let advice = "change the setting: `dofs serve` refuses to start with it";
    findings
        .extend(refused.iter().map(|error| Finding::fail("configuration.safety", error, advice)));
    findings.push(judge_environment(settings));
    if installation.has_role(Role::Worker) {
        findings.push(judge_fulfillment(settings));
    }
    if installation.has_role(Role::Api) {
        findings.push(judge_api(settings));
        findings.push(judge_authentication(settings));
        if settings.api.has_tls() {
            findings.push(match settings.api.certificate_expiry() {
                Ok(expires_at) => judge_expiry("configuration.tls", expires_at, clock.now()),
                Err(error) => Finding::fail(
                    "configuration.tls",
                    service_kit::error::Chain(&error),
                    "correct `api.tls_certificate` and `api.tls_key`",
                ),
            });
        }
    }
    findings
}

/// `dev` is the default: without `DOFS_ENV`, a production system starts without its restrictions.
fn judge_environment(settings: &Settings) -> Finding {
    const CHECK: &str = "configuration.environment";
    if settings.environment == Environment::Dev && !settings.event_store.url.is_local() {
        return Finding::warn(
            CHECK,
            "DOFS_ENV is dev, and `event_store.url` names another machine: the restrictions of \
             production do not apply",
            "set DOFS_ENV to staging or production",
        );
    }
    if settings.environment != Environment::Dev && settings.event_store.url.has_default_password() {
        return Finding::warn(
            CHECK,
            "`event_store.url` contains a default password",
            "change the password of the event store's user `admin`, or create another user",
        );
    }
    Finding::ok(CHECK, "fits the stores")
}

fn judge_fulfillment(settings: &Settings) -> Finding {
    const CHECK: &str = "configuration.fulfillment";
    let fulfillment = &settings.fulfillment;
    if let Err(error) = fulfillment.check() {
        return Finding::fail(CHECK, error, "change the setting in section `[fulfillment]`");
    }
    if fulfillment.gateway == GatewayKind::Simulated && settings.environment != Environment::Dev {
        return Finding::warn(
            CHECK,
            format!(
                "gateway is simulated in {}: order outcomes are random and nothing is shipped",
                settings.environment.as_str()
            ),
            "set `fulfillment.gateway` to `http` and `fulfillment.url`",
        );
    }
    let (timeout, total) = (fulfillment.timeout_ms, fulfillment.message_timeout_ms);
    Finding::ok(CHECK, format!("gateway time-out {timeout} ms, message time-out {total} ms"))
}

fn judge_api(settings: &Settings) -> Finding {
    const CHECK: &str = "configuration.api";
    let api = &settings.api;
    if let Err(error) = api.check() {
        return Finding::fail(CHECK, error, "change the setting in section `[api]`");
    }
    if let Err(error) = settings.console.check() {
        return Finding::fail(CHECK, error, "change the setting in section `[console]`");
    }
    let delay = api.drain_delay_ms;
    if settings.environment != Environment::Dev && delay == 0 {
        return Finding::warn(
            CHECK,
            "`api.drain_delay_ms` is 0: a balancer sends requests to a process that has stopped",
            "set it to longer than the balancer takes to react to /readyz",
        );
    }
    if delay > LONG_DRAIN_DELAY_MS {
        return Finding::warn(
            CHECK,
            format!("`api.drain_delay_ms` is {delay}"),
            format!("lower it, or let the supervisor wait {} s before it kills", delay / 1000 + 20),
        );
    }
    Finding::ok(CHECK, format!("drain delay {delay} ms"))
}

fn judge_authentication(settings: &Settings) -> Finding {
    const CHECK: &str = "configuration.authentication";
    let listen = &settings.api.listen;
    if settings.auth.mode == AuthMode::None && !listen.is_loopback() {
        return Finding::warn(
            CHECK,
            format!("`auth.mode` is none, and `api.listen` ({listen}) accepts remote connections"),
            "set `auth.mode` to `api_key`, or `api.listen` to a loopback address",
        );
    }
    Finding::ok(CHECK, format!("mode {}, listener {listen}", settings.auth.mode.as_str()))
}

/// Judges when a certificate expires; `None` if that is unknown.
pub(super) fn judge_expiry(
    check: &'static str,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Finding {
    let Some(expires_at) = expires_at else {
        return Finding::not_checked(check, "the certificate cannot be parsed");
    };
    let remaining = expires_at.duration_since(now);
    let days = remaining.as_hours() / 24;
    if remaining <= SignedDuration::ZERO {
        let detail = format!("certificate has expired at {expires_at}");
        Finding::fail(check, detail, "renew the certificate")
    } else if remaining < EXPIRES_SOON {
        let detail = format!("certificate expires in {days} days, at {expires_at}");
        Finding::warn(check, detail, "renew the certificate")
    } else {
        Finding::ok(check, format!("certificate is valid until {expires_at}"))
    }
}

#[cfg(test)]
mod tests {
    use service_kit::config::Layers;

    use super::super::finding::Status;
    use super::*;

    fn settings_with(environment: Environment, overrides: &[(&str, &str, &str)]) -> Settings {
        let layers = Layers::new()
            .with_toml("default.toml", include_str!("../../../../config/default.toml"));
        let layers = overrides.iter().fold(layers, |layers, (section, key, value)| {
            layers.with_flag("--test", section, key, Some(value))
        });
        Settings { environment, ..layers.extract().unwrap() }
    }

    #[test]
    fn certificate_is_judged_by_its_remaining_time() {
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let judge = |days: i64| {
            let expires_at = now + SignedDuration::from_hours(days * 24);
            judge_expiry("tls", Some(expires_at), now)
        };
        assert_eq!(judge(21).status, Status::Ok);
        assert_eq!(judge(20).status, Status::Warn);
        assert!(judge(20).detail.contains("in 20 days"), "{:?}", judge(20));
        assert_eq!(judge(0).status, Status::Fail);
        assert_eq!(judge(-3).status, Status::Fail);
        assert_eq!(judge_expiry("tls", None, now).status, Status::Warn);
    }

    #[test]
    fn remote_store_in_dev_is_a_warning() {
        let remote = [("event_store", "url", "esdb://store:2113")];
        assert_eq!(judge_environment(&settings_with(Environment::Dev, &[])).status, Status::Ok);
        assert_eq!(
            judge_environment(&settings_with(Environment::Dev, &remote)).status,
            Status::Warn
        );
        let staging = settings_with(Environment::Staging, &remote);
        assert_eq!(judge_environment(&staging).status, Status::Ok);
        let default = [("event_store", "url", "esdb://admin:changeit@store:2113")];
        let default = settings_with(Environment::Staging, &default);
        assert_eq!(judge_environment(&default).status, Status::Warn);
    }

    #[test]
    fn contradicting_time_outs_and_random_outcomes_are_found() {
        let judge = |environment, overrides: &[_]| {
            judge_fulfillment(&settings_with(environment, overrides))
        };
        assert_eq!(judge(Environment::Dev, &[]).status, Status::Ok);
        assert_eq!(judge(Environment::Staging, &[]).status, Status::Warn);
        let short = judge(Environment::Dev, &[("fulfillment", "message_timeout_ms", "15000")]);
        assert_eq!(short.status, Status::Fail);
        assert!(short.detail.contains("message_timeout_ms"), "{short:?}");
    }

    #[test]
    fn open_api_on_a_remote_listener_is_a_warning() {
        let judge = |overrides: &[_]| {
            judge_authentication(&settings_with(Environment::Dev, overrides)).status
        };
        let everywhere = ("api", "listen", "0.0.0.0:8080");
        assert_eq!(judge(&[]), Status::Ok);
        assert_eq!(judge(&[everywhere]), Status::Warn);
        assert_eq!(judge(&[everywhere, ("auth", "mode", "api_key")]), Status::Ok);
    }

    #[test]
    fn drain_delay_must_fit_balancer_and_supervisor() {
        let judge = |environment, delay: &str| {
            judge_api(&settings_with(environment, &[("api", "drain_delay_ms", delay)])).status
        };
        assert_eq!(judge(Environment::Dev, "0"), Status::Ok);
        assert_eq!(judge(Environment::Production, "0"), Status::Warn);
        assert_eq!(judge(Environment::Production, "5000"), Status::Ok);
        assert_eq!(judge(Environment::Production, "60001"), Status::Warn);
    }
}
