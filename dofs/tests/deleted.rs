//! Requests for orders whose streams an operator deleted.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use domain::ids::OrderId;
use serde_json::json;
use testkit::api::{Answer, Api, valid_order};
use testkit::stream_tool::StreamTool;
use testkit::system::System;
use testkit::wait;
use tokio::runtime::Runtime;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ALL_FAIL: (&str, &str) = ("DOFS__FULFILLMENT__SUCCESS_RATE", "0.0");

fn place_with_key(api: &Api, key: &str) -> Answer {
    Api::send(api.request("POST", "/v1/orders").header("idempotency-key", key).json(&valid_order()))
}

/// Places an order and returns its id once the read model shows it as failed.
fn place_failing_order(api: &Api, key: &str) -> OrderId {
    let id = place_with_key(api, key).json()["order_id"].as_str().unwrap().to_owned();
    assert_eq!(api.wait_until_projected(&id)["status"], "FAILED");
    id.parse().unwrap()
}

#[test]
fn deleted_order_is_gone_for_all_requests() {
    let system = System::start(BINARY, &[ALL_FAIL]);
    let api = &system.api;
    let [deleted, ended, truncated, cut] =
        ["deleted", "ended", "truncated", "cut"].map(|key| place_failing_order(api, key));
    Runtime::new().unwrap().block_on(async {
        let tool = StreamTool::new(system.event_store());
        tool.delete(deleted).await;
        tool.tombstone(ended).await;
        tool.truncate(truncated, 5).await;
        tool.truncate(cut, 1).await;
    });
    for key in ["deleted", "ended", "truncated", "cut"] {
        for _ in 0..2 {
            let repeated = place_with_key(api, key);
            assert_eq!(repeated.status, 410, "{key}: {repeated:?}");
            assert!(repeated.json()["error"].as_str().unwrap().contains("use another key"));
        }
    }
    wait::until("the deleted orders are no longer listed", || {
        let left = api.get("/v1/orders").json()["items"].as_array()?.len();
        (left == 2).then_some(())
    });
    for order_id in [deleted, ended, truncated] {
        let redrive = Api::send(api.request("POST", &format!("/v1/orders/{order_id}/redrive")));
        assert_eq!(redrive.status, 410, "{redrive:?}");
        assert_eq!(api.get(&format!("/v1/orders/{order_id}/history")).status, 410);
    }
    for order_id in [deleted, ended] {
        assert_eq!(api.get(&format!("/v1/orders/{order_id}")).status, 410);
    }
    let filter = json!({"dry_run": true, "stage": "fulfillment"});
    let tried = Api::send(api.request("POST", "/v1/ops/dead-letters/redrives").json(&filter));
    assert_ne!(tried.status, 500, "{tried:?}");
}
