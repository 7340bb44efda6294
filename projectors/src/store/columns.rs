//! Rows of either database into records, by the names of their columns.

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::failures::GroupRecord;
use super::record::{CheckpointRecord, CountRecord, FailedOrderRecord, OrderRecord};

/// A type that a column of the row's database can be read as.
pub(super) trait Column<'r, R: Row>: Decode<'r, R::Database> + Type<R::Database> {}

impl<'r, R: Row, C: Decode<'r, R::Database> + Type<R::Database>> Column<'r, R> for C {}

impl<'r, R: Row, T> FromRow<'r, R> for OrderRecord<T>
where
    &'static str: ColumnIndex<R>,
    Uuid: Column<'r, R>,
    String: Column<'r, R>,
    i64: Column<'r, R>,
    T: Column<'r, R>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            order_id: row.try_get("order_id")?,
            customer_id: row.try_get("customer_id")?,
            items: row.try_get("items")?,
            total_quantity: row.try_get("total_quantity")?,
            status: row.try_get("status")?,
            stage: row.try_get("stage")?,
            attempt: row.try_get("attempt")?,
            deliveries: row.try_get("deliveries")?,
            failure_code: row.try_get("failure_code")?,
            failure_reason: row.try_get("failure_reason")?,
            reference: row.try_get("reference")?,
            revision: row.try_get("revision")?,
            received_at: row.try_get("received_at")?,
            queued_at: row.try_get("queued_at")?,
            fulfilled_at: row.try_get("fulfilled_at")?,
            failed_at: row.try_get("failed_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

impl<'r, R: Row, T> FromRow<'r, R> for FailedOrderRecord<T>
where
    &'static str: ColumnIndex<R>,
    Uuid: Column<'r, R>,
    String: Column<'r, R>,
    i64: Column<'r, R>,
    T: Column<'r, R>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            order_id: row.try_get("order_id")?,
            stage: row.try_get("stage")?,
            code: row.try_get("code")?,
            reason: row.try_get("reason")?,
            attempt: row.try_get("attempt")?,
            deliveries: row.try_get("deliveries")?,
            failed_at: row.try_get("failed_at")?,
            order: row.try_get("order")?,
            resolved_at: row.try_get("resolved_at")?,
            revision: row.try_get("revision")?,
        })
    }
}

impl<'r, R: Row, T> FromRow<'r, R> for CheckpointRecord<T>
where
    &'static str: ColumnIndex<R>,
    Uuid: Column<'r, R>,
    i64: Column<'r, R>,
    T: Column<'r, R>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            commit_position: row.try_get("commit_position")?,
            prepare_position: row.try_get("prepare_position")?,
            epoch: row.try_get("epoch")?,
            events_applied: row.try_get("events_applied")?,
            events_skipped: row.try_get("events_skipped")?,
            last_event_at: row.try_get("last_event_at")?,
            moved_at: row.try_get("moved_at")?,
            first_event_id: row.try_get("first_event_id")?,
        })
    }
}

impl<'r, R: Row> FromRow<'r, R> for CountRecord
where
    &'static str: ColumnIndex<R>,
    String: Column<'r, R>,
    i64: Column<'r, R>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            status: row.try_get("status")?,
            stage: row.try_get("stage")?,
            n_orders: row.try_get("n_orders")?,
        })
    }
}

impl<'r, R: Row, T> FromRow<'r, R> for GroupRecord<T>
where
    &'static str: ColumnIndex<R>,
    String: Column<'r, R>,
    i64: Column<'r, R>,
    T: Column<'r, R>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            stage: row.try_get("stage")?,
            code: row.try_get("code")?,
            n_orders: row.try_get("n_orders")?,
            oldest_failed_at: row.try_get("oldest_failed_at")?,
            newest_failed_at: row.try_get("newest_failed_at")?,
        })
    }
}
