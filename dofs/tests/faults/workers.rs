//! Several workers beside each other, and what one of them leaves behind.

use testkit::api::Api;

use crate::fixture::{Customers, Separate, assert_all_ended_once, sqlite};

#[test]
fn one_of_three_workers_stops_under_load_and_nobody_notices() {
    let data = tempfile::tempdir().unwrap();
    let system = Separate::start(data.path(), sqlite(data.path()));
    let mut roles = system.serve(&["api", "projector"]);
    let api = Api::new(roles.http());
    let worker = || {
        let start = system.command(&["serve", "worker"]);
        start.env("DOFS__FULFILLMENT__ERROR_RATE", "0").spawn()
    };
    let _others = [worker(), worker()];
    let mut stopping = worker();
    let customers = Customers::new(4);
    customers.place_during(&api, || {
        customers.wait_for(200);
        assert!(stopping.terminate().success(), "{:#?}", stopping.log());
        customers.wait_for(400);
    });
    let ids = customers.accepted();
    assert_all_ended_once(&api, &ids);
    // A delivery that is made again and begun leaves a record of that.
    let mut n_again = 0;
    for id in &ids {
        n_again +=
            api.event_types(id).iter().filter(|it| *it == "FulfillmentDeliveryStarted").count();
    }
    // What was on its way to the worker when it left, and no more: it handles what it has.
    assert!(n_again <= 5, "{n_again} of {} orders", ids.len());
    let problems =
        stopping.log().into_iter().filter(|it| it["level"] == "WARN" || it["level"] == "ERROR");
    assert_eq!(problems.collect::<Vec<_>>(), Vec::<serde_json::Value>::new());
}
