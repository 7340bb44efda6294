//! What is asked of the tables.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::Order;
use sqlx::{PgConnection, PgPool, QueryBuilder};
use uuid::Uuid;

use super::value::{PgTime, escaped, unescaped};
use crate::orders::row::{FailedOrder, Rows};
use crate::store::examine::first_behind;
use crate::store::record::{CheckpointRecord, FailedOrderRecord, OrderRecord, Time};
use crate::store::{Checkpoint, FailedOrderFilter, OrderFilter, Page, RowsPage, StoreError};

/// The columns of an [`OrderRecord`].
macro_rules! order_columns {
    () => {
        "order_id, customer_id, items::text as items, total_quantity, status, stage, attempt, \
         deliveries, failure_code, failure_reason, reference, revision, received_at, queued_at, \
         fulfilled_at, failed_at, updated_at"
    };
}

/// The columns of a [`FailedOrderRecord`].
macro_rules! failed_order_columns {
    () => {
        "order_id, stage, code, reason, attempt, deliveries, failed_at, \"order\"::text as \
         \"order\", resolved_at, revision"
    };
}

/// A condition on the customer of a failure's order; the id and a bracket follow.
pub(super) const OF_CUSTOMER: &str = " and exists (select 1 from orders \
    where orders.order_id = failed_orders.order_id and orders.customer_id = ";

pub(super) use failed_order_columns;
/// A condition that ends with a tenant and a bracket.
const OF_TENANT: &str = " and order_id in (select order_id from order_tenants where tenant = ";

const CHECKPOINT: &str = "/* projection_checkpoints.get */ select commit_position, prepare_position, \
    epoch, events_applied, events_skipped, last_event_at, moved_at, first_event_id \
    from projection_checkpoints where name = $1";

pub(super) async fn checkpoint(pool: &PgPool, set: &str) -> Result<Checkpoint, StoreError> {
    let record: CheckpointRecord<PgTime> =
        sqlx::query_as(CHECKPOINT).bind(set).fetch_one(pool).await?;
    Ok(record.checkpoint())
}

pub(super) async fn maybe_checkpoint(
    connection: &mut PgConnection,
    set: &str,
) -> Result<Option<Checkpoint>, sqlx::Error> {
    let record: Option<CheckpointRecord<PgTime>> =
        sqlx::query_as(CHECKPOINT).bind(set).fetch_optional(connection).await?;
    Ok(record.map(CheckpointRecord::checkpoint))
}

pub(super) async fn rows(
    pool: &PgPool,
    order_ids: &[OrderId],
) -> Result<BTreeMap<OrderId, Rows>, StoreError> {
    let orders = orders_by_id(pool, order_ids).await?;
    let order_ids: Vec<Uuid> = order_ids.iter().map(|it| it.0).collect();
    let failed_orders = sqlx::query_as(concat!(
        "/* failed_orders.get_many */ select ",
        failed_order_columns!(),
        " from failed_orders where order_id = any($1)"
    ))
    .bind(&order_ids)
    .fetch_all(pool)
    .await?;
    let tenants = sqlx::query_as(
        "/* order_tenants.get_many */ select order_id, tenant from order_tenants \
         where order_id = any($1)",
    )
    .bind(&order_ids)
    .fetch_all(pool)
    .await?;

    let failed_orders = failed_orders.into_iter().map(failed_order_of).collect::<Result<_, _>>()?;
    Ok(Rows::by_order(orders, failed_orders, tenants.into_iter().map(tenant_of).collect()))
}

pub(super) async fn rows_after(
    pool: &PgPool,
    after: Option<OrderId>,
    limit: u32,
) -> Result<RowsPage, StoreError> {
    let first = first_behind(after);
    let orders = sqlx::query_as(concat!(
        "/* orders.page */ select ",
        order_columns!(),
        " from orders where order_id >= $1 order by order_id limit $2"
    ))
    .bind(first)
    .bind(i64::from(limit))
    .fetch_all(pool);
    let failed_orders = sqlx::query_as(concat!(
        "/* failed_orders.page */ select ",
        failed_order_columns!(),
        " from failed_orders where order_id >= $1 order by order_id limit $2"
    ))
    .bind(first)
    .bind(i64::from(limit))
    .fetch_all(pool);
    let tenants = sqlx::query_as(
        "/* order_tenants.page */ select order_id, tenant from order_tenants \
         where order_id >= $1 order by order_id limit $2",
    )
    .bind(first)
    .bind(i64::from(limit))
    .fetch_all(pool);

    let (orders, failed_orders, tenants) = tokio::try_join!(orders, failed_orders, tenants)?;
    let orders = orders.into_iter().map(order_of).collect::<Result<_, _>>()?;
    let failed_orders = failed_orders.into_iter().map(failed_order_of).collect::<Result<_, _>>()?;
    let tenants = tenants.into_iter().map(tenant_of).collect();
    Ok(RowsPage::of(orders, failed_orders, tenants, limit))
}

fn tenant_of((order_id, tenant): (Uuid, String)) -> (OrderId, String) {
    (OrderId(order_id), unescaped(tenant))
}

pub(super) async fn orders_by_id(
    pool: &PgPool,
    order_ids: &[OrderId],
) -> Result<Vec<Order>, StoreError> {
    let records = sqlx::query_as(concat!(
        "/* orders.get_many */ select ",
        order_columns!(),
        " from orders where order_id = any($1)"
    ))
    .bind(order_ids.iter().map(|it| it.0).collect::<Vec<Uuid>>())
    .fetch_all(pool)
    .await?;
    records.into_iter().map(order_of).collect()
}

/// The statement has the conditions that the filter has and no others, so that each kind of
/// filter gets a plan of its own.
pub(super) async fn orders(
    pool: &PgPool,
    filter: &OrderFilter,
    page: &Page,
) -> Result<Vec<Order>, StoreError> {
    let mut query = QueryBuilder::new(concat!(
        "/* orders.list */ select ",
        order_columns!(),
        " from orders where true"
    ));
    if let Some(tenant) = &filter.tenant {
        query.push(OF_TENANT).push_bind(escaped(tenant.clone())).push(")");
    }
    if let Some(status) = filter.status {
        query.push(" and status = ").push_bind(status.as_str());
    }
    if let Some(customer_id) = &filter.customer_id {
        query.push(" and customer_id = ").push_bind(escaped(customer_id.clone()));
    }
    if let Some(from) = filter.from {
        query.push(" and listed_at >= ").push_bind(PgTime::of(from));
    }
    if let Some(to) = filter.to {
        query.push(" and listed_at < ").push_bind(PgTime::of(to));
    }
    if let Some(after) = page.after {
        query.push(" and (listed_at, order_id) < (").push_bind(PgTime::of(after.at));
        query.push(", ").push_bind(after.order_id.0).push(")");
    }
    query.push(" order by listed_at desc, order_id desc limit ").push_bind(i64::from(page.limit));
    let records = query.build_query_as().fetch_all(pool).await?;
    records.into_iter().map(order_of).collect()
}

pub(super) async fn failed_orders(
    pool: &PgPool,
    filter: &FailedOrderFilter,
    page: &Page,
) -> Result<Vec<FailedOrder>, StoreError> {
    let mut query = QueryBuilder::new(concat!(
        "/* failed_orders.list */ select ",
        failed_order_columns!(),
        " from failed_orders where true"
    ));
    if !filter.include_resolved {
        query.push(" and resolved_at is null");
    }
    if let Some(tenant) = &filter.tenant {
        query.push(OF_TENANT).push_bind(escaped(tenant.clone())).push(")");
    }
    if let Some(stage) = filter.stage {
        query.push(" and stage = ").push_bind(stage.as_str());
    }
    if let Some(code) = &filter.code {
        query.push(" and code = ").push_bind(escaped(code.clone()));
    }
    if let Some(customer_id) = &filter.customer_id {
        query.push(OF_CUSTOMER).push_bind(escaped(customer_id.clone())).push(")");
    }
    if let Some(from) = filter.from {
        query.push(" and failed_at >= ").push_bind(PgTime::of(from));
    }
    if let Some(to) = filter.to {
        query.push(" and failed_at < ").push_bind(PgTime::of(to));
    }
    if let Some(after) = page.after {
        query.push(" and (failed_at, order_id) < (").push_bind(PgTime::of(after.at));
        query.push(", ").push_bind(after.order_id.0).push(")");
    }
    query.push(" order by failed_at desc, order_id desc limit ").push_bind(i64::from(page.limit));
    let records = query.build_query_as().fetch_all(pool).await?;
    records.into_iter().map(failed_order_of).collect()
}

fn order_of(record: OrderRecord<PgTime>) -> Result<Order, StoreError> {
    record.map_text(unescaped).order()
}

pub(super) fn failed_order_of(
    record: FailedOrderRecord<PgTime>,
) -> Result<FailedOrder, StoreError> {
    record.map_text(unescaped).failed_order()
}
