//! Audit of a whole store: the hash chain of every order's stream, and the invariants of every
//! history. One pass, with a small state per order.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::{
    HistoryCheck, Invariant, Order, OrderEvent, Recorded, Status, Violation, evolve,
};
use serde_json::json;
use uuid::Uuid;

use super::hash_chain::{ChainCheck, Link};
use crate::store::logged_event::LoggedEvent;
use crate::store::metadata::Metadata;

/// Name of the check of the hash chain.
const CHAIN: &str = "chain";
/// Name of the check that an event, and the store's log, can be decoded.
const READABLE: &str = "readable";
/// Name of the check that events agree on an order's content. It is the part of I4 (rows equal the
/// fold) that events show: if they disagree, the row follows the later event.
const CONTENT: &str = "I4";

/// A violation that the audit has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The order; `None` if the finding is about the whole store.
    pub order_id: Option<OrderId>,
    pub revision: Option<u64>,
    /// `chain`, `readable`, `I4`, or the code of an [`Invariant`].
    pub check: &'static str,
    pub expected: String,
    pub found: String,
}

impl Finding {
    /// Makes the finding that the store's log is damaged: events behind the damage cannot be checked.
    pub fn damaged_log(found: String) -> Self {
        let expected = "a log that can be read to its end".to_owned();
        Self { order_id: None, revision: None, check: READABLE, expected, found }
    }

    fn at_event(event: &LoggedEvent, check: &'static str, expected: String, found: String) -> Self {
        let (order_id, revision) = (Some(event.order_id), Some(event.revision));
        Self { order_id, revision, check, expected, found }
    }

    fn from_violation(order_id: OrderId, violation: Violation) -> Self {
        Self {
            order_id: Some(order_id),
            revision: Some(violation.revision),
            check: violation.invariant.code(),
            expected: violation.expected,
            found: violation.found,
        }
    }
}

/// Counts of a store's events and orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditSummary {
    pub n_events: u64,
    /// Events without the hash of the previous event: written by a release without the chain.
    pub n_unchained: u64,
    pub n_orders: u64,
    /// Orders that were received, whatever their status.
    pub n_accepted: u64,
    pub n_processing: u64,
    pub n_fulfilled: u64,
    pub n_failed: u64,
}

/// Audit of a store, event by event in the log's order.
#[derive(Default)]
pub struct Audit {
    orders: BTreeMap<OrderId, OrderAudit>,
    /// Whether any event has carried a hash.
    is_chained: bool,
    summary: AuditSummary,
}

/// State of the audit of one order.
struct OrderAudit {
    chain: ChainCheck,
    history: HistoryCheck,
    /// The order from its arrival until it is queued or has failed, which is within one append.
    arriving: Option<Box<Order>>,
    correlation_id: Option<Uuid>,
    /// The lower halves of the ids of its events: the ids are hashes, and few.
    event_ids: Vec<u64>,
}

impl Audit {
    /// Checks the next event, and returns its violations.
    pub fn observe(&mut self, event: &LoggedEvent) -> Vec<Finding> {
        self.summary.n_events += 1;
        let order_id = event.order_id;
        let is_chained = self.is_chained;
        let order = self.orders.entry(order_id).or_insert_with(|| {
            let chain = if is_chained { ChainCheck::new_chained() } else { ChainCheck::new() };
            OrderAudit::new(order_id, chain)
        });
        let mut findings = Vec::new();
        let link = order.chain.check_event(event);
        // Streams that begin later must carry hashes from their first event on.
        self.is_chained |= link != Link::Unchained;
        match link {
            Link::Intact => {}
            Link::Unchained => self.summary.n_unchained += 1,
            Link::Broken { expected, found } => {
                let found = found.map_or_else(|| "no hash".to_owned(), |hash| format!("`{hash}`"));
                findings.push(Finding::at_event(event, CHAIN, format!("`{expected}`"), found));
            }
        }
        match event.decode() {
            Ok(recorded) => {
                let is_arrival = matches!(recorded.event, OrderEvent::Received(_));
                self.summary.n_accepted += u64::from(is_arrival);
                let violations = order.history.observe(&recorded);
                findings.extend(
                    violations
                        .into_iter()
                        .map(|violation| Finding::from_violation(order_id, violation)),
                );
                let changed = order.check_content(&recorded);
                findings
                    .extend(changed.map(|(was, is)| Finding::at_event(event, CONTENT, was, is)));
            }
            Err(error) => {
                let gap = order.history.observe_unreadable(event.revision);
                findings.extend(gap.map(|violation| Finding::from_violation(order_id, violation)));
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let found = source.unwrap_or_else(|| error.to_string());
                findings.push(Finding::at_event(
                    event,
                    READABLE,
                    "event of this release".to_owned(),
                    found,
                ));
            }
        }
        findings.extend(order.check_causes(event));
        findings
    }

    /// Ends the audit. Returns the counts, and the violations of the store as a whole.
    pub fn finish(self) -> (AuditSummary, impl Iterator<Item = Finding>) {
        let mut summary = self.summary;
        for order in self.orders.values() {
            summary.n_orders += 1;
            match order.history.status() {
                Some(Status::Processing) => summary.n_processing += 1,
                Some(Status::Fulfilled) => summary.n_fulfilled += 1,
                Some(Status::Failed) => summary.n_failed += 1,
                None => {}
            }
        }
        let unfinished = self.orders.into_iter().filter_map(|(order_id, order)| {
            order.history.finish().map(|violation| Finding::from_violation(order_id, violation))
        });
        (summary, unfinished.chain(summary.check_counts()))
    }
}

impl AuditSummary {
    /// Checks that every accepted order is counted once.
    fn check_counts(&self) -> Option<Finding> {
        let n_counted = self.n_processing + self.n_fulfilled + self.n_failed;
        (n_counted != self.n_accepted).then(|| Finding {
            order_id: None,
            revision: None,
            check: Invariant::AllAreCounted.code(),
            expected: format!("{} orders that were accepted", self.n_accepted),
            found: format!("{n_counted} that are fulfilled, failed or in flight"),
        })
    }
}

impl OrderAudit {
    fn new(order_id: OrderId, chain: ChainCheck) -> Self {
        Self {
            chain,
            history: HistoryCheck::new(order_id),
            arriving: None,
            correlation_id: None,
            event_ids: Vec::new(),
        }
    }

    /// Checks that the events of an order's arrival agree on its content. Returns the content before
    /// and after the event if they do not.
    fn check_content(&mut self, recorded: &Recorded) -> Option<(String, String)> {
        let before = self.arriving.take();
        if before.is_none() && !matches!(recorded.event, OrderEvent::Received(_)) {
            return None;
        }
        let after = evolve(before.as_deref().cloned(), recorded);
        let content = |order: &Order| {
            json!({
                "customer_id": order.customer_id,
                "items": order.items,
                "total_quantity": order.total_quantity,
            })
        };
        let changed =
            before.map(|before| (content(&before), content(&after))).filter(|(was, is)| was != is);
        // Only until the order is queued: a redrive may correct the content.
        if after.status == Status::Processing && after.attempt == 0 {
            self.arriving = Some(Box::new(after));
        }
        changed.map(|(was, is)| (was.to_string(), is.to_string()))
    }

    /// Checks that the event's metadata names its correlation and cause, and that both exist.
    fn check_causes(&mut self, event: &LoggedEvent) -> Option<Finding> {
        let mismatch = match event.metadata() {
            Some(metadata) => self.check_causality(&metadata),
            None => {
                Some(("metadata with its causes".to_owned(), "none that can be read".to_owned()))
            }
        };
        // After the check: no event is its own cause.
        self.event_ids.push(lower_half(event.event_id));
        let (expected, found) = mismatch?;
        Some(Finding::at_event(event, Invariant::Causality.code(), expected, found))
    }

    /// Returns the expected and the found id if the metadata names an unknown correlation or cause.
    fn check_causality(&mut self, metadata: &Metadata) -> Option<(String, String)> {
        let correlation_id = *self.correlation_id.get_or_insert(metadata.correlation_id);
        if metadata.correlation_id != correlation_id {
            let found = format!("$correlationId {}", metadata.correlation_id);
            return Some((format!("$correlationId {correlation_id}"), found));
        }
        let causation_id = metadata.causation_id;
        let is_request = causation_id == correlation_id
            || metadata.request_id.as_ref().is_some_and(|id| *id == causation_id.to_string());
        if is_request || self.event_ids.contains(&lower_half(causation_id)) {
            return None;
        }
        let expected = "$causationId of a request or of an event before it".to_owned();
        Some((expected, format!("$causationId {causation_id}")))
    }
}

fn lower_half(id: Uuid) -> u64 {
    id.as_u64_pair().1
}
