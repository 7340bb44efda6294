//! Number of event store calls per order, from the request to the read model, on a strict store.

use testkit::strict_store::StrictStore;
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const N_ORDERS: usize = 200;
/// Number of orders placed concurrently.
const N_CUSTOMERS: usize = 8;

/// Methods and their maximum number of calls per 100 orders.
const LIMITS: [(&str, usize); 5] = [
    // At most one for the placement and one for the outcome, if none is batched, plus retries of
    // timeouts.
    ("Streams/Append", 250),
    ("Streams/BatchAppend", 50),
    ("Streams/Read", 50),
    ("PersistentSubscriptions/Read", 5),
    ("PersistentSubscriptions/GetInfo", 10),
];

#[test]
fn event_store_calls_per_order_stay_below_limits() {
    let store = StrictStore::start();
    let settings = [
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
        ("DOFS__FULFILLMENT__ERROR_RATE", "0.0"),
        ("DOFS__FULFILLMENT__LATENCY_MS", "1"),
    ];
    let system = System::start_on(BINARY, &store.url(), &settings);
    let before = LIMITS.map(|(method, _)| store.proxy().n_calls(method));
    let ids: Vec<String> = std::thread::scope(|scope| {
        let place =
            || (0..N_ORDERS / N_CUSTOMERS).map(|_| system.api.place_valid_order()).collect();
        let customers: Vec<_> = (0..N_CUSTOMERS).map(|_| scope.spawn(place)).collect();
        customers
            .into_iter()
            .flat_map(|customer| -> Vec<String> { customer.join().unwrap() })
            .collect()
    });
    for id in &ids {
        system.api.wait_until_projected(id);
    }
    for ((method, limit), before) in LIMITS.into_iter().zip(before) {
        let n_calls = store.proxy().n_calls(method) - before;
        let per_100 = n_calls * 100 / N_ORDERS;
        println!("{method}: {per_100} calls for 100 orders");
        assert!(per_100 <= limit, "{method}: {n_calls} calls for {N_ORDERS} orders");
    }
}
