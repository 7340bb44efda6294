//! Processes stop in time, whatever the state of their stores, and not before load balancers have noticed.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::api::{Api, valid_order};
use testkit::process::{Dofs, Start};
use testkit::proxy::Proxy;
use testkit::system::sqlite_url;
use testkit::warehouse::{Behaviour, Warehouse};
use testkit::{postgres, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// Maximum time for an idle process to stop.
const IDLE_LIMIT: Duration = Duration::from_secs(2);
/// Maximum time for a busy process to stop.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// Every role polls its stores within this time.
const POLL_TIME: Duration = Duration::from_millis(1_200);

const ROLES: [&[&str]; 4] =
    [&["api"], &["worker"], &["projector"], &["api", "worker", "projector"]];

/// Starts an event store in its own process.
fn start_node(data: &Path) -> Dofs {
    let data = data.join("events");
    let arguments = ["node", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    Start::new(BINARY, &arguments).spawn()
}

/// The addresses of the stores of a process.
#[derive(Clone)]
struct Stores {
    store: String,
    read_model: String,
}

/// Starts an event store, and creates a SQLite read model.
fn start_stores(data: &Path) -> (Dofs, Stores) {
    let mut node = start_node(data);
    let stores = Stores { store: node.node_url(), read_model: sqlite_url(data) };
    stores.migrate();
    (node, stores)
}

impl Stores {
    fn start(&self, arguments: &[&str]) -> Start {
        Start::new(BINARY, arguments)
            .env("DOFS__EVENT_STORE__URL", &self.store)
            .env("DOFS__READ_MODEL__URL", &self.read_model)
    }

    fn migrate(&self) {
        assert!(self.start(&["migrate"]).spawn().wait_until_ended().success());
    }

    /// Starts one process for each set of roles, and waits until all serve.
    fn serve_each(&self) -> Vec<(&'static [&'static str], Dofs)> {
        let mut processes = ROLES.map(|roles| (roles, self.serve(roles).spawn()));
        for (_, process) in &mut processes {
            process.http_address();
        }
        processes.into()
    }

    /// Prepares a process with authentication, so that the API also reads keys.
    fn serve(&self, roles: &[&str]) -> Start {
        let arguments = [&["serve"], roles, &["--listen", "127.0.0.1:0"]].concat();
        self.start(&arguments).env("DOFS__AUTH__MODE", "api_key")
    }
}

fn wait_for_one_poll() {
    let began = Instant::now();
    wait::until("every role has polled its stores", || {
        (began.elapsed() >= POLL_TIME).then_some(())
    });
}

#[track_caller]
fn assert_stops_within(limit: Duration, what: &str, process: &mut Dofs) {
    let began = Instant::now();
    let status = process.terminate();
    let took = began.elapsed();
    assert!(status.success(), "{what} ends with {status}: {:#?}", process.log_lines());
    assert!(took < limit, "{what} took {took:?} to stop: {:#?}", process.log_lines());
}

#[track_caller]
fn assert_each_stops(state: &str, processes: Vec<(&[&str], Dofs)>) {
    wait_for_one_poll();
    for (roles, mut process) in processes {
        assert_stops_within(IDLE_LIMIT, &format!("{roles:?} while {state}"), &mut process);
    }
}

#[test]
fn idle_roles_stop_in_time_while_all_stores_are_up() {
    let data = tempfile::tempdir().unwrap();
    let (_node, stores) = start_stores(data.path());
    assert_each_stops("all stores are up", stores.serve_each());
}

#[test]
fn idle_roles_stop_in_time_without_any_event_store() {
    let data = tempfile::tempdir().unwrap();
    for store in ["esdb://127.0.0.1:1?tls=false", "esdb://no-such-host.invalid:2113?tls=false"] {
        let stores = Stores { store: store.to_owned(), read_model: sqlite_url(data.path()) };
        stores.migrate();
        assert_each_stops(store, stores.serve_each());
    }
}

#[test]
fn idle_roles_stop_in_time_after_the_event_store_was_killed() {
    let data = tempfile::tempdir().unwrap();
    let (mut node, stores) = start_stores(data.path());
    let processes = stores.serve_each();
    wait_for_one_poll();
    node.kill();
    assert_each_stops("the event store is gone", processes);
}

#[test]
fn idle_roles_stop_in_time_while_the_event_store_is_frozen() {
    let data = tempfile::tempdir().unwrap();
    let (node, stores) = start_stores(data.path());
    let processes = stores.serve_each();
    wait_for_one_poll();
    node.signal("STOP");
    assert_each_stops("the event store is frozen", processes);
}

#[test]
fn idle_roles_stop_in_time_after_the_database_crashed() {
    let data = tempfile::tempdir().unwrap();
    let mut node = start_node(data.path());
    let mut server = postgres::start_private_server();
    let store = node.node_url();
    let stores = Stores { store, read_model: server.url() };
    stores.migrate();
    let processes = stores.serve_each();
    wait_for_one_poll();
    server.stop_immediately();
    assert_each_stops("the database is gone", processes);
}

#[test]
fn idle_roles_stop_in_time_while_the_database_is_stalled() {
    let data = tempfile::tempdir().unwrap();
    let mut node = start_node(data.path());
    let server = postgres::start_private_server();
    let address: SocketAddr = server.url().split(['@', '/']).nth(3).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start(address));
    let store = node.node_url();
    let read_model = server.url().replace(&address.to_string(), &proxy.address().to_string());
    let stores = Stores { store, read_model };
    stores.migrate();
    let processes = stores.serve_each();
    wait_for_one_poll();
    proxy.stall_connections();
    assert_each_stops("the database is silent", processes);
}

#[test]
fn busy_process_stops_within_its_drain_time() {
    let data = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::start();
    warehouse.set_default(Behaviour::Hang);
    let (node, stores) = start_stores(data.path());
    let all = stores.serve(ROLES[3]);
    let (mut process, api) = all
        .env("DOFS__AUTH__MODE", "none")
        .env("DOFS__FULFILLMENT__GATEWAY", "http")
        .env("DOFS__FULFILLMENT__URL", warehouse.url())
        .env("DOFS__FULFILLMENT__TIMEOUT_MS", "15000")
        .spawn_api();
    api.place_valid_order();
    wait::until("the gateway is called", || (!warehouse.calls().is_empty()).then_some(()));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let request = api.request("POST", "/v1/orders").header("Prefer", "wait=30");
            Api::send(request.json(&valid_order()))
        });
        wait::until("both orders are in progress", || (warehouse.calls().len() >= 2).then_some(()));
        node.signal("STOP");
        assert_stops_within(BUSY_LIMIT, "a busy process", &mut process);
        assert_eq!(waiting.join().unwrap().status, 202, "the waiting client gets a response");
    });
}

#[test]
fn stopping_process_serves_during_the_drain_delay() {
    let data = tempfile::tempdir().unwrap();
    let delayed = |delay_ms: &str| {
        Start::dev(BINARY, data.path()).env("DOFS__API__DRAIN_DELAY_MS", delay_ms).spawn()
    };
    let mut process = delayed("60000");
    let api = Api::new(process.http_address());
    api.place_valid_order();
    assert_eq!(api.get("/readyz").status, 200);
    process.signal("TERM");
    let unready = wait::until("the process reports that it is draining", || {
        Some(api.get("/readyz")).filter(|answer| answer.status == 503)
    });
    assert_eq!(unready.json()["status"], "draining");
    assert_eq!(api.get("/livez").status, 200);
    let id = api.place_valid_order();
    api.wait_until_ended(&id);
    assert_stops_within(BUSY_LIMIT, "a second signal", &mut process);

    let mut process = delayed("500");
    let api = Api::new(process.http_address());
    api.wait_until_projected(&id);
    let began = Instant::now();
    assert!(process.terminate().success());
    assert!(began.elapsed() >= Duration::from_millis(500));
}
