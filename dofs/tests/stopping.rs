//! How processes stop: in time, whatever their neighbours do, and not before balancers have noticed.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::api::{Api, order};
use testkit::process::{Dofs, Start};
use testkit::proxy::Proxy;
use testkit::warehouse::{Behaviour, Warehouse};
use testkit::{postgres, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// How long an idle process may take to stop.
const IDLE: Duration = Duration::from_secs(2);
/// How long one with work in hand may take.
const BUSY: Duration = Duration::from_secs(5);
/// Every role looks at its neighbours in this time.
const A_LOOK: Duration = Duration::from_millis(1_200);

const ROLES: [&[&str]; 4] =
    [&["api"], &["worker"], &["projector"], &["api", "worker", "projector"]];

/// An event store as a process of its own.
fn start_node(data: &Path) -> Dofs {
    let data = data.join("events");
    let arguments = ["node", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    Start::new(BINARY, &arguments).spawn()
}

/// Where the neighbours of a process are.
#[derive(Clone)]
struct Neighbours {
    store: String,
    read_model: String,
}

impl Neighbours {
    fn of(node: &mut Dofs, data: &Path) -> Self {
        Self { store: format!("esdb://{}?tls=false", node.node()), read_model: sqlite(data) }
    }

    fn start(&self, arguments: &[&str]) -> Start {
        Start::new(BINARY, arguments)
            .env("DOFS__EVENT_STORE__URL", &self.store)
            .env("DOFS__READ_MODEL__URL", &self.read_model)
    }

    fn migrate(&self) {
        assert!(self.start(&["migrate"]).spawn().ended().success());
    }

    /// One process for each set of roles, all of which serve.
    fn serve_each(&self) -> Vec<(&'static [&'static str], Dofs)> {
        let mut processes = ROLES.map(|roles| (roles, self.serve(roles).spawn()));
        for (_, process) in &mut processes {
            process.http();
        }
        processes.into()
    }

    /// Keys are followed as well, where there is an API.
    fn serve(&self, roles: &[&str]) -> Start {
        let arguments = [&["serve"], roles, &["--listen", "127.0.0.1:0"]].concat();
        self.start(&arguments).env("DOFS__AUTH__MODE", "api_key")
    }
}

fn sqlite(data: &Path) -> String {
    format!("sqlite://{}", data.join("rows.sqlite").display())
}

fn let_everybody_look() {
    let began = Instant::now();
    wait::until("every role has looked", || (began.elapsed() >= A_LOOK).then_some(()));
}

#[track_caller]
fn assert_stops_within(limit: Duration, what: &str, process: &mut Dofs) {
    let began = Instant::now();
    let status = process.terminate();
    let took = began.elapsed();
    assert!(status.success(), "{what} ends with {status}: {:#?}", process.log());
    assert!(took < limit, "{what} took {took:?} to stop: {:#?}", process.log());
}

#[track_caller]
fn assert_each_stops(state: &str, processes: Vec<(&[&str], Dofs)>) {
    let_everybody_look();
    for (roles, mut process) in processes {
        assert_stops_within(IDLE, &format!("{roles:?} while {state}"), &mut process);
    }
}

#[test]
fn idle_roles_stop_in_time_while_their_neighbours_are_well() {
    let data = tempfile::tempdir().unwrap();
    let mut node = start_node(data.path());
    let neighbours = Neighbours::of(&mut node, data.path());
    neighbours.migrate();
    assert_each_stops("all is well", neighbours.serve_each());
}

#[test]
fn idle_roles_stop_in_time_while_the_event_store_was_never_there() {
    let data = tempfile::tempdir().unwrap();
    for store in ["esdb://127.0.0.1:1?tls=false", "esdb://no-such-host.invalid:2113?tls=false"] {
        let neighbours = Neighbours { store: store.to_owned(), read_model: sqlite(data.path()) };
        neighbours.migrate();
        assert_each_stops(store, neighbours.serve_each());
    }
}

#[test]
fn idle_roles_stop_in_time_after_the_event_store_was_killed() {
    let data = tempfile::tempdir().unwrap();
    let mut node = start_node(data.path());
    let neighbours = Neighbours::of(&mut node, data.path());
    neighbours.migrate();
    let processes = neighbours.serve_each();
    let_everybody_look();
    node.kill();
    assert_each_stops("the event store is gone", processes);
}

#[test]
fn idle_roles_stop_in_time_while_the_event_store_is_frozen() {
    let data = tempfile::tempdir().unwrap();
    let mut node = start_node(data.path());
    let neighbours = Neighbours::of(&mut node, data.path());
    neighbours.migrate();
    let processes = neighbours.serve_each();
    let_everybody_look();
    node.signal("STOP");
    assert_each_stops("the event store is frozen", processes);
}

#[test]
fn idle_roles_stop_in_time_while_the_database_is_gone() {
    let data = tempfile::tempdir().unwrap();
    let mut node = start_node(data.path());
    let mut server = postgres::private_server();
    let store = format!("esdb://{}?tls=false", node.node());
    let neighbours = Neighbours { store, read_model: server.url() };
    neighbours.migrate();
    let processes = neighbours.serve_each();
    let_everybody_look();
    server.stop_immediately();
    assert_each_stops("the database is gone", processes);
}

#[test]
fn idle_roles_stop_in_time_while_the_database_does_not_answer() {
    let data = tempfile::tempdir().unwrap();
    let mut node = start_node(data.path());
    let server = postgres::private_server();
    let address: SocketAddr = server.url().split(['@', '/']).nth(3).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start(address));
    let store = format!("esdb://{}?tls=false", node.node());
    let read_model = server.url().replace(&address.to_string(), &proxy.address().to_string());
    let neighbours = Neighbours { store, read_model };
    neighbours.migrate();
    let processes = neighbours.serve_each();
    let_everybody_look();
    proxy.silence();
    assert_each_stops("the database is silent", processes);
}

#[test]
fn work_in_hand_is_given_its_time_and_no_more() {
    let data = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::start();
    warehouse.usually(Behaviour::Hang);
    let mut node = start_node(data.path());
    let neighbours = Neighbours::of(&mut node, data.path());
    neighbours.migrate();
    let all = neighbours.serve(ROLES[3]);
    let mut process = all
        .env("DOFS__AUTH__MODE", "none")
        .env("DOFS__FULFILLMENT__GATEWAY", "http")
        .env("DOFS__FULFILLMENT__URL", warehouse.url())
        .env("DOFS__FULFILLMENT__TIMEOUT_MS", "15000")
        .spawn();
    let api = Api::new(process.http());
    api.accepted();
    wait::until("the gateway is called", || (!warehouse.calls().is_empty()).then_some(()));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let request = api.request("POST", "/v1/orders").header("Prefer", "wait=30");
            Api::send(request.json(&order()))
        });
        wait::until("both orders are in progress", || (warehouse.calls().len() >= 2).then_some(()));
        node.signal("STOP");
        assert_stops_within(BUSY, "a busy process", &mut process);
        assert_eq!(waiting.join().unwrap().status, 202, "it is answered");
    });
}

#[test]
fn process_that_is_told_to_stop_serves_until_its_balancers_have_noticed() {
    let data = tempfile::tempdir().unwrap();
    let delayed = |delay_ms: &str| {
        Start::dev(BINARY, data.path()).env("DOFS__API__DRAIN_DELAY_MS", delay_ms).spawn()
    };
    let mut process = delayed("60000");
    let api = Api::new(process.http());
    api.accepted();
    assert_eq!(api.get("/readyz").status, 200);
    process.signal("TERM");
    let unready = wait::until("it says so", || {
        Some(api.get("/readyz")).filter(|answer| answer.status == 503)
    });
    assert_eq!(unready.json()["status"], "draining");
    assert_eq!(api.get("/livez").status, 200);
    let id = api.accepted();
    api.ended(&id);
    assert_stops_within(BUSY, "a second signal", &mut process);

    let mut process = delayed("500");
    let api = Api::new(process.http());
    api.projected(&id);
    let began = Instant::now();
    assert!(process.terminate().success());
    assert!(began.elapsed() >= Duration::from_millis(500));
}
