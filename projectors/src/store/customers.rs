//! Summaries of customers, from the rows of the projection `customer_orders`.

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::order::Stage;
use jiff::Timestamp;

use super::StoreError;
use super::database::{Backend, Store};
use super::query::Query;
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

/// What is asked of the tables of the projection `customer_orders`.
#[async_trait]
pub trait Customers {
    /// Lists customers that have orders, in the order of their ids.
    async fn customers(
        &self,
        filter: &CustomerFilter,
        limit: u32,
    ) -> Result<Vec<Customer>, StoreError>;
}

/// Returns the statement that sums up customers; conditions on `customer` can follow. `tenant` is a
/// condition on the tenant of an order `o`.
fn select_customers(tenant: &str) -> String {
    // One order of the customer, found by an index.
    let find = |column: &str, condition: &str, order: &str| {
        format!(
            "(select o.{column} from customer_orders o where o.customer_id = customer.customer_id \
             {tenant} and o.{condition} is not null order by {order} limit 1)"
        )
    };
    let first = |column| find(column, "received_at", "o.listed_at, o.order_id");
    let last = |column| find(column, "received_at", "o.listed_at desc, o.order_id desc");
    let failed = |column| find(column, "failed_at", "o.failed_at desc, o.order_id desc");
    let count = |status: &str| format!("count(*) filter (where o.status = '{status}')");
    format!(
        "/* customers.list */ select customer.customer_id, n_processing, n_fulfilled, n_failed, \
         total_quantity, {}, {}, {}, {}, {}, {}, {}, {} from (select o.customer_id, \
         {} as n_processing, {} as n_fulfilled, {} as n_failed, \
         cast(sum(o.total_quantity) as bigint) as total_quantity \
         from customer_orders o where o.customer_id <> '' {tenant}",
        first("order_id"),
        first("received_at"),
        last("order_id"),
        last("received_at"),
        failed("order_id"),
        failed("failed_at"),
        failed("failure_stage"),
        failed("failure_code"),
        count("PROCESSING"),
        count("FULFILLED"),
        count("FAILED"),
    )
}

#[async_trait]
impl<D: Backend> Customers for Store<D> {
    async fn customers(
        &self,
        filter: &CustomerFilter,
        limit: u32,
    ) -> Result<Vec<Customer>, StoreError> {
        // The tenant is the first parameter, so that every part of the statement can refer to it.
        let mut query = match &filter.tenant {
            Some(tenant) => Query::new(select_customers("and o.tenant = $1")).bind(tenant.clone()),
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
