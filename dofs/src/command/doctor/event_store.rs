//! Checks of the event store: network, certificate, rights, group, and whether it accepts appends.

use std::time::Duration;

use event_log::{
    AccessRight, EventLog, EventStoreUrl, HostReport, LogError, ServerVersion, SettingDrift,
    StoreMember, UnreachableCause,
};
use fulfillment_worker::{BACKSTOP_RETRIES, GROUP};
use jiff::{SignedDuration, Timestamp};
use projectors::ClockReading;
use service_kit::error::Chain;
use tokio::time::timeout;

use super::Installation;
use super::clocks::judge_clock;
use super::configuration::judge_expiry;
use super::finding::{Finding, Status};
use crate::cli::Role;
use crate::permission_check::required_rights;
use crate::system::event_producer;

/// Names of the checks.
const URL: &str = "event_store.url";
const DNS: &str = "event_store.dns";
const TCP: &str = "event_store.tcp";
const TLS: &str = "event_store.tls";
const VERSION: &str = "event_store.version";
const AUTHENTICATION: &str = "event_store.authentication";
const RIGHTS: &str = "event_store.rights";
const MEMBERS: &str = "event_store.role";
const GROUP_SETTINGS: &str = "event_store.group";
const APPEND: &str = "event_store.append";
const CLOCK: &str = "clock.event_store";

/// Maximum time for the first response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// The oldest server whose groups can read `$all`.
const OLDEST_SERVER: ServerVersion = ServerVersion { major: 21, minor: 10, patch: 0 };
/// The oldest server that DOFS was tested with.
const OLDEST_TESTED: ServerVersion = ServerVersion { major: 23, minor: 10, patch: 0 };
/// The store's times are in whole seconds.
const TIME_RESOLUTION: SignedDuration = SignedDuration::from_secs(1);
const RIGHTS_ADVICE: &str = "grant it to the user of `event_store.url`: docs/event-store.md";

/// Checks the event store. Returns a client of it if it responds and accepts its user.
pub(super) async fn examine(
    installation: &Installation<'_>,
    findings: &mut Vec<Finding>,
) -> Option<EventLog> {
    let config = &installation.settings.event_store;
    if config.url.is_empty() {
        let advice = "set `event_store.url`, e.g. by DOFS__EVENT_STORE__URL";
        findings.push(Finding::fail(URL, "`event_store.url` is empty", advice));
        return None;
    }
    findings.push(Finding::ok(URL, &config.url));
    let hosts = config.url.examine_hosts().await;
    findings.extend(judge_hosts(&config.url, &hosts, installation.clock.now()));
    if hosts.iter().all(|host| host.cause.is_some()) {
        let checks = [VERSION, AUTHENTICATION, RIGHTS, MEMBERS, GROUP_SETTINGS, APPEND];
        findings.extend(skip(&checks, "the event store cannot be reached"));
        return None;
    }
    let log = match EventLog::connect(config, event_producer(), "dofs-doctor") {
        Ok(log) => log,
        Err(error) => {
            findings.push(Finding::fail(URL, Chain(&error), "correct `event_store.url`"));
            return None;
        }
    };
    if !check_response(&log, findings).await {
        let checks = [AUTHENTICATION, RIGHTS, MEMBERS, GROUP_SETTINGS, APPEND];
        findings.extend(skip(&checks, "event_store.version failed"));
        return None;
    }
    if !check_user(&log, findings).await {
        let checks = [RIGHTS, MEMBERS, GROUP_SETTINGS, APPEND];
        findings.extend(skip(&checks, "event_store.authentication failed"));
        return None;
    }
    let (rights, members, group, append) = tokio::join!(
        check_rights(&log, installation.roles),
        log.store().members(),
        check_group(&log, installation),
        check_append(&log, installation)
    );
    findings.push(rights);
    findings.push(judge_members(&config.url, members.as_deref()));
    findings.push(group);
    findings.extend(append);
    Some(log)
}

fn skip<'a>(checks: &'a [&'static str], reason: &'a str) -> impl Iterator<Item = Finding> + 'a {
    checks.iter().map(move |check| Finding::not_checked(check, reason))
}

/// Judges the connections to all hosts of the address. A host of a cluster may be down.
fn judge_hosts(url: &EventStoreUrl, hosts: &[HostReport], now: Timestamp) -> Vec<Finding> {
    let is_reachable = hosts.iter().any(|host| host.cause.is_none());
    let mut findings: Vec<_> =
        hosts.iter().flat_map(|host| judge_host(host, url.has_tls(), now)).collect();
    if is_reachable {
        for finding in &mut findings {
            finding.status = finding.status.min(Status::Warn);
        }
    }
    findings
}

fn judge_host(report: &HostReport, has_tls: bool, now: Timestamp) -> Vec<Finding> {
    let HostReport { host, address, cause, certificate_expires_at } = report;
    let resolved = || {
        let address = address.map(|address| address.ip().to_string()).unwrap_or_default();
        Finding::ok(DNS, format!("{host} is {address}"))
    };
    let connected = || Finding::ok(TCP, format!("{host} accepts connections"));
    let failed = |check, cause: &UnreachableCause| {
        Finding::fail(check, format!("{host}: {cause}"), cause.hint())
    };
    match cause {
        Some(cause @ UnreachableCause::Name(_)) => vec![
            failed(DNS, cause),
            Finding::not_checked(TCP, "event_store.dns failed"),
            Finding::not_checked(TLS, "event_store.dns failed"),
        ],
        Some(cause @ UnreachableCause::Tls(_)) => vec![resolved(), connected(), failed(TLS, cause)],
        Some(
            cause @ (UnreachableCause::Refused
            | UnreachableCause::Silent
            | UnreachableCause::Connection(_)
            | UnreachableCause::Call(_)),
        ) => vec![
            resolved(),
            failed(TCP, cause),
            Finding::not_checked(TLS, "event_store.tcp failed"),
        ],
        None if !has_tls => vec![resolved(), connected(), Finding::ok(TLS, "not used")],
        None => {
            let tls = match certificate_expires_at {
                Some(_) => judge_expiry(TLS, *certificate_expires_at, now),
                None => Finding::warn(
                    TLS,
                    "the certificate is not verified (`tlsVerifyCert=false`)",
                    "remove `tlsVerifyCert=false`, and name the issuer with `tlsCaFile`",
                ),
            };
            vec![resolved(), connected(), tls]
        }
    }
}

/// Checks whether the store responds, and judges its version. Returns whether it responds.
async fn check_response(log: &EventLog, findings: &mut Vec<Finding>) -> bool {
    let advice = UnreachableCause::Call(String::new()).hint();
    match timeout(RESPONSE_TIMEOUT, log.store().server_version()).await {
        Ok(Ok(version)) => {
            findings.push(judge_version(version));
            true
        }
        Ok(Err(error)) => {
            findings.push(Finding::fail(VERSION, Chain(&error), advice));
            false
        }
        Err(_) => {
            let detail = format!("no response within {} s", RESPONSE_TIMEOUT.as_secs());
            findings.push(Finding::fail(VERSION, detail, advice));
            false
        }
    }
}

fn judge_version(version: ServerVersion) -> Finding {
    if version < OLDEST_SERVER {
        let detail = format!("server {version} has no groups on `$all`");
        Finding::fail(VERSION, detail, "upgrade the event store to EventStoreDB 23.10 or newer")
    } else if version < OLDEST_TESTED {
        let detail = format!("server {version} was not tested with DOFS");
        Finding::warn(VERSION, detail, "upgrade the event store to EventStoreDB 23.10 or newer")
    } else {
        Finding::ok(VERSION, format!("server {version}"))
    }
}

/// Checks whether the store accepts the user: every user may use streams of orders, unless an access
/// control list forbids it.
async fn check_user(log: &EventLog, findings: &mut Vec<Finding>) -> bool {
    let denied = Box::pin(log.find_denied(&[AccessRight::UseOrders], GROUP)).await;
    let finding = match denied {
        Ok(None) => Finding::ok(AUTHENTICATION, "the user of `event_store.url` is accepted"),
        Ok(Some(right)) => Finding::fail(
            AUTHENTICATION,
            format!("the event store refuses the user of `event_store.url`: it may not {right}"),
            "check user and password in `event_store.url`, and `$settings` of the event store",
        ),
        Err(error) => {
            Finding::fail(AUTHENTICATION, Chain(&error), "check the log of the event store")
        }
    };
    let is_accepted = finding.status == Status::Ok;
    findings.push(finding);
    is_accepted
}

/// Checks every right of the roles: unlike at the start of a role, all missing ones are named.
async fn check_rights(log: &EventLog, roles: &[Role]) -> Finding {
    let mut missing = Vec::new();
    for right in required_rights(roles) {
        match Box::pin(log.find_denied(&[right], GROUP)).await {
            Ok(denied) => missing.extend(denied.map(|right| right.to_string())),
            Err(error) => {
                return Finding::fail(RIGHTS, Chain(&error), "check the log of the event store");
            }
        }
    }
    if missing.is_empty() {
        return Finding::ok(RIGHTS, "all that the roles need");
    }
    Finding::fail(RIGHTS, format!("missing permission to {}", missing.join(", ")), RIGHTS_ADVICE)
}

/// Judges the cluster; `members` is `None` if the store does not publish them.
fn judge_members(url: &EventStoreUrl, members: Option<&[StoreMember]>) -> Finding {
    let Some(members) = members else {
        return Finding::ok(MEMBERS, "the event store publishes no members: a single node");
    };
    let is_leader = |member: &&StoreMember| member.is_leader && member.is_alive;
    let Some(leader) = members.iter().find(is_leader) else {
        let advice = "start the missing nodes: a majority is required to elect a leader";
        return Finding::fail(MEMBERS, "the cluster has no leader", advice);
    };
    let dead: Vec<_> = members.iter().filter(|member| !member.is_alive).collect();
    if !dead.is_empty() {
        let names: Vec<_> = dead.iter().map(|member| member.address.as_str()).collect();
        let detail = format!("down: {}", names.join(", "));
        return Finding::warn(MEMBERS, detail, "start these nodes of the event store");
    }
    if url.may_select_follower() {
        let detail = "`event_store.url` may select a follower: appends and groups need the leader";
        return Finding::warn(MEMBERS, detail, "add `nodePreference=leader` to `event_store.url`");
    }
    let mut names = vec![format!("Leader {}", leader.address)];
    let others = members.iter().filter(|member| !member.is_leader);
    names.extend(others.map(|member| format!("{} {}", member.role, member.address)));
    Finding::ok(MEMBERS, names.join(", "))
}

/// Checks the settings of the group. The store keeps those that the group was created with.
async fn check_group(log: &EventLog, installation: &Installation<'_>) -> Finding {
    let message_timeout = installation.settings.fulfillment.message_timeout();
    match log.store().find_setting_drift(GROUP, message_timeout, BACKSTOP_RETRIES).await {
        Ok(drift) => judge_group(drift.as_deref()),
        Err(error) => Finding::fail(GROUP_SETTINGS, Chain(&error), RIGHTS_ADVICE),
    }
}

fn judge_group(drift: Option<&[SettingDrift]>) -> Finding {
    match drift {
        None => Finding::warn(
            GROUP_SETTINGS,
            format!("group `{GROUP}` on `$all` does not exist: no order is fulfilled"),
            "start `dofs serve worker`, which creates it",
        ),
        Some([]) => {
            Finding::ok(GROUP_SETTINGS, format!("group `{GROUP}` has the expected settings"))
        }
        Some(drift) => {
            let differences: Vec<_> = drift
                .iter()
                .map(|drift| {
                    let SettingDrift { setting, stored, expected } = drift;
                    format!("{setting} is {stored}, expected {expected}")
                })
                .collect();
            Finding::warn(
                GROUP_SETTINGS,
                format!("group `{GROUP}`: {}", differences.join("; ")),
                "update the group with an EventStoreDB tool, or set \
                 `fulfillment.message_timeout_ms` to its value: workers do not change an existing \
                 group",
            )
        }
    }
}

/// Appends a probe: only an append shows that the disk of the store accepts events. Its time is the
/// store's clock.
async fn check_append(log: &EventLog, installation: &Installation<'_>) -> Vec<Finding> {
    let clock = &installation.clock;
    let asked_at = clock.now();
    match Box::pin(log.store().probe_append(clock.new_id())).await {
        Ok(time) => {
            let reading =
                time.map(|time| ClockReading { asked_at, time, answered_at: clock.now() });
            let clock = reading.map(|reading| judge_clock(CLOCK, reading, TIME_RESOLUTION));
            let appended = Finding::ok(APPEND, "a probe was appended to `append-probes`");
            std::iter::once(appended).chain(clock).collect()
        }
        Err(error) => vec![judge_append_error(&error, installation.has_role(Role::Api))],
    }
}

fn judge_append_error(error: &LogError, is_api: bool) -> Finding {
    if error.is_refusal() {
        // Only the API appends probes; the other roles do not need the stream.
        return if is_api {
            Finding::fail(APPEND, Chain(error), RIGHTS_ADVICE)
        } else {
            Finding::not_checked(APPEND, format!("no append to `append-probes`: {}", Chain(error)))
        };
    }
    let advice = "check the free disk space and the log of the event store";
    Finding::fail(APPEND, format!("accepts no appends: {}", Chain(error)), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cause: Option<UnreachableCause>) -> HostReport {
        let address = "192.0.2.1:2113".parse().ok();
        HostReport { host: "store:2113".to_owned(), address, cause, certificate_expires_at: None }
    }

    fn statuses(findings: &[Finding]) -> Vec<Status> {
        findings.iter().map(|finding| finding.status).collect()
    }

    #[test]
    fn first_failing_step_is_named_and_later_ones_are_skipped() {
        use Status::{Fail, Ok, Warn};
        let now = Timestamp::UNIX_EPOCH;
        let judge = |cause| judge_host(&report(Some(cause)), true, now);
        let unknown = judge(UnreachableCause::Name("store: not found".to_owned()));
        assert_eq!(statuses(&unknown), [Fail, Warn, Warn]);
        let refused = judge(UnreachableCause::Refused);
        assert_eq!(statuses(&refused), [Ok, Fail, Warn]);
        assert!(refused[1].detail.contains("connection refused"), "{refused:?}");
        assert!(refused[2].detail.contains("not checked"), "{refused:?}");
        let expired = judge(UnreachableCause::Tls("certificate has expired".to_owned()));
        assert_eq!(statuses(&expired), [Ok, Ok, Fail]);
        assert!(expired[2].advice.as_ref().unwrap().starts_with("renew"), "{expired:?}");
        assert_eq!(statuses(&judge_host(&report(None), false, now)), [Ok, Ok, Ok]);
        assert_eq!(statuses(&judge_host(&report(None), true, now)), [Ok, Ok, Warn]);
    }

    #[test]
    fn one_reachable_host_of_a_cluster_is_enough() {
        let url: EventStoreUrl = "esdb://a:1,b:2?tls=false".parse().unwrap();
        let hosts = [report(Some(UnreachableCause::Refused)), report(None)];
        let judged = judge_hosts(&url, &hosts, Timestamp::UNIX_EPOCH);
        assert_eq!(judged.iter().map(|finding| finding.status).max(), Some(Status::Warn));
        let judged = judge_hosts(&url, &hosts[..1], Timestamp::UNIX_EPOCH);
        assert_eq!(judged.iter().map(|finding| finding.status).max(), Some(Status::Fail));
    }

    #[test]
    fn version_is_judged_by_groups_and_tests() {
        let judge = |major, minor| judge_version(ServerVersion { major, minor, patch: 0 }).status;
        assert_eq!(judge(20, 6), Status::Fail);
        assert_eq!(judge(22, 10), Status::Warn);
        assert_eq!(judge(23, 10), Status::Ok);
        assert_eq!(judge(24, 6), Status::Ok);
    }

    #[test]
    fn cluster_needs_a_leader_and_all_nodes() {
        let member = |address: &str, role: &str, is_alive| StoreMember {
            address: address.to_owned(),
            role: role.to_owned(),
            is_leader: role == "Leader",
            is_alive,
        };
        let judge = |url: &str, members: &[StoreMember]| {
            judge_members(&url.parse().unwrap(), Some(members))
        };
        let (leader, follower) = (member("a:1", "Leader", true), member("b:1", "Follower", true));
        let both = [leader.clone(), follower.clone()];
        let url = "esdb://a:1,b:1?nodePreference=leader";
        let sound = judge(url, &both);
        assert_eq!((sound.status, &*sound.detail), (Status::Ok, "Leader a:1, Follower b:1"));
        assert_eq!(judge(url, std::slice::from_ref(&follower)).status, Status::Fail);
        let dead = judge(url, &[leader, member("b:1", "Follower", false)]);
        assert_eq!((dead.status, &*dead.detail), (Status::Warn, "down: b:1"));
        let random = judge("esdb://a:1,b:1?nodePreference=random", &both);
        assert!(random.advice.unwrap().contains("nodePreference=leader"));
    }

    #[test]
    fn drifted_group_names_stored_and_expected_values() {
        assert_eq!(judge_group(None).status, Status::Warn);
        assert_eq!(judge_group(Some(&[])).status, Status::Ok);
        let drift = SettingDrift {
            setting: "messageTimeout",
            stored: "10000 ms".to_owned(),
            expected: "30000 ms".to_owned(),
        };
        let judged = judge_group(Some(&[drift]));
        assert_eq!(judged.status, Status::Warn);
        assert!(judged.detail.ends_with("messageTimeout is 10000 ms, expected 30000 ms"));
    }
}
