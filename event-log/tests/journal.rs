//! Journals: limits of their entries, and which workers their reports show.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use domain::operations::{BreakerPhase, REPORTS, WorkerReport};
use event_log::{ExpectedLast, Journal};
use serde_json::json;
use testkit::spec::at;
use testkit::store::{Store, cause};
use uuid::Uuid;

async fn append_numbers(journal: &Journal, numbers: std::ops::Range<u128>) {
    for number in numbers {
        let (content, cause) = (json!({"number": number.to_string()}), cause(number));
        journal.append(ExpectedLast::Any, "Numbered", &content, &cause).await.unwrap();
    }
}

async fn revisions(journal: &Journal) -> Vec<u64> {
    let entries = journal.newest_entries(100).await.unwrap();
    entries.iter().map(|entry| entry.revision).collect()
}

#[tokio::test]
async fn limited_journal_keeps_its_newest_entries() {
    let store = Store::start().await;
    let journal = store.log.store().open_journal("numbers");
    append_numbers(&journal, 1..6).await;
    journal.keep_newest(3, Uuid::from_u128(90)).await.unwrap();
    assert_eq!(revisions(&journal).await, [4, 3, 2]);
    append_numbers(&journal, 6..8).await;
    assert_eq!(revisions(&journal).await, [6, 5, 4]);
    // Another process does not change the limit, which may be an operator's.
    journal.keep_newest(1, Uuid::from_u128(91)).await.unwrap();
    assert_eq!(revisions(&journal).await, [6, 5, 4]);
}

#[tokio::test]
async fn journal_can_be_limited_before_its_first_entry() {
    let store = Store::start().await;
    let journal = store.log.store().open_journal("numbers");
    journal.keep_newest(2, Uuid::from_u128(90)).await.unwrap();
    append_numbers(&journal, 1..5).await;
    assert_eq!(revisions(&journal).await, [3, 2]);
}

#[tokio::test]
async fn worker_that_takes_work_is_alive_for_seconds_without_a_connection() {
    let store = Store::start().await;
    let report = |worker: &str, breaker, obeyed_pause| WorkerReport {
        worker: worker.to_owned(),
        breaker,
        since: at(0),
        error: None,
        watchdog_reconnects: 0,
        obeyed_pause,
        gateway: None,
    };
    let reports = [
        report("busy", BreakerPhase::Closed, None),
        report("paused", BreakerPhase::Closed, Some(0)),
        report("probing", BreakerPhase::HalfOpen, None),
    ];
    for (number, report) in (1..).zip(&reports) {
        // At second 7.
        store.log.report_worker(report, &cause(number)).await.unwrap();
    }
    let workers = async |second| {
        let status = store.log.fulfillment_status("fulfillment", at(second)).await.unwrap();
        assert!(status.workers.iter().all(|worker| worker.in_flight.is_none()));
        let mut names: Vec<_> = status.workers.into_iter().map(|worker| worker.worker).collect();
        names.sort();
        names
    };
    assert_eq!(workers(16).await, ["busy", "paused", "probing"]);
    assert_eq!(workers(18).await, ["paused", "probing"]);
    assert_eq!(workers(190).await, Vec::<String>::new());
    let stored = store.log.store().open_journal(REPORTS).newest_entries(1).await.unwrap();
    assert_eq!(stored[0].parse::<WorkerReport>().as_ref(), Some(&reports[2]));
}
