//! `Idempotency-Key`: the event store is the idempotency store.
//!
//! The order's id derives from the key, and the append expects no stream: whoever comes second
//! finds the first one's events, whatever crashed in between. The fingerprint of the first body,
//! kept with its first event, tells a repetition from another order under the same key.

use axum::http::{HeaderMap, StatusCode};
use domain::ids::OrderId;
use serde_json::Value;
use service_kit::problem::{Code, Problem};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const HEADER: &str = "idempotency-key";
/// The longest key, in characters.
const MAX_KEY_CHARS: usize = 255;
/// Up to here, a float that is whole is taken for the integer (RFC 8259, section 6). Fixed for ever:
/// the fingerprint of a body must not change.
const MAX_EXACT: u64 = (1 << 53) - 1;
/// What ids of orders with a key derive from, together with principal and key. Fixed for ever:
/// another number would make every repetition a new order.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1c_97a2_3b0e_5c44_9f5b_8f0e_2a71_d0c5);

/// The order that a key stands for, if the request has one. Each principal's keys are its own: two
/// programs of one tenant that number their orders alike do not swallow one another's. `None`: nobody
/// has said who it is.
pub(super) fn order_id(
    headers: &HeaderMap,
    principal: Option<&str>,
) -> Result<Option<OrderId>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Two keys would be two orders.
    let value = value.to_str().ok().filter(|_| values.next().is_none());
    match value.map(str::trim).and_then(unquoted).filter(|key| is_valid(key)) {
        Some(key) => {
            let own = principal.map_or(NAMESPACE, |it| Uuid::new_v5(&NAMESPACE, it.as_bytes()));
            Ok(Some(OrderId(Uuid::new_v5(&own, key.as_bytes()))))
        }
        None => Err(Problem::edge(StatusCode::BAD_REQUEST, "Invalid Idempotency-Key")
            .with_code(Code::InvalidIdempotencyKey)),
    }
}

/// Both forms are in use: the draft standard's quoted string, and the bare one. A quote without its
/// other is neither.
fn unquoted(key: &str) -> Option<&str> {
    match (key.strip_prefix('"'), key.strip_suffix('"')) {
        (None, None) => Some(key),
        (Some(rest), Some(_)) => rest.strip_suffix('"'),
        (Some(_), None) | (None, Some(_)) => None,
    }
}

fn is_valid(key: &str) -> bool {
    (1..=MAX_KEY_CHARS).contains(&key.len()) && key.bytes().all(|it| (b' '..=b'~').contains(&it))
}

/// SHA-256 of the body in one canonical form, in hexadecimal: spelling, and the order of members,
/// make no difference; a member that we do not know does, for the client means something by it.
pub(super) fn fingerprint(body: Value) -> String {
    hex::encode(Sha256::digest(canonical(body).to_string()))
}

/// Members by their names, and whole numbers as such.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            let members = members.into_iter().map(|(name, value)| (name, canonical(value)));
            Value::Object(members.collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(canonical).collect()),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "every integer of the range is exact"
            )]
            Some(whole) if whole.fract() == 0.0 && whole.abs() <= MAX_EXACT as f64 => {
                Value::from(whole as i64)
            }
            Some(_) | None => Value::Number(number),
        },
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(key: &str) -> Result<Option<OrderId>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, key.parse().unwrap());
        order_id(&headers, None)
    }

    #[test]
    fn quoted_and_bare_key_are_one_order() {
        assert_eq!(with_key("\"k-1\"").unwrap(), with_key("k-1").unwrap());
        assert_ne!(with_key("k-2").unwrap(), with_key("k-1").unwrap());
        assert_eq!(order_id(&HeaderMap::new(), None).unwrap(), None);
    }

    #[test]
    fn key_of_each_principal_is_an_order_of_its_own() {
        let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), "k".parse().unwrap())]);
        let of = |principal| order_id(&headers, principal).unwrap();
        let ids: [Option<OrderId>; 3] = [of(None), of(Some("a")), of(Some("b"))];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
        assert_eq!(of(Some("a")), ids[1]);
    }

    #[test]
    fn bodies_that_mean_the_same_have_one_fingerprint() {
        let of = |text: &str| fingerprint(serde_json::from_str(text).unwrap());
        let body = of(r#"{"customer_id":"c","items":[{"product_id":"p","quantity":2}]}"#);
        let same =
            r#" {"items": [{"quantity": 2.0e0, "product_id": "\u0070"}], "customer_id": "c"}"#;
        assert_eq!(of(same), body);
        for other in [
            r#"{"customer_id":"c","items":[{"product_id":"p","quantity":3}]}"#,
            r#"{"customer_id":"c","items":[{"product_id":"p","quantity":2}],"note":1}"#,
            r#"{"customer_id":"c","items":[{"product_id":"p","quantity":2,"note":null}]}"#,
        ] {
            assert_ne!(of(other), body, "{other}");
        }
    }

    #[test]
    fn two_keys_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(HEADER, "k-1".parse().unwrap());
        headers.append(HEADER, "k-2".parse().unwrap());
        assert!(order_id(&headers, None).is_err());
    }

    #[test]
    fn keys_out_of_bounds_are_refused() {
        assert!(with_key(&"k".repeat(255)).is_ok());
        for key in ["", "\"\"", "\"", "\"k", "k\"", &"k".repeat(256), "k\t1"] {
            assert!(with_key(key).is_err(), "{key}");
        }
    }
}
