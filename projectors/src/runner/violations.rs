//! Violations of invariants that this process has found: each is counted and logged once.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::{Arc, Mutex};

use domain::ids::OrderId;
use domain::order::Stage;
use event_log::Finding as AuditFinding;
use service_kit::mutex::lock;

use crate::metrics::count_violation;
use crate::projection::CountChange;

/// Maximum number of remembered violations. Behind it all are forgotten, and violations that are found
/// again are reported again. They take about 2 MB.
const MAX_REMEMBERED: usize = 100_000;

/// The violations that were found. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Violations(Arc<Mutex<HashSet<u64>>>);

impl Violations {
    /// Reports a violation that the audit of the events has found.
    pub(super) fn report(&self, finding: &AuditFinding) {
        let AuditFinding { order_id, revision, check: invariant, expected, found } = finding;
        if !self.count(invariant, (order_id.map(|id| id.0), revision, expected)) {
            return;
        }
        let (expected, found) = if finding.has_content() {
            // Logs have no personal data of customers.
            ("customer and items of the event before", "other customer or items")
        } else {
            (expected.as_str(), found.as_str())
        };
        tracing::warn!(
            order.id = order_id.map(tracing::field::display),
            revision,
            invariant,
            expected,
            found,
            "Invariant violated"
        );
    }

    /// Reports a number of orders in one state that is not the number of their rows.
    pub(super) fn report_miscounted(&self, change: &CountChange) {
        if !self.count_miscounted(change) {
            return;
        }
        let stage = change.stage.map(Stage::as_str);
        let found = format!("{:+} orders", change.n_orders.saturating_neg());
        tracing::warn!(
            invariant = "I5",
            status = change.status.as_str(),
            stage,
            expected = "as many orders as there are rows",
            found,
            "Invariant violated"
        );
    }

    /// Counts an order whose rows differ from its events.
    pub(super) fn count_differing(&self, order_id: OrderId) {
        self.count("I4", (order_id.0, "row"));
    }

    /// Counts a minute whose statistics differ from the events.
    pub(super) fn count_differing_minute(&self, minute: i64) {
        self.count("I4", ("minute", minute));
    }

    /// Counts a number of orders that differs from the rows. Returns `false` if it was counted before.
    pub(super) fn count_miscounted(&self, change: &CountChange) -> bool {
        let stage = change.stage.map(Stage::as_str);
        self.count("I5", (change.status.as_str(), stage, change.n_orders))
    }

    /// Counts a violation. Returns `false` if it was counted before.
    fn count(&self, invariant: &'static str, subject: impl Hash) -> bool {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let key = hasher.hash_one((invariant, subject));
        let mut known = lock(&self.0);
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        let is_new = known.insert(key);
        if is_new {
            count_violation(invariant);
        }
        is_new
    }
}
