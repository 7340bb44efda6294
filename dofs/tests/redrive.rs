//! Redrive, correction and discard of dead letters, and the pause of workers: over HTTP, on the real
//! binary, across restarts.

use std::path::Path;

use serde_json::{Value, json};
use testkit::api::{Answer, Api, valid_order};
use testkit::command;
use testkit::process::{Dofs, Start};
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const REDRIVES: &str = "/v1/ops/dead-letters/redrives";

/// Starts a system whose gateway always fails, with short retries.
fn start_with_failing_gateway(data: &Path, max_retries: &str) -> (Dofs, Api) {
    Start::dev(BINARY, data)
        .env("DOFS__FULFILLMENT__ERROR_RATE", "1.0")
        .env("DOFS__FULFILLMENT__LATENCY_MS", "0")
        .env("DOFS__FULFILLMENT__MAX_RETRIES", max_retries)
        .env("DOFS__FULFILLMENT__BACKOFF_MS", "2")
        .env("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "5")
        .spawn_api()
}

/// Starts a system whose gateway fulfils every order.
fn start_with_working_gateway(data: &Path) -> (Dofs, Api) {
    Start::dev(BINARY, data)
        .env("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0")
        .env("DOFS__FULFILLMENT__LATENCY_MS", "0")
        .spawn_api()
}

/// Places orders, and waits until all are dead letters with a parked message.
fn create_dead_letters(api: &Api, n_orders: usize) -> Vec<String> {
    let ids: Vec<String> = (0..n_orders).map(|_| api.place_valid_order()).collect();
    wait::until("all orders are dead letters", || {
        let stats = api.get("/v1/stats").json();
        let is_so = stats["failed_by_stage"]["dead_letter"] == n_orders
            && stats["queue"]["parked"] == n_orders
            && stats["queue"]["in_flight"] == 0;
        is_so.then_some(())
    });
    ids
}

fn post_json(api: &Api, path: &str, body: &Value) -> Answer {
    Api::send(api.request("POST", path).json(body))
}

fn post_if_match(api: &Api, path: &str, tag: &str) -> Answer {
    Api::send(api.request("POST", path).header("If-Match", tag))
}

/// Waits until a redrive task has ended, and returns it.
fn wait_for_task(api: &Api, task_id: &str) -> Value {
    wait::until("the redrive ends", || {
        let request = api.request("GET", &format!("{REDRIVES}/{task_id}"));
        let task = Api::try_send(request).ok().filter(|answer| answer.status == 200)?.json();
        (task["state"] != "running").then_some(task)
    })
}

/// Asserts that `dofs audit verify` finds nothing in the event store of a process.
fn assert_sound(process: &mut Dofs) {
    let url = process.node_url();
    command::run(BINARY, &["audit", "verify"], &[("DOFS__EVENT_STORE__URL", &url)]).success();
}

#[test]
fn dead_letters_are_redriven_after_a_gateway_outage() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) = start_with_failing_gateway(data.path(), "3");
    let ids = create_dead_letters(&api, 12);
    let failures = api.get("/v1/failed-orders?limit=200").json();
    let failures = failures["items"].as_array().unwrap().clone();
    assert_eq!(failures.len(), 12);
    for failure in &failures {
        assert_eq!((&failure["stage"], &failure["deliveries"]), (&json!("dead_letter"), &json!(4)));
        assert!(failure["reason"].as_str().unwrap().contains("simulated gateway error"));
    }
    assert!(process.terminate().success());

    let (mut process, api) = start_with_working_gateway(data.path());
    let code = failures[0]["code"].as_str().unwrap();
    let body = json!({
        "filter": {"code": code},
        "reason": "the gateway is back",
        "actor": "ann",
        "dry_run": true,
    });
    let plan = post_json(&api, REDRIVES, &body).json();
    assert_eq!((&plan["redrive"], &plan["skip"]), (&json!(12), &json!(0)));
    let mut wrong = body.clone();
    wrong["filter"]["code"] = json!("other");
    assert_eq!(post_json(&api, REDRIVES, &wrong).json()["total"], 0);
    assert_eq!(api.get("/v1/stats").json()["orders"]["FAILED"], 12, "a dry run changes nothing");

    let mut wet = body;
    wet["dry_run"] = json!(false);
    let begun = post_json(&api, REDRIVES, &wet);
    assert_eq!(begun.status, 202, "{begun:?}");
    let task = begun.json();
    let task_id = task["task_id"].as_str().unwrap();
    assert_eq!(begun.header("location"), Some(format!("{REDRIVES}/{task_id}").as_str()));
    let task = wait_for_task(&api, task_id);
    assert_eq!((&task["state"], &task["redriven"]), (&json!("succeeded"), &json!(12)));
    for id in &ids {
        api.wait_until_fulfilled(id);
    }
    wait::until("no message is parked", || {
        let stats = api.get("/v1/stats").json();
        let is_so = stats["queue"]["parked"] == 0 && stats["projection"]["lag_events"] == 0;
        is_so.then_some(())
    });
    assert_eq!(api.get("/v1/failed-orders").json()["items"], json!([]));
    let resolved = api.get("/v1/failed-orders?include_resolved=true&limit=200").json();
    assert_eq!(resolved["items"].as_array().unwrap().len(), 12);
    let history = api.get(&format!("/v1/orders/{}/history", ids[0])).json();
    let events = history["events"].as_array().unwrap();
    let redriven = events.iter().rfind(|event| event["type"] == "OrderQueued").unwrap();
    assert_eq!(redriven["data"]["reason"], "the gateway is back");
    assert_eq!(redriven["metadata"]["actor"], "ann");
    assert_eq!(redriven["metadata"]["$causationId"], task_id);
    assert_sound(&mut process);
}

#[test]
fn order_is_redriven_with_correction_and_revision_check() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) = start_with_failing_gateway(data.path(), "0");
    let id = create_dead_letters(&api, 1).remove(0);
    assert!(process.terminate().success());
    let (mut process, api) = start_with_working_gateway(data.path());
    let path = format!("/v1/orders/{id}/redrive");

    assert_eq!(post_if_match(&api, &path, "\"3\"").status, 412);
    assert_eq!(post_if_match(&api, &path, "3").status, 400);
    assert_eq!(post_json(&api, &path, &json!({"items": [{"product_id": "p"}]})).status, 400);
    let too_many = json!({"items": [{"product_id": "p", "quantity": 101}]});
    assert_eq!(post_json(&api, &path, &too_many).status, 422);
    assert_eq!(post_json(&api, "/v1/orders/seven/redrive", &json!({})).status, 400);
    let unknown = "/v1/orders/00000000-0000-4000-8000-000000000000/redrive";
    assert_eq!(post_json(&api, unknown, &json!({})).status, 404);
    assert_eq!(api.event_types(&id).len(), 5, "nothing was recorded");

    let corrected = json!({"items": [{"product_id": "prod-b", "quantity": 3}], "actor": "ann"});
    let request = api.request("POST", &path).header("If-Match", "\"4\"").json(&corrected);
    let redriven = Api::send(request);
    assert_eq!(redriven.status, 202, "{redriven:?}");
    assert_eq!((&redriven.json()["attempt"], redriven.header("etag")), (&json!(2), Some("\"5\"")));
    let order = api.wait_until_fulfilled(&id);
    assert_eq!((&order["items"], &order["total_quantity"]), (&corrected["items"], &json!(3)));
    let again = post_json(&api, &path, &json!({}));
    assert_eq!(again.status, 409, "{again:?}");
    assert_sound(&mut process);
}

#[test]
fn order_that_broke_a_business_rule_is_not_redriven() {
    let data = tempfile::tempdir().unwrap();
    let (_process, api) = start_with_working_gateway(data.path());
    let mut wrong = valid_order();
    wrong["customer_id"] = json!("c");
    let id = api.place(&wrong).json()["order_id"].as_str().unwrap().to_owned();
    let refused = post_json(&api, &format!("/v1/orders/{id}/redrive"), &json!({}));
    assert_eq!(refused.status, 409);
    assert!(refused.json()["error"].as_str().unwrap().contains("place a corrected order"));
    assert_eq!(post_json(&api, REDRIVES, &json!({"filter": {"stage": "validation"}})).status, 400);
    assert_eq!(post_json(&api, REDRIVES, &json!({"filter": {"older_then": "1h"}})).status, 400);
    assert_eq!(post_json(&api, REDRIVES, &json!({"rate_per_second": 0})).status, 400);
}

#[test]
fn discarded_dead_letter_is_skipped_and_not_counted() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) = start_with_failing_gateway(data.path(), "0");
    let ids = create_dead_letters(&api, 2);
    let path = format!("/v1/dead-letters/{}/discard", ids[0]);
    assert_eq!(post_json(&api, &path, &json!({})).status, 400, "a reason must be given");
    let said = json!({"reason": "a test order", "actor": "bob"});
    let with_revision =
        |tag| Api::send(api.request("POST", &path).header("If-Match", tag).json(&said));
    let refused = with_revision("\"3\"");
    assert_eq!(refused.status, 412, "{refused:?}");
    assert_eq!(api.event_types(&ids[0]).last().unwrap(), "OrderFailed", "nothing was recorded");
    let discarded = with_revision("\"4\"");
    assert_eq!((discarded.status, &discarded.json()["revision"]), (200, &json!(5)));
    assert_eq!(post_json(&api, &path, &said).status, 200, "discarding twice is idempotent");
    wait::until("the discarded order is no longer counted", || {
        (api.get("/v1/dead-letters").json()["total"] == 1).then_some(())
    });
    let plan =
        post_json(&api, REDRIVES, &json!({"dry_run": true, "filter": {"order_ids": ids}})).json();
    let why = |id: &str| {
        let items = plan["items"].as_array().unwrap();
        let item = items.iter().find(|item| item["order_id"] == id).unwrap();
        (item["action"].clone(), item["why"].as_str().unwrap().to_owned())
    };
    assert_eq!(why(&ids[1]).0, "redrive");
    assert_eq!(why(&ids[0]).0, "skip");
    assert!(why(&ids[0]).1.contains("discarded"));
    assert_eq!(api.event_types(&ids[0]).last().unwrap(), "DeadLetterDiscarded");
    assert_sound(&mut process);
}

#[test]
fn bulk_redrive_resumes_after_a_kill_without_duplicates() {
    const N_ORDERS: usize = 120;
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) = start_with_failing_gateway(data.path(), "0");
    let ids = create_dead_letters(&api, N_ORDERS);
    assert!(process.terminate().success());

    let (mut process, api) = start_with_working_gateway(data.path());
    let begun = post_json(&api, REDRIVES, &json!({"rate_per_second": 40, "reason": "again"}));
    let task = begun.json();
    let task_id = task["task_id"].as_str().unwrap();
    assert_eq!((begun.status, &task["total"]), (202, &json!(N_ORDERS)));
    let second = post_json(&api, REDRIVES, &json!({}));
    assert_eq!(second.status, 409);
    assert!(second.json()["error"].as_str().unwrap().contains(task_id));
    wait::until("some are redriven", || {
        let task = api.get(&format!("{REDRIVES}/{task_id}")).json();
        task["redriven"].as_u64().filter(|count| *count > 0)
    });
    process.kill();

    let (mut process, api) = start_with_working_gateway(data.path());
    let task = wait_for_task(&api, task_id);
    assert_eq!((&task["state"], &task["failed"]), (&json!("succeeded"), &json!(0)), "{task}");
    assert_eq!((&task["redriven"], &task["skipped"]), (&json!(N_ORDERS), &json!(0)), "{task}");
    for id in &ids {
        let order = api.wait_until_fulfilled(id);
        assert_eq!(order["attempt"], 2, "{order}");
    }
    assert_sound(&mut process);
}

#[test]
fn cancelled_redrive_ends_and_allows_another() {
    let data = tempfile::tempdir().unwrap();
    let (_process, api) = start_with_failing_gateway(data.path(), "0");
    create_dead_letters(&api, 20);
    let begun = post_json(&api, REDRIVES, &json!({"rate_per_second": 1})).json();
    let path = format!("{REDRIVES}/{}", begun["task_id"].as_str().unwrap());
    let cancelled = Api::send(api.request("DELETE", &format!("{path}?actor=ann")));
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (202, &json!("cancelled")));
    assert_eq!(Api::send(api.request("DELETE", &path)).status, 409);
    let unknown = format!("{REDRIVES}/00000000-0000-4000-8000-000000000000");
    assert_eq!(api.get(&unknown).status, 404);
    // Another redrive may start once this one has ended.
    let next = post_json(&api, REDRIVES, &json!({}));
    assert_eq!(next.status, 202, "{next:?}");
    let tasks = api.get(REDRIVES).json();
    let states: Vec<_> =
        tasks["items"].as_array().unwrap().iter().map(|task| &task["task_id"]).collect();
    assert_eq!(states, [&next.json()["task_id"], &begun["task_id"]], "the newest first");
    wait_for_task(&api, next.json()["task_id"].as_str().unwrap());
}

#[test]
fn pause_survives_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) = start_with_working_gateway(data.path());
    api.wait_until_projected(&api.place_valid_order());
    let said = json!({"reason": "the gateway is moved", "actor": "ann"});
    let paused = post_json(&api, "/v1/ops/worker/pause", &said).json();
    assert_eq!((&paused["paused"], &paused["actor"]), (&json!(true), &json!("ann")));
    assert!(process.terminate().success());

    let (mut process, api) = start_with_working_gateway(data.path());
    let id = api.place_valid_order();
    let status = api.get("/v1/ops/worker").json();
    assert_eq!(status["paused"], true);
    for worker in status["workers"].as_array().unwrap() {
        assert_eq!((&worker["paused"], &worker["connected"]), (&json!(true), &json!(false)));
    }
    assert_eq!(api.get("/v1/stats").json()["fulfillment"]["paused"], true);
    assert_eq!(api.get(&format!("/v1/orders/{id}")).json()["status"], "PROCESSING");
    assert_eq!(post_json(&api, "/v1/ops/worker/resume", &json!({})).json()["paused"], false);
    assert_eq!(api.wait_until_ended(&id)["status"], "FULFILLED");
    assert!(process.terminate().success());
}
