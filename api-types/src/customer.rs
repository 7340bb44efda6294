//! Customers: the orders of each, summed up.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::FailureStage;

/// The orders of a customer, summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = example_customer)]
pub struct Customer {
    pub customer_id: String,
    pub orders: CustomerOrderCounts,
    /// Sum of the quantities of all accepted orders.
    pub total_quantity: u64,
    #[schema(required)]
    pub first_order: Option<CustomerOrder>,
    #[schema(required)]
    pub last_order: Option<CustomerOrder>,
    /// Last failure of any of the orders, also if the order was fulfilled later.
    #[schema(required)]
    pub last_failure: Option<CustomerFailure>,
}

/// Number of a customer's orders by status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CustomerOrderCounts {
    pub processing: u64,
    pub fulfilled: u64,
    pub failed: u64,
}

/// An order of a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CustomerOrder {
    pub order_id: Uuid,
    pub received_at: Timestamp,
}

/// A failure of a customer's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CustomerFailure {
    pub order_id: Uuid,
    pub stage: FailureStage,
    /// Failure code, for programs.
    pub code: String,
    pub failed_at: Timestamp,
}

/// A page of customers, sorted by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"items": [example_customer()], "next_cursor": null}))]
pub struct CustomerPage {
    pub items: Vec<Customer>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

fn example_customer() -> Value {
    json!({
        "customer_id": "cust-retail-001",
        "orders": {"processing": 0, "fulfilled": 2, "failed": 1},
        "total_quantity": 7,
        "first_order": {
            "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
            "received_at": "2026-01-02T03:04:05.1Z"
        },
        "last_order": {
            "order_id": "018f2d70-0a2c-7f01-8c11-6e5d4b3a2f10",
            "received_at": "2026-01-03T08:15:00Z"
        },
        "last_failure": {
            "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
            "stage": "fulfillment",
            "code": "refused",
            "failed_at": "2026-01-02T03:04:05.3Z"
        }
    })
}
