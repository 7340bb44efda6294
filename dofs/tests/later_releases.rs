//! Events of a later release in the streams of orders, as the API of this release answers.

use serde_json::json;
use testkit::api::{Api, valid_order};
use testkit::stream_tool::StreamTool;
use testkit::system::System;
use tokio::runtime::Runtime;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

#[test]
fn order_with_unreadable_events_is_read_but_accepts_no_command() {
    let system = System::start(BINARY, &[("DOFS__FULFILLMENT__SUCCESS_RATE", "0.0")]);
    let api = &system.api;
    for (event_type, metadata) in
        [("OrderSplit", "{}"), ("OrderStored", r#"{"schema_version": 2}"#)]
    {
        let placed = Api::send(api.request("POST", "/v1/orders").json(&valid_order())).json();
        let id = placed["order_id"].as_str().unwrap();
        assert_eq!(api.wait_until_projected(id)["status"], "FAILED");
        Runtime::new().unwrap().block_on(async {
            let tool = StreamTool::new(system.event_store());
            let data = json!({"order_id": id, "stored_at": "2026-01-02T03:04:05Z"}).to_string();
            tool.append_raw(&format!("order-{id}"), event_type, &data, metadata).await;
        });
        let read_events = || {
            let history = api.get(&format!("/v1/orders/{id}/history"));
            assert_eq!(history.status, 200, "{history:?}");
            history.json()["events"].as_array().unwrap().clone()
        };
        let before = read_events();
        let unreadable = before.last().unwrap();
        assert_eq!(unreadable["type"], event_type);
        assert!(unreadable["state_after"].is_null(), "{unreadable}");
        let order = api.get(&format!("/v1/orders/{id}"));
        assert_eq!((order.status, &order.json()["status"]), (200, &"FAILED".into()));
        let refused = Api::send(api.request("POST", &format!("/v1/orders/{id}/redrive")));
        assert_eq!(refused.status, 500, "{refused:?}");
        assert_eq!(read_events(), before);
    }
}
