//! What is asked of the failures that are not resolved, each question answered from an index that
//! has no others.

use sqlx::{PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::read::{OF_CUSTOMER, failed_order_columns, failed_order_of};
use super::value::{PgTime, escaped, unescaped};
use crate::orders::row::FailedOrder;
use crate::store::failures::GroupRecord;
use crate::store::record::Time;
use crate::store::{FailureFilter, FailureGroup, Place, StoreError};

/// Oldest first, so that whoever works through them is done with the past before the present.
pub(super) async fn now(
    pool: &PgPool,
    filter: &FailureFilter,
    after: Option<Place>,
    limit: u32,
) -> Result<Vec<FailedOrder>, StoreError> {
    let mut query = QueryBuilder::new(concat!(
        "/* failed_orders.now */ select ",
        failed_order_columns!(),
        " from failed_orders where resolved_at is null"
    ));
    restrict(&mut query, filter);
    if let Some(after) = after {
        query.push(" and (failed_at, order_id) > (").push_bind(PgTime::of(after.at));
        query.push(", ").push_bind(after.order_id.0).push(")");
    }
    query.push(" order by failed_at, order_id limit ").push_bind(i64::from(limit));
    let records = query.build_query_as().fetch_all(pool).await?;
    records.into_iter().map(failed_order_of).collect()
}

pub(super) async fn groups(
    pool: &PgPool,
    filter: &FailureFilter,
) -> Result<Vec<FailureGroup>, StoreError> {
    let mut query = QueryBuilder::new(
        "/* failed_orders.groups */ select stage, code, count(*) as n_orders, \
         min(failed_at) as oldest_failed_at, max(failed_at) as newest_failed_at \
         from failed_orders where resolved_at is null",
    );
    restrict(&mut query, filter);
    query.push(" group by stage, code order by n_orders desc, oldest_failed_at, stage, code");
    let records = query.build_query_as().fetch_all(pool).await?;
    let group = |record: GroupRecord<PgTime>| {
        GroupRecord { code: unescaped(record.code), ..record }.group()
    };
    records.into_iter().map(group).collect()
}

fn restrict(query: &mut QueryBuilder<Postgres>, filter: &FailureFilter) {
    if let Some(stage) = filter.stage {
        query.push(" and stage = ").push_bind(stage.as_str());
    }
    if let Some(code) = &filter.code {
        query.push(" and code = ").push_bind(escaped(code.clone()));
    }
    if let Some(failed_before) = filter.failed_before {
        query.push(" and failed_at < ").push_bind(PgTime::of(failed_before));
    }
    if let Some(customer_id) = &filter.customer_id {
        query.push(OF_CUSTOMER).push_bind(escaped(customer_id.clone())).push(")");
    }
    if let Some(order_ids) = &filter.order_ids {
        let order_ids: Vec<Uuid> = order_ids.iter().map(|it| it.0).collect();
        query.push(" and order_id = any(").push_bind(order_ids).push(")");
    }
}
