//! The system with the HTTP gateway: orders go to a warehouse over HTTP, once each.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::time::{Duration, Instant};

use domain::ids::OrderId;
use serde_json::json;
use testkit::api::{Api, order};
use testkit::process::Start;
use testkit::system::System;
use testkit::wait;
use testkit::warehouse::{Behaviour, Warehouse, answer};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

/// A system that asks the warehouse, whose retries and pauses take no time worth mentioning.
fn system(warehouse: &Warehouse, environment: &[(&str, &str)]) -> System {
    let url = warehouse.url();
    let usual = [
        ("DOFS__FULFILLMENT__GATEWAY", "http"),
        ("DOFS__FULFILLMENT__URL", &url),
        ("DOFS__FULFILLMENT__BREAKER_OPEN_MS", "50"),
        ("DOFS__FULFILLMENT__BACKOFF_MS", "5"),
        ("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "20"),
    ];
    System::start(BINARY, &[&usual, environment].concat())
}

fn order_id(id: &str) -> OrderId {
    id.parse().unwrap()
}

#[test]
fn warehouse_fulfils_what_was_ordered() {
    let warehouse = Warehouse::start();
    let system = system(&warehouse, &[]);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = system.api.request("POST", "/v1/orders").header("traceparent", traceparent);
    let answer = Api::send(request.json(&order()));
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();

    let shown = system.api.ended(&id);
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
fn refusal_of_the_warehouse_is_the_order_s_failure() {
    let warehouse = Warehouse::start();
    let (code, reason) = ("no_stock".to_owned(), "none left of prod-widget-001".to_owned());
    warehouse.usually(Behaviour::Refuse { code, reason });
    let system = system(&warehouse, &[]);
    let shown = system.api.ended(&system.api.accepted());
    assert_eq!((&shown["status"], &shown["stage"]), (&json!("FAILED"), &json!("fulfillment")));
    assert_eq!(shown["failure_code"], "no_stock");
    assert_eq!(shown["failure_reason"], "none left of prod-widget-001");
    // What share is to be expected is the warehouse's business.
    assert_eq!(system.api.get("/v1/stats").json()["success_rate"]["configured"], json!(null));
}

#[test]
fn answers_that_are_lost_double_nothing() {
    let warehouse = Warehouse::start();
    let system = system(&warehouse, &[("DOFS__FULFILLMENT__MAX_RETRIES", "20")]);
    warehouse.next(5, &Behaviour::WorkAndDrop);
    warehouse.next(5, &Behaviour::Fail(500));
    warehouse.next(5, &Behaviour::Drop);
    let ids: Vec<_> = (0..20).map(|_| system.api.accepted()).collect();
    for id in &ids {
        assert_eq!(system.api.ended(id)["status"], "FULFILLED");
        assert_eq!(warehouse.effects(&format!("{id}:1")), 1);
    }
    assert_eq!(warehouse.fulfilled_orders(), ids.iter().map(|it| order_id(it)).collect());
    assert!(warehouse.orders_with_more_than_one_effect().is_empty());
}

#[test]
fn what_the_warehouse_says_of_an_order_is_on_record_and_in_no_log_line() {
    let warehouse = Warehouse::start();
    let system = system(&warehouse, &[("DOFS__FULFILLMENT__MAX_RETRIES", "1")]);
    let customer = order()["customer_id"].as_str().unwrap().to_owned();
    let said = format!("no such customer: {customer}");
    warehouse.usually(Behaviour::Say(answer(500, &[], &said)));
    let given_up = system.api.ended(&system.api.accepted());
    let reason = given_up["failure_reason"].as_str().unwrap();
    assert!(reason.contains("gateway answered 500") && reason.contains(&said), "{reason}");
    assert!(!reason.contains(&warehouse.url()), "{reason}");

    let (code, reason) = ("customer".to_owned(), said);
    warehouse.usually(Behaviour::Refuse { code, reason });
    assert_eq!(system.api.ended(&system.api.accepted())["stage"], "fulfillment");
    let log = wait::until("both are in the log", || {
        let log = format!("{:?}", system.process.log());
        (log.contains("dead-lettered") && log.contains("refused it")).then_some(log)
    });
    assert!(log.contains("gateway answered 500") && !log.contains(&customer), "{log}");
}

#[test]
fn orders_of_an_outage_are_fulfilled_after_it() {
    let mut warehouse = Warehouse::start();
    let system = system(&warehouse, &[("DOFS__FULFILLMENT__MAX_RETRIES", "10000")]);
    warehouse.stop();
    let id = system.api.accepted();
    wait::until("a delivery failed", || {
        let history = system.api.get(&format!("/v1/orders/{id}/history")).json();
        let events = history["events"].as_array().unwrap();
        let failed = events.iter().find(|it| it["type"] == "FulfillmentDeliveryFailed")?;
        let error = failed["data"]["error"].as_str().unwrap();
        assert!(error.starts_with("no answer from the gateway: "), "{error}");
        Some(())
    });
    warehouse.start_again();
    assert_eq!(system.api.ended(&id)["status"], "FULFILLED");
    assert!(warehouse.fulfilled_orders().contains(&order_id(&id)));
}

#[test]
fn gateway_without_a_usable_url_does_not_start() {
    let data = tempfile::tempdir().unwrap();
    let urls = ["", "ftp://warehouse/orders", "warehouse:8080", "http://dofs:s3cret@:1"];
    for url in urls {
        let start = Start::dev(BINARY, data.path()).env("DOFS__FULFILLMENT__GATEWAY", "http");
        let mut process = start.env("DOFS__FULFILLMENT__URL", url).spawn();
        assert_eq!(process.ended().code(), Some(2), "{url}");
        let said = wait::until("it says why", || {
            let said = format!("{:?}", process.log());
            said.contains("fulfillment.url").then_some(said)
        });
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn gateway_without_tls_elsewhere_is_warned_of() {
    let warehouse = Warehouse::start();
    let elsewhere = ("DOFS__FULFILLMENT__URL", "http://dofs:s3cret@warehouse.invalid/orders");
    let system = system(&warehouse, &[elsewhere]);
    let said = wait::until("it is said", || {
        let log = system.process.log();
        log.into_iter().find(|it| it["message"] == "Orders are sent to the gateway without TLS")
    });
    assert!(said.to_string().contains("http://warehouse.invalid/orders"), "{said}");
    assert!(!said.to_string().contains("s3cret"), "{said}");
}

#[test]
fn time_that_the_warehouse_asks_for_is_kept_across_a_kill() {
    const ASKED: Duration = Duration::from_secs(3);
    let warehouse = Warehouse::start();
    let busy = answer(429, &[("Retry-After", "3")], "busy");
    warehouse.next(1, &Behaviour::Say(busy));
    let data = tempfile::tempdir().unwrap();
    let start = || {
        Start::dev(BINARY, data.path())
            .env("DOFS__FULFILLMENT__GATEWAY", "http")
            .env("DOFS__FULFILLMENT__URL", warehouse.url())
            .env("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "20")
            .spawn()
    };
    let mut process = start();
    let api = Api::new(process.http());
    let began = Instant::now();
    let id = api.accepted();
    wait::until("its delivery is on record", || {
        api.event_types(&id).last().filter(|it| *it == "FulfillmentDeliveryFailed").map(drop)
    });
    process.kill();

    let mut process = start();
    let api = Api::new(process.http());
    // Others need not wait: the warehouse asked once.
    assert_eq!(api.ended(&api.accepted())["status"], "FULFILLED");
    assert_eq!(api.ended(&id)["status"], "FULFILLED");
    assert!(began.elapsed() >= ASKED, "{:?}", began.elapsed());
    let expected = ["FulfillmentDeliveryFailed", "OrderQueued", "OrderFulfilled"];
    assert_eq!(api.event_types(&id)[4..], expected);
    let history = api.get(&format!("/v1/orders/{id}/history")).json();
    assert_eq!(history["events"][5]["metadata"]["actor"], "fulfillment-timer");
    let n_calls = warehouse.calls().iter().filter(|call| call.order_id == order_id(&id)).count();
    assert_eq!(n_calls, 2);
}

#[test]
fn warehouse_that_asks_for_time_each_time_is_left_alone_as_long() {
    // Less than asked, because the first of two is asked a moment before the second.
    const NEARLY_ASKED: Duration = Duration::from_millis(2_500);
    let warehouse = Warehouse::start();
    warehouse.usually(Behaviour::Say(answer(503, &[("Retry-After", "3")], "closed")));
    let system = system(&warehouse, &[("DOFS__FULFILLMENT__BREAKER_FAILURES", "2")]);
    let mut ids: Vec<_> = (0..2).map(|_| system.api.accepted()).collect();
    wait::until("it is asked twice", || (warehouse.calls().len() == 2).then(Instant::now));
    let closed = Instant::now();
    warehouse.usually(Behaviour::Fulfil);
    ids.extend((0..4).map(|_| system.api.accepted()));
    for id in &ids {
        assert_eq!(system.api.ended(id)["status"], "FULFILLED");
    }
    assert!(closed.elapsed() >= NEARLY_ASKED, "{:?}", closed.elapsed());
    assert_eq!(warehouse.calls().len(), 2 + ids.len());
}
