//! The projector audits the events that it receives.

use event_log::Expected;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde_json::json;
use testkit::store::cause;
use tracing::Level;

use crate::events::{History, id};
use crate::journal::Journal;
use crate::stores::Database;
use crate::system::{EventStore, Projector, projected};

/// Message of a violation.
const VIOLATED: &str = "Invariant violated";

/// Returns the invariants that were counted as violated.
fn counted(snapshotter: &Snapshotter) -> Vec<String> {
    let mut invariants = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if key.name() == "dofs_invariant_violations_total" && value == DebugValue::Counter(1) {
            invariants.extend(key.labels().map(|label| label.value().to_owned()));
        }
    }
    invariants.sort();
    invariants
}

/// Appends the events of an order that was fulfilled.
async fn append_fulfilled(events: &EventStore, number: u128) {
    let history = History::of(number).placed().fulfilled().events();
    let history: Vec<_> = history.into_iter().map(|recorded| recorded.event).collect();
    let cause = cause(number);
    let appended = events.log.append(id(number), Expected::NoStream, &history, &cause);
    appended.await.unwrap();
}

/// Appends an event as a program does that knows neither metadata nor hashes.
async fn append_foreign_fulfilment(events: &EventStore, number: u128) {
    let fulfilled = json!({
        "order_id": id(number),
        "attempt": 1,
        "deliveries": 1,
        "reference": "r",
        "fulfilled_at": "2026-03-01T12:00:00Z",
    });
    events.tool().append(id(number), "OrderFulfilled", &fulfilled.to_string()).await;
}

async fn report_foreign_fulfilment(is_restarted: bool) {
    let journal = Journal::listen();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let events = EventStore::start().await;
    let database = Database::sqlite();
    let store = database.read_model().await;
    let mut projector = Projector::start(&events.log, &store, 100);
    append_fulfilled(&events, 1).await;
    projected(&store, 5).await;
    if is_restarted {
        projector.stop().await.unwrap();
        projector = Projector::start(&events.log, &store, 100);
    }
    append_foreign_fulfilment(&events, 1).await;
    journal.heard(3, VIOLATED).await;
    let lines = journal.lines(VIOLATED);
    assert!(lines.iter().all(|line| line.level == Level::WARN), "{lines:?}");
    let twice = format!("order.id={} revision=5 invariant=\"I2\"", id(1));
    assert!(lines.iter().any(|line| line.text.contains(&twice)), "{lines:?}");
    projector.stop().await.unwrap();
    assert_eq!(counted(&snapshotter), ["I2", "I7", "chain"]);
    assert_eq!(journal.lines(VIOLATED).len(), 3);
    events.stop().await;
}

#[tokio::test]
async fn fulfilment_of_another_program_is_reported_on_arrival() {
    report_foreign_fulfilment(false).await;
}

#[tokio::test]
async fn violation_of_an_older_order_is_found_in_its_stream() {
    report_foreign_fulfilment(true).await;
}
