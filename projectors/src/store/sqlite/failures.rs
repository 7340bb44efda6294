//! What is asked of the failures that are not resolved, each question answered from an index that
//! has no others.

use sqlx::{QueryBuilder, Sqlite, SqlitePool};

use super::Micros;
use super::read::{OF_CUSTOMER, failed_order_columns, listed};
use crate::orders::row::FailedOrder;
use crate::store::failures::GroupRecord;
use crate::store::record::{FailedOrderRecord, Time};
use crate::store::{FailureFilter, FailureGroup, Place, StoreError};

/// Oldest first, so that whoever works through them is done with the past before the present.
pub(super) async fn now(
    pool: &SqlitePool,
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
        query.push(" and (failed_at, order_id) > (").push_bind(Micros::of(after.at));
        query.push(", ").push_bind(after.order_id.0).push(")");
    }
    query.push(" order by failed_at, order_id limit ").push_bind(i64::from(limit));
    let records = query.build_query_as().fetch_all(pool).await?;
    records.into_iter().map(FailedOrderRecord::<Micros>::failed_order).collect()
}

pub(super) async fn groups(
    pool: &SqlitePool,
    filter: &FailureFilter,
) -> Result<Vec<FailureGroup>, StoreError> {
    let mut query = group_query(filter);
    let records = query.build_query_as().fetch_all(pool).await?;
    records.into_iter().map(GroupRecord::<Micros>::group).collect()
}

fn group_query(filter: &FailureFilter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(
        "/* failed_orders.groups */ select stage, code, count(*) as n_orders, \
         min(failed_at) as oldest_failed_at, max(failed_at) as newest_failed_at \
         from failed_orders where resolved_at is null",
    );
    restrict(&mut query, filter);
    query.push(" group by stage, code order by n_orders desc, oldest_failed_at, stage, code");
    query
}

fn restrict(query: &mut QueryBuilder<Sqlite>, filter: &FailureFilter) {
    if let Some(stage) = filter.stage {
        query.push(" and stage = ").push_bind(stage.as_str());
    }
    if let Some(code) = &filter.code {
        query.push(" and code = ").push_bind(code.clone());
    }
    if let Some(failed_before) = filter.failed_before {
        query.push(" and failed_at < ").push_bind(Micros::of(failed_before));
    }
    if let Some(customer_id) = &filter.customer_id {
        query.push(OF_CUSTOMER).push_bind(customer_id.clone()).push(")");
    }
    if let Some(order_ids) = &filter.order_ids {
        query.push(" and order_id in (select unhex(value) from json_each(");
        query.push_bind(listed(order_ids)).push("))");
    }
}

#[cfg(test)]
mod tests {
    use domain::order::Stage;
    use sqlx::{AssertSqlSafe, Row};

    use super::*;
    use crate::store::migrate;

    /// How SQLite would answer the question.
    async fn plan(filter: &FailureFilter) -> String {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("read.db").display());
        migrate(&url).await.unwrap();
        let pool = SqlitePool::connect(&url).await.unwrap();
        let explain = format!("explain query plan {}", group_query(filter).sql().as_str());
        let steps = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&pool).await.unwrap();
        steps.iter().map(|it| it.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn groups_are_counted_without_looking_at_resolved_rows() {
        let stage = Some(Stage::DeadLetter);
        for filter in [FailureFilter::default(), FailureFilter { stage, ..Default::default() }] {
            let plan = plan(&filter).await;
            assert!(plan.contains("COVERING INDEX failures_now_by_code"), "{plan}");
        }
    }
}
