//! Operators' actions over HTTP and by command, listed with actor and reason.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use serde_json::{Value, json};
use testkit::api::{Answer, Api};
use testkit::command;
use testkit::process::Start;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ACTIONS: &str = "/v1/ops/actions";
const REDRIVES: &str = "/v1/ops/dead-letters/redrives";

fn post_json(api: &Api, path: &str, body: &Value) -> Answer {
    Api::send(api.request("POST", path).json(body))
}

fn wait_for_dead_letters(api: &Api, n_orders: usize) {
    wait::until("all orders are dead letters", || {
        let stats = api.get("/v1/stats").json();
        let is_so = stats["failed_by_stage"]["dead_letter"] == n_orders
            && stats["queue"]["in_flight"] == 0
            && stats["projection"]["lag_events"] == 0;
        is_so.then_some(())
    });
}

/// Returns kind, actor, reason and order of each listed action.
fn list_actions(api: &Api, query: &str) -> Vec<Value> {
    let page = api.get(&format!("{ACTIONS}{query}")).json();
    let summary = |action: &Value| {
        json!([action["kind"], action["actor"], action["reason"], action["order_id"]])
    };
    page["items"].as_array().unwrap().iter().map(summary).collect()
}

#[test]
fn each_action_is_listed_once_with_actor_and_reason() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) = Start::dev(BINARY, data.path())
        .env("DOFS__FULFILLMENT__ERROR_RATE", "1.0")
        .env("DOFS__FULFILLMENT__LATENCY_MS", "0")
        .env("DOFS__FULFILLMENT__MAX_RETRIES", "0")
        .spawn_api();
    let orders: Vec<String> = (0..4).map(|_| api.place_valid_order()).collect();
    wait_for_dead_letters(&api, 4);

    // When operators act once in each way
    let because = |actor: &str, reason: &str| json!({"actor": actor, "reason": reason});
    let redrive = format!("/v1/orders/{}/redrive", orders[0]);
    assert_eq!(post_json(&api, &redrive, &because("ann", "it was a typo")).status, 202);
    let discard = format!("/v1/dead-letters/{}/discard", orders[1]);
    assert_eq!(post_json(&api, &discard, &because("bob", "paid back")).status, 200);
    let worker = "/v1/ops/worker";
    let pause = because("cat", "stocktaking");
    assert_eq!(post_json(&api, &format!("{worker}/pause"), &pause).status, 200);
    assert_eq!(post_json(&api, &format!("{worker}/resume"), &because("cat", "done")).status, 200);
    // Slow enough to be cancelled.
    let task = json!({
        "filter": {"order_ids": [orders[2], orders[3]]},
        "rate_per_second": 1,
        "actor": "dan",
        "reason": "the gateway is back",
    });
    let started = post_json(&api, REDRIVES, &task).json();
    let task_id = started["task_id"].as_str().unwrap().to_owned();
    let first = wait::until("the task has redriven an order", || {
        let history = api.event_types(&orders[2]);
        let is_redriven = history.iter().filter(|name| *name == "OrderQueued").count() == 2;
        is_redriven.then(|| orders[2].clone())
    });
    let cancel = format!("{REDRIVES}/{task_id}?actor=eve");
    assert_eq!(Api::send(api.request("DELETE", &cancel)).status, 202);
    let store = process.node_url();
    let environment = [("DOFS__EVENT_STORE__URL", store.as_str())];
    let create = ["keys", "create", "--name", "shop", "--all-tenants", "--scope", "orders:read"];
    let created = command::run(BINARY, &[&create[..], &["--json"]].concat(), &environment).json();
    let key_id = created["id"].as_str().unwrap();
    command::run(BINARY, &["keys", "revoke", key_id, "--yes"], &environment).success();

    // Then the list has each action once, the newest first, and the task as one action
    let expected = [
        json!(["api_key_revoked", "operator", null, null]),
        json!(["api_key_created", "operator", null, null]),
        json!(["redrive_cancelled", "eve", null, null]),
        json!(["redrive_started", "dan", "the gateway is back", null]),
        json!(["workers_resumed", "cat", "done", null]),
        json!(["workers_paused", "cat", "stocktaking", null]),
        json!(["dead_letter_discarded", "bob", "paid back", orders[1]]),
        json!(["order_redriven", "ann", "it was a typo", orders[0]]),
    ];
    wait_for_dead_letters(&api, 4);
    assert_eq!(list_actions(&api, ""), expected, "{first} was redriven by the task");
    let by_cat = list_actions(&api, "?actor=cat");
    assert_eq!(by_cat, expected[4..6]);
    assert_eq!(list_actions(&api, "?kind=redrive_started"), expected[3..4]);
    let items = api.get(&format!("{ACTIONS}?kind=redrive_cancelled")).json();
    assert_eq!(items["items"][0]["task_id"], json!(task_id));
    let first_page = api.get(&format!("{ACTIONS}?limit=5")).json();
    let cursor = first_page["next_cursor"].as_str().unwrap();
    assert_eq!(list_actions(&api, &format!("?cursor={cursor}&limit=5")), expected[5..]);
    assert_eq!(api.get(&format!("{ACTIONS}?kind=other")).status, 400);
    // The commands see the same worker as the API.
    let status = api.get(worker).json();
    assert_eq!(status["workers"][0]["in_flight"], 0);
    assert_eq!(status["workers"][0]["gateway"], Value::Null, "before its first minute");
    let read_model = testkit::system::sqlite_url(data.path());
    let environment = [environment[0], ("DOFS__READ_MODEL__URL", read_model.as_str())];
    command::run(BINARY, &["projections", "verify"], &environment).success();
}
