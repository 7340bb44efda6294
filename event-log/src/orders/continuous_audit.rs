//! Audit of events as they arrive, with the states of the orders that had events most recently.

use std::collections::VecDeque;
use std::time::Duration;

use domain::ids::OrderId;
use hashlink::{LinkedHashMap, LruCache};
use tokio::time::Instant;

use super::event_log::EventLog;
use super::order_audit::{Finding, OrderAudit};
use crate::store::client::Position;
use crate::store::error::LogError;
use crate::store::logged_event::LoggedEvent;

/// Maximum number of orders that are held. An order of five events takes about 250 bytes, so all of
/// them take 25 MB.
const MAX_ORDERS: usize = 100_000;
/// Maximum number of orders whose earlier events wait to be read. They take about 8 MB.
const MAX_WAITING: usize = 100_000;
/// How long an order may stay received and not queued. Both are one append, but the audit may receive
/// them in two parts.
const QUEUED_WITHIN: Duration = Duration::from_secs(10);

/// Audit of all orders' events from any position on, in the log's order.
///
/// An event that follows the held state of its order, or begins its stream, is checked at once. The
/// other events wait until [`check_waiting`](Self::check_waiting) has read the events before them.
pub struct ContinuousAudit {
    orders: LruCache<OrderId, OrderAudit>,
    /// Orders with events that were not checked on arrival, and the revision of their newest event.
    /// The order that has waited longest is the first.
    waiting: LinkedHashMap<OrderId, u64>,
    max_waiting: usize,
    /// Orders that were not queued and had not failed at their first event, and when that arrived.
    unqueued: VecDeque<(Instant, OrderId)>,
    /// Position of the oldest known event with a hash. Streams that begin later must have hashes.
    chained_since: Option<Position>,
    /// Position of the newest event that has arrived.
    newest: Option<Position>,
    n_unchecked: u64,
}

/// Events of one order to read from its stream and to check.
struct Missing {
    order_id: OrderId,
    from: u64,
    /// The last revision. Events behind it have not arrived.
    to: u64,
}

impl Default for ContinuousAudit {
    fn default() -> Self {
        Self::with_limits(MAX_ORDERS, MAX_WAITING)
    }
}

impl ContinuousAudit {
    fn with_limits(max_orders: usize, max_waiting: usize) -> Self {
        Self {
            orders: LruCache::new(max_orders),
            waiting: LinkedHashMap::new(),
            max_waiting,
            unqueued: VecDeque::new(),
            chained_since: None,
            newest: None,
            n_unchecked: 0,
        }
    }

    /// Learns from the store's first event whether its chain begins there. Without that, the chain
    /// begins at the first arriving event with a hash.
    ///
    /// # Errors
    /// If the event store cannot be read.
    pub async fn learn_chain_start(&mut self, log: &EventLog) -> Result<(), LogError> {
        if let Some(first) = log.scan().await?.next().await? {
            self.note_hash(&first);
        }
        Ok(())
    }

    /// Checks an event that has arrived, and returns its violations.
    pub fn observe(&mut self, event: &LoggedEvent, now: Instant) -> Vec<Finding> {
        // Positions go back only if the store was replaced, for example by an older backup. The held
        // states may reflect events that the store no longer has.
        if self.newest >= Some(event.position) {
            let limits = (self.orders.capacity(), self.max_waiting);
            let n_unchecked = self.n_unchecked;
            *self = Self { n_unchecked, ..Self::with_limits(limits.0, limits.1) };
        }
        self.newest = Some(event.position);
        self.note_hash(event);
        let order_id = event.order_id;
        if let Some(newest) = self.waiting.get_mut(&order_id) {
            *newest = (*newest).max(event.revision);
        } else if event.revision <= self.next_revision(order_id) {
            return self.check(event, now);
        } else if self.waiting.len() < self.max_waiting {
            self.waiting.insert(order_id, event.revision);
        } else {
            self.n_unchecked += 1;
        }
        Vec::new()
    }

    /// Forgets an order whose stream was deleted.
    pub fn forget(&mut self, order_id: OrderId) {
        self.orders.remove(&order_id);
        self.waiting.remove(&order_id);
    }

    /// Returns when [`check_waiting`](Self::check_waiting) has something to check; `None` if nothing
    /// waits.
    pub fn next_check_at(&self, now: Instant) -> Option<Instant> {
        if !self.waiting.is_empty() {
            return Some(now);
        }
        self.unqueued.front().map(|(since, _)| *since + QUEUED_WITHIN)
    }

    /// Reads and checks one order whose events were not checked on arrival, or that was not queued in
    /// time. Events that the store no longer has count as unchecked.
    ///
    /// # Errors
    /// If the event store cannot be reached: the order is read again at the next call.
    pub async fn check_waiting(
        &mut self,
        log: &EventLog,
        now: Instant,
    ) -> Result<Vec<Finding>, LogError> {
        if let Some((since, order_id)) = self.next_unqueued(now) {
            let checked = check_end(log, order_id).await;
            if checked.is_err() {
                self.unqueued.push_front((since, order_id));
            }
            return checked.map(Vec::from_iter);
        }
        let Some(missing) = self.next_missing() else { return Ok(Vec::new()) };
        let order_id = missing.order_id;
        let error = match self.read_missing(log, &missing, now).await {
            Ok(findings) => {
                self.end_missing(&missing);
                return Ok(findings);
            }
            Err(error) => error,
        };
        // Its findings are lost with the error, so the order is checked from its first event again.
        self.orders.remove(&order_id);
        if error.is_unavailable() {
            return Err(error);
        }
        self.end_missing(&missing);
        let is_damaged = matches!(error, LogError::Damaged { .. });
        Ok(Vec::from_iter(is_damaged.then(|| Finding::damaged_log(error.to_string()))))
    }

    /// Returns the number of events that could not be checked since the last call.
    pub fn take_unchecked(&mut self) -> u64 {
        std::mem::take(&mut self.n_unchecked)
    }

    fn next_revision(&self, order_id: OrderId) -> u64 {
        self.orders.peek(&order_id).map_or(0, OrderAudit::next_revision)
    }

    fn note_hash(&mut self, event: &LoggedEvent) {
        let is_older = self.chained_since.is_none_or(|since| event.position < since);
        if is_older && event.previous_hash().is_some() {
            self.chained_since = Some(event.position);
        }
    }

    /// Checks the next event of an order.
    fn check(&mut self, event: &LoggedEvent, now: Instant) -> Vec<Finding> {
        let order_id = event.order_id;
        let is_chained = self.chained_since.is_some_and(|since| since < event.position);
        let held = self.orders.remove(&order_id);
        let is_new = held.is_none();
        let mut order = held.unwrap_or_else(|| OrderAudit::new(order_id, is_chained));
        let findings = order.observe(event).findings;
        if is_new && order.status().is_none() {
            self.unqueued.push_back((now, order_id));
        }
        // The least recently used order goes if there is no room.
        self.orders.insert(order_id, order);
        findings
    }

    /// Takes the next order that was not queued in time as far as this audit knows.
    fn next_unqueued(&mut self, now: Instant) -> Option<(Instant, OrderId)> {
        while self.unqueued.front().is_some_and(|(since, _)| *since + QUEUED_WITHIN <= now) {
            let (since, order_id) = self.unqueued.pop_front()?;
            if self.orders.peek(&order_id).is_none_or(|order| order.status().is_none()) {
                return Some((since, order_id));
            }
        }
        None
    }

    fn next_missing(&self) -> Option<Missing> {
        let (&order_id, &to) = self.waiting.front()?;
        Some(Missing { order_id, from: self.next_revision(order_id), to })
    }

    /// Ends the wait of an order. Its events that the store did not return are unchecked.
    fn end_missing(&mut self, missing: &Missing) {
        self.waiting.remove(&missing.order_id);
        let behind = (missing.to + 1).saturating_sub(self.next_revision(missing.order_id));
        self.n_unchecked += behind.min(missing.to + 1 - missing.from);
    }

    async fn read_missing(
        &mut self,
        log: &EventLog,
        missing: &Missing,
        now: Instant,
    ) -> Result<Vec<Finding>, LogError> {
        let mut reader = log.read_history_from(missing.order_id, missing.from);
        let mut findings = Vec::new();
        let mut expected = missing.from;
        while let Some(events) = reader.next().await? {
            // The store may have hidden earlier events because an operator truncated the stream.
            if events.first().is_some_and(|event| event.revision > expected) {
                log.refuse_deleted(missing.order_id).await?;
            }
            for event in events.iter().filter(|event| event.revision <= missing.to) {
                findings.extend(self.check_missing(event, now));
                expected = event.revision + 1;
            }
            if expected > missing.to || events.last().is_some_and(|last| last.revision > missing.to)
            {
                break;
            }
        }
        Ok(findings)
    }

    fn check_missing(&mut self, event: &LoggedEvent, now: Instant) -> Vec<Finding> {
        // The hash of an older event than any that has arrived moves the start of the chain.
        self.note_hash(event);
        self.check(event, now)
    }
}

/// Reads an order's whole stream, and returns the violation if it may not end where it ends. The held
/// state may be behind the stream.
async fn check_end(log: &EventLog, order_id: OrderId) -> Result<Option<Finding>, LogError> {
    let mut order = OrderAudit::new(order_id, false);
    let mut reader = log.read_history_from(order_id, 0);
    loop {
        match reader.next().await {
            Ok(Some(events)) => events.iter().for_each(|event| drop(order.observe(event))),
            Ok(None) => break,
            Err(error) if error.is_unavailable() => return Err(error),
            // Its deletion, or the damage of the log, has been found by other checks.
            Err(_) => return Ok(None),
        }
    }
    Ok(if order.next_revision() == 0 { None } else { order.finish() })
}

#[cfg(test)]
mod tests;
