//! Two read models, read side by side in the order of ids.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::OrderId;

use super::judge::Judge;
use super::{Finding, Verification, Verified};
use crate::orders::row::Rows;
use crate::replay::ReplayError;
use crate::store::{IdRange, ReadModel, RowsPage, StoreError};

/// Orders that are compared at once: few enough that both sides have room in memory, however large
/// the orders are.
const PAGE: u32 = 500;

impl Verification<'_> {
    /// Lets the stream decide wherever the tables differ from the expected ones.
    pub(crate) async fn side_by_side(
        &self,
        expected: &dyn ReadModel,
        verified: &mut Verified,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<(), ReplayError> {
        // Orders that come later are not waited for: with ids in the order of time, there would
        // be more and more of them at the end.
        let last = expected.last_id().await?.max(self.store.last_id().await?);
        let Some(last) = last else { return Ok(()) };
        let mut next = self.range(expected, None, last).await?;
        while let Some(range) = next {
            let (theirs, ours, behind) = tokio::try_join!(
                expected.rows_text(range),
                self.store.rows_text(range),
                self.range(expected, Some(range.until), last)
            )?;
            if theirs == ours {
                verified.n_orders += theirs.n_orders;
            } else {
                self.row_by_row(expected, range, verified, found).await?;
            }
            next = behind;
        }
        Ok(())
    }

    /// The next page of orders up to the last; `None` behind it.
    async fn range(
        &self,
        expected: &dyn ReadModel,
        after: Option<OrderId>,
        last: OrderId,
    ) -> Result<Option<IdRange>, StoreError> {
        if after >= Some(last) {
            return Ok(None);
        }
        let (theirs, ours) =
            tokio::try_join!(expected.page_end(after, PAGE), self.store.page_end(after, PAGE))?;
        let until = [theirs, ours].into_iter().flatten().fold(last, Ord::min);
        Ok(Some(IdRange { after, until }))
    }

    /// Compares the rows of some orders.
    async fn row_by_row(
        &self,
        expected: &dyn ReadModel,
        IdRange { mut after, until }: IdRange,
        verified: &mut Verified,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<(), ReplayError> {
        while after < Some(until) {
            let (theirs, ours) =
                tokio::try_join!(expected.rows_after(after, PAGE), readable(self.store, after))?;
            // There may be more rows by now than a page holds.
            let known = [theirs.until, ours.until].into_iter().flatten().fold(until, Ord::min);
            let ids: BTreeSet<_> = theirs.rows.keys().chain(ours.rows.keys()).copied().collect();
            for id in ids.into_iter().filter(|id| *id <= known) {
                verified.n_orders += 1;
                if theirs.rows.get(&id) != ours.rows.get(&id) {
                    let judge = Judge { log: self.log, store: expected, order_id: id };
                    if !judge.differences().await?.is_empty() {
                        return Err(ReplayError::Misfolded(id));
                    }
                    self.judge(id, verified, found).await?;
                }
            }
            after = Some(known);
        }
        Ok(())
    }
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
