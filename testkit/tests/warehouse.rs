//! The warehouse that other tests rely on keeps its own promises.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

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

fn key(number: u128, attempt: u32) -> String {
    format!("{}:{attempt}", order_id(number))
}

fn ask(warehouse: &Warehouse, number: u128, attempt: u32) -> Result<Response, reqwest::Error> {
    let request = Client::new()
        .post(warehouse.url())
        .header("Idempotency-Key", key(number, attempt))
        .json(&json!({"order_id": order_id(number), "attempt": attempt}));
    request.send()
}

fn said(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().unwrap())
}

#[test]
fn first_answer_to_a_key_is_the_answer_to_it() {
    let warehouse = Warehouse::start();
    let fulfilled = (200, json!({"reference": "wh-1"}));
    assert_eq!(said(ask(&warehouse, 1, 1).unwrap()), fulfilled);
    let refuse = Behaviour::Refuse { code: "late".to_owned(), reason: "too late".to_owned() };
    warehouse.usually(refuse.clone());
    assert_eq!(said(ask(&warehouse, 1, 1).unwrap()), fulfilled);

    let refused = (422, json!({"code": "late", "reason": "too late"}));
    assert_eq!(said(ask(&warehouse, 2, 1).unwrap()), refused);
    warehouse.usually(Behaviour::Fulfil);
    assert_eq!(said(ask(&warehouse, 2, 1).unwrap()), refused);
    assert_eq!((warehouse.effects(&key(1, 1)), warehouse.effects(&key(2, 1))), (1, 0));
    assert_eq!(warehouse.calls().len(), 4);
}

#[test]
fn calls_at_once_under_one_key_have_one_effect() {
    let warehouse = Warehouse::start();
    warehouse.usually(Behaviour::Slow(Duration::from_millis(20)));
    std::thread::scope(|callers| {
        for _ in 0..8 {
            callers.spawn(|| assert_eq!(ask(&warehouse, 1, 1).unwrap().status(), 200));
        }
    });
    assert_eq!((warehouse.calls().len(), warehouse.effects(&key(1, 1))), (8, 1));
    assert!(warehouse.keys_with_more_than_one_effect().is_empty());
}

#[test]
fn order_that_is_fulfilled_under_two_keys_is_noticed() {
    let warehouse = Warehouse::start();
    for (number, attempt) in [(1, 1), (1, 2), (2, 1)] {
        ask(&warehouse, number, attempt).unwrap();
    }
    assert_eq!(warehouse.orders_with_more_than_one_effect(), [order_id(1)].into());
    assert_eq!(warehouse.fulfilled_orders(), [order_id(1), order_id(2)].into());
}

#[test]
fn script_is_for_one_order_then_for_the_next_calls_then_for_all() {
    let warehouse = Warehouse::start();
    warehouse.usually(Behaviour::Fail(503));
    warehouse.next(2, &Behaviour::Fail(500));
    warehouse.for_order(order_id(7), Behaviour::Fulfil);
    let statuses = [1, 7, 2, 3, 7].map(|it| ask(&warehouse, it, 1).unwrap().status().as_u16());
    assert_eq!(statuses, [500, 200, 500, 503, 200]);
}

#[test]
fn request_against_the_contract_is_refused() {
    let warehouse = Warehouse::start();
    let post = |path: &str| Client::new().post(warehouse.url().replace("/orders", path));
    let good = json!({"order_id": order_id(1), "attempt": 1});
    let wrong = [
        post("/orders").json(&good),
        post("/orders").header("Idempotency-Key", key(1, 2)).json(&good),
        post("/orders").header("Idempotency-Key", key(1, 1)).body("order 1"),
        post("/").header("Idempotency-Key", key(1, 1)).json(&good),
    ];
    for request in wrong {
        let response = request.send().unwrap();
        assert_eq!(response.status(), 400, "{}", response.text().unwrap());
    }
    assert!(warehouse.calls().is_empty());
}

#[test]
fn outage_ends_what_is_under_way_and_keeps_what_was_done() {
    let mut warehouse = Warehouse::start();
    ask(&warehouse, 1, 1).unwrap();
    warehouse.usually(Behaviour::Hang);
    let url = warehouse.url();
    std::thread::scope(|callers| {
        let body = json!({"order_id": order_id(2), "attempt": 1});
        let request = Client::new().post(&url).header("Idempotency-Key", key(2, 1)).json(&body);
        let hanging = callers.spawn(move || request.send());
        wait::until("the call arrives", || (warehouse.calls().len() == 2).then_some(()));
        warehouse.stop();
        assert!(hanging.join().unwrap().is_err());
    });
    assert!(ask(&warehouse, 1, 1).unwrap_err().is_connect());
    warehouse.start_again();
    warehouse.usually(Behaviour::Fulfil);
    assert_eq!(said(ask(&warehouse, 1, 1).unwrap()), (200, json!({"reference": "wh-1"})));
}
