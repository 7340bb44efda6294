//! Checks of the projections against the event store: lag, origin, and dead letters.

use domain::operations::FailureFilter;
use domain::order::Stage;
use event_log::EventLog;
use jiff::Timestamp;
use projectors::{
    FailureGroup, PROJECTIONS, ProjectionStatus, ReadModel, ReplayError, check_event_store,
    projection_status,
};
use service_kit::error::Chain;

use super::Installation;
use super::finding::Finding;

/// Names of the checks.
const ORIGIN: &str = "projection.origin";
const DEAD_LETTERS: &str = "dead_letters";
/// Names of the checks of each projection, in the order of [`PROJECTIONS`].
const CHECKS: [&str; PROJECTIONS.len()] = ["projection.orders", "projection.customer_orders"];

/// The read model lags if the oldest event that it does not reflect is older than this.
const LAGGING_AFTER_SECS: f64 = 10.0;
const PROJECTOR_ADVICE: &str = "start `dofs serve projector`; if it runs, its log names the cause";

/// Compares the read model with the event store; `None` for one that cannot be used.
pub(super) async fn examine(
    installation: &Installation<'_>,
    log: Option<&EventLog>,
    store: Option<&ReadModel>,
    findings: &mut Vec<Finding>,
) {
    if !installation.uses_read_model() {
        return;
    }
    let Some(store) = store else {
        let checks = CHECKS.iter().chain([&ORIGIN, &DEAD_LETTERS]);
        findings.extend(checks.map(|check| Finding::not_checked(check, "the read model failed")));
        return;
    };
    let now = installation.clock.now();
    if let Some(log) = log {
        for (check, projection) in CHECKS.into_iter().zip(PROJECTIONS) {
            let store = store.for_projection(projection);
            findings.push(match projection_status(log, &store, now).await {
                Ok(status) => judge_projection(check, &status),
                Err(error) => Finding::fail(check, Chain(&error), PROJECTOR_ADVICE),
            });
        }
        findings.push(judge_origin(check_event_store(log, store).await.as_ref().err()));
    } else {
        let checks = CHECKS.iter().chain([&ORIGIN]);
        findings.extend(checks.map(|check| Finding::not_checked(check, "the event store failed")));
    }
    let filter = FailureFilter { stage: Some(Stage::DeadLetter), ..FailureFilter::default() };
    findings.push(match store.failure_groups(&filter, now).await {
        Ok(groups) => judge_dead_letters(&groups, now),
        Err(error) => Finding::fail(DEAD_LETTERS, Chain(&error), "check the log of the database"),
    });
}

fn judge_projection(check: &'static str, status: &ProjectionStatus) -> Finding {
    let ProjectionStatus { checkpoint, lease, lag, ahead } = status;
    let (n_events, seconds) = (lag.lag_events, lag.lag_seconds);
    if let Some(ahead) = ahead {
        let detail = format!(
            "{} events ahead of the event store (order {}), which was restored from an older backup \
             or replaced",
            ahead.n_events, ahead.order_id
        );
        return Finding::fail(check, detail, "run `dofs projections rebuild` for each projection");
    }
    if lag.stuck {
        let detail = format!("stuck: {n_events} events wait, the oldest for {seconds:.0} s");
        return Finding::fail(check, detail, PROJECTOR_ADVICE);
    }
    if seconds > LAGGING_AFTER_SECS {
        let detail = format!("catching up: {n_events} events wait, the oldest for {seconds:.0} s");
        let advice = "wait; `dofs projections status` shows the rate";
        return Finding::warn(check, detail, advice);
    }
    if lease.holder.is_none() {
        let advice = "start `dofs serve projector`";
        return Finding::warn(check, "no projector writes the tables", advice);
    }
    if checkpoint.events_skipped > 0 {
        let detail = format!("{} events were skipped as unreadable", checkpoint.events_skipped);
        return Finding::warn(check, detail, "run `dofs projections verify`, which names them");
    }
    let position = checkpoint.position.map_or(0, |position| position.commit);
    Finding::ok(check, format!("at position {position}, {n_events} events behind"))
}

fn judge_origin(error: Option<&ReplayError>) -> Finding {
    match error {
        None => Finding::ok(ORIGIN, "the rows come from this event store"),
        Some(ReplayError::Origin(other)) => Finding::fail(
            ORIGIN,
            format!(
                "the rows come from another event store, whose first event is {}",
                other.expected
            ),
            "check `event_store.url`; if the store was replaced, run `dofs projections rebuild`",
        ),
        Some(error) => Finding::fail(ORIGIN, Chain(error), PROJECTOR_ADVICE),
    }
}

fn judge_dead_letters(groups: &[FailureGroup], now: Timestamp) -> Finding {
    let n_orders: u64 = groups.iter().map(|group| group.n_orders).sum();
    let Some(oldest) = groups.iter().map(|group| group.oldest_failed_at).min() else {
        return Finding::ok(DEAD_LETTERS, "none");
    };
    let codes: Vec<_> =
        groups.iter().map(|group| format!("{} {}", group.n_orders, group.code)).collect();
    let age = format_age(oldest, now);
    let detail = format!("{n_orders} orders ({}), the oldest for {age}", codes.join(", "));
    let advice = "`dofs dead-letters list` shows the causes; after their repair, run `dofs \
                  dead-letters redrive`";
    Finding::warn(DEAD_LETTERS, detail, advice)
}

/// Formats the time since `since` with its largest unit.
pub(super) fn format_age(since: Timestamp, now: Timestamp) -> String {
    let age = now.duration_since(since);
    let (minutes, hours) = (age.as_mins(), age.as_hours());
    if hours >= 48 {
        format!("{} days", hours / 24)
    } else if minutes >= 120 {
        format!("{hours} h")
    } else if minutes >= 2 {
        format!("{minutes} min")
    } else {
        format!("{} s", age.as_secs().max(0))
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use jiff::SignedDuration;
    use projectors::{Ahead, Checkpoint, Lag, Lease};

    use super::super::finding::Status;
    use super::*;

    fn status(lag_seconds: f64, stuck: bool) -> ProjectionStatus {
        ProjectionStatus {
            checkpoint: Checkpoint::default(),
            lease: Lease { epoch: 1, holder: Some("7-a".to_owned()), beat: 0, written_by: 1 },
            lag: Lag { lag_events: 3, lag_seconds, stuck },
            ahead: None,
        }
    }

    #[test]
    fn every_projection_has_a_check() {
        for (check, projection) in CHECKS.into_iter().zip(PROJECTIONS) {
            assert_eq!(check, format!("projection.{}", projection.name));
        }
    }

    #[test]
    fn projection_is_judged_by_lag_lease_and_skipped_events() {
        let judge = |status: &ProjectionStatus| judge_projection("projection.orders", status);
        assert_eq!(judge(&status(1.0, false)).status, Status::Ok);
        assert_eq!(judge(&status(11.0, false)).status, Status::Warn);
        let stuck = judge(&status(61.0, true));
        assert_eq!(stuck.status, Status::Fail);
        assert_eq!(stuck.detail, "stuck: 3 events wait, the oldest for 61 s");
        let lease = Lease { epoch: 1, holder: None, beat: 0, written_by: 1 };
        assert_eq!(judge(&ProjectionStatus { lease, ..status(0.0, false) }).status, Status::Warn);
        let checkpoint = Checkpoint { events_skipped: 2, ..Checkpoint::default() };
        let skipped = judge(&ProjectionStatus { checkpoint, ..status(0.0, false) });
        assert!(skipped.advice.unwrap().contains("dofs projections verify"));
        let ahead = Some(Ahead { order_id: OrderId(uuid::Uuid::nil()), n_events: 4 });
        let ahead = judge(&ProjectionStatus { ahead, ..status(0.0, false) });
        assert_eq!(ahead.status, Status::Fail);
        assert!(ahead.detail.starts_with("4 events ahead of the event store"), "{ahead:?}");
    }

    #[test]
    fn dead_letters_are_counted_by_code() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(judge_dead_letters(&[], now).status, Status::Ok);
        let group = |code: &str, n_orders, hours| FailureGroup {
            stage: Stage::DeadLetter,
            code: code.to_owned(),
            n_orders,
            oldest_failed_at: now - SignedDuration::from_hours(hours),
            newest_failed_at: now,
            n_last_hour: 0,
            n_previous_hour: 0,
        };
        let judged = judge_dead_letters(&[group("poison", 1, 1), group("timeout", 2, 5)], now);
        assert_eq!(judged.status, Status::Warn);
        assert_eq!(judged.detail, "3 orders (1 poison, 2 timeout), the oldest for 5 h");
    }

    #[test]
    fn age_has_its_largest_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let age = |seconds| format_age(now - SignedDuration::from_secs(seconds), now);
        assert_eq!(age(119), "119 s");
        assert_eq!(age(120), "2 min");
        assert_eq!(age(7_200), "2 h");
        assert_eq!(age(2 * 86_400), "2 days");
        assert_eq!(age(-5), "0 s");
    }
}
