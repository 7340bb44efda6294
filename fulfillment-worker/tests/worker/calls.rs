//! What an order costs the event store, in calls.

use domain::order::Status;
use testkit::grpc_proxy::GrpcProxy;
use testkit::store::{Store, connect};

use crate::fixture::{Behaviour, Scripted, config, ended, nothing_in_flight, start_on};

const N_ORDERS: usize = 100;

#[tokio::test]
async fn order_that_is_fulfilled_at_once_costs_no_read_and_no_look_at_the_group() {
    let store = Store::start_embedded().await;
    let proxy = GrpcProxy::start(store.address()).await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start_on(&connect(&proxy.url()).unwrap(), &gateway, config(), 8);
    // What comes before the worker has joined may have been delivered before, and costs a read.
    let first = store.place(1).await;
    let mut ids = vec![first];
    assert_eq!(ended(&store.log, first).await.status, Status::Fulfilled);
    for number in 2..=N_ORDERS {
        ids.push(store.place(number as u128).await);
    }
    for id in ids {
        assert_eq!(ended(&store.log, id).await.status, Status::Fulfilled);
    }
    nothing_in_flight(&store.log).await;
    let n_calls = |method| proxy.n_calls(method);
    let reads = n_calls("Streams/Read");
    // What operators said, what is parked and what is postponed is looked for once a second, whatever is
    // fulfilled.
    assert!(reads < N_ORDERS / 4, "{reads} reads for {N_ORDERS} orders");
    assert_eq!(n_calls("PersistentSubscriptions/GetInfo"), 0);
    assert_eq!(n_calls("PersistentSubscriptions/Read"), 1);
    // One for each order until the open call for all of them is there.
    let appends = n_calls("Streams/Append");
    assert!(appends < N_ORDERS / 4, "{appends} appends by calls of their own");
    assert_eq!(n_calls("Streams/BatchAppend"), 1);
    println!("{N_ORDERS} orders: {reads} reads, {appends} appends by calls of their own");
    worker.stop().await;
    let looks = n_calls("PersistentSubscriptions/GetInfo");
    assert!(looks <= 5, "{looks} looks at the group to leave it");
}
