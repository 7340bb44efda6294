//! Events of a later release, as a worker of this release meets them.

use domain::ids::OrderId;
use domain::order::{OrderEvent, encode};
use fulfillment_worker::GROUP;
use serde_json::{Value, json};
use testkit::store::{Store, placed};
use testkit::stream_tool::StreamTool;
use uuid::Uuid;

use crate::fixture::{
    Behaviour, Scripted, config, event_types, start, wait_for_end_of, wait_for_group,
};

/// Appends the events of an accepted order as a later release may write them: `change` changes the data of
/// `OrderQueued` and returns the metadata.
async fn place_later(
    store: &Store,
    number: u128,
    change: impl Fn(&mut Value) -> &'static str,
) -> OrderId {
    let (tool, id) = (StreamTool::new(&store.url()), OrderId(Uuid::from_u128(number)));
    for event in placed(id) {
        let encoded = encode(&event).unwrap();
        let mut data: Value = serde_json::from_str(encoded.data.get()).unwrap();
        let is_queued = matches!(event, OrderEvent::Queued(_));
        let metadata = if is_queued { change(&mut data) } else { "{}" };
        let stream = id.stream_name();
        tool.append_raw(&stream, encoded.event_type, &data.to_string(), metadata).await;
    }
    id
}

#[tokio::test]
async fn order_queued_in_a_newer_schema_is_parked_at_once() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let newer = place_later(&store, 1, |_| r#"{"schema_version": 2}"#).await;
    let known = store.place(2).await;
    wait_for_end_of(&store.log, known).await;
    wait_for_group(&store.log, |it| it.parked == 1 && it.in_flight == 0).await;
    assert_eq!(gateway.n_calls(newer), 0);
    let parked = store.log.read_parked(GROUP, None, 10).await.unwrap();
    assert!(parked[0].reason.contains("schema version 2"), "{}", parked[0].reason);
    worker.stop().await;
}

#[tokio::test]
async fn unknown_members_of_a_queued_order_are_ignored() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let id = place_later(&store, 1, |data| {
        data["priority"] = json!({"level": 3});
        data["items"][0]["gift"] = json!(true);
        "{}"
    })
    .await;
    wait_for_end_of(&store.log, id).await;
    assert_eq!(gateway.n_calls(id), 1);
    worker.stop().await;
}

/// The store offers the message again, also to workers of the later release, before it parks it.
#[tokio::test]
async fn order_with_an_event_of_unknown_type_gets_no_outcome_and_is_parked_in_the_end() {
    let store = Store::start().await;
    let unknown = store.place(1).await;
    let tool = StreamTool::new(&store.url());
    tool.append_raw(&unknown.stream_name(), "OrderSplit", "{}", "{}").await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let known = store.place(2).await;
    wait_for_end_of(&store.log, known).await;
    wait_for_group(&store.log, |it| it.parked == 1 && it.in_flight == 0).await;
    assert_eq!(event_types(&store.log, unknown).await, ["OrderSplit"]);
    worker.stop().await;
}
