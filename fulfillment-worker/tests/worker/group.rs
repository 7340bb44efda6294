//! A group that is deleted or updated while workers run: no order is handled twice.

use domain::ids::OrderId;
use domain::order::Status;
use eventstore::{
    Client, DeletePersistentSubscriptionOptions, PersistentSubscriptionToAllOptions,
    StreamPosition, SubscriptionFilter,
};
use fulfillment_worker::{FulfillmentConfig, GROUP};
use testkit::grpc_proxy::{GrpcProxy, Refusal, When};
use testkit::store::{Store, connect};
use testkit::wait;

use crate::fixture::{
    Behaviour, Scripted, config, event_types, start, start_on, wait_for_empty_group,
    wait_for_end_of,
};

const N_ORDERS: usize = 20;
/// Number of the gRPC status `UNAVAILABLE`.
const UNAVAILABLE: u32 = 14;

fn operator(store: &Store) -> Client {
    Client::new(store.url().parse().unwrap()).unwrap()
}

async fn delete_group(store: &Store) {
    let options = DeletePersistentSubscriptionOptions::default();
    operator(store).delete_persistent_subscription_to_all(GROUP, &options).await.unwrap();
}

/// Changes a setting as a tool does: the group begins again at its checkpoint.
async fn update_group(store: &Store) {
    let options = PersistentSubscriptionToAllOptions::default()
        .filter(SubscriptionFilter::on_event_type().regex("^OrderQueued$"))
        .start_from(StreamPosition::Start)
        .max_retry_count(50);
    operator(store).update_persistent_subscription_to_all(GROUP, &options).await.unwrap();
}

/// Waits until the group has `n_members` with at least `n_delivered` deliveries since they joined.
async fn wait_for_members(store: &Store, n_members: usize, n_delivered: usize) {
    wait::until_async("the workers have joined again", async || {
        let members = store.log.store().group_info(GROUP).await.unwrap().members;
        let given: usize = members.iter().map(|member| member.n_delivered).sum();
        (members.len() == n_members && given >= n_delivered).then_some(())
    })
    .await;
}

async fn place_and_fulfil(store: &Store, first: u128) -> Vec<OrderId> {
    let mut ids = Vec::new();
    for number in first..first + N_ORDERS as u128 {
        ids.push(store.place(number).await);
    }
    for id in &ids {
        assert_eq!(wait_for_end_of(&store.log, *id).await.status, Status::Fulfilled);
    }
    wait_for_empty_group(&store.log).await;
    ids
}

#[tokio::test]
async fn recreated_group_sends_no_order_to_the_gateway_again() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    // All orders are seconds old by every clock.
    let worker = start(&store, &gateway, config());
    let mut ids = place_and_fulfil(&store, 1).await;
    delete_group(&store).await;
    wait_for_members(&store, 1, N_ORDERS).await;
    ids.extend(place_and_fulfil(&store, 100).await);
    update_group(&store).await;
    wait_for_members(&store, 1, 0).await;
    ids.extend(place_and_fulfil(&store, 200).await);
    for id in ids {
        assert_eq!(gateway.n_calls(id), 1);
        assert_eq!(event_types(&store.log, id).await, ["OrderFulfilled"]);
    }
    worker.stop().await;
}

#[tokio::test]
async fn order_in_progress_is_not_sent_by_another_worker_of_a_recreated_group() {
    let store = Store::start().await;
    let proxy = GrpcProxy::start(store.address()).await;
    let gateway = Scripted::new(Behaviour::Hold);
    let config = || FulfillmentConfig { timeout_ms: 3_000, ..config() };
    let one = start_on(&connect(&proxy.url()).unwrap(), &gateway, config(), 8);
    let mut ids = Vec::new();
    for number in 1..=4 {
        ids.push(store.place(number).await);
    }
    for id in &ids {
        gateway.wait_for_calls(*id, 1).await;
    }
    let other = start(&store, &gateway, config());
    wait_for_members(&store, 2, ids.len()).await;
    // The first worker cannot join again, so the new group delivers all events to the second.
    let refusal = Refusal::new(UNAVAILABLE, "not now");
    proxy.refuse_next("PersistentSubscriptions/Read", usize::MAX, When::Before, refusal);
    delete_group(&store).await;
    wait_for_members(&store, 1, ids.len()).await;
    gateway.release();
    for id in &ids {
        assert_eq!(wait_for_end_of(&store.log, *id).await.status, Status::Fulfilled);
    }
    wait_for_empty_group(&store.log).await;
    for id in ids {
        assert_eq!(gateway.n_calls(id), 1);
    }
    one.stop().await;
    other.stop().await;
}
