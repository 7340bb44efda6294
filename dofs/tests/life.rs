//! The life of an order through every part of the system.

use serde_json::{Value, json};
use testkit::api::{Api, order};
use testkit::process::Start;
use testkit::system::System;
use testkit::wait;

fn system(environment: &[(&str, &str)]) -> System {
    System::start(env!("CARGO_BIN_EXE_dofs"), environment)
}

/// Settings under which retries take no time worth mentioning.
const QUICK: [(&str, &str); 3] = [
    ("DOFS__FULFILLMENT__LATENCY_MS", "1"),
    ("DOFS__FULFILLMENT__BACKOFF_MS", "1"),
    ("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "5"),
];

fn quick_system(rates: [(&str, &str); 2]) -> System {
    system(&[QUICK.as_slice(), rates.as_slice()].concat())
}

#[test]
fn order_is_fulfilled_and_every_view_of_it_agrees() {
    let system = quick_system([
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
        ("DOFS__FULFILLMENT__ERROR_RATE", "0.0"),
    ]);
    let api = &system.api;
    let id = api.accepted();
    let shown = api.ended(&id);
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

    // The row and the fold of the stream are the same order.
    let row = wait::until("the order is in the table", || {
        Some(api.get(&format!("/order/{id}")).json())
            .filter(|it| it["source"] == "table" && it["status"] == "FULFILLED")
    });
    let mut folded = last["state_after"].clone();
    folded["source"] = json!("table");
    assert_eq!(row, folded);
}

#[test]
fn refused_order_is_a_failed_order() {
    let system = quick_system([
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "0.0"),
        ("DOFS__FULFILLMENT__ERROR_RATE", "0.0"),
    ]);
    let api = &system.api;
    let id = api.accepted();
    let shown = api.ended(&id);
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
fn order_whose_retries_run_out_is_dead_lettered_and_parked() {
    let system = quick_system([
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
        ("DOFS__FULFILLMENT__ERROR_RATE", "1.0"),
    ]);
    let api = &system.api;
    let id = api.accepted();
    let shown = api.ended(&id);
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
    let system = quick_system([
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "0.7"),
        ("DOFS__FULFILLMENT__ERROR_RATE", "0.1"),
    ]);
    let api = &system.api;
    let ids: Vec<String> = (0..40).map(|_| api.accepted()).collect();
    let ended: Vec<Value> = ids.iter().map(|id| api.ended(id)).collect();
    let n_failed = ended.iter().filter(|it| it["status"] == "FAILED").count();

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
        let n_ends =
            events.iter().filter(|it| *it == "OrderFulfilled" || *it == "OrderFailed").count();
        assert_eq!(n_ends, 1, "{id}: {events:?}");
    }
}

#[test]
fn pages_return_every_order_once() {
    let system = quick_system([
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
        ("DOFS__FULFILLMENT__ERROR_RATE", "0.0"),
    ]);
    let api = &system.api;
    let mut ids: Vec<String> = (0..25).map(|_| api.accepted()).collect();
    for id in &ids {
        api.ended(id);
    }
    wait::until("all are in the table", || {
        (api.get("/v1/stats").json()["orders"]["FULFILLED"] == ids.len()).then_some(())
    });
    let mut listed = Vec::new();
    let mut next = Some("/v1/orders?limit=7".to_owned());
    while let Some(path) = next {
        let page = api.get(&path).json();
        let items = page["items"].as_array().unwrap();
        listed.extend(items.iter().map(|it| it["order_id"].as_str().unwrap().to_owned()));
        let cursor = page["next_cursor"].as_str();
        next = cursor.map(|it| format!("/v1/orders?limit=7&cursor={it}"));
    }
    ids.reverse();
    assert_eq!(listed, ids, "newest first");
}

#[test]
fn accepted_order_is_never_unknown() {
    let system = quick_system([
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
        ("DOFS__FULFILLMENT__ERROR_RATE", "0.0"),
    ]);
    for _ in 0..50 {
        let id = system.api.accepted();
        let answer = system.api.get(&format!("/order/{id}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn stop_drains_and_everything_is_there_afterwards() {
    let data = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_dofs");
    let slow = |start: Start| start.env("DOFS__FULFILLMENT__LATENCY_MS", "300");
    let mut first = slow(Start::dev(binary, data.path())).spawn();
    let api = Api::new(first.http());
    let ids: Vec<String> = (0..10).map(|_| api.accepted()).collect();
    assert!(first.terminate().success(), "{:#?}", first.log());

    let mut second = slow(Start::dev(binary, data.path())).spawn();
    let api = Api::new(second.http());
    for id in ids {
        api.ended(&id);
    }
}

#[test]
fn second_process_on_the_same_folder_is_refused_with_its_reason() {
    let data = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_dofs");
    let mut first = Start::dev(binary, data.path()).spawn();
    let api = Api::new(first.http());
    let mut second = Start::dev(binary, data.path()).spawn();
    assert_eq!(second.ended().code(), Some(1));
    let said = wait::until("it says why", || second.log().last().cloned());
    assert!(said.to_string().contains("another process"), "{said}");
    assert_eq!(api.place(&order()).status, 202, "the first goes on");
}

#[test]
fn process_says_that_it_is_ready() {
    let mut system = system(&[]);
    assert_eq!(system.api.get("/livez").status, 200);
    let ready = system.api.get("/readyz?verbose");
    assert_eq!(ready.status, 200, "{ready:?}");
    let checks =
        json!({"event_store": "ok", "read_model": "ok", "projector": "ok", "worker": "ok"});
    assert_eq!(ready.json()["checks"], checks);
    assert!(system.process.terminate().success());
}
