//! The order system on an event store shared with other programs: the store at
//! `DOFS_TEST_EVENTSTORE_URL`, e.g. `esdb://localhost:2113?tls=false`, by default a strict store.
//!
//! The tests run one after the other, because every system consumes the same group, and check only
//! their own orders.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::api::{Api, valid_order};
use testkit::command;
use testkit::process::{Dofs, Start};
use testkit::strict_store::StrictStore;
use testkit::system::sqlite_url;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

/// Serializes the tests.
static TURN: Mutex<()> = Mutex::new(());

/// Settings with short retries, under which every order is fulfilled.
const WORKING: [(&str, &str); 4] = [
    ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0"),
    ("DOFS__FULFILLMENT__LATENCY_MS", "2"),
    ("DOFS__FULFILLMENT__BACKOFF_MS", "2"),
    ("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "5"),
];
/// Setting under which every gateway call fails.
const FAILING: (&str, &str) = ("DOFS__FULFILLMENT__ERROR_RATE", "1.0");

/// An event store, and a data folder for systems on it.
struct Site {
    url: String,
    data: tempfile::TempDir,
    _store: Option<StrictStore>,
    _turn: MutexGuard<'static, ()>,
}

impl Site {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::disallowed_methods, reason = "a setting of the test, not of the product")]
        let given = std::env::var("DOFS_TEST_EVENTSTORE_URL").ok();
        let store = given.is_none().then(StrictStore::start);
        let url = given.or_else(|| store.as_ref().map(StrictStore::url)).unwrap();
        let site = Self { url, data: tempfile::tempdir().unwrap(), _store: store, _turn: turn };
        site.run_command(&["migrate"]);
        site
    }

    fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("DOFS__EVENT_STORE__URL", self.url.clone()),
            ("DOFS__READ_MODEL__URL", sqlite_url(self.data.path())),
        ]
    }

    /// Starts all roles in one process.
    fn serve(&self, settings: &[(&str, &str)]) -> (Dofs, Api) {
        let start = Start::new(BINARY, &["serve", "--listen", "127.0.0.1:0"]);
        let start =
            self.environment().iter().fold(start, |start, (name, value)| start.env(name, value));
        start.envs(settings).spawn_api()
    }

    /// Runs a command that must succeed, and returns its standard output.
    fn run_command(&self, arguments: &[&str]) -> String {
        let environment = self.environment();
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        command::run(BINARY, arguments, &environment).success()
    }
}

#[test]
fn placed_order_is_fulfilled_projected_and_audited() {
    let site = Site::new();
    let (_process, api) = site.serve(&WORKING);
    let id = api.place_valid_order();
    assert_eq!(api.wait_until_projected(&id)["status"], "FULFILLED");
    let expected =
        ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued", "OrderFulfilled"];
    assert_eq!(api.event_types(&id), expected);
    let shown = site.run_command(&["audit", "show", &id, "--url", &api.url()]);
    assert!(shown.contains("OrderFulfilled"), "{shown}");
}

#[test]
fn repeated_idempotency_key_replays_and_rejects_another_body() {
    let site = Site::new();
    let (_process, api) = site.serve(&WORKING);
    let key = format!("\"{}\"", testkit::store::clock().new_id());
    let post = |body: &Value| {
        let request = api.request("POST", "/v1/orders").header("Idempotency-Key", &key);
        Api::send(request.json(body))
    };
    let first = post(&valid_order());
    // Enough repetitions for every kind of append to hit every kind of fault.
    for _ in 0..20 {
        let again = post(&valid_order());
        assert_eq!((again.status, again.json()), (202, first.json()));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    let other = json!({"customer_id": "cust-other", "items": valid_order()["items"]});
    assert_eq!(post(&other).status, 422);
}

#[test]
fn redriven_dead_letters_are_fulfilled_and_unparked() {
    let site = Site::new();
    let ids: Vec<String> = {
        let settings = [WORKING.as_slice(), &[FAILING]].concat();
        let (mut process, api) = site.serve(&settings);
        let ids: Vec<String> = (0..5).map(|_| api.place_valid_order()).collect();
        for id in &ids {
            assert_eq!(api.wait_until_projected(id)["stage"], "dead_letter", "{id}");
        }
        wait::until("the messages are parked", || {
            let stats = api.get("/v1/stats").json();
            (stats["queue"]["parked"].as_u64()? >= 5).then_some(())
        });
        assert!(process.terminate().success());
        ids
    };
    let (_process, api) = site.serve(&WORKING);
    for id in &ids {
        let request = api.request("POST", &format!("/v1/orders/{id}/redrive"));
        let redriven = Api::send(request.json(&json!({"reason": "the gateway is back"})));
        assert_eq!(redriven.status, 202, "{redriven:?}");
        wait::until("the second attempt is fulfilled", || {
            let order = api.get(&format!("/v1/orders/{id}")).json();
            (order["attempt"] == 2 && order["status"] == "FULFILLED").then_some(())
        });
    }
    wait::until("the parked messages are removed", || {
        let stats = api.get("/v1/stats").json();
        (stats["queue"]["parked"] == 0).then_some(())
    });
}

#[test]
fn orders_in_flight_survive_a_kill_and_end_once() {
    let site = Site::new();
    let slow = [WORKING.as_slice(), &[("DOFS__FULFILLMENT__LATENCY_MS", "200")]].concat();
    let (mut process, api) = site.serve(&slow);
    let ids: Vec<String> = (0..40).map(|_| api.place_valid_order()).collect();
    process.kill();
    let (_process, api) = site.serve(&WORKING);
    for id in &ids {
        assert_eq!(api.wait_until_projected(id)["status"], "FULFILLED", "{id}");
        let types = api.event_types(id);
        let n_ends = types.iter().filter(|name| *name == "OrderFulfilled").count();
        assert_eq!(n_ends, 1, "{id}: {types:?}");
    }
}

#[test]
fn read_model_is_verified_rebuilt_and_rolled_back() {
    let site = Site::new();
    let (_process, api) = site.serve(&WORKING);
    let id = api.place_valid_order();
    api.wait_until_projected(&id);
    // Events of other streams move the checkpoint of the live tables beyond the last order.
    for number in 0..70 {
        let name = format!("quiet-{number}");
        let create = ["keys", "create", "--all-tenants", "--scope", "orders:read", "--name", &name];
        site.run_command(&create);
    }
    site.run_command(&["projections", "verify"]);
    site.run_command(&["projections", "rebuild", "--yes"]);
    assert_eq!(api.wait_until_projected(&id)["status"], "FULFILLED");
    site.run_command(&["projections", "rollback", "--yes"]);
    assert_eq!(api.wait_until_projected(&id)["status"], "FULFILLED");
    site.run_command(&["projections", "verify"]);
}

#[test]
fn idle_worker_keeps_its_subscription() {
    let site = Site::new();
    // A watchdog that counts the live buffer as waiting work reconnects within two of its intervals.
    let (process, api) = site.serve(&WORKING);
    let ids: Vec<String> = (0..20).map(|_| api.place_valid_order()).collect();
    for id in &ids {
        api.wait_until_projected(id);
    }
    let idle_since = Instant::now();
    wait::until_within(Duration::from_mins(1), "25 idle seconds", || {
        (idle_since.elapsed().as_secs() >= 25).then_some(())
    });
    let stats = api.get("/v1/stats").json();
    assert_eq!(stats["fulfillment"]["watchdog_reconnects"], 0, "{stats}");
    assert_eq!(stats["queue"]["waiting"], 0, "{stats}");
    let warned: Vec<_> =
        process.log_lines().into_iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warned, Vec::<Value>::new());
}
