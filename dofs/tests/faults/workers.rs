//! Several workers beside each other, and what one of them leaves behind.

use serde_json::json;
use testkit::api::Api;
use testkit::wait;

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

#[test]
fn pause_returns_once_every_worker_has_confirmed_it() {
    let data = tempfile::tempdir().unwrap();
    let system = Separate::start(data.path(), sqlite(data.path()));
    let mut roles = system.serve(&["api", "projector"]);
    let api = Api::new(roles.http());
    let slow = || system.command(&["serve", "worker"]).env("DOFS__FULFILLMENT__LATENCY_MS", "500");
    let mut workers = [slow().spawn(), slow().spawn()];
    let listed = || api.get("/v1/ops/worker").json()["workers"].as_array().unwrap().clone();
    wait::until("both are connected", || (listed().len() == 2).then_some(()));
    api.accepted();

    let pause = api.request("POST", "/v1/ops/worker/pause").json(&json!({"reason": "test"}));
    let status = Api::send(pause).json();
    assert_eq!((&status["paused"], &status["unconfirmed"]), (&json!(true), &json!([])));
    let paused = status["workers"].as_array().unwrap();
    assert_eq!(paused.len(), 2, "{status}");
    for worker in paused {
        assert_eq!((&worker["paused"], &worker["connected"]), (&json!(true), &json!(false)));
        assert!(worker["last_seen_at"].is_string(), "{worker}");
    }
    assert_eq!(status["queue"]["in_flight"], 0, "confirmed means that nothing is in hand");
    let waiting = api.accepted();
    wait::until("the waiting order is counted with its age", || {
        let status = api.get("/v1/ops/worker").json();
        let age = status["oldest_waiting_seconds"].as_f64();
        (age.is_some() && status["orders_processing"].as_u64() >= Some(1)).then_some(())
    });

    let ids: Vec<&str> = paused.iter().map(|it| it["worker"].as_str().unwrap()).collect();
    let resume = api.request("POST", "/v1/ops/worker/resume").json(&json!({}));
    assert_eq!(Api::send(resume).json()["paused"], false);
    api.ended(&waiting);
    for worker in &mut workers {
        assert!(worker.terminate().success(), "{:#?}", worker.log());
        let named =
            worker.log().iter().any(|line| ids.iter().any(|id| line.to_string().contains(id)));
        assert!(named, "its log lines have its id: {:#?}", worker.log());
    }
}

#[test]
fn worker_that_does_not_confirm_a_pause_is_named() {
    let data = tempfile::tempdir().unwrap();
    let system = Separate::start(data.path(), sqlite(data.path()));
    let mut roles = system.serve(&["api", "projector"]);
    let api = Api::new(roles.http());
    let worker = system.command(&["serve", "worker"]).spawn();
    wait::until("it is connected", || {
        (api.get("/v1/ops/worker").json()["workers"].as_array().unwrap().len() == 1).then_some(())
    });
    worker.signal("STOP");
    let pause = api.request("POST", "/v1/ops/worker/pause").json(&json!({}));
    let status = Api::send(pause).json();
    assert_eq!(status["unconfirmed"].as_array().map(Vec::len), Some(1), "{status}");
    worker.signal("CONT");
    wait::until("it confirms later", || {
        (api.get("/v1/ops/worker").json()["unconfirmed"] == json!([])).then_some(())
    });
}
