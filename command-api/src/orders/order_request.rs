//! The body of a new order: its shape and the request rules, which are checked before the domain decides.

use api_types::{MAX_QUANTITY, OrderItem, PlaceOrderRequest};
use axum::http::StatusCode;
use serde_json::Value;
use service_kit::problem::{Code, Fault, Problem};

/// Maximum number of items of an order.
const MAX_ITEMS: usize = 1_000;
/// Maximum length of a string, in characters.
const MAX_STRING_CHARS: usize = 256;
/// Maximum number of faults in a response.
const MAX_FAULTS: usize = 1_000;

/// Reads a new order. The shape is checked first, then the request rules; each check names all faults.
pub(super) fn parse_order(body: Value) -> Result<PlaceOrderRequest, Problem> {
    let request = parse_shape(body).map_err(misshapen)?;
    check_rules(Some(&request.customer_id), Some(&request.items))?;
    Ok(request)
}

/// Reads the items of a corrected order.
pub(super) fn parse_items(given: Value) -> Result<Vec<OrderItem>, Problem> {
    let mut faults = Vec::new();
    let items = take_items(Some(given), &mut faults);
    if faults.is_empty() { Ok(items) } else { Err(misshapen(faults)) }
}

/// Reads an object with a string and an array of items. Unknown members are ignored.
fn parse_shape(body: Value) -> Result<PlaceOrderRequest, Vec<Fault>> {
    let Value::Object(mut body) = body else {
        return Err(vec![Fault::new("", "must be an object")]);
    };
    let mut faults = Vec::new();
    let customer_id = take_string(body.remove("customer_id"), "/customer_id", &mut faults);
    let items = take_items(body.remove("items"), &mut faults);
    if faults.is_empty() { Ok(PlaceOrderRequest { customer_id, items }) } else { Err(faults) }
}

/// Checks the technical limits of the given parts of an order. The first broken limit is the error text.
pub(super) fn check_rules(
    customer_id: Option<&str>,
    items: Option<&[OrderItem]>,
) -> Result<(), Problem> {
    let mut faults = Vec::new();
    if items.is_some_and(<[OrderItem]>::is_empty) {
        faults.push(("/items".to_owned(), "items", "must be a non-empty array".to_owned()));
    }
    let items = items.unwrap_or_default();
    if items.len() > MAX_ITEMS {
        let rule = format!("must have at most {MAX_ITEMS} entries");
        faults.push(("/items".to_owned(), "items", rule));
    }
    let customer = customer_id.map(|customer| ("/customer_id".to_owned(), "customer_id", customer));
    let products = items.iter().enumerate().map(|(index, item)| {
        (format!("/items/{index}/product_id"), "product_id", item.product_id.as_str())
    });
    for (pointer, name, text) in customer.into_iter().chain(products) {
        if text.chars().count() > MAX_STRING_CHARS {
            let rule = format!("must be at most {MAX_STRING_CHARS} characters");
            faults.push((pointer.clone(), name, rule));
        }
        // PostgreSQL cannot store a null character: the order would never get a row.
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

/// Returns the fault of a missing or mistyped member.
fn wrong_type(pointer: &str, found: Option<&Value>, expected: &str) -> Fault {
    let detail = if found.is_none() { "is missing: " } else { "" };
    Fault::new(pointer, format!("{detail}must be {expected}"))
}

fn take_items(given: Option<Value>, faults: &mut Vec<Fault>) -> Vec<OrderItem> {
    let Some(Value::Array(items)) = given else {
        faults.push(wrong_type("/items", given.as_ref(), "an array"));
        return Vec::new();
    };
    let items = items.into_iter().enumerate();
    items.map(|(index, item)| take_item(item, &format!("/items/{index}"), faults)).collect()
}

/// Reads an item. Faulty members get a placeholder: the caller discards the items if there are faults.
fn take_item(item: Value, pointer: &str, faults: &mut Vec<Fault>) -> OrderItem {
    let Value::Object(mut members) = item else {
        faults.push(wrong_type(pointer, Some(&item), "an object"));
        return OrderItem { product_id: String::new(), quantity: 0 };
    };
    let product_id =
        take_string(members.remove("product_id"), &format!("{pointer}/product_id"), faults);
    let given = members.remove("quantity");
    let quantity = given.as_ref().and_then(parse_quantity).unwrap_or_else(|| {
        let pointer = format!("{pointer}/quantity");
        faults.push(wrong_type(
            &pointer,
            given.as_ref(),
            &format!("an integer from 1 to {MAX_QUANTITY}"),
        ));
        0
    });
    OrderItem { product_id, quantity }
}

fn take_string(given: Option<Value>, pointer: &str, faults: &mut Vec<Fault>) -> String {
    if let Some(Value::String(text)) = given {
        return text;
    }
    faults.push(wrong_type(pointer, given.as_ref(), "a string"));
    String::new()
}

/// Reads an integer in its range in any JSON spelling: `2`, `2.0` and `2e0` are one number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a float in the range that is whole is an integer of 64 bits"
)]
fn parse_quantity(value: &Value) -> Option<u64> {
    // As a float, the maximum is rounded up to a number out of range: hence `<`.
    let whole =
        |n: f64| (n.fract() == 0.0 && n >= 1.0 && n < MAX_QUANTITY as f64).then_some(n as u64);
    let quantity = value.as_u64().or_else(|| value.as_f64().and_then(whole))?;
    (1..=MAX_QUANTITY).contains(&quantity).then_some(quantity)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde_json::json;

    use super::*;

    fn status(body: Value) -> u16 {
        parse_order(body).map_or_else(|problem| problem.into_response().status().as_u16(), |_| 0)
    }

    fn item_of(quantity: impl Into<Value>) -> Value {
        json!({"product_id": "p", "quantity": quantity.into()})
    }

    fn order_of(items: impl Into<Value>) -> Value {
        json!({"customer_id": "cust-1", "items": items.into()})
    }

    #[test]
    fn unknown_members_are_ignored() {
        let body = json!({
            "customer_id": "cust-1",
            "status": "FULFILLED",
            "items": [{"product_id": "p", "quantity": 2, "price": 1.5}],
        });
        let float = json!({"customer_id": "c", "items": [{"product_id": "p", "quantity": 2.0}]});
        assert_eq!(parse_order(float).unwrap().items[0].quantity, 2);
        let item = OrderItem { product_id: "p".to_owned(), quantity: 2 };
        let expected = PlaceOrderRequest { customer_id: "cust-1".to_owned(), items: vec![item] };
        assert_eq!(parse_order(body).unwrap(), expected);
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
            assert!(!parse_shape(body).unwrap_err().is_empty(), "{shown}");
        }
    }

    #[test]
    fn every_fault_is_named_at_its_place() {
        let body =
            json!({"items": [{"product_id": 7}, "x", item_of(json!(1)), item_of(json!(1.5))]});
        let faults = parse_shape(body).unwrap_err();
        let named = faults.iter().map(|fault| (fault.pointer.as_str(), fault.detail.as_str()));
        let named: Vec<_> = named.collect();
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
    fn quantity_may_have_any_json_spelling() {
        for text in ["2", "2.0", "2e0", "0.2e1"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse_quantity(&value), Some(2), "{text}");
        }
        assert_eq!(parse_quantity(&json!(MAX_QUANTITY)), Some(MAX_QUANTITY));
        assert_eq!(parse_quantity(&json!(9_007_199_254_740_992.0)), Some(1 << 53));
        assert_eq!(parse_quantity(&json!(MAX_QUANTITY + 1)), None);
        assert_eq!(parse_quantity(&json!(9_223_372_036_854_775_808.0)), None);
    }

    #[test]
    fn order_beyond_a_limit_is_refused() {
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
