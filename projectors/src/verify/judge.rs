//! One order, its stream against its rows.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::fields;
use event_log::{EventLog, LoggedEvent, Position};
use serde_json::{Map, Value, json};

use super::Difference;
use crate::orders::apply::apply;
use crate::orders::row::{FailedOrder, Rows};
use crate::replay::ReplayError;
use crate::runner::batch::readable;
use crate::store::{ReadModel, StoreError};

pub(super) struct Judge<'a> {
    pub(super) log: &'a EventLog,
    pub(super) store: &'a dyn ReadModel,
    pub(super) order_id: OrderId,
}

impl Judge<'_> {
    /// What is wrong with the order's rows.
    pub(super) async fn differences(&self) -> Result<Vec<Difference>, ReplayError> {
        loop {
            let before = self.store.checkpoint().await?.position;
            let rows = self.store.rows(&[self.order_id]).await;
            let behind = self.store.checkpoint().await?.position;
            let history = self.log.history(self.order_id).await?;
            let has_moved =
                history.iter().any(|it| before < Some(it.position) && Some(it.position) <= behind);
            // The rows may be as before or as after what was projected meanwhile.
            if has_moved {
                continue;
            }
            return match rows {
                Ok(mut rows) => {
                    let found = rows.remove(&self.order_id).unwrap_or_default();
                    Ok(self.between(&self.expected(&history, before), &found))
                }
                Err(StoreError::Row { reason, .. }) => Ok(vec![self.unreadable(reason)]),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Mends what is wrong with the order's rows, and returns what it was.
    pub(super) async fn mend(&self) -> Result<Vec<Difference>, ReplayError> {
        let differences = self.differences().await?;
        while !differences.is_empty() {
            let checkpoint = self.store.checkpoint().await?;
            let history = self.log.history(self.order_id).await?;
            let expected = self.expected(&history, checkpoint.position);
            let rows = BTreeMap::from([(self.order_id, expected)]);
            match self.store.mend(&rows, &checkpoint).await {
                Err(StoreError::CheckpointMoved) => {}
                mended => {
                    mended?;
                    break;
                }
            }
        }
        Ok(differences)
    }

    /// The rows as they should be at a position.
    fn expected(&self, history: &[LoggedEvent], position: Option<Position>) -> Rows {
        let applied = history.iter().filter(|it| Some(it.position) <= position);
        let events: Vec<_> = applied.filter_map(|it| readable(it).ok()).collect();
        let changes = apply(BTreeMap::new(), &events);
        let tenant = history.first().filter(|it| Some(it.position) <= position);
        Rows {
            order: changes.orders.into_iter().find(|it| it.order_id == self.order_id),
            failed: changes.failed_orders.into_iter().find(|it| it.order_id == self.order_id),
            tenant: tenant.and_then(LoggedEvent::tenant),
        }
    }

    fn between(&self, expected: &Rows, found: &Rows) -> Vec<Difference> {
        let orders = [expected, found].map(|it| it.order.as_ref().map(fields));
        let failures = [expected, found].map(|it| it.failed.as_ref().map(failure_fields));
        let mut differences = self.between_rows("orders", orders);
        differences.extend(self.between_rows("failed_orders", failures));
        if expected.tenant != found.tenant {
            let [expected, found] = [expected, found].map(|it| json!(it.tenant));
            differences.push(self.difference("order_tenants", "tenant", expected, found));
        }
        differences
    }

    fn between_rows(
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
