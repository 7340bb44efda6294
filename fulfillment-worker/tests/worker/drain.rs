//! A worker that stops while others go on.

use domain::ids::OrderId;
use domain::order::Status;
use testkit::store::{Store, connect};

use crate::fixture::{Behaviour, Scripted, config, ended, event_types, start, start_on};

/// How many orders there are: several times what a worker holds.
const N_ORDERS: u128 = 200;

#[tokio::test]
async fn worker_that_stops_under_load_leaves_nothing_half_done_for_the_others() {
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
            gateway.called(ids[0], 1).await;
        }
    }
    stopping.stop().await;
    for id in &ids {
        assert_eq!(ended(&store.log, *id).await.status, Status::Fulfilled);
        // Nobody had to wonder whether a delivery had been begun.
        assert_eq!(event_types(&store.log, *id).await, ["OrderFulfilled"]);
        assert_eq!(gateway.n_calls(*id), 1);
    }
    others.stop().await;
}
