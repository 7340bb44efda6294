//! A whole store held against what must hold of it: the chain of every order's stream, and the
//! invariants of every history. One pass, with a small state per order.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::{
    HistoryCheck, Invariant, Order, OrderEvent, Recorded, Status, Violation, evolve,
};
use serde_json::json;
use uuid::Uuid;

use crate::chain::{Chain, Link};
use crate::metadata::Metadata;
use crate::stream::LoggedEvent;

/// The check that an event is tied to the one before it.
const CHAIN: &str = "chain";
/// The check that an event, and the store's log, can be read at all.
const READABLE: &str = "readable";
/// The part of I4, rows equal the fold, that events show: what they say twice of an order, they say
/// alike. Else the fold goes by the later one, and the row is not what was ordered.
const CONTENT: &str = "I4";

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `None` if it is about the whole store.
    pub order_id: Option<OrderId>,
    pub revision: Option<u64>,
    /// `chain`, `readable`, `I4`, or the code of an [`Invariant`].
    pub check: &'static str,
    pub expected: String,
    pub found: String,
}

impl Finding {
    /// The store cannot read its own log: what is behind the damage cannot be checked.
    pub fn damaged(found: String) -> Self {
        let expected = "a log that can be read to its end".to_owned();
        Self { order_id: None, revision: None, check: READABLE, expected, found }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditSummary {
    pub n_events: u64,
    /// Those of them that are not tied to the event before: written before there was a chain.
    pub n_unchained: u64,
    pub n_orders: u64,
    /// Orders that arrived, whatever came of them.
    pub n_accepted: u64,
    pub n_processing: u64,
    pub n_fulfilled: u64,
    pub n_failed: u64,
}

/// The check of a store, event by event in the log's order.
#[derive(Default)]
pub struct Audit {
    orders: BTreeMap<OrderId, OrderAudit>,
    /// Whether an event of any order carried a hash.
    is_chained: bool,
    summary: AuditSummary,
}

/// What has to be remembered of an order.
struct OrderAudit {
    chain: Chain,
    history: HistoryCheck,
    /// From its arrival until it is queued or has failed, which is the length of one append.
    arriving: Option<Box<Order>>,
    correlation_id: Option<Uuid>,
    /// The ids of its events, half of each: they are hashes, and few.
    event_ids: Vec<u64>,
}

impl Audit {
    /// Takes the next event, and says what is wrong with it.
    pub fn observe(&mut self, event: &LoggedEvent) -> Vec<Finding> {
        self.summary.n_events += 1;
        let order_id = event.order_id;
        let is_chained = self.is_chained;
        let order = self.orders.entry(order_id).or_insert_with(|| {
            let chain = if is_chained { Chain::begun() } else { Chain::start() };
            OrderAudit::new(order_id, chain)
        });
        let mut findings = Vec::new();
        let link = order.chain.follow(event);
        self.is_chained |= link != Link::Unchained;
        match link {
            Link::Whole => {}
            Link::Unchained => self.summary.n_unchained += 1,
            Link::Broken { expected, found } => {
                let found = found.map_or_else(|| "no hash".to_owned(), |it| format!("`{it}`"));
                findings.push(event.finding(CHAIN, format!("`{expected}`"), found));
            }
        }
        match event.decode() {
            Ok(recorded) => {
                let is_arrival = matches!(recorded.event, OrderEvent::Received(_));
                self.summary.n_accepted += u64::from(is_arrival);
                let violations = order.history.observe(&recorded);
                findings.extend(violations.into_iter().map(|it| violated(order_id, it)));
                let objection = order.object_to_content(&recorded);
                findings.extend(objection.map(|(it, found)| event.finding(CONTENT, it, found)));
            }
            Err(error) => {
                let gap = order.history.observe_unreadable(event.revision);
                findings.extend(gap.map(|it| violated(order_id, it)));
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let found = source.unwrap_or_else(|| error.to_string());
                findings.push(event.finding(READABLE, "event of this release".to_owned(), found));
            }
        }
        findings.extend(order.check_causes(event));
        findings
    }

    /// What the store holds, and what is wrong with it as a whole.
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
            order.history.finish().map(|it| violated(order_id, it))
        });
        (summary, unfinished.chain(summary.uncounted()))
    }
}

impl AuditSummary {
    /// The finding that some orders count as nothing, or as more than one.
    fn uncounted(&self) -> Option<Finding> {
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
    fn new(order_id: OrderId, chain: Chain) -> Self {
        Self {
            chain,
            history: HistoryCheck::new(order_id),
            arriving: None,
            correlation_id: None,
            event_ids: Vec::new(),
        }
    }

    /// What the order was, and what it is, if an event of its arrival tells it differently.
    fn object_to_content(&mut self, recorded: &Recorded) -> Option<(String, String)> {
        let before = self.arriving.take();
        if before.is_none() && !matches!(recorded.event, OrderEvent::Received(_)) {
            return None;
        }
        let after = evolve(before.as_deref().cloned(), recorded);
        let told = |it: &Order| {
            json!({
                "customer_id": it.customer_id,
                "items": it.items,
                "total_quantity": it.total_quantity,
            })
        };
        let changed = before.map(|it| (told(&it), told(&after))).filter(|(was, is)| was != is);
        if after.status == Status::Processing && after.attempt == 0 {
            self.arriving = Some(Box::new(after));
        }
        changed.map(|(was, is)| (was.to_string(), is.to_string()))
    }

    /// Whether the event says what it belongs to and what caused it, and both exist.
    fn check_causes(&mut self, event: &LoggedEvent) -> Option<Finding> {
        let objection = match event.metadata() {
            Some(metadata) => self.object_to_causes(&metadata),
            None => {
                Some(("metadata with its causes".to_owned(), "none that can be read".to_owned()))
            }
        };
        self.event_ids.push(half(event.event_id));
        let (expected, found) = objection?;
        Some(event.finding(Invariant::Causality.code(), expected, found))
    }

    /// What should stand in the metadata, and what does, if that is another thing.
    fn object_to_causes(&mut self, metadata: &Metadata) -> Option<(String, String)> {
        let correlation_id = *self.correlation_id.get_or_insert(metadata.correlation_id);
        if metadata.correlation_id != correlation_id {
            let found = format!("$correlationId {}", metadata.correlation_id);
            return Some((format!("$correlationId {correlation_id}"), found));
        }
        let causation_id = metadata.causation_id;
        let is_request = causation_id == correlation_id
            || metadata.request_id.as_ref().is_some_and(|it| *it == causation_id.to_string());
        if is_request || self.event_ids.contains(&half(causation_id)) {
            return None;
        }
        let expected = "$causationId of a request or of an event before it".to_owned();
        Some((expected, format!("$causationId {causation_id}")))
    }
}

fn half(id: Uuid) -> u64 {
    id.as_u64_pair().1
}

fn violated(order_id: OrderId, violation: Violation) -> Finding {
    Finding {
        order_id: Some(order_id),
        revision: Some(violation.revision),
        check: violation.invariant.code(),
        expected: violation.expected,
        found: violation.found,
    }
}

impl LoggedEvent {
    fn finding(&self, check: &'static str, expected: String, found: String) -> Finding {
        let (order_id, revision) = (Some(self.order_id), Some(self.revision));
        Finding { order_id, revision, check, expected, found }
    }
}
