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
const PAGE: u32 = 250;

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
        let mut after = None;
        while after < last {
            let ends =
                tokio::try_join!(expected.page_end(after, PAGE), self.store.page_end(after, PAGE))?;
            let Some(until) = [ends.0, ends.1, last].into_iter().flatten().min() else { break };
            let range = IdRange { after, until };
            let (theirs, ours) =
                tokio::try_join!(expected.rows_text(range), self.store.rows_text(range))?;
            if theirs == ours {
                verified.n_orders += theirs.n_orders;
                after = Some(until);
            } else {
                after = self.row_by_row(expected, range, verified, found).await?;
            }
        }
        Ok(())
    }

    /// Compares the rows of a page, and returns how far.
    async fn row_by_row(
        &self,
        expected: &dyn ReadModel,
        IdRange { after, until }: IdRange,
        verified: &mut Verified,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Option<OrderId>, ReplayError> {
        let (theirs, ours) =
            tokio::try_join!(expected.rows_after(after, PAGE), readable(self.store, after))?;
        // There may be more rows by now.
        let until = [theirs.until, ours.until, Some(until)].into_iter().flatten().min();
        let ids: BTreeSet<_> = theirs.rows.keys().chain(ours.rows.keys()).copied().collect();
        for id in ids.into_iter().filter(|id| Some(*id) <= until) {
            verified.n_orders += 1;
            if theirs.rows.get(&id) != ours.rows.get(&id) {
                let judge = Judge { log: self.log, store: expected, order_id: id };
                if !judge.differences().await?.is_empty() {
                    return Err(ReplayError::Misfolded(id));
                }
                self.judge(id, verified, found).await?;
            }
        }
        Ok(until)
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
