//! Summaries of customers, from the rows of the projection `customer_orders`.

use domain::ids::OrderId;
use domain::order::Stage;
use jiff::Timestamp;

use super::query::{Query, query};
use super::{ReadModel, Result};
use crate::projection::row;

/// Restricts a list of customers, which is sorted by their ids. Fields that are `None` do not restrict
/// it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomerFilter {
    /// Only customers of this tenant, and only its orders.
    pub tenant: Option<String>,
    /// Only customers with a greater id: the last one of the page before.
    pub after: Option<String>,
    pub customer_id: Option<String>,
}

row! {
    /// The orders of a customer, summed up.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Customer {
        pub customer_id: String,
        pub n_processing: u64,
        pub n_fulfilled: u64,
        pub n_failed: u64,
        /// Items of all orders that were accepted.
        pub total_quantity: u64,
        pub first_order_id: Option<OrderId>,
        pub first_order_at: Option<Timestamp>,
        pub last_order_id: Option<OrderId>,
        pub last_order_at: Option<Timestamp>,
        /// The order that failed last.
        pub failed_order_id: Option<OrderId>,
        pub failed_at: Option<Timestamp>,
        pub failure_stage: Option<Stage>,
        pub failure_code: Option<String>,
    }
}

/// Returns the statement that sums up customers; conditions on `customer` can follow. `tenant` is a
/// condition on the tenant of an order `o`.
fn select_customers(tenant: &str) -> String {
    // Columns of one order of the customer, found by an index.
    let find = |columns: &[&str], condition: &str, order: &str| {
        let find_column = |column: &&str| {
            format!(
                "(select o.{column} from customer_orders o \
                 where o.customer_id = customer.customer_id {tenant} \
                 and o.{condition} is not null order by {order} limit 1)"
            )
        };
        columns.iter().map(find_column).collect::<Vec<_>>().join(", ")
    };
    let received = ["order_id", "received_at"];
    let first = find(&received, "received_at", "o.listed_at, o.order_id");
    let last = find(&received, "received_at", "o.listed_at desc, o.order_id desc");
    let failed = ["order_id", "failed_at", "failure_stage", "failure_code"];
    let failed = find(&failed, "failed_at", "o.failed_at desc, o.order_id desc");
    format!(
        "/* customers.list */ select customer.customer_id, n_processing, n_fulfilled, n_failed, \
         total_quantity, {first}, {last}, {failed} from (select o.customer_id, \
         count(*) filter (where o.status = 'PROCESSING') as n_processing, \
         count(*) filter (where o.status = 'FULFILLED') as n_fulfilled, \
         count(*) filter (where o.status = 'FAILED') as n_failed, \
         cast(sum(o.total_quantity) as bigint) as total_quantity \
         from customer_orders o where o.customer_id <> '' {tenant}"
    )
}

impl ReadModel {
    /// Lists customers that have orders, in the order of their ids.
    pub async fn customers(&self, filter: &CustomerFilter, limit: u32) -> Result<Vec<Customer>> {
        // The tenant is the first parameter, so that every part of the statement can refer to it.
        let mut query = match &filter.tenant {
            Some(tenant) => query!(select_customers("and o.tenant = $1"), tenant.clone()),
            None => Query::new(select_customers("")),
        };
        query.restrict(" and o.customer_id > ", filter.after.clone(), "");
        query.restrict(" and o.customer_id = ", filter.customer_id.clone(), "");
        query.push(" group by o.customer_id order by o.customer_id limit ");
        query.push_bind(limit);
        query.push(") as customer order by customer.customer_id");
        self.fetch_rows(query).await
    }
}
