//! One key is one order, whatever crashes between the append and its answer.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::api::{Api, order};
use testkit::process::{Dofs, Start};
use testkit::proxy::Proxy;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// As many to each of two processes.
const N_REQUESTS: usize = 500;

/// An API process on that event store; it answers once it has spoken with it.
fn api(node: SocketAddr, tables: &str) -> (Dofs, SocketAddr, Api) {
    let mut process = Start::new(BINARY, &["serve", "api", "--listen", "127.0.0.1:0"])
        .env("DOFS__EVENT_STORE__URL", format!("esdb://{node}?tls=false"))
        .env("DOFS__READ_MODEL__URL", tables)
        .spawn();
    let address = process.http();
    let api = Api::new(address);
    wait::until("it is ready", || (api.get("/readyz").status == 200).then_some(()));
    (process, address, api)
}

/// The order of the next `OrderReceived`.
fn received(feed: &mut impl BufRead) -> String {
    let data = feed.lines().map_while(Result::ok).find_map(|it| {
        let data: Value = serde_json::from_str(it.strip_prefix("data: ")?).ok()?;
        Some(data["order_id"].as_str()?.to_owned())
    });
    data.unwrap()
}

/// The request, as it goes over the wire.
fn request() -> String {
    let body = order().to_string();
    let length = body.len();
    format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: k\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// A client whose request is with the process.
fn asking(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    client.write_all(request().as_bytes()).unwrap();
    client
}

/// A socket for each request is more than many systems allow a process.
fn allow_many_files() {
    let id = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--nofile=4096:", "--pid", &id]).status();
    assert!(raised.is_ok_and(|it| it.success()), "this process may open 4,096 files");
}

#[test]
fn append_whose_answer_and_process_are_lost_is_the_order_of_a_thousand_repetitions() {
    allow_many_files();
    let data = tempfile::tempdir().unwrap();
    let tables = format!("sqlite://{}", data.path().join("rows.sqlite").display());
    let migrated =
        Start::new(BINARY, &["migrate"]).env("DOFS__READ_MODEL__URL", &tables).spawn().ended();
    assert!(migrated.success());
    let events = data.path().join("events");
    let folder = events.to_str().unwrap();
    let mut node =
        Start::new(BINARY, &["node", "--listen", "127.0.0.1:0", "--data", folder]).spawn();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start(node.node()));
    let (_second, second, other) = api(node.node(), &tables);
    let feed = other.request("GET", "/v1/events/stream?types=OrderReceived");
    let mut feed = BufReader::new(feed.timeout(Duration::from_mins(1)).send().unwrap());

    // The append gets through and its answer does not; then the process dies.
    let (mut process, address, _) = api(proxy.address(), &tables);
    proxy.lose_answers_to("OrderReceived");
    let mut unanswered = asking(address);
    let id = received(&mut feed);
    process.kill();
    let mut said = Vec::new();
    assert!(unanswered.read_to_end(&mut said).is_err() || said.is_empty(), "it was not answered");

    let (_first, first, _) = api(node.node(), &tables);
    let clients: Vec<_> = (0..2 * N_REQUESTS)
        .map(|number| asking(if number % 2 == 0 { first } else { second }))
        .collect();
    let answers: Vec<String> = clients
        .into_iter()
        .map(|mut client| {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        })
        .collect();
    let bodies: BTreeSet<_> =
        answers.iter().map(|it| it.split_once("\r\n\r\n").unwrap().1).collect();
    assert!(bodies.len() == 1 && bodies.first().unwrap().contains(&id), "{id}: {bodies:?}");
    for answer in &answers {
        let is_replay = answer.contains("\r\nidempotent-replayed: true\r\n");
        assert!(answer.starts_with("HTTP/1.1 202 ") && is_replay, "{answer}");
    }
    let types = ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued"];
    assert_eq!(other.event_types(&id), types);
}
