//! A gateway that goes away, and a delivery that ends its worker.

use std::sync::Mutex;

use serde_json::{Value, json};
use testkit::api::Api;
use testkit::process::{Dofs, Start};
use testkit::wait;
use testkit::warehouse::{Behaviour, Warehouse};

use crate::fixture::{BINARY, Customers, Separate, sqlite, start_node};

/// Orders go to the warehouse.
fn over(start: Start, warehouse: &Warehouse) -> Start {
    start
        .env("DOFS__FULFILLMENT__GATEWAY", "http")
        .env("DOFS__FULFILLMENT__URL", warehouse.url())
        .env("DOFS__FULFILLMENT__BREAKER_OPEN_MS", "200")
}

fn is_fulfilled(api: &Api, id: &str) -> bool {
    api.get(&format!("/v1/orders/{id}")).json()["status"] == "FULFILLED"
}

#[test]
fn outage_of_the_gateway_costs_no_order_and_shows() {
    let data = tempfile::tempdir().unwrap();
    let mut warehouse = Warehouse::start();
    let mut process = over(Start::dev(BINARY, data.path()), &warehouse).spawn();
    let api = Api::new(process.http());
    api.ended(&api.accepted());

    warehouse.stop();
    let customers = Customers::new(4);
    customers.place_during(&api, || {
        customers.wait_for(100);
        wait::until("the breaker is open", || {
            (api.get("/v1/stats").json()["fulfillment"]["breaker"] == "open").then_some(())
        });
        customers.wait_for(200);
    });
    let status = api.get("/v1/ops/worker").json();
    let worker = &status["workers"][0];
    assert!(worker["error"].as_str().unwrap().contains("no answer from the gateway"), "{status}");
    assert_eq!(api.get("/v1/stats").json()["orders"]["FAILED"], 0);

    warehouse.start_again();
    let ids = customers.accepted();
    for id in &ids {
        wait::until("it is fulfilled", || is_fulfilled(&api, id).then_some(()));
        assert_eq!(warehouse.effects(&format!("{id}:1")), 1);
    }
    wait::until("the breaker is closed", || {
        (api.get("/v1/stats").json()["fulfillment"]["breaker"] == "closed").then_some(())
    });
}

/// Lines that begin so.
fn lines(process: &Dofs, begin: &str) -> Vec<Value> {
    let mut log = process.log();
    log.retain(|line| line["message"].as_str().is_some_and(|it| it.starts_with(begin)));
    log
}

#[test]
fn outage_of_the_event_store_is_told_once_with_its_cause_and_its_duration() {
    let data = tempfile::tempdir().unwrap();
    let mut separate = Separate::start(data.path(), sqlite(data.path()));
    let listen = separate.store.replace("esdb://", "").replace("?tls=false", "");
    let mut process = separate.serve(&["api", "worker", "projector"]);
    let api = Api::new(process.http());
    let id = api.accepted();
    api.projected(&id);
    let started = &lines(&process, "DOFS starts")[0];
    for (field, value) in [
        ("environment", json!("dev")),
        ("roles", json!("api,worker,projector")),
        ("event_store", json!(separate.store)),
        ("gateway", json!("simulated")),
        ("auth", json!("none")),
        ("tls", json!(false)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(started[field], value, "{started}");
    }
    for field in ["store_id", "schema_version", "listen", "read_model"] {
        assert!(!started[field].is_null(), "{started}");
    }

    separate.node.kill();
    wait::until("the outage is told", || lines(&process, "Event store unreachable").pop());
    for _ in 0..3 {
        assert_eq!(api.place(&testkit::api::order()).status, 503);
        api.get(&format!("/v1/orders/{id}/history"));
    }
    separate.node = start_node(data.path(), &listen);
    separate.node.node();
    wait::until("its end is told", || lines(&process, "Event store reachable again").pop());
    // The store that had failed is known to take orders once a probe was taken.
    let placed = wait::until("orders are taken", || {
        Some(api.place(&testkit::api::order())).filter(|answer| answer.status == 202)
    });
    api.ended(placed.json()["order_id"].as_str().unwrap());

    let told = lines(&process, "Event store");
    assert_eq!(told.len(), 2, "{told:#?}");
    let expected = [("WARN", "address"), ("INFO", "address")];
    for (line, (level, field)) in told.iter().zip(expected) {
        assert_eq!((&line["level"], &line[field]), (&json!(level), &json!(separate.store)));
    }
    assert_eq!(told[0]["cause"], "connection refused");
    assert!(told[0]["hint"].as_str().unwrap().contains("dofs node"), "{told:#?}");
    assert!(told[1]["duration_ms"].is_u64(), "{told:#?}");
    let mut others = process.log();
    others.retain(|line| line["level"] == "WARN" && line["message"] != told[0]["message"]);
    assert!(others.len() <= 2, "{others:#?}");
}

/// Orders that fail because of themselves must not keep the others out.
#[test]
fn orders_that_the_gateway_cannot_take_do_not_hold_up_those_that_it_can() {
    let data = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::start();
    let mut process = over(Start::dev(BINARY, data.path()), &warehouse).spawn();
    let api = Api::new(process.http());
    warehouse.usually(Behaviour::Fail(500));
    let bad: Vec<String> = (0..8).map(|_| api.accepted()).collect();
    wait::until("the breaker is open", || {
        (api.get("/v1/ops/worker").json()["breaker"] != "closed").then_some(())
    });
    for id in &bad {
        warehouse.for_order(id.parse().unwrap(), Behaviour::Fail(500));
    }
    warehouse.usually(Behaviour::Fulfil);
    let mut good: Vec<String> = (0..8).map(|_| api.accepted()).collect();
    for id in &good {
        wait::until("it is fulfilled", || is_fulfilled(&api, id).then_some(()));
    }
    // They burn their retries while others show that the gateway is there, and only then.
    wait::until("the bad ones have given up", || {
        good.push(api.accepted());
        (api.get("/v1/stats").json()["failed_by_stage"]["dead_letter"] == bad.len()).then_some(())
    });
    for id in &good {
        wait::until("it is fulfilled", || is_fulfilled(&api, id).then_some(()));
    }
}

/// The culprit's call ends the worker that makes it, with all that it has in flight.
#[test]
fn delivery_that_kills_its_worker_each_time_is_dead_lettered_and_no_other_is() {
    let data = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::start();
    let system = Separate::start(data.path(), sqlite(data.path()));
    let mut roles = system.serve(&["api", "projector"]);
    let api = Api::new(roles.http());
    let mut ids: Vec<String> = (0..51).map(|_| api.accepted()).collect();
    let culprit = ids.remove(25);
    warehouse.usually(Behaviour::Hang);
    warehouse.for_order(culprit.parse().unwrap(), Behaviour::Hang);
    let n_culprit_calls =
        || warehouse.calls().iter().filter(|it| it.order_id.to_string() == culprit).count();
    let worker = || over(system.command(&["serve", "worker"]), &warehouse).spawn();
    let running: Mutex<Dofs> = Mutex::new(worker());
    for n_kills in 1..=4 {
        wait::until("the culprit is asked for", || (n_culprit_calls() == n_kills).then_some(()));
        running.lock().unwrap().kill();
        // From now on only the culprit does harm.
        warehouse.usually(Behaviour::Fulfil);
        *running.lock().unwrap() = worker();
    }
    let order: Value = wait::until("it is given up", || {
        let order = api.get(&format!("/v1/orders/{culprit}")).json();
        (order["status"] == "FAILED").then_some(order)
    });
    assert_eq!(
        (&order["stage"], &order["failure_code"]),
        (&json!("dead_letter"), &json!("poison"))
    );
    assert_eq!(n_culprit_calls(), 4);
    for id in &ids {
        wait::until("it is fulfilled", || is_fulfilled(&api, id).then_some(()));
    }
    assert!(warehouse.keys_with_more_than_one_effect().is_empty());
}
