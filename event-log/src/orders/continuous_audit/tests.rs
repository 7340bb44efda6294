//! The continuous audit finds what the audit of the whole log finds.

use std::collections::BTreeSet;

use domain::order::{CURRENT_SCHEMA, OrderEvent, OrderFulfilled, encode};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::Index;
use testkit::histories::any_history;
use testkit::store::placed;
use uuid::Uuid;

use super::*;
use crate::orders::audit::Audit;
use crate::orders::hash_chain::EventHash;

/// A change of a log that violates an invariant, at one of its events.
#[derive(Debug, Clone, Copy)]
enum Corruption {
    Removed,
    /// Removed, and the later events of the stream have moved up.
    RemovedWithoutGap,
    /// Appended again behind itself.
    Repeated,
    ChangedHash,
    RemovedHash,
    ChangedData,
    UnknownType,
    OtherOrder,
    OtherCorrelation,
    SecondFulfilment,
}

const CORRUPTIONS: [Corruption; 10] = [
    Corruption::Removed,
    Corruption::RemovedWithoutGap,
    Corruption::Repeated,
    Corruption::ChangedHash,
    Corruption::RemovedHash,
    Corruption::ChangedData,
    Corruption::UnknownType,
    Corruption::OtherOrder,
    Corruption::OtherCorrelation,
    Corruption::SecondFulfilment,
];

fn order(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number))
}

/// Makes the next event of a stream.
fn next_event(
    order_id: OrderId,
    previous: Option<&LoggedEvent>,
    event: &OrderEvent,
) -> LoggedEvent {
    let encoded = encode(event).unwrap();
    let revision = previous.map_or(0, |previous| previous.revision + 1);
    // Every history of the testkit is about order 1.
    let data = encoded.data.get().replace(&order(1).to_string(), &order_id.to_string());
    let metadata = serde_json::json!({
        "$correlationId": order_id,
        "$causationId": previous.map_or(order_id.0, |previous| previous.event_id),
        "schema_version": CURRENT_SCHEMA,
        "actor": "test",
        "producer": {"service": "test", "version": "0"},
        "recorded_at": Timestamp::UNIX_EPOCH,
        "previous_hash": previous.map_or(EventHash::NONE, |previous| previous.head().hash).to_string(),
    });
    LoggedEvent {
        order_id,
        event_id: Uuid::new_v5(&order_id.0, &revision.to_be_bytes()),
        revision,
        position: Position { commit: 0, prepare: 0 },
        event_type: encoded.event_type.to_owned(),
        data: data.into_bytes(),
        metadata: metadata.to_string().into_bytes(),
        created: Timestamp::UNIX_EPOCH,
    }
}

fn stream(number: u128, history: &[OrderEvent]) -> Vec<LoggedEvent> {
    let mut events: Vec<LoggedEvent> = Vec::new();
    for event in history {
        let next = next_event(order(number), events.last(), event);
        events.push(next);
    }
    events
}

/// Merges streams into one log: each choice takes the next event of one stream.
fn interleave(mut streams: Vec<Vec<LoggedEvent>>, choices: &[Index]) -> Vec<LoggedEvent> {
    let mut log = Vec::new();
    for choice in choices.iter().cycle() {
        streams.retain(|stream| !stream.is_empty());
        if streams.is_empty() {
            break;
        }
        let chosen = choice.index(streams.len());
        log.push(streams[chosen].remove(0));
    }
    log
}

fn number_positions(log: &mut [LoggedEvent]) {
    for (event, commit) in log.iter_mut().zip(1..) {
        event.position = Position { commit, prepare: commit };
    }
}

fn edit(bytes: &mut Vec<u8>, from: &str, to: &str) {
    *bytes = String::from_utf8(bytes.clone()).unwrap().replace(from, to).into_bytes();
}

fn set_previous_hash(event: &mut LoggedEvent, hash: Option<&str>) {
    let mut metadata: serde_json::Value = serde_json::from_slice(&event.metadata).unwrap();
    metadata["previous_hash"] = hash.into();
    event.metadata = metadata.to_string().into_bytes();
}

fn corrupt(log: &mut Vec<LoggedEvent>, corruption: Corruption, at: usize) {
    let order_id = log[at].order_id;
    let other = order(99).to_string();
    match corruption {
        Corruption::Removed => drop(log.remove(at)),
        Corruption::RemovedWithoutGap => {
            log.remove(at);
            let later = log[at..].iter_mut().filter(|event| event.order_id == order_id);
            later.for_each(|event| event.revision -= 1);
        }
        Corruption::Repeated => {
            log.insert(at, log[at].clone());
            let later = log[at + 1..].iter_mut().filter(|event| event.order_id == order_id);
            later.for_each(|event| event.revision += 1);
        }
        Corruption::ChangedHash => set_previous_hash(&mut log[at], Some("beef")),
        Corruption::RemovedHash => set_previous_hash(&mut log[at], None),
        Corruption::ChangedData => log[at].data.push(b' '),
        Corruption::UnknownType => log[at].event_type = "OrderMislaid".to_owned(),
        Corruption::OtherOrder => edit(&mut log[at].data, &order_id.to_string(), &other),
        Corruption::OtherCorrelation => edit(
            &mut log[at].metadata,
            &format!("\"$correlationId\":\"{order_id}\""),
            &format!("\"$correlationId\":\"{other}\""),
        ),
        Corruption::SecondFulfilment => {
            for _ in 0..2 {
                let last = log.iter().rfind(|event| event.order_id == order_id).unwrap();
                let fulfilled = OrderEvent::Fulfilled(OrderFulfilled {
                    order_id,
                    attempt: 1,
                    deliveries: 1,
                    reference: "r".to_owned(),
                    fulfilled_at: Timestamp::UNIX_EPOCH,
                });
                log.push(next_event(order_id, Some(last), &fulfilled));
            }
        }
    }
}

/// Returns the violations that an audit of the whole log finds, without those of the whole store.
fn audit_all(log: &[LoggedEvent]) -> Vec<Finding> {
    let mut audit = Audit::default();
    let mut findings: Vec<_> = log.iter().flat_map(|event| audit.observe(event)).collect();
    findings.extend(audit.finish().1.filter(|finding| finding.order_id.is_some()));
    findings
}

fn distinct(findings: &[Finding]) -> BTreeSet<String> {
    findings.iter().map(|finding| format!("{finding:?}")).collect()
}

/// The continuous audit of a log, whose streams can be read.
struct Audited<'a> {
    audit: ContinuousAudit,
    log: &'a [LoggedEvent],
    findings: Vec<Finding>,
    now: Instant,
}

impl<'a> Audited<'a> {
    fn new(log: &'a [LoggedEvent], max_orders: usize, max_waiting: usize) -> Self {
        let audit = ContinuousAudit::with_limits(max_orders, max_waiting);
        Self { audit, log, findings: Vec::new(), now: Instant::now() }
    }

    fn receive(&mut self, events: &[LoggedEvent]) {
        for event in events {
            self.findings.extend(self.audit.observe(event, self.now));
        }
    }

    /// Checks one waiting order. Returns `false` if there was none.
    fn check_missing(&mut self) -> bool {
        let Some(missing) = self.audit.next_missing() else { return false };
        let revisions = missing.from..=missing.to;
        for event in self.log.iter().filter(|event| event.order_id == missing.order_id) {
            if revisions.contains(&event.revision) {
                self.findings.extend(self.audit.check_missing(event, self.now));
            }
        }
        self.audit.end_missing(&missing);
        true
    }

    /// Checks everything that waits, also what waits for time to pass.
    fn finish(mut self) -> (Vec<Finding>, u64) {
        while self.check_missing() {}
        while let Some((_, order_id)) = self.audit.next_unqueued(self.now + QUEUED_WITHIN) {
            let mut order = OrderAudit::new(order_id, false);
            for event in self.log.iter().filter(|event| event.order_id == order_id) {
                order.observe(event);
            }
            self.findings.extend(order.finish());
        }
        (self.findings, self.audit.take_unchecked())
    }
}

fn any_log() -> impl Strategy<Value = Vec<LoggedEvent>> {
    let histories = prop::collection::vec(any_history(), 1..5);
    let choices = prop::collection::vec(any::<Index>(), 1..30);
    (histories, choices).prop_map(|(histories, choices)| {
        let streams =
            histories.iter().zip(1..).map(|(history, number)| stream(number, history)).collect();
        interleave(streams, &choices)
    })
}

/// Receives a log in batches and reads a few waiting orders between them.
fn audit_in_batches(
    log: &[LoggedEvent],
    max_orders: usize,
    batches: &[(usize, usize)],
) -> (Vec<Finding>, u64) {
    let mut audited = Audited::new(log, max_orders, MAX_WAITING);
    let mut rest = log;
    for (batch_size, n_reads) in batches.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (batch, later) = rest.split_at((*batch_size).min(rest.len()));
        audited.receive(batch);
        for _ in 0..*n_reads {
            audited.check_missing();
        }
        rest = later;
    }
    audited.finish()
}

fn any_batches() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((1..9_usize, 0..3_usize), 1..10)
}

proptest! {
    #[test]
    fn valid_histories_have_no_findings(
        mut log in any_log(),
        max_orders in 1..6_usize,
        batches in any_batches(),
    ) {
        number_positions(&mut log);
        prop_assert_eq!(audit_in_batches(&log, max_orders, &batches), (vec![], 0));
    }

    #[test]
    fn corruption_is_found_as_in_the_whole_log(
        mut log in any_log(),
        corruption in prop::sample::select(&CORRUPTIONS[..]),
        at in any::<Index>(),
        max_orders in 1..6_usize,
        batches in any_batches(),
    ) {
        prop_assume!(!log.is_empty());
        let at = at.index(log.len());
        corrupt(&mut log, corruption, at);
        number_positions(&mut log);
        let (found, n_unchecked) = audit_in_batches(&log, max_orders, &batches);
        prop_assert_eq!(distinct(&found), distinct(&audit_all(&log)));
        prop_assert_eq!(n_unchecked, 0);
    }
}

/// Returns a log with `n_orders` placed orders and then their fulfilments.
fn placed_and_fulfilled(n_orders: u128) -> Vec<LoggedEvent> {
    let streams: Vec<_> = (1..=n_orders).map(|number| stream(number, &placed(order(1)))).collect();
    let mut log = streams.concat();
    for stream in &streams {
        let queued = stream.last().unwrap();
        let fulfilled = OrderEvent::Fulfilled(OrderFulfilled {
            order_id: queued.order_id,
            attempt: 1,
            deliveries: 1,
            reference: "r".to_owned(),
            fulfilled_at: Timestamp::UNIX_EPOCH,
        });
        log.push(next_event(queued.order_id, Some(queued), &fulfilled));
    }
    number_positions(&mut log);
    log
}

#[test]
fn evicted_order_waits_for_its_earlier_events() {
    let log = placed_and_fulfilled(3);
    let mut audited = Audited::new(&log, 2, MAX_WAITING);
    audited.receive(&log[..13]);
    let missing = audited.audit.next_missing().unwrap();
    assert_eq!((missing.order_id, missing.from, missing.to), (order(1), 0, 4));
    // The events behind the newest that has arrived are not read.
    audited.receive(&log[13..]);
    assert_eq!(audited.audit.waiting.len(), 1, "the other two orders are held");
    assert_eq!(audited.finish(), (vec![], 0));
}

#[test]
fn held_order_that_missed_events_is_read_from_there() {
    let log = placed_and_fulfilled(1);
    let mut audited = Audited::new(&log, 2, MAX_WAITING);
    audited.receive(&log[..2]);
    audited.receive(&log[4..]);
    let missing = audited.audit.next_missing().unwrap();
    assert_eq!((missing.from, missing.to), (2, 4));
    assert_eq!(audited.finish(), (vec![], 0));
}

#[test]
fn replaced_log_begins_the_audit_anew() {
    let log = placed_and_fulfilled(2);
    // An older backup lacks the first order's fulfilment, and has the position of another event.
    let mut restored = log.clone();
    let mut placed_after = stream(3, &placed(order(1)));
    restored.splice(8.., placed_after.drain(..));
    number_positions(&mut restored);
    let mut audited = Audited::new(&restored, 9, MAX_WAITING);
    audited.receive(&log);
    audited.receive(&restored[8..]);
    assert_eq!(audited.audit.orders.len(), 1, "the states of the other log are forgotten");
    assert_eq!(audited.finish(), (vec![], 0));
}

#[test]
fn events_beyond_the_waiting_orders_are_counted() {
    let log = placed_and_fulfilled(5);
    let mut audited = Audited::new(&log, 1, 2);
    // The first four orders are evicted, and two of them may wait.
    audited.receive(&log);
    assert_eq!(audited.finish(), (vec![], 2));
}

#[test]
fn event_that_the_store_no_longer_has_is_counted() {
    let log = placed_and_fulfilled(1);
    let mut audited = Audited::new(&log[..4], 2, MAX_WAITING);
    audited.receive(&log[4..]);
    assert_eq!(audited.finish(), (vec![], 1));
}

#[test]
fn deleted_order_is_forgotten() {
    let log = placed_and_fulfilled(1);
    let mut audited = Audited::new(&log, 2, MAX_WAITING);
    audited.receive(&log[4..]);
    audited.audit.forget(order(1));
    assert_eq!(audited.audit.next_check_at(audited.now), None);
}

#[test]
fn order_that_is_not_queued_in_time_is_found() {
    let log = placed_and_fulfilled(1);
    let mut audited = Audited::new(&log[..2], 2, MAX_WAITING);
    audited.receive(&log[..2]);
    assert!(audited.audit.next_unqueued(audited.now).is_none());
    let (findings, _) = audited.finish();
    let found: Vec<_> = findings.iter().map(|found| (found.check, found.revision)).collect();
    assert_eq!(found, [("I1", Some(1))]);

    let mut audited = Audited::new(&log, 2, MAX_WAITING);
    audited.receive(&log[..2]);
    // The rest of the append arrives in the next batch.
    audited.receive(&log[2..]);
    assert!(audited.audit.next_unqueued(audited.now + QUEUED_WITHIN).is_none());
}

#[test]
fn order_may_lack_hashes_only_if_it_began_before_the_chain() {
    let mut log = placed_and_fulfilled(3);
    log[..8].iter_mut().for_each(|event| set_previous_hash(event, None));
    // The third order begins the chain. The first two are older than it.
    let (findings, _) = audit_in_batches(&log, 1, &[(3, 1)]);
    assert_eq!(distinct(&findings), distinct(&audit_all(&log)));

    // In a store whose chain began earlier, both are violations.
    let mut audited = Audited::new(&log, 9, MAX_WAITING);
    audited.audit.chained_since = Some(Position { commit: 0, prepare: 0 });
    audited.receive(&log[..4]);
    let revisions: Vec<_> = audited.findings.iter().map(|found| found.revision).collect();
    assert_eq!(revisions, [0, 1, 2, 3].map(Some));
}
