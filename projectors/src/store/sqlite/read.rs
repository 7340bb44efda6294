//! What is asked of the tables.

use std::collections::BTreeMap;

use domain::ids::OrderId;
use domain::order::Order;
use sqlx::{QueryBuilder, SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::Micros;
use crate::orders::row::{FailedOrder, Rows};
use crate::store::examine::first_behind;
use crate::store::record::{CheckpointRecord, FailedOrderRecord, OrderRecord, Time, json};
use crate::store::{Checkpoint, FailedOrderFilter, OrderFilter, Page, RowsPage, StoreError};

/// The columns of an [`OrderRecord`], in its order.
macro_rules! order_columns {
    () => {
        order_columns!("order_id")
    };
    ($order_id:literal) => {
        concat!(
            $order_id,
            ", customer_id, items, total_quantity, status, stage, attempt, deliveries, \
             failure_code, failure_reason, reference, revision, received_at, queued_at, \
             fulfilled_at, failed_at, updated_at"
        )
    };
}

/// The columns of a [`FailedOrderRecord`].
macro_rules! failed_order_columns {
    () => {
        "order_id, stage, code, reason, attempt, deliveries, failed_at, \"order\", \
         resolved_at, revision"
    };
}

/// Orders that are read as one text. At 480 KiB each, the most that a request holds unless it is set
/// otherwise, and twice that in a text of texts, an eighth of what SQLite takes for one
/// (`SQLITE_MAX_LENGTH`, a billion bytes).
const MAX_ORDERS_IN_TEXT: usize = 128;

/// A condition on the customer of a failure's order; the id and a bracket follow.
pub(super) const OF_CUSTOMER: &str = " and exists (select 1 from orders \
    where orders.order_id = failed_orders.order_id and orders.customer_id = ";

pub(super) use failed_order_columns;
/// A condition that ends with a tenant and a bracket.
const OF_TENANT: &str = " and order_id in (select order_id from order_tenants where tenant = ";

const CHECKPOINT: &str = "/* projection_checkpoints.get */ select commit_position, prepare_position, \
    epoch, events_applied, events_skipped, last_event_at, moved_at, first_event_id \
    from projection_checkpoints where name = ?1";

pub(super) async fn checkpoint(pool: &SqlitePool, set: &str) -> Result<Checkpoint, StoreError> {
    let record: CheckpointRecord<Micros> =
        sqlx::query_as(CHECKPOINT).bind(set).fetch_one(pool).await?;
    Ok(record.checkpoint())
}

pub(super) async fn checkpoint_in(
    connection: &mut SqliteConnection,
    set: &str,
) -> Result<Checkpoint, StoreError> {
    let record: CheckpointRecord<Micros> =
        sqlx::query_as(CHECKPOINT).bind(set).fetch_one(connection).await?;
    Ok(record.checkpoint())
}

pub(super) async fn rows(
    pool: &SqlitePool,
    order_ids: &[OrderId],
) -> Result<BTreeMap<OrderId, Rows>, StoreError> {
    let orders = orders_by_id(pool, order_ids).await?;
    let order_ids = listed(order_ids);
    let failed_orders = sqlx::query_as(concat!(
        "/* failed_orders.get_many */ select ",
        failed_order_columns!(),
        " from failed_orders where order_id in (select unhex(value) from json_each(?1))"
    ))
    .bind(&order_ids)
    .fetch_all(pool)
    .await?;
    let tenants = sqlx::query_as(
        "/* order_tenants.get_many */ select order_id, tenant from order_tenants \
         where order_id in (select unhex(value) from json_each(?1))",
    )
    .bind(&order_ids)
    .fetch_all(pool)
    .await?;

    let failed_orders = failed_orders
        .into_iter()
        .map(FailedOrderRecord::<Micros>::failed_order)
        .collect::<Result<_, _>>()?;
    Ok(Rows::by_order(orders, failed_orders, tenants.into_iter().map(tenant_of).collect()))
}

pub(super) async fn rows_after(
    pool: &SqlitePool,
    after: Option<OrderId>,
    limit: u32,
) -> Result<RowsPage, StoreError> {
    let first = first_behind(after);
    let orders = sqlx::query_as(concat!(
        "/* orders.page */ select ",
        order_columns!(),
        " from orders where order_id >= ?1 order by order_id limit ?2"
    ))
    .bind(first)
    .bind(i64::from(limit))
    .fetch_all(pool);
    let failed_orders = sqlx::query_as(concat!(
        "/* failed_orders.page */ select ",
        failed_order_columns!(),
        " from failed_orders where order_id >= ?1 order by order_id limit ?2"
    ))
    .bind(first)
    .bind(i64::from(limit))
    .fetch_all(pool);
    let tenants = sqlx::query_as(
        "/* order_tenants.page */ select order_id, tenant from order_tenants \
         where order_id >= ?1 order by order_id limit ?2",
    )
    .bind(first)
    .bind(i64::from(limit))
    .fetch_all(pool);

    let (orders, failed_orders, tenants) = tokio::try_join!(orders, failed_orders, tenants)?;
    let orders = orders.into_iter().map(OrderRecord::<Micros>::order).collect::<Result<_, _>>()?;
    let failed_orders = failed_orders
        .into_iter()
        .map(FailedOrderRecord::<Micros>::failed_order)
        .collect::<Result<_, _>>()?;
    let tenants = tenants.into_iter().map(tenant_of).collect();
    Ok(RowsPage::of(orders, failed_orders, tenants, limit))
}

fn tenant_of((order_id, tenant): (Uuid, String)) -> (OrderId, String) {
    (OrderId(order_id), tenant)
}

/// As one text: row by row, each of their values is copied, and each row wakes its reader.
pub(super) async fn orders_by_id(
    pool: &SqlitePool,
    order_ids: &[OrderId],
) -> Result<Vec<Order>, StoreError> {
    let mut orders = Vec::with_capacity(order_ids.len());
    for order_ids in order_ids.chunks(MAX_ORDERS_IN_TEXT) {
        let text: String = sqlx::query_scalar(concat!(
            "/* orders.get_many */ select json_group_array(json_array(",
            order_columns!("hex(order_id)"),
            ")) from orders where order_id in (select unhex(value) from json_each(?1))"
        ))
        .bind(listed(order_ids))
        .fetch_one(pool)
        .await?;
        let records: Vec<OrderRecord<Micros>> = serde_json::from_str(&text)
            .map_err(|error| StoreError::Row { of: "orders".into(), reason: error.to_string() })?;
        for record in records {
            orders.push(record.order()?);
        }
    }
    Ok(orders)
}

/// The statement has the conditions that the filter has and no others, so that each kind of
/// filter gets a plan of its own.
pub(super) async fn orders(
    pool: &SqlitePool,
    filter: &OrderFilter,
    page: &Page,
) -> Result<Vec<Order>, StoreError> {
    let mut query = QueryBuilder::new(concat!(
        "/* orders.list */ select ",
        order_columns!(),
        " from orders where true"
    ));
    if let Some(tenant) = &filter.tenant {
        query.push(OF_TENANT).push_bind(tenant.clone()).push(")");
    }
    if let Some(status) = filter.status {
        query.push(" and status = ").push_bind(status.as_str());
    }
    if let Some(customer_id) = &filter.customer_id {
        query.push(" and customer_id = ").push_bind(customer_id.clone());
    }
    if let Some(from) = filter.from {
        query.push(" and listed_at >= ").push_bind(Micros::of(from));
    }
    if let Some(to) = filter.to {
        query.push(" and listed_at < ").push_bind(Micros::of(to));
    }
    if let Some(after) = page.after {
        query.push(" and (listed_at, order_id) < (").push_bind(Micros::of(after.at));
        query.push(", ").push_bind(after.order_id.0).push(")");
    }
    query.push(" order by listed_at desc, order_id desc limit ").push_bind(i64::from(page.limit));
    let records = query.build_query_as().fetch_all(pool).await?;
    records.into_iter().map(OrderRecord::<Micros>::order).collect()
}

pub(super) async fn failed_orders(
    pool: &SqlitePool,
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
        query.push(OF_TENANT).push_bind(tenant.clone()).push(")");
    }
    if let Some(stage) = filter.stage {
        query.push(" and stage = ").push_bind(stage.as_str());
    }
    if let Some(code) = &filter.code {
        query.push(" and code = ").push_bind(code.clone());
    }
    if let Some(customer_id) = &filter.customer_id {
        query.push(OF_CUSTOMER).push_bind(customer_id.clone()).push(")");
    }
    if let Some(from) = filter.from {
        query.push(" and failed_at >= ").push_bind(Micros::of(from));
    }
    if let Some(to) = filter.to {
        query.push(" and failed_at < ").push_bind(Micros::of(to));
    }
    if let Some(after) = page.after {
        query.push(" and (failed_at, order_id) < (").push_bind(Micros::of(after.at));
        query.push(", ").push_bind(after.order_id.0).push(")");
    }
    query.push(" order by failed_at desc, order_id desc limit ").push_bind(i64::from(page.limit));
    let records = query.build_query_as().fetch_all(pool).await?;
    records.into_iter().map(FailedOrderRecord::<Micros>::failed_order).collect()
}

/// Ids as one list in one parameter, so that the statement is the same for any number of orders.
pub(super) fn listed(order_ids: &[OrderId]) -> String {
    json(&order_ids.iter().map(|it| it.0.simple()).collect::<Vec<_>>())
}
