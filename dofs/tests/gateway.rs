//! The system with the HTTP gateway: each order has one effect at a warehouse.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::time::{Duration, Instant};

use domain::ids::OrderId;
use serde_json::json;
use testkit::api::{Api, valid_order};
use testkit::process::Start;
use testkit::system::System;
use testkit::wait;
use testkit::warehouse::{Behaviour, Warehouse, closing_response};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

/// Starts a system that sends orders to the warehouse, with short retries and breaker pauses.
fn start_with_warehouse(warehouse: &Warehouse, environment: &[(&str, &str)]) -> System {
    let url = warehouse.url();
    let defaults = [
        ("DOFS__FULFILLMENT__GATEWAY", "http"),
        ("DOFS__FULFILLMENT__URL", &url),
        ("DOFS__FULFILLMENT__BREAKER_OPEN_MS", "50"),
        ("DOFS__FULFILLMENT__BACKOFF_MS", "5"),
        ("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "20"),
    ];
    System::start(BINARY, &[&defaults, environment].concat())
}

fn parse_order_id(id: &str) -> OrderId {
    id.parse().unwrap()
}

#[test]
fn order_is_sent_to_the_warehouse_and_fulfilled() {
    let warehouse = Warehouse::start();
    let system = start_with_warehouse(&warehouse, &[]);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = system.api.request("POST", "/v1/orders").header("traceparent", traceparent);
    let answer = Api::send(request.json(&valid_order()));
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();

    let shown = system.api.wait_until_ended(&id);
    assert_eq!((&shown["status"], &shown["reference"]), (&json!("FULFILLED"), &json!("wh-1")));
    let call = warehouse.calls().pop().unwrap();
    assert_eq!(call.key, format!("{id}:1"));
    assert_eq!(call.headers["traceparent"], traceparent);
    let asked = json!({
        "order_id": id, "attempt": 1, "delivery": 1, "customer_id": "cust-retail-001",
        "items": [{"product_id": "prod-widget-001", "quantity": 2}],
    });
    assert_eq!(call.body, asked);
}

#[test]
fn refusal_by_the_warehouse_fails_the_order() {
    let warehouse = Warehouse::start();
    let (code, reason) = ("no_stock".to_owned(), "none left of prod-widget-001".to_owned());
    warehouse.set_default(Behaviour::Refuse { code, reason });
    let system = start_with_warehouse(&warehouse, &[]);
    let shown = system.api.wait_until_ended(&system.api.place_valid_order());
    assert_eq!((&shown["status"], &shown["stage"]), (&json!("FAILED"), &json!("fulfillment")));
    assert_eq!(shown["failure_code"], "no_stock");
    assert_eq!(shown["failure_reason"], "none left of prod-widget-001");
    // With a real gateway no success rate is configured.
    assert_eq!(system.api.get("/v1/stats").json()["success_rate"]["configured"], json!(null));
}

#[test]
fn lost_responses_cause_no_duplicate_effect() {
    let warehouse = Warehouse::start();
    let system = start_with_warehouse(&warehouse, &[("DOFS__FULFILLMENT__MAX_RETRIES", "20")]);
    warehouse.set_for_next_calls(5, &Behaviour::WorkAndDrop);
    warehouse.set_for_next_calls(5, &Behaviour::Fail(500));
    warehouse.set_for_next_calls(5, &Behaviour::Drop);
    let ids: Vec<_> = (0..20).map(|_| system.api.place_valid_order()).collect();
    for id in &ids {
        assert_eq!(system.api.wait_until_ended(id)["status"], "FULFILLED");
        assert_eq!(warehouse.count_effects(&format!("{id}:1")), 1);
    }
    assert_eq!(warehouse.fulfilled_orders(), ids.iter().map(|id| parse_order_id(id)).collect());
    assert!(warehouse.orders_with_more_than_one_effect().is_empty());
}

#[test]
fn warehouse_texts_are_recorded_but_not_logged() {
    let warehouse = Warehouse::start();
    let system = start_with_warehouse(&warehouse, &[("DOFS__FULFILLMENT__MAX_RETRIES", "1")]);
    let customer = valid_order()["customer_id"].as_str().unwrap().to_owned();
    let said = format!("no such customer: {customer}");
    warehouse.set_default(Behaviour::Say(closing_response(500, &[], &said)));
    let given_up = system.api.wait_until_ended(&system.api.place_valid_order());
    let reason = given_up["failure_reason"].as_str().unwrap();
    assert!(reason.contains("gateway answered 500") && reason.contains(&said), "{reason}");
    assert!(!reason.contains(&warehouse.url()), "{reason}");

    let (code, reason) = ("customer".to_owned(), said);
    warehouse.set_default(Behaviour::Refuse { code, reason });
    assert_eq!(
        system.api.wait_until_ended(&system.api.place_valid_order())["stage"],
        "fulfillment"
    );
    let log = wait::until("both failures are logged", || {
        let log = format!("{:?}", system.process.log_lines());
        (log.contains("dead-lettered") && log.contains("refused by the gateway")).then_some(log)
    });
    assert!(log.contains("gateway answered 500") && !log.contains(&customer), "{log}");
}

#[test]
fn orders_placed_during_an_outage_are_fulfilled_later() {
    let mut warehouse = Warehouse::start();
    let system = start_with_warehouse(&warehouse, &[("DOFS__FULFILLMENT__MAX_RETRIES", "10000")]);
    warehouse.stop();
    let id = system.api.place_valid_order();
    wait::until("a delivery failed", || {
        let history = system.api.get(&format!("/v1/orders/{id}/history")).json();
        let events = history["events"].as_array().unwrap();
        let failed = events.iter().find(|event| event["type"] == "FulfillmentDeliveryFailed")?;
        let error = failed["data"]["error"].as_str().unwrap();
        assert!(error.starts_with("no answer from the gateway: "), "{error}");
        Some(())
    });
    warehouse.start_again();
    assert_eq!(system.api.wait_until_ended(&id)["status"], "FULFILLED");
    assert!(warehouse.fulfilled_orders().contains(&parse_order_id(&id)));
}

#[test]
fn invalid_gateway_url_prevents_the_start() {
    let data = tempfile::tempdir().unwrap();
    let urls = ["", "ftp://warehouse/orders", "warehouse:8080", "http://dofs:s3cret@:1"];
    for url in urls {
        let start = Start::dev(BINARY, data.path()).env("DOFS__FULFILLMENT__GATEWAY", "http");
        let mut process = start.env("DOFS__FULFILLMENT__URL", url).spawn();
        assert_eq!(process.wait_until_ended().code(), Some(2), "{url}");
        let said = wait::until("the reason is logged", || {
            let said = format!("{:?}", process.log_lines());
            said.contains("fulfillment.url").then_some(said)
        });
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn remote_gateway_without_tls_is_logged_as_warning() {
    let warehouse = Warehouse::start();
    let elsewhere = ("DOFS__FULFILLMENT__URL", "http://dofs:s3cret@warehouse.invalid/orders");
    let system = start_with_warehouse(&warehouse, &[elsewhere]);
    let said = wait::until("the warning is logged", || {
        let log = system.process.log_lines();
        log.into_iter().find(|line| line["message"] == "HTTP gateway is used without TLS")
    });
    assert!(said.to_string().contains("http://warehouse.invalid/orders"), "{said}");
    assert!(!said.to_string().contains("s3cret"), "{said}");
}

#[test]
fn retry_after_is_respected_across_a_kill() {
    const ASKED: Duration = Duration::from_secs(3);
    let warehouse = Warehouse::start();
    let busy = closing_response(429, &[("Retry-After", "3")], "busy");
    warehouse.set_for_next_calls(1, &Behaviour::Say(busy));
    let data = tempfile::tempdir().unwrap();
    let start = || {
        Start::dev(BINARY, data.path())
            .env("DOFS__FULFILLMENT__GATEWAY", "http")
            .env("DOFS__FULFILLMENT__URL", warehouse.url())
            .env("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "20")
            .spawn()
    };
    let mut process = start();
    let api = Api::new(process.http_address());
    let began = Instant::now();
    let id = api.place_valid_order();
    wait::until("the failed delivery is recorded", || {
        api.event_types(&id).last().filter(|event| *event == "FulfillmentDeliveryFailed").map(drop)
    });
    process.kill();

    let mut process = start();
    let api = Api::new(process.http_address());
    // `Retry-After` delays only the order it was sent for.
    assert_eq!(api.wait_until_ended(&api.place_valid_order())["status"], "FULFILLED");
    assert_eq!(api.wait_until_ended(&id)["status"], "FULFILLED");
    assert!(began.elapsed() >= ASKED, "{:?}", began.elapsed());
    let expected = ["FulfillmentDeliveryFailed", "OrderQueued", "OrderFulfilled"];
    assert_eq!(api.event_types(&id)[4..], expected);
    let history = api.get(&format!("/v1/orders/{id}/history")).json();
    assert_eq!(history["events"][5]["metadata"]["actor"], "fulfillment-timer");
    let n_calls =
        warehouse.calls().iter().filter(|call| call.order_id == parse_order_id(&id)).count();
    assert_eq!(n_calls, 2);
}

#[test]
fn open_breaker_respects_retry_after() {
    // Less than 3 s, because the pause begins with the first of the two calls.
    const NEARLY_ASKED: Duration = Duration::from_millis(2_500);
    let warehouse = Warehouse::start();
    warehouse.set_default(Behaviour::Say(closing_response(503, &[("Retry-After", "3")], "closed")));
    let system = start_with_warehouse(&warehouse, &[("DOFS__FULFILLMENT__BREAKER_FAILURES", "2")]);
    let mut ids: Vec<_> = (0..2).map(|_| system.api.place_valid_order()).collect();
    wait::until("the warehouse is called twice", || {
        (warehouse.calls().len() == 2).then(Instant::now)
    });
    let closed = Instant::now();
    warehouse.set_default(Behaviour::Fulfil);
    ids.extend((0..4).map(|_| system.api.place_valid_order()));
    for id in &ids {
        assert_eq!(system.api.wait_until_ended(id)["status"], "FULFILLED");
    }
    assert!(closed.elapsed() >= NEARLY_ASKED, "{:?}", closed.elapsed());
    assert_eq!(warehouse.calls().len(), 2 + ids.len());
}
