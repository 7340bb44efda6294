//! Number of calls to the event store per order.

use domain::order::Status;
use testkit::grpc_proxy::GrpcProxy;
use testkit::store::{Store, connect};

use crate::fixture::{
    Behaviour, Scripted, config, start_on, wait_for_empty_group, wait_for_end_of,
};

const N_ORDERS: usize = 100;

#[tokio::test]
async fn order_fulfilled_at_once_needs_no_read_and_no_group_info() {
    let store = Store::start_embedded().await;
    let proxy = GrpcProxy::start(store.address()).await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start_on(&connect(&proxy.url()).unwrap(), &gateway, config(), 8);
    // An order placed before the worker has joined may have been delivered before, and needs a read.
    let first = store.place(1).await;
    let mut ids = vec![first];
    assert_eq!(wait_for_end_of(&store.log, first).await.status, Status::Fulfilled);
    for number in 2..=N_ORDERS {
        ids.push(store.place(number as u128).await);
    }
    for id in ids {
        assert_eq!(wait_for_end_of(&store.log, id).await.status, Status::Fulfilled);
    }
    wait_for_empty_group(&store.log).await;
    let n_calls = |method| proxy.n_calls(method);
    let reads = n_calls("Streams/Read");
    // Controls, parked messages and timers are read once a second, independent of the orders.
    assert!(reads < N_ORDERS / 4, "{reads} reads for {N_ORDERS} orders");
    assert_eq!(n_calls("PersistentSubscriptions/GetInfo"), 0);
    assert_eq!(n_calls("PersistentSubscriptions/Read"), 1);
    // One append per order until the batch call is open.
    let appends = n_calls("Streams/Append");
    assert!(appends < N_ORDERS / 4, "{appends} appends by calls of their own");
    assert_eq!(n_calls("Streams/BatchAppend"), 1);
    println!("{N_ORDERS} orders: {reads} reads, {appends} appends by calls of their own");
    worker.stop().await;
    let looks = n_calls("PersistentSubscriptions/GetInfo");
    assert!(looks <= 5, "{looks} looks at the group to leave it");
}
