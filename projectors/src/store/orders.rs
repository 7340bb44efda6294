//! Lists of orders and of failures, from the rows of the projection `orders`.

use domain::ids::OrderId;
use domain::operations::FailureFilter;
use domain::order::{Stage, Status};
use jiff::{SignedDuration, Timestamp};

use super::query::{Dialect, Query, query};
use super::rows::fetch_by_ids;
use super::{Page, Place, ReadModel, Result};
use crate::orders::{FailedOrder, OrderRow};
use crate::projection::{TableRow, read_row, row};

/// A condition on the tenant of the order; the tenant and a bracket follow.
const OF_TENANT: &str = " and order_id in (select order_id from order_tenants where tenant = ";
/// A condition on the customer of the failure's order; the customer and a bracket follow.
const OF_CUSTOMER: &str = " and exists (select 1 from orders \
    where orders.order_id = failed_orders.order_id and orders.customer_id = ";

/// Restricts a list of orders. Fields that are `None` do not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    pub tenant: Option<String>,
    pub status: Option<Status>,
    pub customer_id: Option<String>,
    /// Received at this time or later.
    pub from: Option<Timestamp>,
    /// Received before this time.
    pub to: Option<Timestamp>,
}

/// Restricts a list of failures. Fields that are `None` do not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedOrderFilter {
    pub tenant: Option<String>,
    pub stage: Option<Stage>,
    pub code: Option<String>,
    pub customer_id: Option<String>,
    /// Failed at this time or later.
    pub from: Option<Timestamp>,
    /// Failed before this time.
    pub to: Option<Timestamp>,
    /// Includes failures that a redrive has resolved or an operator discarded.
    pub include_resolved: bool,
}

row! {
    /// Unresolved failures of one stage and code.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FailureGroup {
        pub stage: Stage,
        pub code: String,
        pub n_orders: u64,
        pub oldest_failed_at: Timestamp,
        pub newest_failed_at: Timestamp,
        /// Failed in the last hour.
        pub n_last_hour: u64,
        /// Failed in the hour before the last.
        pub n_previous_hour: u64,
    }
}

impl ReadModel {
    /// Reads one order.
    pub async fn order(&self, order_id: OrderId) -> Result<Option<OrderRow>> {
        Ok(self.orders_by_id(&[order_id]).await?.pop())
    }

    /// Reads orders by their ids, in any sequence. Unknown ids are left out.
    pub async fn orders_by_id(&self, order_ids: &[OrderId]) -> Result<Vec<OrderRow>> {
        let mut connection = self.database.acquire_reader().await?;
        let records = fetch_by_ids(&mut connection, &OrderRow::TABLE, order_ids).await?;
        Ok(records.into_iter().map(read_row).collect::<Result<_, _>>()?)
    }

    /// Lists orders, newest first by the time they were received.
    pub async fn orders(&self, filter: &OrderFilter, page: &Page) -> Result<Vec<OrderRow>> {
        // The statement has the conditions of the filter and no others, so that each kind of filter
        // gets a plan of its own.
        let mut query = Query::select::<OrderRow>("orders.list");
        query.push(" where true");
        query.restrict(OF_TENANT, filter.tenant.clone(), ")");
        query.restrict(" and status = ", filter.status, "");
        query.restrict(" and customer_id = ", filter.customer_id.clone(), "");
        query.restrict(" and listed_at >= ", filter.from, "");
        query.restrict(" and listed_at < ", filter.to, "");
        query.push_page("listed_at", page);
        self.fetch_rows(query).await
    }

    /// Lists failures, newest first by the time of the failure.
    pub async fn failed_orders(
        &self,
        filter: &FailedOrderFilter,
        page: &Page,
    ) -> Result<Vec<FailedOrder>> {
        let mut query = Query::select::<FailedOrder>("failed_orders.list");
        query.push(if filter.include_resolved {
            " where true"
        } else {
            " where resolved_at is null"
        });
        query.restrict(OF_TENANT, filter.tenant.clone(), ")");
        query.restrict(" and stage = ", filter.stage, "");
        query.restrict(" and code = ", filter.code.clone(), "");
        query.restrict(OF_CUSTOMER, filter.customer_id.clone(), ")");
        query.restrict(" and failed_at >= ", filter.from, "");
        query.restrict(" and failed_at < ", filter.to, "");
        query.push_page("failed_at", page);
        self.fetch_rows(query).await
    }

    /// Lists failures that are not resolved and come behind `after`, oldest first by the time of the
    /// failure: a client that works through them handles the past before the present.
    pub async fn failures_now(
        &self,
        filter: &FailureFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<FailedOrder>> {
        let mut query = Query::select::<FailedOrder>("failed_orders.now");
        query.push(" where resolved_at is null");
        restrict_failures(&mut query, self.database.dialect(), filter);
        query.restrict_place(" and (failed_at, order_id) > ", after);
        query.push(" order by failed_at, order_id limit ");
        query.push_bind(limit);
        self.fetch_rows(query).await
    }

    /// Counts failures that are not resolved by stage and code, the largest number first.
    pub async fn failure_groups(
        &self,
        filter: &FailureFilter,
        now: Timestamp,
    ) -> Result<Vec<FailureGroup>> {
        self.fetch_rows(group_failures(self.database.dialect(), filter, now)).await
    }

    /// Counts failures that are not resolved.
    pub async fn count_failures(&self, filter: &FailureFilter) -> Result<u64> {
        let mut query = Query::new(
            "/* failed_orders.count */ select count(*) from failed_orders where resolved_at is null",
        );
        restrict_failures(&mut query, self.database.dialect(), filter);
        Ok(self.fetch_value(query).await?.unwrap_or_default())
    }

    /// Returns the time of the last event of the order in `PROCESSING` that has waited longest; `None`
    /// if no order is in `PROCESSING`.
    pub async fn oldest_processing(&self) -> Result<Option<Timestamp>> {
        let oldest = "/* orders.oldest_processing */ select updated_at from orders \
            where status = 'PROCESSING' order by updated_at limit 1";
        self.fetch_value(Query::new(oldest)).await
    }
}

fn group_failures(dialect: Dialect, filter: &FailureFilter, now: Timestamp) -> Query {
    let groups = "/* failed_orders.groups */ select stage, code, count(*) as n_orders, \
        min(failed_at) as oldest_failed_at, max(failed_at) as newest_failed_at, \
        count(*) filter (where failed_at >= $1) as n_last_hour, \
        count(*) filter (where failed_at >= $2 and failed_at < $1) as n_previous_hour \
        from failed_orders where resolved_at is null";
    let hours_ago =
        |n_hours| now.saturating_sub(SignedDuration::from_hours(n_hours)).unwrap_or(Timestamp::MIN);
    let mut query = query!(groups, hours_ago(1), hours_ago(2));
    restrict_failures(&mut query, dialect, filter);
    query.push(" group by stage, code order by n_orders desc, oldest_failed_at, stage, code");
    query
}

fn restrict_failures(query: &mut Query, dialect: Dialect, filter: &FailureFilter) {
    query.restrict(" and stage = ", filter.stage, "");
    query.restrict(" and code = ", filter.code.clone(), "");
    query.restrict(" and failed_at < ", filter.failed_before, "");
    query.restrict(OF_CUSTOMER, filter.customer_id.clone(), ")");
    if let Some(order_ids) = &filter.order_ids {
        query.restrict_ids(dialect, order_ids);
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row, SqlitePool};

    use super::*;
    use crate::store::migrate;

    /// Returns SQLite's plan of the statement.
    async fn explain_count(filter: &FailureFilter) -> String {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("read.db").display());
        migrate(&url).await.unwrap();
        let pool = SqlitePool::connect(&url).await.unwrap();
        let count = group_failures(Dialect::Sqlite, filter, Timestamp::UNIX_EPOCH);
        let explain = AssertSqlSafe(format!("explain query plan {}", count.sql()));
        let steps = sqlx::raw_sql(explain).fetch_all(&pool).await.unwrap();
        steps.iter().map(|step| step.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn failures_are_counted_without_reading_resolved_rows() {
        let stage = Some(Stage::DeadLetter);
        for filter in [FailureFilter::default(), FailureFilter { stage, ..Default::default() }] {
            let plan = explain_count(&filter).await;
            assert!(plan.contains("COVERING INDEX failures_now_by_code"), "{plan}");
        }
    }
}
