//! What is written. A statement takes many rows: to hand one over to the connection's thread costs
//! more than SQLite needs for a row.

use domain::ids::OrderId;
use domain::order::Order;
use sqlx::{QueryBuilder, SqliteConnection};

use super::Micros;
use crate::orders::row::FailedOrder;
use crate::store::record::{FailedOrderRecord, OrderRecord, Time};
use crate::store::{Checkpoint, StoreError};

/// Rows of one statement.
const ROWS: usize = 64;

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

pub(super) async fn upsert_orders(
    connection: &mut SqliteConnection,
    orders: &[&Order],
) -> Result<(), StoreError> {
    for orders in orders.chunks(ROWS) {
        let mut query = QueryBuilder::new(
            "/* orders.upsert */ insert into orders (order_id, customer_id, items, \
             total_quantity, status, stage, attempt, deliveries, failure_code, failure_reason, \
             reference, revision, received_at, queued_at, fulfilled_at, failed_at, updated_at) ",
        );
        query.push_values(orders, |mut row, order| {
            let record: OrderRecord<Micros> = OrderRecord::of(order);
            row.push_bind(record.order_id)
                .push_bind(record.customer_id)
                .push_bind(record.items)
                .push_bind(record.total_quantity)
                .push_bind(record.status)
                .push_bind(record.stage)
                .push_bind(record.attempt)
                .push_bind(record.deliveries)
                .push_bind(record.failure_code)
                .push_bind(record.failure_reason)
                .push_bind(record.reference)
                .push_bind(record.revision)
                .push_bind(record.received_at)
                .push_bind(record.queued_at)
                .push_bind(record.fulfilled_at)
                .push_bind(record.failed_at)
                .push_bind(record.updated_at);
        });
        query.push(
            " on conflict (order_id) do update set customer_id = excluded.customer_id, \
             items = excluded.items, total_quantity = excluded.total_quantity, \
             status = excluded.status, stage = excluded.stage, attempt = excluded.attempt, \
             deliveries = excluded.deliveries, failure_code = excluded.failure_code, \
             failure_reason = excluded.failure_reason, reference = excluded.reference, \
             revision = excluded.revision, received_at = excluded.received_at, \
             queued_at = excluded.queued_at, fulfilled_at = excluded.fulfilled_at, \
             failed_at = excluded.failed_at, updated_at = excluded.updated_at \
             where excluded.revision > orders.revision",
        );
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) async fn insert_tenants(
    connection: &mut SqliteConnection,
    tenants: &[(OrderId, &str)],
) -> Result<(), StoreError> {
    for tenants in tenants.chunks(ROWS) {
        let mut query = QueryBuilder::new(
            "/* order_tenants.insert */ insert into order_tenants (order_id, tenant) ",
        );
        query.push_values(tenants, |mut row, (order_id, tenant)| {
            row.push_bind(order_id.0).push_bind((*tenant).to_owned());
        });
        query.push(" on conflict do nothing");
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) async fn upsert_failed_orders(
    connection: &mut SqliteConnection,
    failed_orders: &[&FailedOrder],
) -> Result<(), StoreError> {
    for failed_orders in failed_orders.chunks(ROWS) {
        let mut query = QueryBuilder::new(
            "/* failed_orders.upsert */ insert into failed_orders (order_id, stage, code, reason, \
             attempt, deliveries, failed_at, \"order\", resolved_at, revision) ",
        );
        query.push_values(failed_orders, |mut row, failed| {
            let record: FailedOrderRecord<Micros> = FailedOrderRecord::of(failed);
            row.push_bind(record.order_id)
                .push_bind(record.stage)
                .push_bind(record.code)
                .push_bind(record.reason)
                .push_bind(record.attempt)
                .push_bind(record.deliveries)
                .push_bind(record.failed_at)
                .push_bind(record.order)
                .push_bind(record.resolved_at)
                .push_bind(record.revision);
        });
        query.push(
            " on conflict (order_id) do update set stage = excluded.stage, code = excluded.code, \
             reason = excluded.reason, attempt = excluded.attempt, \
             deliveries = excluded.deliveries, failed_at = excluded.failed_at, \
             \"order\" = excluded.\"order\", resolved_at = excluded.resolved_at, \
             revision = excluded.revision where excluded.revision > failed_orders.revision",
        );
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes all rows of these orders.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    order_ids: impl IntoIterator<Item = &OrderId>,
) -> Result<(), StoreError> {
    let tables = [
        "/* orders.delete */ delete from orders where order_id = ?1",
        "/* failed_orders.delete */ delete from failed_orders where order_id = ?1",
        "/* order_tenants.delete */ delete from order_tenants where order_id = ?1",
    ];
    for order_id in order_ids {
        for table in tables {
            sqlx::query(table).bind(order_id.0).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
