//! Two sets of tables, read side by side in the order of ids. Where they differ, the streams decide
//! about both.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::OrderId;
use event_log::EventLog;

use super::Verified;
use super::judge::{Judge, Side};
use crate::orders::row::Rows;
use crate::pace::Pace;
use crate::progress::{Observer, Phase, Progress};
use crate::replay::ReplayError;
use crate::store::{IdRange, ReadModel, RowsPage, StoreError};

/// Orders that are compared at once: few enough that both sides have room in memory, however large
/// the orders are.
const PAGE: u32 = 500;
/// Orders that differ are judged once there are so many, so that memory does not grow with them.
const MAX_UNJUDGED: usize = 10_000;
/// Tables that were folded from the log, and tables that are to be like them.
pub(crate) struct Comparison<'a> {
    pub(crate) log: &'a EventLog,
    pub(crate) expected: Side<'a>,
    /// A snapshot. At the same position as the other side, every difference is a fault; elsewhere
    /// the streams say what belongs to each position.
    pub(crate) found: Side<'a>,
    /// The tables whose rows are mended where those of the snapshot are wrong.
    pub(crate) mended: Option<&'a dyn ReadModel>,
    pub(crate) pace: Pace,
}

impl Comparison<'_> {
    /// Compares all orders.
    pub(crate) async fn all(
        &self,
        verified: &mut Verified,
        observer: &mut Observer<'_>,
    ) -> Result<(), ReplayError> {
        let Self { log, expected, found: ours, mended, pace } = *self;
        let judge = Judge { log, expected: Some(expected), found: ours, mended };
        let (expected, ours) = (expected.store, ours.store);
        let counts = tokio::try_join!(expected.count_orders(), ours.count_orders())?;
        let n_counted = counts.0.total().max(counts.1.total());
        (observer.progress)(compared(verified, n_counted));
        let last = expected.last_id().await?.max(ours.last_id().await?);
        let Some(last) = last else { return Ok(()) };
        let mut differing = Vec::new();
        let mut next = self.range(None, last).await?;
        while let Some(range) = next {
            let (theirs, mine, behind) = tokio::try_join!(
                expected.rows_text(range),
                ours.rows_text(range),
                self.range(Some(range.until), last)
            )?;
            if theirs == mine {
                verified.n_orders += theirs.n_orders;
            } else {
                verified.n_orders += self.row_by_row(range, &mut differing).await?;
            }
            (observer.progress)(compared(verified, n_counted));
            if differing.len() >= MAX_UNJUDGED {
                judge.all(&std::mem::take(&mut differing), verified, observer).await?;
            }
            next = behind;
            pace.rest(u64::from(PAGE)).await;
        }
        judge.all(&differing, verified, observer).await
    }

    /// The next page of orders up to the last; `None` behind it.
    async fn range(
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
        let until = [theirs, ours].into_iter().flatten().fold(last, Ord::min);
        Ok(Some(IdRange { after, until }))
    }

    /// Adds those of some orders whose rows differ, and returns how many orders there are.
    async fn row_by_row(
        &self,
        IdRange { mut after, until }: IdRange,
        differing: &mut Vec<OrderId>,
    ) -> Result<u64, StoreError> {
        let mut n_orders = 0;
        while after < Some(until) {
            let (theirs, ours) = tokio::try_join!(
                self.expected.store.rows_after(after, PAGE),
                readable(self.found.store, after)
            )?;
            let known = [theirs.until, ours.until].into_iter().flatten().fold(until, Ord::min);
            let ids: BTreeSet<_> = theirs.rows.keys().chain(ours.rows.keys()).copied().collect();
            for id in ids.into_iter().filter(|id| *id <= known) {
                n_orders += 1;
                // Before the first event there are no rows, wherever the other side is.
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

/// How far a comparison is. The statistics say how many orders there are, and may be wrong.
fn compared(verified: &Verified, n_counted: u64) -> Progress {
    let n_done = verified.n_orders;
    Progress { phase: Phase::Compare, n_done, n_total: Some(n_counted.max(n_done)) }
}

/// The next rows. Those that somebody made unreadable are taken for empty ones.
async fn readable(store: &dyn ReadModel, after: Option<OrderId>) -> Result<RowsPage, StoreError> {
    match store.rows_after(after, PAGE).await {
        Err(StoreError::Row { .. }) => {}
        page => return page,
    }
    let ids = store.ids_after(after, PAGE).await?;
    let until = ids.get(PAGE as usize - 1).copied();
    let mut rows = BTreeMap::new();
    for id in ids {
        let of_order = match store.rows(&[id]).await {
            Err(StoreError::Row { .. }) => Rows::default(),
            of_order => of_order?.remove(&id).unwrap_or_default(),
        };
        rows.insert(id, of_order);
    }
    Ok(RowsPage { rows, until })
}
