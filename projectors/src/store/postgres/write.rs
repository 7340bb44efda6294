//! What is written, one statement per table and batch. Rows that cannot be there yet are copied in,
//! which is quicker than to look for them.

use domain::ids::OrderId;
use domain::order::Order;
use sqlx::PgConnection;

use super::copy;
use super::value::{PgTime, escaped};
use crate::orders::row::{Changes, FailedOrder};
use crate::store::record::{FailedOrderRecord, OrderRecord, Time};
use crate::store::{Checkpoint, StoreError};

/// Moves the checkpoint if it is where it is believed to be.
pub(super) async fn move_checkpoint(
    connection: &mut PgConnection,
    set: &str,
    from: &Checkpoint,
    to: &Checkpoint,
) -> Result<(), StoreError> {
    let moved = sqlx::query(
        "/* projection_checkpoints.move */ update projection_checkpoints set \
         commit_position = $4, prepare_position = $5, events_applied = $6, events_skipped = $7, \
         last_event_at = $8, moved_at = $9, first_event_id = $11 \
         where name = $1 and commit_position is not distinct from $2 \
         and prepare_position is not distinct from $3 and epoch = $10",
    )
    .bind(set)
    .bind(from.position.map(|it| it.commit.cast_signed()))
    .bind(from.position.map(|it| it.prepare.cast_signed()))
    .bind(to.position.map(|it| it.commit.cast_signed()))
    .bind(to.position.map(|it| it.prepare.cast_signed()))
    .bind(to.events_applied.cast_signed())
    .bind(to.events_skipped.cast_signed())
    .bind(to.last_event_at.map(PgTime::of))
    .bind(to.moved_at.map(PgTime::of))
    .bind(from.epoch.cast_signed())
    .bind(to.first_event_id)
    .execute(connection)
    .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(StoreError::CheckpointMoved) }
}

pub(super) async fn upsert_orders(
    connection: &mut PgConnection,
    orders: &[&Order],
) -> Result<(), StoreError> {
    if orders.is_empty() {
        return Ok(());
    }
    let records: Vec<_> = orders.iter().map(|it| order_record(it)).collect();
    sqlx::query(
        "/* orders.upsert */ insert into orders (order_id, customer_id, items, total_quantity, \
         status, stage, attempt, deliveries, failure_code, failure_reason, reference, revision, \
         received_at, queued_at, fulfilled_at, failed_at, updated_at) \
         select order_id, customer_id, items::json, total_quantity, status, stage, attempt, \
         deliveries, failure_code, failure_reason, reference, revision, received_at, queued_at, \
         fulfilled_at, failed_at, updated_at \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], \
         $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::bigint[], \
         $13::timestamptz[], $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], \
         $17::timestamptz[]) as batch (order_id, customer_id, items, total_quantity, status, \
         stage, attempt, deliveries, failure_code, failure_reason, reference, revision, \
         received_at, queued_at, fulfilled_at, failed_at, updated_at) \
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
    .bind(column(&records, |it| it.order_id))
    .bind(column(&records, |it| it.customer_id.as_str()))
    .bind(column(&records, |it| it.items.as_str()))
    .bind(column(&records, |it| it.total_quantity))
    .bind(column(&records, |it| it.status.as_str()))
    .bind(column(&records, |it| it.stage.as_deref()))
    .bind(column(&records, |it| it.attempt))
    .bind(column(&records, |it| it.deliveries))
    .bind(column(&records, |it| it.failure_code.as_deref()))
    .bind(column(&records, |it| it.failure_reason.as_deref()))
    .bind(column(&records, |it| it.reference.as_deref()))
    .bind(column(&records, |it| it.revision))
    .bind(column(&records, |it| it.received_at))
    .bind(column(&records, |it| it.queued_at))
    .bind(column(&records, |it| it.fulfilled_at))
    .bind(column(&records, |it| it.failed_at))
    .bind(column(&records, |it| it.updated_at))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn insert_tenants(
    connection: &mut PgConnection,
    tenants: &[(OrderId, &str)],
) -> Result<(), StoreError> {
    if tenants.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "/* order_tenants.insert */ insert into order_tenants (order_id, tenant) \
         select order_id, tenant from unnest($1::uuid[], $2::text[]) as batch (order_id, tenant) \
         on conflict do nothing",
    )
    .bind(column(tenants, |(order_id, _)| order_id.0))
    .bind(column(tenants, |(_, tenant)| escaped((*tenant).to_owned())))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn upsert_failed_orders(
    connection: &mut PgConnection,
    failed_orders: &[&FailedOrder],
) -> Result<(), StoreError> {
    if failed_orders.is_empty() {
        return Ok(());
    }
    let records: Vec<_> = failed_orders.iter().map(|it| failed_order_record(it)).collect();
    sqlx::query(
        "/* failed_orders.upsert */ insert into failed_orders (order_id, stage, code, reason, \
         attempt, deliveries, failed_at, \"order\", resolved_at, revision) \
         select order_id, stage, code, reason, attempt, deliveries, failed_at, document::json, \
         resolved_at, revision \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], \
         $7::timestamptz[], $8::text[], $9::timestamptz[], $10::bigint[]) as batch (order_id, \
         stage, code, reason, attempt, deliveries, failed_at, document, resolved_at, revision) \
         on conflict (order_id) do update set stage = excluded.stage, code = excluded.code, \
         reason = excluded.reason, attempt = excluded.attempt, deliveries = excluded.deliveries, \
         failed_at = excluded.failed_at, \"order\" = excluded.\"order\", \
         resolved_at = excluded.resolved_at, revision = excluded.revision \
         where excluded.revision > failed_orders.revision",
    )
    .bind(column(&records, |it| it.order_id))
    .bind(column(&records, |it| it.stage.as_str()))
    .bind(column(&records, |it| it.code.as_str()))
    .bind(column(&records, |it| it.reason.as_str()))
    .bind(column(&records, |it| it.attempt))
    .bind(column(&records, |it| it.deliveries))
    .bind(column(&records, |it| it.failed_at))
    .bind(column(&records, |it| it.order.as_str()))
    .bind(column(&records, |it| it.resolved_at))
    .bind(column(&records, |it| it.revision))
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes all rows of these orders.
pub(super) async fn delete(
    connection: &mut PgConnection,
    order_ids: impl IntoIterator<Item = &OrderId>,
) -> Result<(), StoreError> {
    let tables = [
        "/* orders.delete */ delete from orders where order_id = $1",
        "/* failed_orders.delete */ delete from failed_orders where order_id = $1",
        "/* order_tenants.delete */ delete from order_tenants where order_id = $1",
    ];
    for order_id in order_ids {
        for table in tables {
            sqlx::query(table).bind(order_id.0).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Writes the rows of a batch.
pub(super) async fn rows(
    connection: &mut PgConnection,
    changes: &Changes,
) -> Result<(), StoreError> {
    delete(connection, &changes.deleted).await?;
    let is_begun = |id: OrderId| changes.begun.contains(&id);
    let (begun, others): (Vec<_>, Vec<_>) =
        changes.orders.iter().partition(|it| is_begun(it.order_id));
    copy::orders(connection, &begun).await?;
    upsert_orders(connection, &others).await?;
    let (begun, others): (Vec<_>, Vec<_>) =
        changes.failed_orders.iter().partition(|it| is_begun(it.order_id));
    copy::failed_orders(connection, &begun).await?;
    upsert_failed_orders(connection, &others).await?;
    let tenants = changes.tenants.iter().map(|(id, tenant)| (*id, tenant.as_str()));
    let (begun, others): (Vec<_>, Vec<_>) = tenants.partition(|(id, _)| is_begun(*id));
    copy::tenants(connection, &begun).await?;
    insert_tenants(connection, &others).await
}

pub(super) fn order_record(order: &Order) -> OrderRecord<PgTime> {
    OrderRecord::of(order).map_text(escaped)
}

pub(super) fn failed_order_record(failed: &FailedOrder) -> FailedOrderRecord<PgTime> {
    FailedOrderRecord::of(failed).map_text(escaped)
}

fn column<'a, R, C>(records: &'a [R], of: impl Fn(&'a R) -> C) -> Vec<C> {
    records.iter().map(of).collect()
}
