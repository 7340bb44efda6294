//! Audit of one order: the hash chain of its stream, and the invariants of its history.

use domain::ids::OrderId;
use domain::order::{
    HistoryCheck, Invariant, Order, OrderEvent, Recorded, Status, Violation, evolve,
};
use serde_json::json;
use uuid::Uuid;

use super::hash_chain::{ChainCheck, ChainLink};
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

    /// Returns whether the values are the content of an order, which is personal data of customers.
    pub fn has_content(&self) -> bool {
        self.check == CONTENT
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

/// State of the audit of one order.
pub(super) struct OrderAudit {
    chain: ChainCheck,
    history: HistoryCheck,
    /// The order from its arrival until it is queued or has failed, which is within one append.
    arriving: Option<Box<Order>>,
    correlation_id: Option<Uuid>,
    /// The lower halves of the ids of its events: the ids are hashes, and few.
    event_ids: Vec<u64>,
}

/// What the check of one event has shown.
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    /// Whether neither this event nor an earlier one of the stream has to carry a hash.
    pub(super) is_unchained: bool,
    /// Whether an order arrived with the event.
    pub(super) is_arrival: bool,
}

impl OrderAudit {
    /// Begins before the first event of an order's stream. In a store whose chain has begun, that
    /// event must carry a hash.
    pub(super) fn new(order_id: OrderId, is_chained: bool) -> Self {
        Self {
            chain: if is_chained { ChainCheck::begin_chained() } else { ChainCheck::begin() },
            history: HistoryCheck::new(order_id),
            arriving: None,
            correlation_id: None,
            event_ids: Vec::new(),
        }
    }

    /// Checks the next event.
    pub(super) fn observe(&mut self, event: &LoggedEvent) -> Checked {
        let order_id = event.order_id;
        let mut findings = Vec::new();
        let link = self.chain.check_event(event);
        let is_unchained = link == ChainLink::Unchained;
        if let ChainLink::Broken { expected, found } = link {
            let found = found.map_or_else(|| "no hash".to_owned(), |hash| format!("`{hash}`"));
            findings.push(Finding::at_event(event, CHAIN, format!("`{expected}`"), found));
        }
        let mut is_arrival = false;
        match event.decode() {
            Ok(recorded) => {
                is_arrival = matches!(recorded.event, OrderEvent::Received(_));
                let violations = self.history.observe(&recorded).into_iter();
                findings.extend(
                    violations.map(|violation| Finding::from_violation(order_id, violation)),
                );
                let changed = self.check_content(&recorded);
                findings
                    .extend(changed.map(|(was, is)| Finding::at_event(event, CONTENT, was, is)));
            }
            Err(error) => {
                let gap = self.history.observe_unreadable(event.revision);
                findings.extend(gap.map(|violation| Finding::from_violation(order_id, violation)));
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let found = source.unwrap_or_else(|| error.to_string());
                let expected = "event of this release".to_owned();
                findings.push(Finding::at_event(event, READABLE, expected, found));
            }
        }
        findings.extend(self.check_causes(event));
        Checked { findings, is_unchained, is_arrival }
    }

    /// Returns the violation if the stream may not end here.
    pub(super) fn finish(&self) -> Option<Finding> {
        let violation = self.history.finish()?;
        Some(Finding::from_violation(self.history.order_id(), violation))
    }

    /// Returns the order's status; `None` if it was not queued and has not failed.
    pub(super) fn status(&self) -> Option<Status> {
        self.history.status()
    }

    /// Returns the revision that the next event must have.
    pub(super) fn next_revision(&self) -> u64 {
        self.history.next_revision()
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
        let is_changed = |before: &Order| {
            (&before.customer_id, &before.items, before.total_quantity)
                != (&after.customer_id, &after.items, after.total_quantity)
        };
        let changed = before
            .filter(|before| is_changed(before))
            .map(|before| (content(&before).to_string(), content(&after).to_string()));
        // Only until the order is queued: a redrive may correct the content.
        if after.status == Status::Processing && after.attempt == 0 {
            self.arriving = Some(Box::new(after));
        }
        changed
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
