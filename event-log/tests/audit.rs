//! The chain over appends, and an audit of stores that somebody tampered with.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use domain::ids::OrderId;
use domain::order::{OrderCommand, OrderEvent, RecordDeliveryStarted, RecordFulfilled, decide};
use event_log::{
    Audit, AuditSummary, Cause, EventHash, EventLog, Expected, Finding, LogError, LoggedEvent,
};
use eventstore::{AppendToStreamOptions, Client, EventData};
use serde_json::Value;
use serde_json::value::RawValue;
use testkit::spec::at;
use testkit::store::{Store, cause, placed};
use testkit::wait;
use uuid::Uuid;

/// A cause within the order of that number.
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

/// Writes a history into another store, as somebody might who can write to it.
async fn forge(store: &Store, history: &[LoggedEvent], edit: impl Fn(&mut LoggedEvent)) {
    let client = Client::new(store.url().parse().unwrap()).unwrap();
    let stream = history[0].order_id.stream();
    for event in history {
        let mut event = event.clone();
        edit(&mut event);
        let data: &RawValue = serde_json::from_slice(&event.data).unwrap();
        let data = EventData::json(&event.event_type, &data).unwrap();
        let data = data.id(event.event_id).metadata(event.metadata.into());
        let options = AppendToStreamOptions::default();
        // A store may answer that it timed out, though it has appended. The id tells a repetition.
        wait::until_async("the event is appended", async || {
            client.append_to_stream(stream.as_str(), &options, data.clone()).await.ok()
        })
        .await;
    }
}

/// An order that was fulfilled at its second delivery: six events.
async fn life(store: &Store, number: u128) -> Vec<LoggedEvent> {
    let order_id = store.place(number).await;
    for command in [started(2), fulfilled()] {
        let events = decided(&store.log, order_id, command).await;
        let head = store.log.history(order_id).await.unwrap().last().unwrap().head();
        let cause = cause_of(number, number * 100 + u128::from(head.revision));
        store.log.append(order_id, Expected::After(head), &events, &cause).await.unwrap();
    }
    store.log.history(order_id).await.unwrap()
}

#[tokio::test]
async fn every_event_carries_the_hash_of_the_one_before_it() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let events = decided(&store.log, order_id, started(2)).await;
    let read = Expected::Revision(3);
    store.log.append(order_id, read, &events, &cause_of(1, 2)).await.unwrap();
    let events = decided(&store.log, order_id, fulfilled()).await;
    let head = store.log.history(order_id).await.unwrap()[4].head();
    let given = Expected::After(head);
    store.log.append(order_id, given, &events, &cause_of(1, 3)).await.unwrap();

    let history = store.log.history(order_id).await.unwrap();
    let mut previous = EventHash::NONE;
    for event in &history {
        assert_eq!(event.previous_hash(), Some(previous.to_string()), "{}", event.revision);
        previous = event.head().hash;
    }
    let (summary, findings) = audited(&store.log).await;
    assert_eq!((history.len(), summary.n_unchained, findings), (6, 0, vec![]));
}

#[tokio::test]
async fn append_made_again_is_recognised_and_a_late_one_is_a_conflict() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let head = store.log.history(order_id).await.unwrap()[3].head();
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

/// Two workers record one fact at different times: the second is recognised, and what is stored is
/// the first one's. The next event has to continue that.
#[tokio::test]
async fn chain_continues_what_is_stored_and_not_what_was_sent() {
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
async fn store_that_nobody_touched_is_sound_and_counted() {
    let store = Store::start().await;
    assert_eq!(audited(&store.log).await, (AuditSummary::default(), vec![]));
    life(&store, 1).await;
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
async fn scan_ends_where_the_store_did_when_it_began() {
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
async fn changed_event_is_found_wherever_it_was_changed() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let replace = |bytes: &mut Vec<u8>, from: &str, to: &str| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *bytes = text.replace(from, to).into_bytes();
    };
    forge(&forged, &life(&source, 1).await, |event| {
        if event.revision == 0 {
            replace(&mut event.data, "\"quantity\":1", "\"quantity\":3");
        }
    })
    .await;
    forge(&forged, &life(&source, 2).await, |event| {
        if event.revision == 3 {
            replace(&mut event.metadata, "\"actor\":\"test\"", "\"actor\":\"else\"");
        }
    })
    .await;
    let (_, findings) = audited(&forged.log).await;
    // What was received shows in what was queued as well.
    let first = [("chain", Some(1)), ("I4", Some(1)), ("I4", Some(3))];
    assert_eq!(checks(&findings), [&first[..], &[("chain", Some(4))]].concat());
    let orders: Vec<_> = findings.iter().map(|it| it.order_id.unwrap().0.as_u128()).collect();
    assert_eq!(orders, [1, 1, 1, 2]);
}

#[tokio::test]
async fn event_that_was_left_out_is_found() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let mut history = life(&source, 1).await;
    history.remove(4);
    forge(&forged, &history, |_| {}).await;
    let (_, findings) = audited(&forged.log).await;
    assert_eq!(checks(&findings), [("chain", Some(4))]);
}

/// What the chain cannot see, and docs/AUDIT.md says so.
#[tokio::test]
async fn end_that_was_cut_off_is_not_found() {
    let (source, forged) = (Store::start().await, Store::start().await);
    let history = life(&source, 1).await;
    forge(&forged, &history[..5], |_| {}).await;
    let (summary, findings) = audited(&forged.log).await;
    assert_eq!((summary.n_processing, findings), (1, vec![]));
}

#[tokio::test]
async fn events_from_before_the_chain_are_counted_and_the_chain_goes_on_from_them() {
    let (source, store) = (Store::start().await, Store::start().await);
    let history = life(&source, 1).await;
    forge(&store, &history[..4], strip).await;
    let order_id = history[0].order_id;
    let events = decided(&store.log, order_id, fulfilled()).await;
    store.log.append(order_id, Expected::Revision(3), &events, &cause_of(1, 2)).await.unwrap();
    let (summary, findings) = audited(&store.log).await;
    assert_eq!((summary.n_events, summary.n_unchained, findings), (5, 4, vec![]));
}

/// The part of the metadata that makes the chain, taken away.
fn strip(event: &mut LoggedEvent) {
    let mut metadata: Value = serde_json::from_slice(&event.metadata).unwrap();
    metadata.as_object_mut().unwrap().shift_remove("previous_hash");
    event.metadata = metadata.to_string().into_bytes();
}

#[tokio::test]
async fn order_without_a_hash_is_fine_before_the_chained_ones_only() {
    let (source, store) = (Store::start().await, Store::start().await);
    let [old, forged] = [life(&source, 1).await, life(&source, 2).await];
    forge(&store, &old[..4], strip).await;
    store.place(3).await;
    // What is older than the chain may go on without it.
    forge(&store, &old[4..], strip).await;
    assert_eq!(audited(&store.log).await.1, []);

    forge(&store, &forged[..4], strip).await;
    let (summary, findings) = audited(&store.log).await;
    assert_eq!(checks(&findings), [0, 1, 2, 3].map(|revision| ("chain", Some(revision))));
    assert!(findings.iter().all(|it| it.order_id == Some(forged[0].order_id)), "{findings:?}");
    assert_eq!((summary.n_events, summary.n_unchained), (14, 6));
}

#[tokio::test]
async fn event_of_another_tool_is_found_in_every_respect() {
    let store = Store::start().await;
    let mut foreign = life(&store, 1).await[5].clone();
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
async fn order_that_is_nowhere_is_missing_from_the_count() {
    let (source, forged) = (Store::start().await, Store::start().await);
    forge(&forged, &life(&source, 1).await[..2], |_| {}).await;
    let (_, findings) = audited(&forged.log).await;
    assert_eq!(checks(&findings), [("I1", Some(1)), ("I5", None)]);
}

/// A program that records a lie, correctly chained.
#[tokio::test]
async fn order_that_is_queued_as_another_than_arrived_is_found() {
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
    // Behind the wrong total comes the sum of what is queued.
    assert_eq!(checks(&findings), [("I4", Some(1)), ("I4", Some(3)), ("I4", Some(3))]);
    let Finding { expected, found, .. } = &findings[2];
    assert!(expected.contains("cust-1") && found.contains("another"), "{expected}, {found}");
}

#[tokio::test]
async fn cause_that_does_not_exist_is_found() {
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
