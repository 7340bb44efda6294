//! The body of a new order, and what is asked of it before anything is decided.

use axum::http::StatusCode;
use domain::order::Item;
use serde_json::{Map, Value};
use service_kit::problem::Problem;

/// The most lines of one order.
const MAX_ITEMS: usize = 1_000;
/// The longest string, in characters.
const MAX_STRING_CHARS: usize = 256;
/// The largest quantity of a line: the largest integer that every JSON reader reads exactly
/// (RFC 8259, section 6). The sum over [`MAX_ITEMS`] lines fits a 64-bit column.
const MAX_QUANTITY: u64 = (1 << 53) - 1;

/// A new order as the client asked for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OrderRequest {
    pub(super) customer_id: String,
    pub(super) items: Vec<Item>,
}

impl OrderRequest {
    /// Checks the shape, then the request rules, in this order.
    pub(super) fn from_json(body: Value) -> Result<Self, Problem> {
        let request = Self::of_shape(body).ok_or_else(Problem::invalid_body)?;
        request.obeys_rules()?;
        Ok(request)
    }

    /// Tier 1: an object with a string and an array of lines. Members that are not known are
    /// left alone.
    fn of_shape(body: Value) -> Option<Self> {
        let mut body = object(body)?;
        let customer_id = string(body.remove("customer_id")?)?;
        let Value::Array(items) = body.remove("items")? else { return None };
        let items = items.into_iter().map(item).collect::<Option<_>>()?;
        Some(Self { customer_id, items })
    }

    /// Tier 2: limits that have nothing to do with the business.
    fn obeys_rules(&self) -> Result<(), Problem> {
        check_items(&self.items)?;
        check_text("customer_id", &self.customer_id)
    }
}

/// The lines of an order that is corrected, under the same rules.
pub(super) fn items(body: Value) -> Result<Vec<Item>, Problem> {
    let Value::Array(items) = body else { return Err(Problem::invalid_body()) };
    let items: Option<Vec<Item>> = items.into_iter().map(item).collect();
    let items = items.ok_or_else(Problem::invalid_body)?;
    check_items(&items)?;
    Ok(items)
}

fn check_items(items: &[Item]) -> Result<(), Problem> {
    if items.is_empty() {
        return Err(refused("items must be a non-empty array".to_owned()));
    }
    if items.len() > MAX_ITEMS {
        return Err(refused(format!("items must have at most {MAX_ITEMS} entries")));
    }
    items.iter().try_for_each(|item| check_text("product_id", &item.product_id))
}

/// Checks a string of an order.
pub(super) fn check_text(name: &str, text: &str) -> Result<(), Problem> {
    if text.chars().count() > MAX_STRING_CHARS {
        return Err(refused(format!("{name} must be at most {MAX_STRING_CHARS} characters")));
    }
    // PostgreSQL cannot keep it, and an order that cannot be shown must not be accepted.
    if text.contains('\0') {
        return Err(refused(format!("{name} must not contain a null character")));
    }
    Ok(())
}

fn refused(error: String) -> Problem {
    Problem::application(StatusCode::BAD_REQUEST, error)
}

fn item(item: Value) -> Option<Item> {
    let mut item = object(item)?;
    let product_id = string(item.remove("product_id")?)?;
    let quantity = item.remove("quantity")?.as_u64()?;
    (1..=MAX_QUANTITY).contains(&quantity).then_some(Item { product_id, quantity })
}

fn object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(members) = value { Some(members) } else { None }
}

fn string(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde_json::json;

    use super::*;

    fn status(body: Value) -> u16 {
        OrderRequest::from_json(body).map_or_else(|it| it.into_response().status().as_u16(), |_| 0)
    }

    #[test]
    fn members_that_are_not_known_are_left_alone() {
        let body = json!({
            "customer_id": "cust-1",
            "status": "FULFILLED",
            "items": [{"product_id": "p", "quantity": 2, "price": 1.5}],
        });
        let item = Item { product_id: "p".to_owned(), quantity: 2 };
        let expected = OrderRequest { customer_id: "cust-1".to_owned(), items: vec![item] };
        assert_eq!(OrderRequest::from_json(body).unwrap(), expected);
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let item = |quantity: Value| json!({"product_id": "p", "quantity": quantity});
        let order = |items: Value| json!({"customer_id": "cust-1", "items": items});
        let wrong = [
            json!(null),
            json!([]),
            json!(["cust-1", [["p", 2]]]),
            json!({"customer_id": "cust-1"}),
            json!({"items": [item(json!(1))]}),
            json!({"customer_id": 7, "items": [item(json!(1))]}),
            order(json!({})),
            order(json!([["p", 2]])),
            order(json!([{"quantity": 1}])),
            order(json!([item(json!(0))])),
            order(json!([item(json!(-1))])),
            order(json!([item(json!(1.5))])),
            order(json!([item(json!("2"))])),
            order(json!([item(json!(null))])),
            order(json!([item(json!(u64::MAX))])),
        ];
        for body in wrong {
            let shown = body.to_string();
            let problem = OrderRequest::from_json(body).unwrap_err();
            assert_eq!(format!("{problem:?}"), format!("{:?}", Problem::invalid_body()), "{shown}");
        }
    }

    #[test]
    fn limits_are_at_their_numbers() {
        let order = |customer_id: String, n_items: usize| {
            let items = vec![json!({"product_id": "p", "quantity": 1}); n_items];
            json!({"customer_id": customer_id, "items": items})
        };
        assert_eq!(status(order("c".repeat(256), 1_000)), 0);
        assert_eq!(status(order("c".repeat(257), 1)), 400);
        assert_eq!(status(order("cust-1".to_owned(), 1_001)), 400);
        assert_eq!(status(order("cust-1".to_owned(), 0)), 400);
        assert_eq!(status(order("cust\0".to_owned(), 1)), 400);
    }
}
