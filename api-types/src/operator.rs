//! What operators send with their commands: who acts, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::OrderStatus;

/// Who acts, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"actor": "ann", "reason": "Gateway maintenance"}))]
pub struct OperatorRequest {
    /// Name of the operator. Used only if the API requires no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub reason: Option<String>,
}

/// Who discards a dead letter, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"actor": "ann", "reason": "The customer has cancelled"}))]
pub struct DiscardRequest {
    /// Name of the operator. Used only if the API requires no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub actor: Option<String>,
    /// Required. The type allows its absence, so that the error names the rule.
    #[schema(required, value_type = String, max_length = 1000, pattern = r"^[!-~][^\x00-\x1F\x7F-\x9F]*$")]
    pub reason: Option<String>,
}

/// A dead letter that was discarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
    "status": "FAILED",
    "revision": 9
}))]
pub struct DiscardedOrder {
    pub order_id: Uuid,
    pub status: OrderStatus,
    /// Revision of the order after the discard.
    pub revision: u64,
}
