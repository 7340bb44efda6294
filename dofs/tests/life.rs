//! The lifecycle of an order through all roles.

use serde_json::{Value, json};
use testkit::api::valid_order;
use testkit::process::Start;
use testkit::system::System;
use testkit::wait;

fn start_system(environment: &[(&str, &str)]) -> System {
    System::start(env!("CARGO_BIN_EXE_dofs"), environment)
}

/// Settings with short retries.
const QUICK: [(&str, &str); 3] = [
    ("DOFS__FULFILLMENT__LATENCY_MS", "1"),
    ("DOFS__FULFILLMENT__BACKOFF_MS", "1"),
    ("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "5"),
];

/// Starts a system with these rates of the simulated gateway.
fn start_quick_system(success_rate: &str, error_rate: &str) -> System {
    let rates = [
        ("DOFS__FULFILLMENT__SUCCESS_RATE", success_rate),
        ("DOFS__FULFILLMENT__ERROR_RATE", error_rate),
    ];
    start_system(&[QUICK.as_slice(), &rates].concat())
}

#[test]
fn fulfilled_order_is_consistent_in_all_views() {
    let system = start_quick_system("1.0", "0.0");
    let api = &system.api;
    let id = api.place_valid_order();
    let shown = api.wait_until_ended(&id);
    assert_eq!(shown["status"], "FULFILLED");
    assert_eq!(
        (&shown["attempt"], &shown["deliveries"], &shown["revision"], &shown["total_quantity"]),
        (&json!(1), &json!(1), &json!(4), &json!(2))
    );
    let events =
        ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued", "OrderFulfilled"];
    assert_eq!(api.event_types(&id), events);

    let history = api.get(&format!("/v1/orders/{id}/history")).json();
    let events = history["events"].as_array().unwrap();
    let last = &events[4];
    assert_eq!(last["state_after"]["status"], "FULFILLED");
    let change = json!({"field": "status", "before": "PROCESSING", "after": "FULFILLED"});
    assert!(last["changes"].as_array().unwrap().contains(&change), "{last}");
    assert_eq!(last["metadata"]["actor"], "fulfillment-worker");
    assert_eq!(last["metadata"]["$causationId"], events[3]["event_id"]);
    assert_eq!(last["metadata"]["$correlationId"], events[0]["metadata"]["request_id"]);

    // The read model and the fold of the stream give the same state.
    let row = wait::until("the order is in the table", || {
        Some(api.get(&format!("/order/{id}")).json())
            .filter(|order| order["source"] == "table" && order["status"] == "FULFILLED")
    });
    let mut folded = last["state_after"].clone();
    folded["source"] = json!("table");
    assert_eq!(row, folded);
}

#[test]
fn order_refused_by_the_gateway_fails() {
    let system = start_quick_system("0.0", "0.0");
    let api = &system.api;
    let id = api.place_valid_order();
    let shown = api.wait_until_ended(&id);
    assert_eq!((&shown["status"], &shown["stage"]), (&json!("FAILED"), &json!("fulfillment")));

    let failed = wait::until("the failure is listed", || {
        let listed = api.get("/v1/failed-orders").json();
        listed["items"].as_array().unwrap().first().cloned()
    });
    assert_eq!(failed["order_id"], json!(id));
    assert_eq!((&failed["stage"], &failed["code"]), (&json!("fulfillment"), &json!("refused")));
    assert_eq!((&failed["order"]["order_id"], &failed["resolved_at"]), (&json!(id), &Value::Null));
}

#[test]
fn order_without_retries_left_is_dead_lettered_and_parked() {
    let system = start_quick_system("1.0", "1.0");
    let api = &system.api;
    let id = api.place_valid_order();
    let shown = api.wait_until_ended(&id);
    assert_eq!(
        (&shown["stage"], &shown["deliveries"], &shown["failure_code"]),
        (&json!("dead_letter"), &json!(4), &json!("retries_exhausted"))
    );
    let reason = shown["failure_reason"].as_str().unwrap();
    assert!(reason.contains("simulated gateway error"), "{reason}");
    let retry = ["FulfillmentDeliveryFailed", "FulfillmentDeliveryStarted"];
    let expected = ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued"];
    let expected = [expected.as_slice(), &retry, &retry, &retry, &["OrderFailed"]].concat();
    assert_eq!(api.event_types(&id), expected);
    wait::until("the message is parked", || {
        let stats = api.get("/v1/stats").json();
        (stats["queue"]["parked"] == 1).then_some(())
    });
}

#[test]
fn statistics_lists_and_histories_agree() {
    let system = start_quick_system("0.7", "0.1");
    let api = &system.api;
    let ids: Vec<String> = (0..40).map(|_| api.place_valid_order()).collect();
    let ended: Vec<Value> = ids.iter().map(|id| api.wait_until_ended(id)).collect();
    let n_failed = ended.iter().filter(|order| order["status"] == "FAILED").count();

    wait::until("the projection has caught up", || {
        let stats = api.get("/v1/stats").json();
        let orders = &stats["orders"];
        let done = orders["FULFILLED"] == ids.len() - n_failed
            && orders["FAILED"] == n_failed
            && orders["PROCESSING"] == 0
            && stats["projection"]["lag_events"] == 0
            && stats["queue"]["in_flight"] == 0;
        done.then_some(())
    });
    let count = |path: &str| api.get(path).json()["items"].as_array().unwrap().len();
    assert_eq!(count("/v1/orders?limit=200"), ids.len());
    assert_eq!(count("/v1/orders?status=FAILED&limit=200"), n_failed);
    assert_eq!(count("/v1/failed-orders?limit=200"), n_failed);
    for id in &ids {
        let events = api.event_types(id);
        assert_eq!(
            events[..4],
            ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued"],
            "{id}"
        );
        let n_ends = events
            .iter()
            .filter(|event| *event == "OrderFulfilled" || *event == "OrderFailed")
            .count();
        assert_eq!(n_ends, 1, "{id}: {events:?}");
    }
}

#[test]
fn pages_contain_every_order_once() {
    let system = start_quick_system("1.0", "0.0");
    let api = &system.api;
    let mut ids: Vec<String> = (0..25).map(|_| api.place_valid_order()).collect();
    for id in &ids {
        api.wait_until_ended(id);
    }
    wait::until("all are in the table", || {
        (api.get("/v1/stats").json()["orders"]["FULFILLED"] == ids.len()).then_some(())
    });
    let mut listed = Vec::new();
    let mut next = Some("/v1/orders?limit=7".to_owned());
    while let Some(path) = next {
        let page = api.get(&path).json();
        let items = page["items"].as_array().unwrap();
        listed.extend(items.iter().map(|order| order["order_id"].as_str().unwrap().to_owned()));
        let cursor = page["next_cursor"].as_str();
        next = cursor.map(|cursor| format!("/v1/orders?limit=7&cursor={cursor}"));
    }
    ids.reverse();
    assert_eq!(listed, ids, "newest first");
}

#[test]
fn accepted_order_is_readable_immediately() {
    let system = start_quick_system("1.0", "0.0");
    for _ in 0..50 {
        let id = system.api.place_valid_order();
        let answer = system.api.get(&format!("/order/{id}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn orders_end_after_a_drained_stop() {
    let data = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_dofs");
    let slow = |start: Start| start.env("DOFS__FULFILLMENT__LATENCY_MS", "300");
    let (mut first, api) = slow(Start::dev(binary, data.path())).spawn_api();
    let ids: Vec<String> = (0..10).map(|_| api.place_valid_order()).collect();
    assert!(first.terminate().success(), "{:#?}", first.log_lines());

    let (_second, api) = slow(Start::dev(binary, data.path())).spawn_api();
    for id in ids {
        api.wait_until_ended(&id);
    }
}

#[test]
fn second_process_on_a_data_folder_is_rejected() {
    let data = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_dofs");
    let (_first, api) = Start::dev(binary, data.path()).spawn_api();
    let mut second = Start::dev(binary, data.path()).spawn();
    assert_eq!(second.wait_until_ended().code(), Some(1));
    let said = wait::until("the reason is logged", || second.log_lines().last().cloned());
    assert!(said.to_string().contains("another process"), "{said}");
    assert_eq!(api.place(&valid_order()).status, 202, "the first process is unaffected");
}

#[test]
fn ready_process_reports_all_checks() {
    let mut system = start_system(&[]);
    assert_eq!(system.api.get("/livez").status, 200);
    let ready = system.api.get("/readyz?verbose");
    assert_eq!(ready.status, 200, "{ready:?}");
    let checks =
        json!({"event_store": "ok", "read_model": "ok", "projector": "ok", "worker": "ok"});
    assert_eq!(ready.json()["checks"], checks);
    assert!(system.process.terminate().success());
}
