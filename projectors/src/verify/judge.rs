//! Comparison of single orders: their streams against their rows.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::OrderId;
use event_log::{EventLog, LogError, LoggedEvent, Position};
use futures::StreamExt;
use futures::stream;
use serde_json::Value;

use super::{Difference, Finding, Observer, Verified};
use crate::progress::{Phase, Progress};
use crate::projection::{Events, OrderRecords, Projection};
use crate::replay::ReplayError;
use crate::runner::batch::{decode_event, operator_command};
use crate::store::{ReadModel, StoreError};

/// Orders that are judged concurrently. On some servers, the read of a stream takes tens of
/// milliseconds, mostly waiting. More calls than a connection carries would wait for each other.
const CONCURRENT_JUDGEMENTS: usize = 32;

/// Tables that reflect the log up to a position, and do not change while they are judged.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) store: &'a ReadModel,
    /// `None` before the first event.
    pub(crate) position: Option<Position>,
}

impl Side<'_> {
    /// Returns where an order's rows do not agree with its events.
    async fn find_differences(
        &self,
        order_id: OrderId,
        history: &[LoggedEvent],
    ) -> Result<Vec<Difference>, StoreError> {
        let expected = expected_rows(self.store.projection(), order_id, history, self.position)?;
        self.differences_from(order_id, &expected).await
    }

    /// Returns where an order's rows are not the expected ones.
    async fn differences_from(
        &self,
        order_id: OrderId,
        expected: &OrderRecords,
    ) -> Result<Vec<Difference>, StoreError> {
        let found = self.store.rows(&[order_id]).await?.remove(&order_id).unwrap_or_default();
        Ok(differences_between(self.store.projection(), order_id, expected, &found))
    }
}

/// A judge of rows by the streams of their orders.
pub(super) struct Judge<'a> {
    pub(super) log: &'a EventLog,
    /// Tables that this process folded. They must agree with the streams.
    pub(super) expected: Option<Side<'a>>,
    pub(super) found: Side<'a>,
    /// The tables that are repaired where the ones found are wrong.
    pub(super) mended: Option<&'a ReadModel>,
}

impl Judge<'_> {
    /// Judges some orders concurrently, and reports differences in the order of `order_ids`.
    pub(super) async fn judge_all(
        &self,
        order_ids: &[OrderId],
        verified: &mut Verified,
        observer: &mut Observer<'_>,
    ) -> Result<(), ReplayError> {
        let n_total = Some(order_ids.len() as u64);
        let order_ids = stream::iter(order_ids.iter().copied());
        let mut judged = order_ids
            .map(|order_id| self.find_differences(order_id))
            .buffered(CONCURRENT_JUDGEMENTS);
        let mut n_done = 0;
        while let Some(differences) = judged.next().await {
            let differences = differences?;
            n_done += 1;
            (observer.progress)(Progress { phase: Phase::Judge, n_done, n_total });
            let Some(differences) = differences else {
                verified.n_undecided += 1;
                continue;
            };
            let Some(&Difference { order_id, .. }) = differences.first() else { continue };
            verified.n_differing += 1;
            if let Some(store) = self.mended {
                mend_order(self.log, store, order_id).await?;
                verified.n_mended += 1;
            }
            differences.into_iter().map(Finding::Difference).for_each(&mut *observer.found);
        }
        Ok(())
    }

    /// Returns the differences of an order's rows; `None` if the event store no longer has all of the
    /// order's events.
    async fn find_differences(
        &self,
        order_id: OrderId,
    ) -> Result<Option<Vec<Difference>>, ReplayError> {
        // Tables at no position must have no rows, whatever the stream contains.
        if self.found.position.is_none() {
            return Ok(Some(self.found.find_differences(order_id, &[]).await?));
        }
        let history = match self.log.read_history(order_id).await {
            Err(LogError::Deleted) => return self.differences_of_deleted(order_id).await,
            history => history?,
        };
        if history.first().is_some_and(|event| event.revision > 0) {
            return Ok(None);
        }
        if let Some(expected) = &self.expected
            && !expected.find_differences(order_id, &history).await?.is_empty()
        {
            return Err(ReplayError::Misfolded(order_id));
        }
        Ok(Some(self.found.find_differences(order_id, &history).await?))
    }

    /// Returns where the rows of a deleted order differ from those on the other side; `None` unless both
    /// sides are at one position: else the deletion may be between them.
    async fn differences_of_deleted(
        &self,
        order_id: OrderId,
    ) -> Result<Option<Vec<Difference>>, ReplayError> {
        let at_one_position = |expected: &Side<'_>| expected.position == self.found.position;
        let Some(expected) = self.expected.filter(at_one_position) else {
            return Ok(None);
        };
        let mut expected = expected.store.rows(&[order_id]).await?;
        let expected = expected.remove(&order_id).unwrap_or_default();
        Ok(Some(self.found.differences_from(order_id, &expected).await?))
    }
}

/// Replaces an order's rows by what its events say. Retries if another process has written meanwhile.
async fn mend_order(
    log: &EventLog,
    store: &ReadModel,
    order_id: OrderId,
) -> Result<(), ReplayError> {
    loop {
        // Read before the events: they cover at least this position, and the repair fails if the
        // projector has written rows since.
        let checkpoint = store.checkpoint().await?;
        let history = match log.read_history(order_id).await {
            Err(LogError::Deleted) => Vec::new(),
            history => history?,
        };
        let expected = expected_rows(store.projection(), order_id, &history, checkpoint.position)?;
        match store.mend_rows(&BTreeMap::from([(order_id, expected)]), &checkpoint).await {
            Err(StoreError::CheckpointMoved) => {}
            mended => return Ok(mended?),
        }
    }
}

/// Returns an order's rows as they should be at a position.
fn expected_rows(
    projection: &Projection,
    order_id: OrderId,
    history: &[LoggedEvent],
    position: Option<Position>,
) -> Result<OrderRecords, StoreError> {
    let applied = history.iter().filter(|event| Some(event.position) <= position);
    let recorded: Vec<_> = applied.clone().filter_map(|event| decode_event(event).ok()).collect();
    let tenants: Vec<_> =
        applied.clone().filter_map(|event| Some((order_id, event.tenant()?))).collect();
    let operator_commands: Vec<_> =
        applied.filter_map(|event| operator_command(event, &decode_event(event).ok()?)).collect();
    let events = Events {
        recorded: &recorded,
        deletions: &[],
        tenants: &tenants,
        operator_commands: &operator_commands,
    };
    let changes = (projection.apply)(BTreeMap::new(), &events)?;
    Ok(projection.written_rows(changes, order_id))
}

/// Returns the differences between an order's rows as they should be and as they are.
fn differences_between(
    projection: &Projection,
    order_id: OrderId,
    expected: &OrderRecords,
    found: &OrderRecords,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (index, table) in projection.tables.iter().enumerate() {
        let [mut expected, mut found] = [expected, found].map(|rows| {
            let records = rows.get(index).into_iter().flatten();
            let by_key = records
                .map(|record| (&record[..table.n_key_columns], table.record_to_json(record)));
            by_key.collect::<BTreeMap<_, _>>()
        });
        let difference = |field: &str, expected, found| {
            let (table, field) = (table.name, field.to_owned());
            Difference { order_id, table, field, expected, found }
        };
        let keys: BTreeSet<_> = expected.keys().chain(found.keys()).copied().collect();
        for key in keys {
            match (expected.remove(key), found.remove(key)) {
                (Some(expected), Some(mut found)) => {
                    differences.extend(expected.into_iter().filter_map(|(field, expected)| {
                        let found = found.remove(&field).unwrap_or_default();
                        (expected != found).then(|| difference(&field, expected, found))
                    }));
                }
                (expected, found) => {
                    let [expected, found] =
                        [expected, found].map(|row| row.map_or(Value::Null, Value::Object));
                    differences.push(difference("row", expected, found));
                }
            }
        }
    }
    differences
}
