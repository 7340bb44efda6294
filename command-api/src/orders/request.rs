//! The body of a new order, and what is asked of it before anything is decided.

use axum::http::StatusCode;
use domain::order::Item;
use serde_json::Value;
use service_kit::problem::{Code, Fault, Problem};

/// The most lines of one order.
const MAX_ITEMS: usize = 1_000;
/// The longest string, in characters.
const MAX_STRING_CHARS: usize = 256;
/// The largest quantity of a line: it fits a signed 64-bit integer, which every store and most
/// programs have. More than the business rules allow is recorded, as a failed order.
const MAX_QUANTITY: u64 = i64::MAX.cast_unsigned();
/// The most faults that one answer names.
const MAX_FAULTS: usize = 1_000;

/// A new order as the client asked for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OrderRequest {
    pub(super) customer_id: String,
    pub(super) items: Vec<Item>,
}

impl OrderRequest {
    /// Checks the shape, then the request rules, in this order. Each names all of its faults.
    pub(super) fn from_json(body: Value) -> Result<Self, Problem> {
        let request = Self::of_shape(body).map_err(misshapen)?;
        check_rules(Some(&request.customer_id), Some(&request.items))?;
        Ok(request)
    }

    /// Tier 1: an object with a string and an array of lines. Members that are not known are
    /// left alone.
    fn of_shape(body: Value) -> Result<Self, Vec<Fault>> {
        let Value::Object(mut body) = body else {
            return Err(vec![Fault::new("", "must be an object")]);
        };
        let mut faults = Vec::new();
        let customer_id = string(body.remove("customer_id"), "/customer_id", &mut faults);
        let items = lines(body.remove("items"), &mut faults);
        if faults.is_empty() { Ok(Self { customer_id, items }) } else { Err(faults) }
    }
}

/// The lines of an order that is corrected, of the same shape.
pub(super) fn items(given: Value) -> Result<Vec<Item>, Problem> {
    let mut faults = Vec::new();
    let items = lines(Some(given), &mut faults);
    if faults.is_empty() { Ok(items) } else { Err(misshapen(faults)) }
}

/// Tier 2: limits that have nothing to do with the business, for what there is of an order. The
/// first that is broken is the answer's text.
pub(super) fn check_rules(
    customer_id: Option<&str>,
    items: Option<&[Item]>,
) -> Result<(), Problem> {
    let mut faults = Vec::new();
    if items.is_some_and(<[Item]>::is_empty) {
        faults.push(("/items".to_owned(), "items", "must be a non-empty array".to_owned()));
    }
    let items = items.unwrap_or_default();
    if items.len() > MAX_ITEMS {
        let rule = format!("must have at most {MAX_ITEMS} entries");
        faults.push(("/items".to_owned(), "items", rule));
    }
    let customer = customer_id.map(|it| ("/customer_id".to_owned(), "customer_id", it));
    let products = items.iter().enumerate().map(|(index, item)| {
        (format!("/items/{index}/product_id"), "product_id", item.product_id.as_str())
    });
    for (pointer, name, text) in customer.into_iter().chain(products) {
        if text.chars().count() > MAX_STRING_CHARS {
            let rule = format!("must be at most {MAX_STRING_CHARS} characters");
            faults.push((pointer.clone(), name, rule));
        }
        // PostgreSQL cannot keep it, and an order that cannot be shown must not be accepted.
        if text.contains('\0') {
            faults.push((pointer, name, "must not contain a null character".to_owned()));
        }
    }
    let Some((_, name, rule)) = faults.first() else { return Ok(()) };
    let problem = Problem::application(StatusCode::BAD_REQUEST, format!("{name} {rule}"));
    let faults = faults.into_iter().map(|(pointer, _, rule)| Fault::new(pointer, rule));
    Err(problem.with_code(Code::InvalidOrder).with_faults(limited(faults.collect())))
}

fn misshapen(faults: Vec<Fault>) -> Problem {
    Problem::invalid_body().with_faults(limited(faults))
}

fn limited(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.truncate(MAX_FAULTS);
    faults
}

/// A member that is missing, or not what it should be.
fn wrong(pointer: &str, found: Option<&Value>, expected: &str) -> Fault {
    let detail = if found.is_none() { "is missing: " } else { "" };
    Fault::new(pointer, format!("{detail}must be {expected}"))
}

fn lines(given: Option<Value>, faults: &mut Vec<Fault>) -> Vec<Item> {
    let Some(Value::Array(lines)) = given else {
        faults.push(wrong("/items", given.as_ref(), "an array"));
        return Vec::new();
    };
    let lines = lines.into_iter().enumerate();
    lines.map(|(index, line)| item(line, &format!("/items/{index}"), faults)).collect()
}

/// A line of the order. What is faulty about it stands in for nothing: the faults are the answer.
fn item(line: Value, pointer: &str, faults: &mut Vec<Fault>) -> Item {
    let Value::Object(mut line) = line else {
        faults.push(wrong(pointer, Some(&line), "an object"));
        return Item { product_id: String::new(), quantity: 0 };
    };
    let product_id = string(line.remove("product_id"), &format!("{pointer}/product_id"), faults);
    let given = line.remove("quantity");
    let quantity = given.as_ref().and_then(quantity).unwrap_or_else(|| {
        let pointer = format!("{pointer}/quantity");
        faults.push(wrong(
            &pointer,
            given.as_ref(),
            &format!("an integer from 1 to {MAX_QUANTITY}"),
        ));
        0
    });
    Item { product_id, quantity }
}

fn string(given: Option<Value>, pointer: &str, faults: &mut Vec<Fault>) -> String {
    if let Some(Value::String(text)) = given {
        return text;
    }
    faults.push(wrong(pointer, given.as_ref(), "a string"));
    String::new()
}

/// An integer in its range, however JSON spells it: `2`, `2.0` and `2e0` are one number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a float in the range that is whole is an integer of 64 bits"
)]
fn quantity(value: &Value) -> Option<u64> {
    // As a float, the largest quantity is rounded up, out of the range.
    let whole =
        |it: f64| (it.fract() == 0.0 && it >= 1.0 && it < MAX_QUANTITY as f64).then_some(it as u64);
    let quantity = value.as_u64().or_else(|| value.as_f64().and_then(whole))?;
    (1..=MAX_QUANTITY).contains(&quantity).then_some(quantity)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde_json::json;

    use super::*;

    fn status(body: Value) -> u16 {
        OrderRequest::from_json(body).map_or_else(|it| it.into_response().status().as_u16(), |_| 0)
    }

    fn item_of(quantity: impl Into<Value>) -> Value {
        json!({"product_id": "p", "quantity": quantity.into()})
    }

    fn order_of(items: impl Into<Value>) -> Value {
        json!({"customer_id": "cust-1", "items": items.into()})
    }

    #[test]
    fn members_that_are_not_known_are_left_alone() {
        let body = json!({
            "customer_id": "cust-1",
            "status": "FULFILLED",
            "items": [{"product_id": "p", "quantity": 2, "price": 1.5}],
        });
        let float = json!({"customer_id": "c", "items": [{"product_id": "p", "quantity": 2.0}]});
        assert_eq!(OrderRequest::from_json(float).unwrap().items[0].quantity, 2);
        let item = Item { product_id: "p".to_owned(), quantity: 2 };
        let expected = OrderRequest { customer_id: "cust-1".to_owned(), items: vec![item] };
        assert_eq!(OrderRequest::from_json(body).unwrap(), expected);
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let wrong = [
            json!(null),
            json!([]),
            json!(["cust-1", [["p", 2]]]),
            json!({"customer_id": "cust-1"}),
            json!({"items": [item_of(json!(1))]}),
            json!({"customer_id": 7, "items": [item_of(json!(1))]}),
            order_of(json!({})),
            order_of(json!([["p", 2]])),
            order_of(json!([{"quantity": 1}])),
            order_of(json!([item_of(json!(0))])),
            order_of(json!([item_of(json!(-1))])),
            order_of(json!([item_of(json!(1.5))])),
            order_of(json!([item_of(json!("2"))])),
            order_of(json!([item_of(json!(null))])),
            order_of(json!([item_of(json!(u64::MAX))])),
            order_of(json!([item_of(json!(9_223_372_036_854_775_808.0))])),
            order_of(json!([item_of(json!(1e300))])),
            order_of(json!([item_of(json!(-0.0))])),
        ];
        for body in wrong {
            let shown = body.to_string();
            assert!(!OrderRequest::of_shape(body).unwrap_err().is_empty(), "{shown}");
        }
    }

    #[test]
    fn every_fault_is_named_at_its_place() {
        let body =
            json!({"items": [{"product_id": 7}, "x", item_of(json!(1)), item_of(json!(1.5))]});
        let faults = OrderRequest::of_shape(body).unwrap_err();
        let named: Vec<_> =
            faults.iter().map(|it| (it.pointer.as_str(), it.detail.as_str())).collect();
        let quantity = "must be an integer from 1 to 9223372036854775807";
        assert_eq!(
            named,
            [
                ("/customer_id", "is missing: must be a string"),
                ("/items/0/product_id", "must be a string"),
                ("/items/0/quantity", format!("is missing: {quantity}").as_str()),
                ("/items/1", "must be an object"),
                ("/items/3/quantity", quantity),
            ]
        );
    }

    #[test]
    fn an_integer_may_be_spelled_as_json_allows() {
        for text in ["2", "2.0", "2e0", "0.2e1"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(quantity(&value), Some(2), "{text}");
        }
        assert_eq!(quantity(&json!(MAX_QUANTITY)), Some(MAX_QUANTITY));
        assert_eq!(quantity(&json!(9_007_199_254_740_992.0)), Some(1 << 53));
        assert_eq!(quantity(&json!(MAX_QUANTITY + 1)), None);
        assert_eq!(quantity(&json!(9_223_372_036_854_775_808.0)), None);
    }

    #[test]
    fn limits_are_at_their_numbers() {
        let order = |customer_id: String, n_items: usize| {
            let items = vec![item_of(json!(1)); n_items];
            json!({"customer_id": customer_id, "items": items})
        };
        assert_eq!(status(order("c".repeat(256), 1_000)), 0);
        assert_eq!(status(order("c".repeat(257), 1)), 400);
        assert_eq!(status(order("cust-1".to_owned(), 1_001)), 400);
        assert_eq!(status(order("cust-1".to_owned(), 0)), 400);
        assert_eq!(status(order("cust\0".to_owned(), 1)), 400);
    }
}
