//! Journal entries of a later release, as an older release reads them.

use domain::operations::{BreakerPhase, CONTROL, Control, Pause, REPORTS, WorkerReport};
use event_log::ExpectedLast;
use serde_json::json;
use testkit::spec::at;
use testkit::store::{Store, cause};
use testkit::stream_tool::StreamTool;

/// Metadata of an entry in a newer schema.
const NEWER: &str =
    r#"{"schema_version": 2, "actor": "later", "recorded_at": "1970-01-01T00:00:09Z"}"#;

#[tokio::test]
async fn entry_in_a_newer_schema_is_not_read() {
    let store = Store::start().await;
    let journal = store.log.store().open_journal("test-journal");
    journal.append(ExpectedLast::Any, "Noted", &1, &cause(1)).await.unwrap();
    StreamTool::new(&store.url()).append_raw("test-journal", "Noted", "2", NEWER).await;
    let entries = journal.newest_entries(2).await.unwrap();
    let read: Vec<Option<u32>> = entries.iter().map(event_log::JournalEntry::parse).collect();
    assert_eq!(read, [None, Some(1)]);
    assert_eq!(entries[0].data(), None);
    assert_eq!(entries[0].parse_any_schema(), Some(2));
}

#[tokio::test]
async fn unknown_control_leaves_the_last_known_one() {
    let store = Store::start().await;
    let tool = StreamTool::new(&store.url());
    tool.append_raw(CONTROL, "FulfillmentThrottled", "{}", NEWER).await;
    assert_eq!(store.log.latest_control().await.unwrap(), None);
    let pause = Pause { reason: Some("the gateway is moved".to_owned()) };
    store.log.record_control(Control::Pause, &pause, &cause(1)).await.unwrap();
    for _ in 0..150 {
        tool.append_raw(CONTROL, "FulfillmentThrottled", r#"{"rate": 5}"#, NEWER).await;
    }
    let latest = store.log.latest_control().await.unwrap().unwrap();
    assert_eq!((latest.control, latest.reason, latest.revision), (Control::Pause, pause.reason, 1));
}

#[tokio::test]
async fn pause_with_unreadable_content_is_a_pause() {
    let store = Store::start().await;
    let tool = StreamTool::new(&store.url());
    for (data, metadata) in [(r#"{"reason": {"code": 1}}"#, "{}"), (r#"{"reason": "r"}"#, NEWER)] {
        store
            .log
            .record_control(Control::Resume, &Pause { reason: None }, &cause(1))
            .await
            .unwrap();
        tool.append_raw(CONTROL, "FulfillmentPaused", data, metadata).await;
        let latest = store.log.latest_control().await.unwrap().unwrap();
        assert_eq!((latest.control, latest.reason), (Control::Pause, None));
    }
}

#[tokio::test]
async fn unreadable_report_of_a_worker_hides_no_other() {
    let store = Store::start().await;
    let tool = StreamTool::new(&store.url());
    let settings = event_log::GroupSettings {
        name: "fulfillment".to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout: std::time::Duration::from_secs(5),
        max_retry_count: 10,
        buffer_size: 4,
        silence_limit: std::time::Duration::from_secs(30),
        n_silences: tokio::sync::watch::Sender::default(),
    };
    let mut group = store.log.join_group(settings);
    store.place(1).await;
    let delivery = group.next().await;
    group.ack(delivery.id);
    let report = WorkerReport {
        worker: "older".to_owned(),
        breaker: BreakerPhase::Open,
        since: at(1),
        error: None,
        watchdog_reconnects: 0,
        obeyed_pause: None,
        gateway: None,
    };
    store.log.report_worker(&report, &cause(1)).await.unwrap();
    let newer = json!({"worker": "newer", "breaker": "ajar", "since": at(1)}).to_string();
    tool.append_raw(REPORTS, WorkerReport::ENTRY_TYPE, &newer, "{}").await;
    let status = store.log.fulfillment_status("fulfillment", at(8)).await.unwrap();
    let away: Vec<_> = status.workers.iter().filter(|worker| !worker.is_connected).collect();
    assert_eq!(away.len(), 1, "{away:?}");
    assert_eq!(away[0].report.as_ref().map(|(report, _)| report), Some(&report));
}
