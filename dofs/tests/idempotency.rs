//! An idempotency key identifies one order, even if the process crashes between append and response.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::api::{Api, valid_order};
use testkit::command;
use testkit::process::{Dofs, Start};
use testkit::proxy::Proxy;
use testkit::system::sqlite_url;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// Number of requests to each of two processes.
const N_REQUESTS: usize = 500;

/// Starts an API process on the event store, and waits until it is ready.
fn start_api(node: SocketAddr, tables: &str) -> (Dofs, SocketAddr, Api) {
    let mut process = Start::new(BINARY, &["serve", "api", "--listen", "127.0.0.1:0"])
        .env("DOFS__EVENT_STORE__URL", format!("esdb://{node}?tls=false"))
        .env("DOFS__READ_MODEL__URL", tables)
        .spawn();
    let address = process.http_address();
    let api = Api::new(address);
    wait::until("the process is ready", || (api.get("/readyz").status == 200).then_some(()));
    (process, address, api)
}

/// Returns the order of the next `OrderReceived` of a feed.
fn read_received_order(feed: &mut impl BufRead) -> String {
    let data = feed.lines().map_while(Result::ok).find_map(|line| {
        let data: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
        Some(data["order_id"].as_str()?.to_owned())
    });
    data.unwrap()
}

/// Returns the bytes of the request.
fn raw_request() -> String {
    let body = valid_order().to_string();
    let length = body.len();
    format!(
        "POST /v1/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: k\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends the request without reading the response.
fn send_request(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    client.write_all(raw_request().as_bytes()).unwrap();
    client
}

/// Raises the limit of open files: many systems allow fewer than one socket per request.
fn raise_open_file_limit() {
    let id = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--nofile=4096:", "--pid", &id]).status();
    assert!(raised.is_ok_and(|status| status.success()), "the limit of open files is 4,096");
}

#[test]
fn lost_append_response_is_replayed_to_a_thousand_retries() {
    raise_open_file_limit();
    let data = tempfile::tempdir().unwrap();
    let tables = sqlite_url(data.path());
    command::run(BINARY, &["migrate"], &[("DOFS__READ_MODEL__URL", &tables)]).success();
    let events = data.path().join("events");
    let folder = events.to_str().unwrap();
    let mut node =
        Start::new(BINARY, &["node", "--listen", "127.0.0.1:0", "--data", folder]).spawn();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start(node.node_address()));
    let (_second, second, other) = start_api(node.node_address(), &tables);
    let feed = other.request("GET", "/v1/events/stream?types=OrderReceived");
    let mut feed = BufReader::new(feed.timeout(Duration::from_mins(1)).send().unwrap());

    // The append reaches the event store, its response is lost, and the process dies.
    let (mut process, address, _) = start_api(proxy.address(), &tables);
    proxy.lose_answers_to("OrderReceived");
    let mut unanswered = send_request(address);
    let id = read_received_order(&mut feed);
    process.kill();
    let mut said = Vec::new();
    assert!(
        unanswered.read_to_end(&mut said).is_err() || said.is_empty(),
        "the request has no response"
    );

    let (_first, first, _) = start_api(node.node_address(), &tables);
    let clients: Vec<_> = (0..2 * N_REQUESTS)
        .map(|number| send_request(if number % 2 == 0 { first } else { second }))
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
        answers.iter().map(|answer| answer.split_once("\r\n\r\n").unwrap().1).collect();
    assert!(bodies.len() == 1 && bodies.first().unwrap().contains(&id), "{id}: {bodies:?}");
    for answer in &answers {
        let is_replay = answer.contains("\r\nidempotent-replayed: true\r\n");
        assert!(answer.starts_with("HTTP/1.1 202 ") && is_replay, "{answer}");
    }
    let types = ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued"];
    assert_eq!(other.event_types(&id), types);
}
