//! A worker that stops while others continue.

use domain::ids::OrderId;
use domain::order::Status;
use testkit::store::{Store, connect};

use crate::fixture::{Behaviour, Scripted, config, event_types, start, start_on, wait_for_end_of};

/// Number of orders: several times the number of deliveries that a worker holds.
const N_ORDERS: u128 = 200;

#[tokio::test]
async fn worker_that_stops_under_load_leaves_no_unfinished_delivery() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let others = start_on(&connect(&store.url()).unwrap(), &gateway, config(), 8);
    let mut ids: Vec<OrderId> = Vec::new();
    for number in 1..=N_ORDERS / 2 {
        ids.push(store.place(number).await);
    }
    let stopping = start(&store, &gateway, config());
    for number in N_ORDERS / 2 + 1..=N_ORDERS {
        ids.push(store.place(number).await);
        if number == N_ORDERS * 3 / 4 {
            gateway.wait_for_calls(ids[0], 1).await;
        }
    }
    stopping.stop().await;
    for id in &ids {
        assert_eq!(wait_for_end_of(&store.log, *id).await.status, Status::Fulfilled);
        // No second delivery was recorded: no worker had to suspect a delivery that had begun.
        assert_eq!(event_types(&store.log, *id).await, ["OrderFulfilled"]);
        assert_eq!(gateway.n_calls(*id), 1);
    }
    others.stop().await;
}
