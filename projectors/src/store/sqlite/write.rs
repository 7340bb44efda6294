//! What is written. A statement per row costs little here: there is no network between.

use domain::ids::OrderId;
use domain::order::Order;
use sqlx::SqliteConnection;

use super::Micros;
use crate::orders::row::FailedOrder;
use crate::store::record::{FailedOrderRecord, OrderRecord, Time};
use crate::store::{Checkpoint, StoreError};

/// Moves the checkpoint if it is where it is believed to be.
pub(super) async fn move_checkpoint(
    connection: &mut SqliteConnection,
    set: &str,
    from: &Checkpoint,
    to: &Checkpoint,
) -> Result<(), StoreError> {
    let moved = sqlx::query(
        "/* projection_checkpoints.move */ update projection_checkpoints set \
         commit_position = ?4, prepare_position = ?5, events_applied = ?6, events_skipped = ?7, \
         last_event_at = ?8, moved_at = ?9, first_event_id = ?11 \
         where name = ?1 and commit_position is ?2 and prepare_position is ?3 and epoch = ?10",
    )
    .bind(set)
    .bind(from.position.map(|it| it.commit.cast_signed()))
    .bind(from.position.map(|it| it.prepare.cast_signed()))
    .bind(to.position.map(|it| it.commit.cast_signed()))
    .bind(to.position.map(|it| it.prepare.cast_signed()))
    .bind(to.events_applied.cast_signed())
    .bind(to.events_skipped.cast_signed())
    .bind(to.last_event_at.map(Micros::of))
    .bind(to.moved_at.map(Micros::of))
    .bind(from.epoch.cast_signed())
    .bind(to.first_event_id)
    .execute(connection)
    .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(StoreError::CheckpointMoved) }
}

pub(super) async fn upsert_order(
    connection: &mut SqliteConnection,
    order: &Order,
) -> Result<(), StoreError> {
    let record: OrderRecord<Micros> = OrderRecord::of(order);
    sqlx::query(
        "/* orders.upsert */ insert into orders (order_id, customer_id, items, total_quantity, \
         status, stage, attempt, deliveries, failure_code, failure_reason, reference, revision, \
         received_at, queued_at, fulfilled_at, failed_at, updated_at) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
         on conflict (order_id) do update set customer_id = excluded.customer_id, \
         items = excluded.items, total_quantity = excluded.total_quantity, \
         status = excluded.status, stage = excluded.stage, attempt = excluded.attempt, \
         deliveries = excluded.deliveries, failure_code = excluded.failure_code, \
         failure_reason = excluded.failure_reason, reference = excluded.reference, \
         revision = excluded.revision, received_at = excluded.received_at, \
         queued_at = excluded.queued_at, fulfilled_at = excluded.fulfilled_at, \
         failed_at = excluded.failed_at, updated_at = excluded.updated_at \
         where excluded.revision > orders.revision",
    )
    .bind(record.order_id)
    .bind(record.customer_id)
    .bind(record.items)
    .bind(record.total_quantity)
    .bind(record.status)
    .bind(record.stage)
    .bind(record.attempt)
    .bind(record.deliveries)
    .bind(record.failure_code)
    .bind(record.failure_reason)
    .bind(record.reference)
    .bind(record.revision)
    .bind(record.received_at)
    .bind(record.queued_at)
    .bind(record.fulfilled_at)
    .bind(record.failed_at)
    .bind(record.updated_at)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn insert_tenant(
    connection: &mut SqliteConnection,
    order_id: OrderId,
    tenant: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "/* order_tenants.insert */ insert into order_tenants (order_id, tenant) values (?1, ?2) \
         on conflict do nothing",
    )
    .bind(order_id.0)
    .bind(tenant)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn upsert_failed_order(
    connection: &mut SqliteConnection,
    failed: &FailedOrder,
) -> Result<(), StoreError> {
    let record: FailedOrderRecord<Micros> = FailedOrderRecord::of(failed);
    sqlx::query(
        "/* failed_orders.upsert */ insert into failed_orders (order_id, stage, code, reason, \
         attempt, deliveries, failed_at, \"order\", resolved_at, revision) \
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
         on conflict (order_id) do update set stage = excluded.stage, code = excluded.code, \
         reason = excluded.reason, attempt = excluded.attempt, deliveries = excluded.deliveries, \
         failed_at = excluded.failed_at, \"order\" = excluded.\"order\", \
         resolved_at = excluded.resolved_at, revision = excluded.revision \
         where excluded.revision > failed_orders.revision",
    )
    .bind(record.order_id)
    .bind(record.stage)
    .bind(record.code)
    .bind(record.reason)
    .bind(record.attempt)
    .bind(record.deliveries)
    .bind(record.failed_at)
    .bind(record.order)
    .bind(record.resolved_at)
    .bind(record.revision)
    .execute(connection)
    .await?;
    Ok(())
}
