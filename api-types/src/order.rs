//! Orders: how they are placed, shown and listed.

use domain::order::{self as stored, Stage, Status};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::ClampedTimestamp;

/// Largest quantity of an item: the largest signed 64-bit integer.
pub const MAX_QUANTITY: u64 = i64::MAX.cast_unsigned();

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderItem {
    #[schema(max_length = 256, pattern = r"^[^\x00]*$", example = "prod-widget-001")]
    pub product_id: String,
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64, example = 2)]
    pub quantity: u64,
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// The order waits for the gateway.
    Processing,
    /// The gateway fulfilled the order.
    Fulfilled,
    /// The order broke a business rule, the gateway refused it, or its retries ran out.
    Failed,
}

/// Stage at which an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureStage {
    /// The order broke a business rule and was never queued.
    Validation,
    /// The gateway refused the order.
    Fulfillment,
    /// The retries of the order ran out, or it cannot be delivered.
    DeadLetter,
}

/// State of an order after one of its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderState {
    pub order_id: Uuid,
    pub customer_id: String,
    pub items: Vec<OrderItem>,
    pub total_quantity: u64,
    pub status: OrderStatus,
    /// Stage at which the order failed; null unless its status is `FAILED`.
    #[schema(required)]
    pub stage: Option<FailureStage>,
    /// Number of the current attempt; 0 if the order was never queued.
    pub attempt: u32,
    /// Deliveries of the current attempt.
    pub deliveries: u32,
    /// Failure code, for programs.
    #[schema(required)]
    pub failure_code: Option<String>,
    /// Failure reason, for people.
    #[schema(required)]
    pub failure_reason: Option<String>,
    /// Id that the gateway gave to the fulfillment.
    #[schema(required)]
    pub reference: Option<String>,
    /// Revision of the order's last event.
    pub revision: u64,
    #[schema(required)]
    pub received_at: Option<Timestamp>,
    #[schema(required)]
    pub queued_at: Option<Timestamp>,
    #[schema(required)]
    pub fulfilled_at: Option<Timestamp>,
    #[schema(required)]
    pub failed_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

/// An order, and where it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = example_order)]
pub struct Order {
    #[serde(flatten)]
    pub state: OrderState,
    pub source: OrderSource,
    /// `true` if the order has not reached the revision or the status that the client waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stale: Option<bool>,
}

impl Order {
    /// Returns an order that is as new as its reader asked for.
    pub fn new(state: impl Into<OrderState>, source: OrderSource) -> Self {
        Self { state: state.into(), source, stale: None }
    }
}

/// Where an order was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderSource {
    /// The read model.
    Table,
    /// The order's events: the read model is behind, or the state is one of the past.
    Stream,
}

/// A page of orders, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"items": [example_order()], "next_cursor": null}))]
pub struct OrderPage {
    pub items: Vec<Order>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// A new order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "customer_id": "cust-retail-001",
    "items": [{"product_id": "prod-widget-001", "quantity": 2}]
}))]
pub struct PlaceOrderRequest {
    /// A customer id of fewer than 3 characters breaks a business rule: the order is recorded as failed.
    #[schema(min_length = 3, max_length = 256, pattern = r"^[^\x00]+$")]
    pub customer_id: String,
    /// Quantities that add up to more than 100 break a business rule: the order is recorded as failed.
    #[schema(min_items = 1, max_items = 1000)]
    pub items: Vec<OrderItem>,
}

/// An order that was accepted and is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "message": "Order received and processing started",
    "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
    "status": "processing",
    "execution_arn": "arn:dofs:orders:dev:execution/order-018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33"
}))]
pub struct PlacedOrder {
    pub message: String,
    pub order_id: Uuid,
    pub status: AcceptedStatus,
    /// Name of the order's stream, in the form that clients of the former system expect.
    pub execution_arn: String,
}

/// Status of an order that was accepted and is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcceptedStatus {
    Processing,
}

/// The finished order if the client waited for it; otherwise the accepted order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PlaceOrderResult {
    Finished(Box<Order>),
    Accepted(PlacedOrder),
}

/// Restricts which orders are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OrderFilter {
    /// Only orders with this status.
    #[serde(default, deserialize_with = "status_in_any_case")]
    #[param(inline)]
    pub status: Option<OrderStatus>,
    /// Only orders of this customer.
    pub customer_id: Option<String>,
    /// Only orders received at or after this time.
    #[param(inline)]
    pub from: Option<ClampedTimestamp>,
    /// Only orders received before this time.
    #[param(inline)]
    pub to: Option<ClampedTimestamp>,
}

/// Selects a page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Maximum number of rows of the page. Default: 50.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// `next_cursor` of the previous page. It contains the filter of the list.
    pub cursor: Option<String>,
}

/// Selects a state of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GetOrderQuery {
    /// Show the order as it was after the event with this revision.
    pub at_revision: Option<u64>,
    /// Show the order as it was at this time. Not together with `at_revision`.
    #[param(inline)]
    pub at: Option<ClampedTimestamp>,
}

/// Reads a status in capital or small letters, as queries may have it.
fn status_in_any_case<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<OrderStatus>, D::Error> {
    let Some(name) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let status = Status::from_name(&name).ok_or_else(|| {
        let names = Status::ALL.map(Status::as_str).join(", ");
        de::Error::custom(format!("must be one of: {names}"))
    })?;
    Ok(Some(status.into()))
}

impl From<&stored::Order> for OrderState {
    fn from(order: &stored::Order) -> Self {
        Self {
            order_id: order.order_id.0,
            customer_id: order.customer_id.clone(),
            items: order.items.iter().map(OrderItem::from).collect(),
            total_quantity: order.total_quantity,
            status: order.status.into(),
            stage: order.stage.map(FailureStage::from),
            attempt: order.attempt,
            deliveries: order.deliveries,
            failure_code: order.failure_code.clone(),
            failure_reason: order.failure_reason.clone(),
            reference: order.reference.clone(),
            revision: order.revision,
            received_at: order.received_at,
            queued_at: order.queued_at,
            fulfilled_at: order.fulfilled_at,
            failed_at: order.failed_at,
            updated_at: order.updated_at,
        }
    }
}

impl From<&stored::Item> for OrderItem {
    fn from(item: &stored::Item) -> Self {
        Self { product_id: item.product_id.clone(), quantity: item.quantity }
    }
}

impl From<OrderItem> for stored::Item {
    fn from(item: OrderItem) -> Self {
        Self { product_id: item.product_id, quantity: item.quantity }
    }
}

convert_variants!(Status => OrderStatus: Processing, Fulfilled, Failed);
convert_variants!(OrderStatus => Status: Processing, Fulfilled, Failed);
convert_variants!(Stage => FailureStage: Validation, Fulfillment, DeadLetter);
convert_variants!(FailureStage => Stage: Validation, Fulfillment, DeadLetter);

impl OrderStatus {
    /// Returns the name in responses.
    pub fn as_str(self) -> &'static str {
        Status::from(self).as_str()
    }
}

impl FailureStage {
    /// Returns the name in requests and responses.
    pub fn as_str(self) -> &'static str {
        Stage::from(self).as_str()
    }

    /// Returns the stage with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Stage::from_name(name).map(Self::from)
    }
}

/// Returns an example of [`OrderState`]: a new order, with other values for the `changed` members.
pub(crate) fn example_state(changed: Value) -> Value {
    let mut state = json!({
        "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
        "customer_id": "cust-retail-001",
        "items": [{"product_id": "prod-widget-001", "quantity": 2}],
        "total_quantity": 2,
        "status": "PROCESSING",
        "stage": null,
        "attempt": 0,
        "deliveries": 0,
        "failure_code": null,
        "failure_reason": null,
        "reference": null,
        "revision": 0,
        "received_at": "2026-01-02T03:04:05.1Z",
        "queued_at": null,
        "fulfilled_at": null,
        "failed_at": null,
        "updated_at": "2026-01-02T03:04:05.1Z"
    });
    if let (Value::Object(state), Value::Object(changed)) = (&mut state, changed) {
        state.extend(changed);
    }
    state
}

/// Returns an example of [`OrderState`]: an order that the gateway refused.
pub(crate) fn example_failed_state() -> Value {
    example_state(json!({
        "status": "FAILED",
        "stage": "fulfillment",
        "attempt": 1,
        "deliveries": 1,
        "failure_code": "refused",
        "failure_reason": "Out of stock",
        "revision": 4,
        "queued_at": "2026-01-02T03:04:05.1Z",
        "failed_at": "2026-01-02T03:04:05.3Z",
        "updated_at": "2026-01-02T03:04:05.3Z"
    }))
}

fn example_order() -> Value {
    example_state(json!({
        "status": "FULFILLED",
        "attempt": 1,
        "deliveries": 1,
        "reference": "gw-7f3a",
        "revision": 4,
        "queued_at": "2026-01-02T03:04:05.1Z",
        "fulfilled_at": "2026-01-02T03:04:05.3Z",
        "updated_at": "2026-01-02T03:04:05.3Z",
        "source": "table"
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_of_a_query_is_read_in_any_case() {
        let filter = |status| serde_json::from_value::<OrderFilter>(json!({"status": status}));
        assert_eq!(filter("failed").unwrap().status, Some(OrderStatus::Failed));
        assert_eq!(filter("FAILED").unwrap().status, Some(OrderStatus::Failed));
        let error = filter("lost").unwrap_err().to_string();
        assert!(error.contains("must be one of: PROCESSING, FULFILLED, FAILED"), "{error}");
    }
}
