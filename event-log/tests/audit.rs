//! The hash chain over appends, and audits of tampered stores.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use domain::ids::OrderId;
use domain::order::{OrderCommand, OrderEvent, RecordDeliveryStarted, RecordFulfilled, decide};
use event_log::{
    Audit, AuditSummary, Cause, ContinuousAudit, EventHash, EventLog, Expected, Finding, LogError,
    LoggedEvent,
};
use eventstore::{AppendToStreamOptions, Client, EventData};
use serde_json::Value;
use serde_json::value::RawValue;
use testkit::spec::at;
use testkit::store::{Store, cause, placed};
use testkit::stream_tool::StreamTool;
use testkit::wait;
use tokio::time::Instant;
use uuid::Uuid;

/// Returns the cause of a command on the order with this number.
fn cause_of(order: u128, command: u128) -> Cause {
    let request_id = Some(Uuid::from_u128(command).to_string());
    Cause { correlation_id: Uuid::from_u128(order), request_id, ..cause(command) }
}

async fn decided(log: &EventLog, order_id: OrderId, command: OrderCommand) -> Vec<OrderEvent> {
    decide(log.load(order_id).await.unwrap().order.as_ref(), command).unwrap()
}

fn started(delivery: u32) -> OrderCommand {
    OrderCommand::RecordDeliveryStarted(RecordDeliveryStarted { attempt: 1, delivery })
}

fn fulfilled() -> OrderCommand {
    let reference = "r".to_owned();
    OrderCommand::RecordFulfilled(RecordFulfilled {
        attempt: 1,
        deliveries: 2,
        reference,
        at: at(9),
    })
}

async fn audited(log: &EventLog) -> (AuditSummary, Vec<Finding>) {
    let mut scan = log.scan().await.unwrap();
    let mut audit = Audit::default();
    let mut findings = Vec::new();
    while let Some(event) = scan.next().await.unwrap() {
        findings.extend(audit.observe(&event));
    }
    let (summary, rest) = audit.finish();
    findings.extend(rest);
    (summary, findings)
}

fn checks(findings: &[Finding]) -> Vec<(&str, Option<u64>)> {
    findings.iter().map(|it| (it.check, it.revision)).collect()
}

/// Writes an edited history into another store.
async fn forge(store: &Store, history: &[LoggedEvent], edit: impl Fn(&mut LoggedEvent)) {
    let client = Client::new(store.url().parse().unwrap()).unwrap();
    let stream = history[0].order_id.stream_name();
    for event in history {
        let mut event = event.clone();
        edit(&mut event);
        let data: &RawValue = serde_json::from_slice(&event.data).unwrap();
        let data = EventData::json(&event.event_type, &data).unwrap();
        let data = data.id(event.event_id).metadata(event.metadata.into());
        let options = AppendToStreamOptions::default();
        // A store may report a time-out although it has appended. It recognises the retry by its id.
        wait::until_async("the event is appended", async || {
            client.append_to_stream(stream.as_str(), &options, data.clone()).await.ok()
        })
        .await;
    }
}

/// Appends an order that was fulfilled at its second delivery: six events.
async fn append_fulfilled_order(store: &Store, number: u128) -> Vec<LoggedEvent> {
    let order_id = store.place(number).await;
    for command in [started(2), fulfilled()] {
        let events = decided(&store.log, order_id, command).await;
        let head = store.log.read_history(order_id).await.unwrap().last().unwrap().head();
        let cause = cause_of(number, number * 100 + u128::from(head.revision));
        store.log.append(order_id, Expected::After(head), &events, &cause).await.unwrap();
    }
    store.log.read_history(order_id).await.unwrap()
}

#[tokio::test]
async fn every_event_carries_the_hash_of_the_one_before_it() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let events = decided(&store.log, order_id, started(2)).await;
    let read = Expected::Revision(3);
    store.log.append(order_id, read, &events, &cause_of(1, 2)).await.unwrap();
    let events = decided(&store.log, order_id, fulfilled()).await;
    let head = store.log.read_history(order_id).await.unwrap()[4].head();
    let given = Expected::After(head);
    store.log.append(order_id, given, &events, &cause_of(1, 3)).await.unwrap();

    let history = store.log.read_history(order_id).await.unwrap();
    let mut previous = EventHash::NONE;
    for event in &history {
        assert_eq!(event.previous_hash(), Some(previous.to_string()), "{}", event.revision);
        previous = event.head().hash;
    }
    let (summary, findings) = audited(&store.log).await;
    assert_eq!((history.len(), summary.n_unchained, findings), (6, 0, vec![]));
}

#[tokio::test]
async fn repeated_append_is_recognised_and_a_late_one_conflicts() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let head = store.log.read_history(order_id).await.unwrap()[3].head();
    let events = decided(&store.log, order_id, fulfilled()).await;
    for expected in [Expected::After(head), Expected::After(head), Expected::Revision(3)] {
        let appended = store.log.append(order_id, expected, &events, &cause_of(1, 2)).await;
        assert_eq!(appended.unwrap(), 4);
    }
    for expected in [Expected::After(head), Expected::Revision(3), Expected::Revision(9)] {
        let late = store.log.append(order_id, expected, &events, &cause_of(1, 3)).await;
        let Err(LogError::Conflict { current, .. }) = late else { panic!("{late:?}") };
        assert_eq!(current, Some(4), "{expected:?}");
    }
    let nowhere = OrderId(Uuid::from_u128(9));
    let late = store.log.append(nowhere, Expected::Revision(3), &events, &cause_of(9, 9)).await;
    assert!(matches!(late, Err(LogError::Conflict { current: None, .. })), "{late:?}");
    assert_eq!(audited(&store.log).await.1, []);
}

/// Two workers record one fact at different times: the store keeps the first record and recognises the
/// second. The next event must continue from the first.
#[tokio::test]
async fn chain_continues_from_the_stored_event() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let events = decided(&store.log, order_id, started(2)).await;
    for second in [20, 30] {
        let cause = Cause { at: at(second), ..cause_of(1, 2) };
        let expected = Expected::Revision(3);
        assert_eq!(store.log.append(order_id, expected, &events, &cause).await.unwrap(), 4);
    }
    let events = decided(&store.log, order_id, fulfilled()).await;
    let expected = Expected::Revision(4);
    store.log.append(order_id, expected, &events, &cause_of(1, 3)).await.unwrap();
    assert_eq!(audited(&store.log).await.1, []);
}

#[tokio::test]
async fn untouched_store_has_no_findings() {
    let store = Store::start().await;
    assert_eq!(audited(&store.log).await, (AuditSummary::default(), vec![]));
    append_fulfilled_order(&store, 1).await;
    store.place(2).await;
    let expected = AuditSummary {
        n_events: 10,
        n_unchained: 0,
        n_orders: 2,
        n_accepted: 2,
        n_processing: 1,
        n_fulfilled: 1,
        n_failed: 0,
    };
    assert_eq!(audited(&store.log).await, (expected, vec![]));
}

#[tokio::test]
async fn scan_ends_at_the_head_of_its_start() {
    let store = Store::start().await;
    store.place(1).await;
    let mut scan = store.log.scan().await.unwrap();
    store.place(2).await;
    let mut n_events = 0;
    while scan.next().await.unwrap().is_some() {
        n_events += 1;
    }
    assert_eq!(n_events, 4);
}

#[tokio::test]
async fn changed_event_is_found() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let replace = |bytes: &mut Vec<u8>, from: &str, to: &str| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *bytes = text.replace(from, to).into_bytes();
    };
    forge(&forged, &append_fulfilled_order(&source, 1).await, |event| {
        if event.revision == 0 {
            replace(&mut event.data, "\"quantity\":1", "\"quantity\":3");
        }
    })
    .await;
    forge(&forged, &append_fulfilled_order(&source, 2).await, |event| {
        if event.revision == 3 {
            replace(&mut event.metadata, "\"actor\":\"test\"", "\"actor\":\"else\"");
        }
    })
    .await;
    let (_, findings) = audited(&forged.log).await;
    // The content is in the queued event as well.
    let first = [("chain", Some(1)), ("I4", Some(1)), ("I4", Some(3))];
    assert_eq!(checks(&findings), [&first[..], &[("chain", Some(4))]].concat());
    let orders: Vec<_> = findings.iter().map(|it| it.order_id.unwrap().0.as_u128()).collect();
    assert_eq!(orders, [1, 1, 1, 2]);
}

#[tokio::test]
async fn removed_event_is_found() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let mut history = append_fulfilled_order(&source, 1).await;
    history.remove(4);
    forge(&forged, &history, |_| {}).await;
    let (_, findings) = audited(&forged.log).await;
    assert_eq!(checks(&findings), [("chain", Some(4))]);
}

/// A limit of the chain that docs/AUDIT.md documents.
#[tokio::test]
async fn removed_end_of_a_stream_is_not_found() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let history = append_fulfilled_order(&source, 1).await;
    forge(&forged, &history[..5], |_| {}).await;
    let (summary, findings) = audited(&forged.log).await;
    assert_eq!((summary.n_processing, findings), (1, vec![]));
}

#[tokio::test]
async fn unchained_events_are_counted_and_the_chain_continues_behind_them() {
    let (source, store) = (Store::start().await, Store::start().await);
    let history = append_fulfilled_order(&source, 1).await;
    forge(&store, &history[..4], remove_hash).await;
    let order_id = history[0].order_id;
    let events = decided(&store.log, order_id, fulfilled()).await;
    store.log.append(order_id, Expected::Revision(3), &events, &cause_of(1, 2)).await.unwrap();
    let (summary, findings) = audited(&store.log).await;
    assert_eq!((summary.n_events, summary.n_unchained, findings), (5, 4, vec![]));
}

/// Removes the hash from the metadata.
fn remove_hash(event: &mut LoggedEvent) {
    let mut metadata: Value = serde_json::from_slice(&event.metadata).unwrap();
    metadata.as_object_mut().unwrap().shift_remove("previous_hash");
    event.metadata = metadata.to_string().into_bytes();
}

#[tokio::test]
async fn order_without_hashes_is_accepted_only_before_chained_ones() {
    let (source, store) = (Store::start().await, Store::start().await);
    let [old, forged] =
        [append_fulfilled_order(&source, 1).await, append_fulfilled_order(&source, 2).await];
    forge(&store, &old[..4], remove_hash).await;
    store.place(3).await;
    // A stream that is older than the chain may continue without hashes.
    forge(&store, &old[4..], remove_hash).await;
    assert_eq!(audited(&store.log).await.1, []);

    forge(&store, &forged[..4], remove_hash).await;
    let (summary, findings) = audited(&store.log).await;
    assert_eq!(checks(&findings), [0, 1, 2, 3].map(|revision| ("chain", Some(revision))));
    assert!(findings.iter().all(|it| it.order_id == Some(forged[0].order_id)), "{findings:?}");
    assert_eq!((summary.n_events, summary.n_unchained), (14, 6));
}

#[tokio::test]
async fn event_of_another_tool_violates_every_check() {
    let store = Store::start().await;
    let mut foreign = append_fulfilled_order(&store, 1).await[5].clone();
    foreign.event_id = Uuid::from_u128(77);
    foreign.metadata = b"{}".to_vec();
    forge(&store, &[foreign.clone()], |_| {}).await;
    foreign.event_id = Uuid::from_u128(78);
    foreign.event_type = "OrderMislaid".to_owned();
    forge(&store, &[foreign], |_| {}).await;
    let (_, findings) = audited(&store.log).await;
    let sixth = [("chain", Some(6)), ("I2", Some(6)), ("I7", Some(6))];
    let seventh = [("chain", Some(7)), ("readable", Some(7)), ("I7", Some(7))];
    assert_eq!(checks(&findings), [sixth, seventh].concat());
    assert_eq!(findings[4].found, "unknown event type `OrderMislaid`");
}

#[tokio::test]
async fn untracked_order_is_missing_from_the_count() {
    let (source, forged) = (Store::start().await, Store::start().await);
    forge(&forged, &append_fulfilled_order(&source, 1).await[..2], |_| {}).await;
    let (_, findings) = audited(&forged.log).await;
    assert_eq!(checks(&findings), [("I1", Some(1)), ("I5", None)]);
}

/// A program records wrong content, correctly chained.
#[tokio::test]
async fn order_queued_with_other_content_is_found() {
    let store = Store::start().await;
    for number in [1, 2] {
        let order_id = OrderId(Uuid::from_u128(number));
        let mut events = placed(order_id);
        let [_, OrderEvent::Validated(validated), _, OrderEvent::Queued(queued)] = &mut events[..]
        else {
            panic!("a new order has four events");
        };
        if number == 1 {
            validated.total_quantity = 7;
        } else {
            queued.customer_id = "another".to_owned();
        }
        store.log.append(order_id, Expected::NoStream, &events, &cause(number)).await.unwrap();
    }
    let (_, findings) = audited(&store.log).await;
    // The wrong total is followed by the sum of the queued items.
    assert_eq!(checks(&findings), [("I4", Some(1)), ("I4", Some(3)), ("I4", Some(3))]);
    let Finding { expected, found, .. } = &findings[2];
    assert!(expected.contains("cust-1") && found.contains("another"), "{expected}, {found}");
}

#[tokio::test]
async fn missing_cause_is_found() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let events = decided(&store.log, order_id, started(2)).await;
    let strange = Cause { causation_id: Uuid::from_u128(66), ..cause_of(1, 2) };
    store.log.append(order_id, Expected::Revision(3), &events, &strange).await.unwrap();
    let events = decided(&store.log, order_id, fulfilled()).await;
    store.log.append(order_id, Expected::Revision(4), &events, &cause_of(5, 3)).await.unwrap();
    let (_, findings) = audited(&store.log).await;
    assert_eq!(checks(&findings), [("I7", Some(4)), ("I7", Some(5))]);
    assert!(findings[0].found.starts_with("$causationId"), "{findings:?}");
    assert!(findings[1].found.starts_with("$correlationId"), "{findings:?}");
}

/// Returns the findings of a continuous audit in which only these events arrive, and the number of
/// unchecked events. Everything that waits is checked.
async fn audit_arrivals(log: &EventLog, arriving: &[LoggedEvent]) -> (Vec<Finding>, u64) {
    let mut audit = ContinuousAudit::default();
    audit.learn_chain_start(log).await.unwrap();
    let mut now = Instant::now();
    let mut findings: Vec<_> =
        arriving.iter().flat_map(|event| audit.observe(event, now)).collect();
    while let Some(due) = audit.next_check_at(now) {
        now = due;
        findings.extend(audit.check_waiting(log, now).await.unwrap());
    }
    (findings, audit.take_unchecked())
}

#[tokio::test]
async fn events_before_the_arriving_one_are_read() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let history = append_fulfilled_order(&source, 1).await;
    assert_eq!(audit_arrivals(&source.log, &history[5..]).await, (vec![], 0));

    let mut without_the_fifth = history.clone();
    without_the_fifth.remove(4);
    forge(&forged, &without_the_fifth, |_| {}).await;
    let order_id = history[0].order_id;
    let arriving = forged.log.read_history(order_id).await.unwrap().split_off(4);
    let (findings, n_unchecked) = audit_arrivals(&forged.log, &arriving).await;
    assert_eq!((checks(&findings), n_unchecked), (vec![("chain", Some(4))], 0));
}

#[tokio::test]
async fn order_that_stays_unqueued_is_found_in_its_stream() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let history = append_fulfilled_order(&source, 1).await;
    forge(&forged, &history[..2], |_| {}).await;
    let arriving = forged.log.read_history(history[0].order_id).await.unwrap();
    let (findings, _) = audit_arrivals(&forged.log, &arriving).await;
    assert_eq!(checks(&findings), [("I1", Some(1))]);
    // The rest of the append is in the stream and has not arrived yet.
    assert_eq!(audit_arrivals(&source.log, &history[..2]).await, (vec![], 0));
}

#[tokio::test]
async fn event_whose_earlier_events_are_hidden_is_unchecked() {
    let store = Store::start().await;
    let tool = StreamTool::new(&store.url());
    let truncated = append_fulfilled_order(&store, 1).await;
    tool.truncate(truncated[0].order_id, 3).await;
    assert_eq!(audit_arrivals(&store.log, &truncated[5..]).await, (vec![], 6));
    let deleted = append_fulfilled_order(&store, 2).await;
    tool.tombstone(deleted[0].order_id).await;
    assert_eq!(audit_arrivals(&store.log, &deleted[5..]).await, (vec![], 6));
}
