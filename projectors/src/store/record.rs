//! Rows as both databases hold them, between the domain's types and SQL's.
//!
//! The databases differ in how they hold a time: `T` is that type.

use domain::ids::OrderId;
use domain::order::{Item, Order, Stage, Status};
use event_log::Position;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::{Checkpoint, OrderCounts, StoreError};
use crate::orders::row::FailedOrder;
use crate::orders::statistics::{CountChange, Minute};

/// How a database holds a time: in whole microseconds, whatever else.
pub(super) trait Time: Copy {
    fn of(time: Timestamp) -> Self;
    /// `None` if it is beyond what we can represent.
    fn timestamp(self) -> Option<Timestamp>;
}

/// A row of `orders`.
#[derive(Deserialize)]
pub(super) struct OrderRecord<T> {
    pub(super) order_id: Uuid,
    pub(super) customer_id: String,
    pub(super) items: String,
    pub(super) total_quantity: i64,
    pub(super) status: String,
    pub(super) stage: Option<String>,
    pub(super) attempt: i64,
    pub(super) deliveries: i64,
    pub(super) failure_code: Option<String>,
    pub(super) failure_reason: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) revision: i64,
    pub(super) received_at: Option<T>,
    pub(super) queued_at: Option<T>,
    pub(super) fulfilled_at: Option<T>,
    pub(super) failed_at: Option<T>,
    pub(super) updated_at: T,
}

impl<T: Time> OrderRecord<T> {
    pub(super) fn of(order: &Order) -> Self {
        Self {
            order_id: order.order_id.0,
            customer_id: order.customer_id.clone(),
            items: json(&order.items),
            total_quantity: order.total_quantity.cast_signed(),
            status: order.status.as_str().to_owned(),
            stage: order.stage.map(|it| it.as_str().to_owned()),
            attempt: order.attempt.into(),
            deliveries: order.deliveries.into(),
            failure_code: order.failure_code.clone(),
            failure_reason: order.failure_reason.clone(),
            reference: order.reference.clone(),
            revision: order.revision.cast_signed(),
            received_at: order.received_at.map(T::of),
            queued_at: order.queued_at.map(T::of),
            fulfilled_at: order.fulfilled_at.map(T::of),
            failed_at: order.failed_at.map(T::of),
            updated_at: T::of(order.updated_at),
        }
    }

    pub(super) fn order(self) -> Result<Order, StoreError> {
        let reading = Reading { order_id: OrderId(self.order_id) };
        let deliveries = reading.count("deliveries", self.deliveries)?;
        Ok(Order {
            order_id: reading.order_id,
            customer_id: self.customer_id,
            items: reading.json::<Vec<Item>>("items", &self.items)?,
            total_quantity: self.total_quantity.cast_unsigned(),
            status: reading.name("status", &self.status, Status::from_name)?,
            stage: self.stage.map(|it| reading.name("stage", &it, Stage::from_name)).transpose()?,
            attempt: reading.count("attempt", self.attempt)?,
            deliveries,
            // No columns: only `decide` needs them, and that is given what the stream says.
            failed_delivery: deliveries,
            retry_at: None,
            is_discarded: false,
            failure_code: self.failure_code,
            failure_reason: self.failure_reason,
            reference: self.reference,
            revision: self.revision.cast_unsigned(),
            received_at: reading.maybe_time("received_at", self.received_at)?,
            queued_at: reading.maybe_time("queued_at", self.queued_at)?,
            fulfilled_at: reading.maybe_time("fulfilled_at", self.fulfilled_at)?,
            failed_at: reading.maybe_time("failed_at", self.failed_at)?,
            updated_at: reading.time("updated_at", self.updated_at)?,
        })
    }
}

/// A row of `failed_orders`.
pub(super) struct FailedOrderRecord<T> {
    pub(super) order_id: Uuid,
    pub(super) stage: String,
    pub(super) code: String,
    pub(super) reason: String,
    pub(super) attempt: i64,
    pub(super) deliveries: i64,
    pub(super) failed_at: T,
    pub(super) order: String,
    pub(super) resolved_at: Option<T>,
    pub(super) revision: i64,
}

impl<T: Time> FailedOrderRecord<T> {
    pub(super) fn of(failed: &FailedOrder) -> Self {
        Self {
            order_id: failed.order_id.0,
            stage: failed.stage.as_str().to_owned(),
            code: failed.code.clone(),
            reason: failed.reason.clone(),
            attempt: failed.attempt.into(),
            deliveries: failed.deliveries.into(),
            failed_at: T::of(failed.failed_at),
            order: json(&failed.order),
            resolved_at: failed.resolved_at.map(T::of),
            revision: failed.revision.cast_signed(),
        }
    }

    pub(super) fn failed_order(self) -> Result<FailedOrder, StoreError> {
        let reading = Reading { order_id: OrderId(self.order_id) };
        Ok(FailedOrder {
            order_id: reading.order_id,
            stage: reading.name("stage", &self.stage, Stage::from_name)?,
            code: self.code,
            reason: self.reason,
            attempt: reading.count("attempt", self.attempt)?,
            deliveries: reading.count("deliveries", self.deliveries)?,
            failed_at: reading.time("failed_at", self.failed_at)?,
            order: reading.json("order", &self.order)?,
            resolved_at: reading.maybe_time("resolved_at", self.resolved_at)?,
            revision: self.revision.cast_unsigned(),
        })
    }
}

/// A row of `projection_checkpoints`.
pub(super) struct CheckpointRecord<T> {
    pub(super) commit_position: Option<i64>,
    pub(super) prepare_position: Option<i64>,
    pub(super) epoch: i64,
    pub(super) events_applied: i64,
    pub(super) events_skipped: i64,
    pub(super) last_event_at: Option<T>,
    pub(super) moved_at: Option<T>,
    pub(super) first_event_id: Option<Uuid>,
}

impl<T: Time> CheckpointRecord<T> {
    pub(super) fn checkpoint(self) -> Checkpoint {
        let position = self.commit_position.zip(self.prepare_position);
        Checkpoint {
            position: position.map(|(commit, prepare)| Position {
                commit: commit.cast_unsigned(),
                prepare: prepare.cast_unsigned(),
            }),
            epoch: self.epoch.cast_unsigned(),
            events_applied: self.events_applied.cast_unsigned(),
            events_skipped: self.events_skipped.cast_unsigned(),
            last_event_at: self.last_event_at.and_then(T::timestamp),
            moved_at: self.moved_at.and_then(T::timestamp),
            first_event_id: self.first_event_id,
        }
    }
}

/// A number of orders of one kind.
pub(super) struct CountRecord {
    pub(super) status: String,
    pub(super) stage: Option<String>,
    pub(super) n_orders: i64,
}

/// A row of `projection_minutes`: the minute and its numbers, in the order of the columns.
pub(super) type MinuteRecord = (i64, i64, i64, i64, i64, i64);

pub(super) fn minute_of(record: MinuteRecord) -> (i64, Minute) {
    let (minute, n_events, n_received, n_fulfilled, n_failed, n_refused) = record;
    let happened = Minute {
        n_events: n_events.cast_unsigned(),
        n_received: n_received.cast_unsigned(),
        n_fulfilled: n_fulfilled.cast_unsigned(),
        n_failed: n_failed.cast_unsigned(),
        n_refused: n_refused.cast_unsigned(),
    };
    (minute, happened)
}

/// Adds up the numbers of orders of every kind.
pub(super) fn order_counts(records: Vec<CountRecord>) -> Result<OrderCounts, StoreError> {
    let mut counts = OrderCounts::default();
    for CountChange { status, stage, n_orders } in count_changes(records)? {
        counts.add(status, stage, u64::try_from(n_orders).unwrap_or_default());
    }
    Ok(counts)
}

pub(super) fn count_changes(records: Vec<CountRecord>) -> Result<Vec<CountChange>, StoreError> {
    let unknown = |name: &str| StoreError::Row {
        of: "orders".to_owned(),
        reason: format!("unknown name `{name}`"),
    };
    let change = |CountRecord { status, stage, n_orders }| {
        let status = Status::from_name(&status).ok_or_else(|| unknown(&status))?;
        let stage = stage
            .map(|it: String| Stage::from_name(&it).ok_or_else(|| unknown(&it)))
            .transpose()?;
        Ok(CountChange { status, stage, n_orders })
    };
    records.into_iter().map(change).collect()
}

/// Reads the columns of one order's row, and says which of them cannot be read.
struct Reading {
    order_id: OrderId,
}

impl Reading {
    fn count(&self, column: &str, value: i64) -> Result<u32, StoreError> {
        u32::try_from(value).map_err(|_| self.unreadable(column, &value.to_string()))
    }

    fn name<N>(
        &self,
        column: &str,
        value: &str,
        from_name: impl Fn(&str) -> Option<N>,
    ) -> Result<N, StoreError> {
        from_name(value).ok_or_else(|| self.unreadable(column, value))
    }

    fn json<J: serde::de::DeserializeOwned>(
        &self,
        column: &str,
        value: &str,
    ) -> Result<J, StoreError> {
        serde_json::from_str(value).map_err(|error| self.unreadable(column, &error.to_string()))
    }

    fn time<T: Time>(&self, column: &str, value: T) -> Result<Timestamp, StoreError> {
        value.timestamp().ok_or_else(|| self.unreadable(column, "time out of range"))
    }

    fn maybe_time<T: Time>(
        &self,
        column: &str,
        value: Option<T>,
    ) -> Result<Option<Timestamp>, StoreError> {
        value.map(|it| self.time(column, it)).transpose()
    }

    fn unreadable(&self, column: &str, value: &str) -> StoreError {
        let of = format!("order {}", self.order_id);
        StoreError::Row { of, reason: format!("column `{column}`: {value}") }
    }
}

#[expect(clippy::expect_used, reason = "strings and numbers under string keys are always JSON")]
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("items and fields of an order are JSON")
}
