//! Workers and event store killed at random under load, with a warehouse that counts effects.

use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::api::{Api, valid_order};
use testkit::process::{Dofs, Start};
use testkit::warehouse::{Behaviour, Warehouse};
use testkit::{variation, wait};

use crate::fixture::{BINARY, SeparateProcesses, start_node};

/// Duration of the kills in seconds; `DOFS_TEST_CHAOS_SECONDS` overrides it.
const SECONDS: u64 = 15;
/// Seed of the random times of the kills; `DOFS_TEST_SEED` overrides it.
const SEED: u64 = 4;

/// Places orders until the deadline. Each has its own idempotency key and is retried until accepted.
fn place_until(api: &Api, customer: usize, deadline: Instant) -> Vec<String> {
    let mut accepted = Vec::new();
    while Instant::now() < deadline {
        let key = format!("chaos-{customer}-{}", accepted.len());
        let id = wait::until("an order is accepted", || {
            let request = api.request("POST", "/v1/orders").header("Idempotency-Key", &key);
            let answer = Api::try_send(request.json(&valid_order())).ok()?;
            (answer.status == 202).then(|| answer.json()["order_id"].as_str().unwrap().to_owned())
        });
        accepted.push(id);
    }
    accepted
}

#[test]
fn random_kills_lose_no_order_and_duplicate_no_effect() {
    let warehouse = Warehouse::start();
    warehouse.set_default(Behaviour::Slow(Duration::from_millis(5)));
    let mut system = SeparateProcesses::start_over_sqlite();
    let address = system.node.node_address().to_string();
    let (_roles, api) = system.serve_api(&["api", "projector"]);
    let command = |system: &SeparateProcesses| {
        system
            .command(&["serve", "worker"])
            .env("DOFS__FULFILLMENT__GATEWAY", "http")
            .env("DOFS__FULFILLMENT__URL", warehouse.url())
            .env("DOFS__FULFILLMENT__MESSAGE_TIMEOUT_MS", "6000")
            .env("DOFS__FULFILLMENT__TIMEOUT_MS", "2000")
            .env("DOFS__FULFILLMENT__MAX_RETRIES", "10")
    };
    let spawn = |system: &SeparateProcesses| -> Dofs { Start::spawn(command(system)) };
    let mut workers = [spawn(&system), spawn(&system)];
    let mut random = StdRng::seed_from_u64(variation::seed(SEED));
    let deadline =
        Instant::now() + Duration::from_secs(variation::number("DOFS_TEST_CHAOS_SECONDS", SECONDS));
    let mut n_kills = 0;
    let ids: Vec<String> = std::thread::scope(|scope| {
        let customers: Vec<_> = (0..4)
            .map(|customer| {
                let api = api.clone();
                scope.spawn(move || place_until(&api, customer, deadline))
            })
            .collect();
        while Instant::now() < deadline {
            // The pace of the kills. Nothing is expected to happen within it.
            let pause = Duration::from_millis(random.random_range(200..1_500));
            std::thread::sleep(pause);
            match random.random_range(0..3_usize) {
                2 => {
                    system.node.kill();
                    system.node = start_node(system.data.path(), &address);
                    system.node.node_address();
                }
                victim => {
                    workers[victim].kill();
                    // It may have been in the middle of an answer.
                    warehouse
                        .set_for_next_calls(random.random_range(0..3), &Behaviour::WorkAndDrop);
                    workers[victim] = spawn(&system);
                }
            }
            n_kills += 1;
        }
        customers.into_iter().flat_map(|customer| customer.join().unwrap()).collect()
    });
    println!("{n_kills} kills, {} orders", ids.len());
    assert!(n_kills > 3 && ids.len() > 20);
    for id in &ids {
        let order = api.wait_until_projected(id);
        assert_eq!(order["status"], "FULFILLED", "{order}");
    }
    assert!(warehouse.keys_with_more_than_one_effect().is_empty());
    assert!(warehouse.orders_with_more_than_one_effect().is_empty());
    assert_eq!(warehouse.fulfilled_orders().len(), ids.len());
    let verify = Command::new(BINARY)
        .args(["audit", "verify"])
        .env("DOFS__EVENT_STORE__URL", &system.store)
        .output()
        .unwrap();
    assert!(verify.status.success(), "{verify:?}");
}
