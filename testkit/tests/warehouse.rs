//! Tests of the warehouse that other tests use.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::time::Duration;

use domain::ids::OrderId;
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use testkit::wait;
use testkit::warehouse::{Behaviour, Warehouse};
use uuid::Uuid;

fn order_id(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number))
}

fn idempotency_key(number: u128, attempt: u32) -> String {
    format!("{}:{attempt}", order_id(number))
}

fn post_order(
    warehouse: &Warehouse,
    number: u128,
    attempt: u32,
) -> Result<Response, reqwest::Error> {
    let request = Client::new()
        .post(warehouse.url())
        .header("Idempotency-Key", idempotency_key(number, attempt))
        .json(&json!({"order_id": order_id(number), "attempt": attempt}));
    request.send()
}

fn read_response(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().unwrap())
}

#[test]
fn repeated_key_gets_the_first_response() {
    let warehouse = Warehouse::start();
    let fulfilled = (200, json!({"reference": "wh-1"}));
    assert_eq!(read_response(post_order(&warehouse, 1, 1).unwrap()), fulfilled);
    let refuse = Behaviour::Refuse { code: "late".to_owned(), reason: "too late".to_owned() };
    warehouse.set_default(refuse.clone());
    assert_eq!(read_response(post_order(&warehouse, 1, 1).unwrap()), fulfilled);

    let refused = (422, json!({"code": "late", "reason": "too late"}));
    assert_eq!(read_response(post_order(&warehouse, 2, 1).unwrap()), refused);
    warehouse.set_default(Behaviour::Fulfil);
    assert_eq!(read_response(post_order(&warehouse, 2, 1).unwrap()), refused);
    assert_eq!(
        (
            warehouse.count_effects(&idempotency_key(1, 1)),
            warehouse.count_effects(&idempotency_key(2, 1))
        ),
        (1, 0)
    );
    assert_eq!(warehouse.calls().len(), 4);
}

#[test]
fn concurrent_calls_with_one_key_have_one_effect() {
    let warehouse = Warehouse::start();
    warehouse.set_default(Behaviour::Slow(Duration::from_millis(20)));
    std::thread::scope(|callers| {
        for _ in 0..8 {
            callers.spawn(|| assert_eq!(post_order(&warehouse, 1, 1).unwrap().status(), 200));
        }
    });
    assert_eq!((warehouse.calls().len(), warehouse.count_effects(&idempotency_key(1, 1))), (8, 1));
    assert!(warehouse.keys_with_more_than_one_effect().is_empty());
}

#[test]
fn order_fulfilled_with_two_keys_is_reported() {
    let warehouse = Warehouse::start();
    for (number, attempt) in [(1, 1), (1, 2), (2, 1)] {
        post_order(&warehouse, number, attempt).unwrap();
    }
    assert_eq!(warehouse.orders_with_more_than_one_effect(), [order_id(1)].into());
    assert_eq!(warehouse.fulfilled_orders(), [order_id(1), order_id(2)].into());
}

#[test]
fn behaviour_of_order_precedes_next_calls_and_default() {
    let warehouse = Warehouse::start();
    warehouse.set_default(Behaviour::Fail(503));
    warehouse.set_for_next_calls(2, &Behaviour::Fail(500));
    warehouse.set_for_order(order_id(7), Behaviour::Fulfil);
    let statuses =
        [1, 7, 2, 3, 7].map(|number| post_order(&warehouse, number, 1).unwrap().status().as_u16());
    assert_eq!(statuses, [500, 200, 500, 503, 200]);
}

#[test]
fn invalid_request_is_rejected() {
    let warehouse = Warehouse::start();
    let post = |path: &str| Client::new().post(warehouse.url().replace("/orders", path));
    let good = json!({"order_id": order_id(1), "attempt": 1});
    let wrong = [
        post("/orders").json(&good),
        post("/orders").header("Idempotency-Key", idempotency_key(1, 2)).json(&good),
        post("/orders").header("Idempotency-Key", idempotency_key(1, 1)).body("order 1"),
        post("/").header("Idempotency-Key", idempotency_key(1, 1)).json(&good),
    ];
    for request in wrong {
        let response = request.send().unwrap();
        assert_eq!(response.status(), 400, "{}", response.text().unwrap());
    }
    assert!(warehouse.calls().is_empty());
}

#[test]
fn outage_aborts_calls_and_keeps_effects() {
    let mut warehouse = Warehouse::start();
    post_order(&warehouse, 1, 1).unwrap();
    warehouse.set_default(Behaviour::Hang);
    let url = warehouse.url();
    std::thread::scope(|callers| {
        let body = json!({"order_id": order_id(2), "attempt": 1});
        let request =
            Client::new().post(&url).header("Idempotency-Key", idempotency_key(2, 1)).json(&body);
        let hanging = callers.spawn(move || request.send());
        wait::until("the call arrives", || (warehouse.calls().len() == 2).then_some(()));
        warehouse.stop();
        assert!(hanging.join().unwrap().is_err());
    });
    assert!(post_order(&warehouse, 1, 1).unwrap_err().is_connect());
    warehouse.start_again();
    warehouse.set_default(Behaviour::Fulfil);
    assert_eq!(
        read_response(post_order(&warehouse, 1, 1).unwrap()),
        (200, json!({"reference": "wh-1"}))
    );
}
