//! Outages of the gateway and of the event store, and a delivery that ends its worker.

use std::sync::Mutex;

use serde_json::{Value, json};
use testkit::process::{Dofs, Start};
use testkit::wait;
use testkit::warehouse::{Behaviour, Warehouse};

use crate::fixture::{BINARY, Customers, SeparateProcesses, start_node};

/// Configures the warehouse as gateway.
fn with_warehouse(start: Start, warehouse: &Warehouse) -> Start {
    start
        .env("DOFS__FULFILLMENT__GATEWAY", "http")
        .env("DOFS__FULFILLMENT__URL", warehouse.url())
        .env("DOFS__FULFILLMENT__BREAKER_OPEN_MS", "200")
}

#[test]
fn gateway_outage_loses_no_order_and_is_visible() {
    let data = tempfile::tempdir().unwrap();
    let mut warehouse = Warehouse::start();
    let (_process, api) = with_warehouse(Start::dev(BINARY, data.path()), &warehouse).spawn_api();
    api.wait_until_ended(&api.place_valid_order());

    warehouse.stop();
    let customers = Customers::new(4);
    customers.place_during(&api, || {
        customers.wait_for_accepted(100);
        wait::until("the breaker is open", || {
            (api.get("/v1/stats").json()["fulfillment"]["breaker"] == "open").then_some(())
        });
        customers.wait_for_accepted(200);
    });
    let status = api.get("/v1/ops/worker").json();
    let worker = &status["workers"][0];
    assert!(worker["error"].as_str().unwrap().contains("no answer from the gateway"), "{status}");
    assert_eq!(api.get("/v1/stats").json()["orders"]["FAILED"], 0);

    warehouse.start_again();
    let ids = customers.into_accepted();
    for id in &ids {
        api.wait_until_fulfilled(id);
        assert_eq!(warehouse.count_effects(&format!("{id}:1")), 1);
    }
    wait::until("the breaker is closed", || {
        (api.get("/v1/stats").json()["fulfillment"]["breaker"] == "closed").then_some(())
    });
}

/// Returns the log lines whose message begins with this text.
fn find_lines(process: &Dofs, begin: &str) -> Vec<Value> {
    let mut log = process.log_lines();
    log.retain(|line| line["message"].as_str().is_some_and(|message| message.starts_with(begin)));
    log
}

#[test]
fn event_store_outage_is_logged_once_with_cause_and_duration() {
    let mut separate = SeparateProcesses::start_over_sqlite();
    let listen = separate.store.replace("esdb://", "").replace("?tls=false", "");
    let (process, api) = separate.serve_api(&["api", "worker", "projector"]);
    let id = api.place_valid_order();
    api.wait_until_projected(&id);
    let started = &find_lines(&process, "DOFS starting")[0];
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
    wait::until("the outage is logged", || find_lines(&process, "Event store unreachable").pop());
    for _ in 0..3 {
        assert_eq!(api.place(&testkit::api::valid_order()).status, 503);
        api.get(&format!("/v1/orders/{id}/history"));
    }
    separate.node = start_node(separate.data.path(), &listen);
    separate.node.node_address();
    wait::until("the end of the outage is logged", || {
        find_lines(&process, "Event store reachable again").pop()
    });
    // Orders are accepted once a probe has been appended.
    let placed = wait::until("orders are accepted", || {
        Some(api.place(&testkit::api::valid_order())).filter(|answer| answer.status == 202)
    });
    api.wait_until_ended(placed.json()["order_id"].as_str().unwrap());

    let logged = find_lines(&process, "Event store");
    assert_eq!(logged.len(), 2, "{logged:#?}");
    let expected = [("WARN", "address"), ("INFO", "address")];
    for (line, (level, field)) in logged.iter().zip(expected) {
        assert_eq!((&line["level"], &line[field]), (&json!(level), &json!(separate.store)));
    }
    assert_eq!(logged[0]["cause"], "connection refused");
    assert!(logged[0]["hint"].as_str().unwrap().contains("dofs node"), "{logged:#?}");
    assert!(logged[1]["duration_ms"].is_u64(), "{logged:#?}");
    let mut others = process.log_lines();
    others.retain(|line| line["level"] == "WARN" && line["message"] != logged[0]["message"]);
    assert!(others.len() <= 2, "{others:#?}");
}

#[test]
fn failing_orders_do_not_block_other_orders() {
    let data = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::start();
    let (_process, api) = with_warehouse(Start::dev(BINARY, data.path()), &warehouse).spawn_api();
    warehouse.set_default(Behaviour::Fail(500));
    let bad: Vec<String> = (0..8).map(|_| api.place_valid_order()).collect();
    wait::until("the breaker is open", || {
        (api.get("/v1/ops/worker").json()["breaker"] != "closed").then_some(())
    });
    for id in &bad {
        warehouse.set_for_order(id.parse().unwrap(), Behaviour::Fail(500));
    }
    warehouse.set_default(Behaviour::Fulfil);
    let mut good: Vec<String> = (0..8).map(|_| api.place_valid_order()).collect();
    for id in &good {
        api.wait_until_fulfilled(id);
    }
    // Failing orders use up their retries only while other orders keep the breaker closed.
    wait::until("the failing orders are dead letters", || {
        good.push(api.place_valid_order());
        (api.get("/v1/stats").json()["failed_by_stage"]["dead_letter"] == bad.len()).then_some(())
    });
    for id in &good {
        api.wait_until_fulfilled(id);
    }
}

/// The worker is killed during each call for one order, with all other deliveries in flight.
#[test]
fn only_the_poison_delivery_is_dead_lettered() {
    let warehouse = Warehouse::start();
    let system = SeparateProcesses::start_over_sqlite();
    let (_roles, api) = system.serve_api(&["api", "projector"]);
    let mut ids: Vec<String> = (0..51).map(|_| api.place_valid_order()).collect();
    let poison = ids.remove(25);
    warehouse.set_default(Behaviour::Hang);
    warehouse.set_for_order(poison.parse().unwrap(), Behaviour::Hang);
    let n_poison_calls =
        || warehouse.calls().iter().filter(|call| call.order_id.to_string() == poison).count();
    let worker = || with_warehouse(system.command(&["serve", "worker"]), &warehouse).spawn();
    let running: Mutex<Dofs> = Mutex::new(worker());
    for n_kills in 1..=4 {
        wait::until("the poison order is called", || (n_poison_calls() == n_kills).then_some(()));
        running.lock().unwrap().kill();
        // From now on only the poison order hangs.
        warehouse.set_default(Behaviour::Fulfil);
        *running.lock().unwrap() = worker();
    }
    let order: Value = wait::until("the order has failed", || {
        let order = api.get(&format!("/v1/orders/{poison}")).json();
        (order["status"] == "FAILED").then_some(order)
    });
    assert_eq!(
        (&order["stage"], &order["failure_code"]),
        (&json!("dead_letter"), &json!("poison"))
    );
    assert_eq!(n_poison_calls(), 4);
    for id in &ids {
        api.wait_until_fulfilled(id);
    }
    assert!(warehouse.keys_with_more_than_one_effect().is_empty());
}
