//! The description of the query routes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use super::{
    compare, dead_letter, dead_letters, failed_orders, feed, history, order, orders, stats,
};

/// An order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `shown` answers")]
struct Order {
    order_id: Uuid,
    customer_id: String,
    items: Vec<Item>,
    total_quantity: u64,
    status: Status,
    /// Where it failed, while it is failed.
    #[schema(required)]
    stage: Option<Stage>,
    /// The current attempt; 0 if the order was never queued.
    attempt: u32,
    deliveries: u32,
    #[schema(required)]
    failure_code: Option<String>,
    #[schema(required)]
    failure_reason: Option<String>,
    /// The gateway's own id for what it did.
    #[schema(required)]
    reference: Option<String>,
    /// The revision of the last event.
    revision: u64,
    #[schema(required)]
    received_at: Option<Timestamp>,
    #[schema(required)]
    queued_at: Option<Timestamp>,
    #[schema(required)]
    fulfilled_at: Option<Timestamp>,
    #[schema(required)]
    failed_at: Option<Timestamp>,
    updated_at: Timestamp,
    source: Source,
    /// `true` if the order is not yet as the client wanted to wait for.
    #[schema(nullable = false)]
    stale: Option<bool>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes an order's items")]
struct Item {
    product_id: String,
    #[schema(minimum = 1)]
    quantity: u64,
}

#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "describes an order's status")]
pub(super) enum Status {
    Processing,
    Fulfilled,
    Failed,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes where an order failed")]
pub(super) enum Stage {
    Validation,
    Fulfillment,
    DeadLetter,
}

/// Where an answer comes from: the tables, or the order's stream where they are behind.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes where an answer comes from")]
enum Source {
    Table,
    Stream,
}

/// A page of orders, newest first.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Listing` answers")]
struct OrderList {
    items: Vec<Order>,
    /// Leads to the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A failure.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `shown` answers")]
struct FailedOrder {
    order_id: Uuid,
    stage: Stage,
    code: String,
    reason: String,
    attempt: u32,
    deliveries: u32,
    failed_at: Timestamp,
    /// The order as it was.
    #[schema(value_type = Object)]
    order: BTreeMap<String, Value>,
    #[schema(required)]
    resolved_at: Option<Timestamp>,
}

/// A page of failures, newest first.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Listing` answers")]
struct FailedOrderList {
    items: Vec<FailedOrder>,
    /// Leads to the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    paths(
        order::get_order,
        orders::list_orders,
        failed_orders::list_failed_orders,
        history::get_history,
        compare::get_comparison,
        dead_letters::count_dead_letters,
        dead_letter::get_dead_letter,
        stats::get_stats,
        feed::stream_events,
    ),
    components(schemas(
        Order,
        Item,
        Status,
        Stage,
        Source,
        OrderList,
        FailedOrder,
        FailedOrderList
    ))
)]
pub(super) struct QueryRoutes;
