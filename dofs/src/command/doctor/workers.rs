//! Checks of the workers and of the parked messages of their group.

use domain::operations::BreakerPhase;
use event_log::{EventLog, FulfillmentStatus, LogError, ParkedMessage};
use fulfillment_worker::GROUP;
use jiff::Timestamp;
use service_kit::error::Chain;

use super::Installation;
use super::finding::Finding;
use super::projections::format_age;
use crate::cli::Role;

/// Names of the checks.
const WORKERS: &str = "workers";
const PARKED: &str = "parked_messages";

const STORE_ADVICE: &str = "check the log of the event store";

/// Checks workers and parked messages; `None` for an event store that cannot be used.
pub(super) async fn examine(
    installation: &Installation<'_>,
    log: Option<&EventLog>,
    findings: &mut Vec<Finding>,
) {
    // A projector does not depend on workers.
    if !installation.has_role(Role::Worker) && !installation.has_role(Role::Api) {
        return;
    }
    let Some(log) = log else {
        let checks = [WORKERS, PARKED].into_iter();
        findings.extend(checks.map(|check| Finding::not_checked(check, "the event store failed")));
        return;
    };
    let now = installation.clock.now();
    let status = match log.fulfillment_status(GROUP, now).await {
        Ok(status) => status,
        Err(error) => {
            findings.push(Finding::fail(WORKERS, Chain(&error), STORE_ADVICE));
            return;
        }
    };
    findings.push(judge_workers(&status));
    if installation.has_role(Role::Worker) {
        // The user of a worker may read them; that of the API need not.
        let oldest = log.read_parked(GROUP, None, 1).await;
        findings.push(judge_parked(status.stats.parked, oldest, now));
    }
}

fn judge_workers(status: &FulfillmentStatus) -> Finding {
    if status.is_paused() {
        let latest = status.latest_control.as_ref();
        let by = latest.map(|latest| {
            let reason = latest.reason.as_ref();
            let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            format!(" since {} by {}{reason}", latest.at, latest.actor)
        });
        let detail = format!("paused{}", by.unwrap_or_default());
        return Finding::warn(WORKERS, detail, "`dofs worker resume` ends the pause");
    }
    if status.worst_breaker() != BreakerPhase::Closed {
        let mut reports = status.workers.iter().filter_map(|worker| worker.report.as_ref());
        let error = reports.find_map(|(report, _)| report.error.as_deref());
        let detail = format!("circuit breaker is open: {}", error.unwrap_or("the gateway failed"));
        return Finding::fail(WORKERS, detail, "repair the gateway; workers resume by themselves");
    }
    let n_connected = status.workers.iter().filter(|worker| worker.is_connected).count();
    if n_connected == 0 {
        let advice = "start `dofs serve worker`; if it runs, its log names the cause";
        return Finding::fail(WORKERS, "no worker is connected to the group", advice);
    }
    Finding::ok(WORKERS, format!("{n_connected} connected"))
}

fn judge_parked(
    n_parked: usize,
    oldest: Result<Vec<ParkedMessage>, LogError>,
    now: Timestamp,
) -> Finding {
    let oldest = match oldest {
        Ok(oldest) => oldest,
        Err(error) => return Finding::not_checked(PARKED, Chain(&error)),
    };
    if n_parked == 0 {
        return Finding::ok(PARKED, "none");
    }
    let parked_at = oldest.first().and_then(|message| message.parked_at);
    let age = parked_at.map(|at| format!(", the oldest for {}", format_age(at, now)));
    let detail = format!("{n_parked} in group `{GROUP}`{}", age.unwrap_or_default());
    let advice = "`dofs dead-letters list` shows their orders; workers release messages of resolved \
                  orders";
    Finding::warn(PARKED, detail, advice)
}

#[cfg(test)]
mod tests {
    use domain::operations::{Control, WorkerReport};
    use event_log::{GroupStats, LatestControl, WorkerStatus};

    use super::super::finding::Status;
    use super::*;

    fn status(workers: Vec<WorkerStatus>) -> FulfillmentStatus {
        FulfillmentStatus { latest_control: None, workers, stats: GroupStats::default() }
    }

    fn worker(breaker: BreakerPhase, error: Option<&str>) -> WorkerStatus {
        let report = WorkerReport {
            worker: "w".to_owned(),
            breaker,
            since: Timestamp::UNIX_EPOCH,
            error: error.map(str::to_owned),
            watchdog_reconnects: 0,
            obeyed_pause: None,
            gateway: None,
        };
        let report = Some((report, Timestamp::UNIX_EPOCH));
        WorkerStatus { worker: "w".to_owned(), is_connected: true, in_flight: Some(0), report }
    }

    #[test]
    fn missing_paused_and_failing_workers_are_found() {
        assert_eq!(judge_workers(&status(Vec::new())).status, Status::Fail);
        let sound = status(vec![worker(BreakerPhase::Closed, None)]);
        assert_eq!(judge_workers(&sound).detail, "1 connected");
        let open = status(vec![worker(BreakerPhase::Open, Some("no answer"))]);
        let open = judge_workers(&open);
        assert_eq!(
            (open.status, &*open.detail),
            (Status::Fail, "circuit breaker is open: no answer")
        );
        let latest_control = Some(LatestControl {
            control: Control::Pause,
            reason: Some("stocktaking".to_owned()),
            actor: "alice".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            revision: 0,
        });
        let paused = judge_workers(&FulfillmentStatus { latest_control, ..sound });
        assert_eq!(paused.status, Status::Warn);
        assert_eq!(paused.detail, "paused since 1970-01-01T00:00:00Z by alice: stocktaking");
    }

    #[test]
    fn parked_messages_are_counted_with_the_oldest() {
        let now = Timestamp::from_second(600).unwrap();
        assert_eq!(judge_parked(0, Ok(Vec::new()), now).status, Status::Ok);
        let message = ParkedMessage {
            number: 0,
            event: None,
            is_gone: false,
            reason: String::new(),
            parked_at: Some(Timestamp::UNIX_EPOCH),
        };
        let parked = judge_parked(2, Ok(vec![message]), now);
        assert_eq!(parked.status, Status::Warn);
        assert_eq!(parked.detail, "2 in group `fulfillment`, the oldest for 10 min");
    }
}
