//! Comparison of two sets of tables, in the order of ids. Where they differ, the streams decide which one
//! is right.

use std::collections::BTreeSet;

use domain::ids::OrderId;
use event_log::EventLog;

use super::judge::{Judge, Side};
use super::{Observer, Verified};
use crate::pace::Pace;
use crate::progress::{Phase, Progress};
use crate::replay::ReplayError;
use crate::store::{IdRange, ReadModel, StoreError};

/// Orders that are compared at once. Both sides fit into memory even if all orders are large.
const PAGE: u32 = 500;
/// Maximum number of orders that differ and are not judged yet, to limit the memory for them.
const MAX_UNJUDGED: usize = 10_000;

/// A comparison of tables that were folded from the log with live tables.
pub(crate) struct Comparison<'a> {
    pub(crate) log: &'a EventLog,
    pub(crate) expected: Side<'a>,
    /// A snapshot. At the same position as the other side, every difference is a fault. At another
    /// position, the streams decide what belongs to each position.
    pub(crate) found: Side<'a>,
    /// The tables that are repaired where the snapshot is wrong.
    pub(crate) mended: Option<&'a ReadModel>,
    pub(crate) pace: Pace,
}

impl Comparison<'_> {
    /// Compares all orders.
    pub(crate) async fn compare_all(
        &self,
        verified: &mut Verified,
        observer: &mut Observer<'_>,
    ) -> Result<(), ReplayError> {
        let Self { log, expected, found: ours, mended, pace } = *self;
        let judge = Judge { log, expected: Some(expected), found: ours, mended };
        let (expected, ours) = (expected.store, ours.store);
        let counts = tokio::try_join!(expected.count_rows(), ours.count_rows())?;
        let n_counted = counts.0.max(counts.1);
        (observer.progress)(compare_progress(verified, n_counted));
        let last = expected.last_id().await?.max(ours.last_id().await?);
        let Some(last) = last else { return Ok(()) };
        let mut differing = Vec::new();
        let mut next = self.next_range(None, last).await?;
        while let Some(range) = next {
            // The bounds of the next page are read meanwhile, which saves a round trip per page.
            let (theirs, mine, behind) = tokio::try_join!(
                expected.rows_text(range),
                ours.rows_text(range),
                self.next_range(Some(range.until), last)
            )?;
            // As texts first: rows are only parsed on pages that differ.
            if theirs == mine {
                verified.n_orders += theirs.n_orders;
            } else {
                verified.n_orders += self.row_by_row(range, &mut differing).await?;
            }
            (observer.progress)(compare_progress(verified, n_counted));
            if differing.len() >= MAX_UNJUDGED {
                judge.judge_all(&std::mem::take(&mut differing), verified, observer).await?;
            }
            next = behind;
            pace.rest_after(u64::from(PAGE)).await;
        }
        judge.judge_all(&differing, verified, observer).await
    }

    /// Returns the next page of orders up to the last; `None` after the last.
    async fn next_range(
        &self,
        after: Option<OrderId>,
        last: OrderId,
    ) -> Result<Option<IdRange>, StoreError> {
        if after >= Some(last) {
            return Ok(None);
        }
        let (theirs, ours) = tokio::try_join!(
            self.expected.store.page_end(after, PAGE),
            self.found.store.page_end(after, PAGE)
        )?;
        // The nearer end: beyond it, one side would have more rows than a page.
        let until = [theirs, ours].into_iter().flatten().fold(last, Ord::min);
        Ok(Some(IdRange { after, until }))
    }

    /// Adds the orders of a page whose rows differ to `differing`, and returns the number of orders.
    async fn row_by_row(
        &self,
        IdRange { mut after, until }: IdRange,
        differing: &mut Vec<OrderId>,
    ) -> Result<u64, StoreError> {
        let mut n_orders = 0;
        while after < Some(until) {
            let (theirs, ours) = tokio::try_join!(
                self.expected.store.rows_after(after, PAGE),
                self.found.store.rows_after(after, PAGE)
            )?;
            // Up to where both sides were read: beyond it, an order may seem to be missing only
            // because one side's page ends before it.
            let known = [theirs.until, ours.until].into_iter().flatten().fold(until, Ord::min);
            let ids: BTreeSet<_> = theirs.rows.keys().chain(ours.rows.keys()).copied().collect();
            for id in ids.into_iter().filter(|id| *id <= known) {
                n_orders += 1;
                // A side at no position has no rows, wherever the other side is.
                let expected = theirs.rows.get(&id).filter(|_| self.found.position.is_some());
                if expected != ours.rows.get(&id) {
                    differing.push(id);
                }
            }
            after = Some(known);
        }
        Ok(n_orders)
    }
}

/// Returns the progress of a comparison. The total comes from statistics, which may be wrong.
fn compare_progress(verified: &Verified, n_counted: u64) -> Progress {
    let n_done = verified.n_orders;
    Progress { phase: Phase::Compare, n_done, n_total: Some(n_counted.max(n_done)) }
}
