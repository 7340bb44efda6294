//! `Idempotency-Key`: the event store is the idempotency store.
//!
//! The order's id derives from the key, and the append expects no stream. A second request finds the
//! events of the first, even after a crash. The first event keeps the fingerprint of the first body,
//! which distinguishes a repetition from another order under the same key.

use axum::http::{HeaderMap, StatusCode};
use domain::ids::OrderId;
use serde_json::Value;
use service_kit::problem::{Code, Problem};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const HEADER: &str = "idempotency-key";
/// Maximum length of a key, in characters.
const MAX_KEY_CHARS: usize = 255;
/// Largest whole float that counts as an integer (RFC 8259, section 6). Never changes: the fingerprint of a
/// body must stay the same.
const MAX_EXACT: u64 = (1 << 53) - 1;
/// Namespace of order ids that derive from a principal and a key. Never changes: another number would make
/// every repetition a new order.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1c_97a2_3b0e_5c44_9f5b_8f0e_2a71_d0c5);

/// Returns the id of the order that the request's key names, if it has a key. Each principal has its own
/// keys, so that two programs of a tenant cannot take each other's orders for repetitions. Without a
/// principal, the API requires no keys.
pub(super) fn parse_order_id(
    headers: &HeaderMap,
    principal: Option<&str>,
) -> Result<Option<OrderId>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Two keys would name two orders.
    let value = value.to_str().ok().filter(|_| values.next().is_none());
    match value.map(str::trim).and_then(strip_quotes).filter(|key| is_valid(key)) {
        Some(key) => {
            let own = principal
                .map_or(NAMESPACE, |principal| Uuid::new_v5(&NAMESPACE, principal.as_bytes()));
            Ok(Some(OrderId(Uuid::new_v5(&own, key.as_bytes()))))
        }
        None => Err(Problem::edge(StatusCode::BAD_REQUEST, "Invalid Idempotency-Key")
            .with_code(Code::InvalidIdempotencyKey)),
    }
}

/// Removes the quotes of a key. Clients send the quoted string of the draft standard, or a bare key. A
/// single quote is invalid.
fn strip_quotes(key: &str) -> Option<&str> {
    match (key.strip_prefix('"'), key.strip_suffix('"')) {
        (None, None) => Some(key),
        (Some(rest), Some(_)) => rest.strip_suffix('"'),
        (Some(_), None) | (None, Some(_)) => None,
    }
}

fn is_valid(key: &str) -> bool {
    (1..=MAX_KEY_CHARS).contains(&key.len())
        && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Returns the SHA-256 of the body's canonical form, in hexadecimal. Spelling and the order of members make
/// no difference; unknown members do, because the client may have meant something by them.
pub(super) fn hash_body(body: Value) -> String {
    hex::encode(Sha256::digest(to_canonical(body).to_string()))
}

/// Sorts members by name, and writes whole numbers as integers.
fn to_canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            let members = members.into_iter().map(|(name, value)| (name, to_canonical(value)));
            Value::Object(members.collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(to_canonical).collect()),
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
        parse_order_id(&headers, None)
    }

    #[test]
    fn quoted_and_bare_key_are_one_order() {
        assert_eq!(with_key("\"k-1\"").unwrap(), with_key("k-1").unwrap());
        assert_ne!(with_key("k-2").unwrap(), with_key("k-1").unwrap());
        assert_eq!(parse_order_id(&HeaderMap::new(), None).unwrap(), None);
    }

    #[test]
    fn key_of_each_principal_is_an_order_of_its_own() {
        let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), "k".parse().unwrap())]);
        let of = |principal| parse_order_id(&headers, principal).unwrap();
        let ids: [Option<OrderId>; 3] = [of(None), of(Some("a")), of(Some("b"))];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
        assert_eq!(of(Some("a")), ids[1]);
    }

    #[test]
    fn equal_bodies_have_one_fingerprint() {
        let of = |text: &str| hash_body(serde_json::from_str(text).unwrap());
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
        assert!(parse_order_id(&headers, None).is_err());
    }

    #[test]
    fn keys_out_of_bounds_are_refused() {
        assert!(with_key(&"k".repeat(255)).is_ok());
        for key in ["", "\"\"", "\"", "\"k", "k\"", &"k".repeat(256), "k\t1"] {
            assert!(with_key(key).is_err(), "{key}");
        }
    }
}
