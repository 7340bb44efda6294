//! Two read models, read side by side in the order of ids.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::OrderId;

use super::judge::Judge;
use super::{Finding, Verification, Verified};
use crate::orders::row::Rows;
use crate::replay::ReplayError;
use crate::store::{ReadModel, StoreError};

/// Orders that are compared at once.
const PAGE: u32 = 1_000;

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
            let pages =
                [expected.ids_after(after, PAGE).await?, self.store.ids_after(after, PAGE).await?];
            // Beyond the end of a full page, that side is not known yet.
            let full = pages.iter().filter(|it| it.len() == PAGE as usize);
            let until = full.filter_map(|it| it.last().copied()).chain(last).min();
            let ids: BTreeSet<_> =
                pages.concat().into_iter().filter(|id| Some(*id) <= until).collect();
            let ids: Vec<_> = ids.into_iter().collect();
            verified.n_orders += ids.len() as u64;

            let theirs = expected.rows(&ids).await?;
            let ours = readable(self.store, &ids).await?;
            for id in ids {
                if theirs.get(&id) != ours.get(&id) {
                    let judge = Judge { log: self.log, store: expected, order_id: id };
                    if !judge.differences().await?.is_empty() {
                        return Err(ReplayError::Misfolded(id));
                    }
                    self.judge(id, verified, found).await?;
                }
            }
            after = until;
        }
        Ok(())
    }
}

/// The rows of these orders, without those that somebody made unreadable.
async fn readable(
    store: &dyn ReadModel,
    ids: &[OrderId],
) -> Result<BTreeMap<OrderId, Rows>, StoreError> {
    match store.rows(ids).await {
        Err(StoreError::Row { .. }) => {}
        rows => return rows,
    }
    let mut readable = BTreeMap::new();
    for id in ids {
        match store.rows(&[*id]).await {
            Ok(rows) => readable.extend(rows),
            Err(StoreError::Row { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(readable)
}
