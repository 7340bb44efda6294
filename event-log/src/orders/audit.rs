//! Audit of a whole store: the hash chain of every order's stream, and the invariants of every
//! history. One pass, with a small state per order.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::{Invariant, Status};

use super::order_audit::{Finding, OrderAudit};
use crate::store::logged_event::LoggedEvent;

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

impl Audit {
    /// Checks the next event, and returns its violations.
    pub fn observe(&mut self, event: &LoggedEvent) -> Vec<Finding> {
        let is_chained = self.is_chained;
        let new = || OrderAudit::new(event.order_id, is_chained);
        let checked = self.orders.entry(event.order_id).or_insert_with(new).observe(event);
        // Streams that begin later must carry hashes from their first event on.
        self.is_chained |= !checked.is_unchained;
        self.summary.n_events += 1;
        self.summary.n_unchained += u64::from(checked.is_unchained);
        self.summary.n_accepted += u64::from(checked.is_arrival);
        checked.findings
    }

    /// Ends the audit. Returns the counts, and the violations of the store as a whole.
    pub fn finish(self) -> (AuditSummary, impl Iterator<Item = Finding>) {
        let mut summary = self.summary;
        for order in self.orders.values() {
            summary.n_orders += 1;
            match order.status() {
                Some(Status::Processing) => summary.n_processing += 1,
                Some(Status::Fulfilled) => summary.n_fulfilled += 1,
                Some(Status::Failed) => summary.n_failed += 1,
                None => {}
            }
        }
        let unfinished = self.orders.into_values().filter_map(|order| order.finish());
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
