//! Several concurrent workers: stop and pause.

use serde_json::json;
use testkit::api::Api;
use testkit::wait;

use crate::fixture::{Customers, SeparateProcesses, assert_all_ended_once};

#[test]
fn stopping_one_of_three_workers_affects_no_order() {
    let system = SeparateProcesses::start_over_sqlite();
    let (_roles, api) = system.serve_api(&["api", "projector"]);
    let worker = || {
        let start = system.command(&["serve", "worker"]);
        start.env("DOFS__FULFILLMENT__ERROR_RATE", "0").spawn()
    };
    let _others = [worker(), worker()];
    let mut stopping = worker();
    let customers = Customers::new(4);
    customers.place_during(&api, || {
        customers.wait_for_accepted(200);
        assert!(stopping.terminate().success(), "{:#?}", stopping.log_lines());
        customers.wait_for_accepted(400);
    });
    let ids = customers.into_accepted();
    assert_all_ended_once(&api, &ids);
    // The start of every repeated delivery is recorded.
    let mut n_again = 0;
    for id in &ids {
        n_again += api
            .event_types(id)
            .iter()
            .filter(|event| *event == "FulfillmentDeliveryStarted")
            .count();
    }
    // Only deliveries on their way to the stopping worker are repeated; it finishes those it has.
    assert!(n_again <= 5, "{n_again} of {} orders", ids.len());
    let problems = stopping
        .log_lines()
        .into_iter()
        .filter(|line| line["level"] == "WARN" || line["level"] == "ERROR");
    assert_eq!(problems.collect::<Vec<_>>(), Vec::<serde_json::Value>::new());
}

#[test]
fn pause_returns_once_every_worker_has_confirmed() {
    let system = SeparateProcesses::start_over_sqlite();
    let (_roles, api) = system.serve_api(&["api", "projector"]);
    let slow = || system.command(&["serve", "worker"]).env("DOFS__FULFILLMENT__LATENCY_MS", "500");
    let mut workers = [slow().spawn(), slow().spawn()];
    let listed = || api.get("/v1/ops/worker").json()["workers"].as_array().unwrap().clone();
    wait::until("both are connected", || (listed().len() == 2).then_some(()));
    api.place_valid_order();

    let pause = api.request("POST", "/v1/ops/worker/pause").json(&json!({"reason": "test"}));
    let status = Api::send(pause).json();
    assert_eq!((&status["paused"], &status["unconfirmed"]), (&json!(true), &json!([])));
    let paused = status["workers"].as_array().unwrap();
    assert_eq!(paused.len(), 2, "{status}");
    for worker in paused {
        assert_eq!((&worker["paused"], &worker["connected"]), (&json!(true), &json!(false)));
        assert!(worker["last_seen_at"].is_string(), "{worker}");
    }
    assert_eq!(status["queue"]["in_flight"], 0, "a confirmed pause leaves nothing in flight");
    let waiting = api.place_valid_order();
    wait::until("the waiting order is counted with its age", || {
        let status = api.get("/v1/ops/worker").json();
        let age = status["oldest_waiting_seconds"].as_f64();
        (age.is_some() && status["orders_processing"].as_u64() >= Some(1)).then_some(())
    });

    let ids: Vec<&str> = paused.iter().map(|worker| worker["worker"].as_str().unwrap()).collect();
    let resume = api.request("POST", "/v1/ops/worker/resume").json(&json!({}));
    assert_eq!(Api::send(resume).json()["paused"], false);
    api.wait_until_ended(&waiting);
    for worker in &mut workers {
        assert!(worker.terminate().success(), "{:#?}", worker.log_lines());
        let named = worker
            .log_lines()
            .iter()
            .any(|line| ids.iter().any(|id| line.to_string().contains(id)));
        assert!(named, "its log lines contain its id: {:#?}", worker.log_lines());
    }
}

#[test]
fn worker_without_pause_confirmation_is_named() {
    let system = SeparateProcesses::start_over_sqlite();
    let (_roles, api) = system.serve_api(&["api", "projector"]);
    let worker = system.command(&["serve", "worker"]).spawn();
    wait::until("the worker is connected", || {
        (api.get("/v1/ops/worker").json()["workers"].as_array().unwrap().len() == 1).then_some(())
    });
    worker.signal("STOP");
    let pause = api.request("POST", "/v1/ops/worker/pause").json(&json!({}));
    let status = Api::send(pause).json();
    assert_eq!(status["unconfirmed"].as_array().map(Vec::len), Some(1), "{status}");
    worker.signal("CONT");
    wait::until("the worker confirms", || {
        (api.get("/v1/ops/worker").json()["unconfirmed"] == json!([])).then_some(())
    });
}
