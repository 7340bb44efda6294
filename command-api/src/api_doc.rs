//! The description of the command routes.

use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use crate::orders::place;

/// The body of a new order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `OrderRequest` reads")]
pub(crate) struct NewOrder {
    /// 3 to 256 characters without a null character; a shorter one breaks a business rule.
    #[schema(min_length = 3, max_length = 256, pattern = r"^[^\x00]+$")]
    customer_id: String,
    /// Quantities that sum up to more than 100 break a business rule.
    #[schema(min_items = 1, max_items = 1000)]
    items: Vec<NewItem>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `OrderRequest` reads")]
pub(crate) struct NewItem {
    #[schema(max_length = 256, pattern = r"^[^\x00]*$")]
    product_id: String,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    quantity: u64,
}

/// An order that was accepted.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `place` answers")]
pub(crate) struct Accepted {
    message: String,
    order_id: Uuid,
    status: String,
    execution_arn: String,
}

#[derive(OpenApi)]
#[openapi(paths(place::place), components(schemas(NewOrder, NewItem, Accepted)))]
pub(crate) struct Commands;
