//! Orders one by one, their streams against their rows.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::fields;
use event_log::{EventLog, LogError, LoggedEvent, Position};
use futures::StreamExt;
use futures::stream;
use serde_json::{Map, Value, json};

use super::{Difference, Finding, Verified};
use crate::orders::apply::apply;
use crate::orders::row::{FailedOrder, Rows};
use crate::progress::{Observer, Phase, Progress};
use crate::replay::ReplayError;
use crate::runner::batch::readable;
use crate::store::{ReadModel, StoreError};

/// Orders that are judged at a time. A read of a stream takes tens of milliseconds on some servers,
/// most of which is waiting; more than a connection carries in calls would wait for each other.
const CONCURRENT_JUDGEMENTS: usize = 32;

/// Tables that reflect the log up to a position, and do not change while they are judged.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) store: &'a dyn ReadModel,
    /// `None`: up to before the first event.
    pub(crate) position: Option<Position>,
}

impl Side<'_> {
    /// What is wrong with an order's rows, by its events.
    async fn differences(
        &self,
        order_id: OrderId,
        history: &[LoggedEvent],
    ) -> Result<Vec<Difference>, StoreError> {
        let expected = expected_rows(order_id, history, self.position);
        self.differences_from(order_id, &expected).await
    }

    /// Where an order's rows are not the expected ones.
    async fn differences_from(
        &self,
        order_id: OrderId,
        expected: &Rows,
    ) -> Result<Vec<Difference>, StoreError> {
        let between = Between { order_id };
        match self.store.rows(&[order_id]).await {
            Ok(mut rows) => Ok(between.all(expected, &rows.remove(&order_id).unwrap_or_default())),
            Err(StoreError::Row { reason, .. }) => Ok(vec![between.unreadable(reason)]),
            Err(error) => Err(error),
        }
    }
}

/// Lets the streams of orders decide about their rows.
pub(super) struct Judge<'a> {
    pub(super) log: &'a EventLog,
    /// Tables that this process folded, which must be right.
    pub(super) expected: Option<Side<'a>>,
    pub(super) found: Side<'a>,
    /// The tables whose rows are mended where the ones found are wrong.
    pub(super) mended: Option<&'a dyn ReadModel>,
}

impl Judge<'_> {
    /// Judges some orders, several at a time; what is wrong is told in their order.
    pub(super) async fn all(
        &self,
        order_ids: &[OrderId],
        verified: &mut Verified,
        observer: &mut Observer<'_>,
    ) -> Result<(), ReplayError> {
        let n_total = Some(order_ids.len() as u64);
        let order_ids = stream::iter(order_ids.iter().copied());
        let mut judged =
            order_ids.map(|order_id| self.differences(order_id)).buffered(CONCURRENT_JUDGEMENTS);
        let mut n_done = 0;
        while let Some(differences) = judged.next().await {
            let differences = differences?;
            n_done += 1;
            (observer.progress)(Progress { phase: Phase::Judge, n_done, n_total });
            let Some(differences) = differences else {
                verified.n_undecided += 1;
                continue;
            };
            let Some(order_id) = differences.first().map(|it| it.order_id) else { continue };
            verified.n_differing += 1;
            if let Some(store) = self.mended {
                mend(self.log, store, order_id).await?;
                verified.n_mended += 1;
            }
            for it in differences {
                (observer.found)(Finding::Difference(it));
            }
        }
        Ok(())
    }

    /// What is wrong with an order's rows; `None` if its stream does not say, because the store no
    /// longer has all of its events.
    async fn differences(&self, order_id: OrderId) -> Result<Option<Vec<Difference>>, ReplayError> {
        // Before the first event there are no rows, whatever the stream says.
        if self.found.position.is_none() {
            return Ok(Some(self.found.differences(order_id, &[]).await?));
        }
        let history = match self.log.read_history(order_id).await {
            Err(LogError::Deleted) => return self.differences_of_deleted(order_id).await,
            history => history?,
        };
        if history.first().is_some_and(|it| it.revision > 0) {
            return Ok(None);
        }
        if let Some(expected) = &self.expected
            && !expected.differences(order_id, &history).await?.is_empty()
        {
            return Err(ReplayError::Misfolded(order_id));
        }
        Ok(Some(self.found.differences(order_id, &history).await?))
    }

    /// Where the rows of a deleted order differ from those on the other side, if both are at one
    /// position: else the deletion may be between them.
    async fn differences_of_deleted(
        &self,
        order_id: OrderId,
    ) -> Result<Option<Vec<Difference>>, ReplayError> {
        let Some(expected) = self.expected.filter(|it| it.position == self.found.position) else {
            return Ok(None);
        };
        let mut expected = expected.store.rows(&[order_id]).await?;
        let expected = expected.remove(&order_id).unwrap_or_default();
        Ok(Some(self.found.differences_from(order_id, &expected).await?))
    }
}

/// Writes what an order's events say over its rows, which others may write meanwhile.
async fn mend(log: &EventLog, store: &dyn ReadModel, order_id: OrderId) -> Result<(), ReplayError> {
    loop {
        let checkpoint = store.checkpoint().await?;
        let history = match log.read_history(order_id).await {
            Err(LogError::Deleted) => Vec::new(),
            history => history?,
        };
        let expected = expected_rows(order_id, &history, checkpoint.position);
        match store.mend(&BTreeMap::from([(order_id, expected)]), &checkpoint).await {
            Err(StoreError::CheckpointMoved) => {}
            mended => return Ok(mended?),
        }
    }
}

/// An order's rows as they should be at a position.
fn expected_rows(order_id: OrderId, history: &[LoggedEvent], position: Option<Position>) -> Rows {
    let applied = history.iter().filter(|it| Some(it.position) <= position);
    let events: Vec<_> = applied.filter_map(|it| readable(it).ok()).collect();
    let changes = apply(BTreeMap::new(), &events, &[]);
    let first = history.first().filter(|it| Some(it.position) <= position);
    Rows {
        order: changes.orders.into_iter().find(|it| it.order_id == order_id),
        failed: changes.failed_orders.into_iter().find(|it| it.order_id == order_id),
        tenant: first.and_then(LoggedEvent::tenant),
    }
}

/// The differences between what an order's rows should be and what they are.
struct Between {
    order_id: OrderId,
}

impl Between {
    fn all(&self, expected: &Rows, found: &Rows) -> Vec<Difference> {
        let orders = [expected, found].map(|it| it.order.as_ref().map(fields));
        let failures = [expected, found].map(|it| it.failed.as_ref().map(failure_fields));
        let mut differences = self.of_rows("orders", orders);
        differences.extend(self.of_rows("failed_orders", failures));
        if expected.tenant != found.tenant {
            let [expected, found] = [expected, found].map(|it| json!(it.tenant));
            differences.push(self.difference("order_tenants", "tenant", expected, found));
        }
        differences
    }

    fn of_rows(
        &self,
        table: &'static str,
        rows: [Option<Map<String, Value>>; 2],
    ) -> Vec<Difference> {
        match rows {
            [Some(expected), Some(mut found)] => expected
                .into_iter()
                .filter_map(|(field, expected)| {
                    let found = found.remove(&field).unwrap_or_default();
                    (expected != found).then(|| self.difference(table, &field, expected, found))
                })
                .collect(),
            [None, None] => Vec::new(),
            [expected, found] => {
                let [expected, found] =
                    [expected, found].map(|it| it.map_or(Value::Null, Value::Object));
                vec![self.difference(table, "row", expected, found)]
            }
        }
    }

    fn unreadable(&self, reason: String) -> Difference {
        self.difference("orders or failed_orders", "row", Value::Null, reason.into())
    }

    fn difference(
        &self,
        table: &'static str,
        field: &str,
        expected: Value,
        found: Value,
    ) -> Difference {
        Difference { order_id: self.order_id, table, field: field.to_owned(), expected, found }
    }
}

fn failure_fields(failed: &FailedOrder) -> Map<String, Value> {
    match serde_json::to_value(failed) {
        Ok(Value::Object(mut fields)) => {
            fields.insert("revision".to_owned(), failed.revision.into());
            fields
        }
        // Texts, numbers and times under the names of fields are always an object.
        Ok(_) | Err(_) => Map::new(),
    }
}
