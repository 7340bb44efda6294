//! What the API costs beside handlers that do as little as can be: orders accepted per second, how
//! long that takes at half load, and orders read by their id. Worker and projector run.
//!
//! `cargo bench -p dofs --bench http`, with `-- SECONDS ROUNDS` for other spans than 5 s in 3 rounds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a program that prints figures and ends at the first failure"
)]

mod bare;
mod load;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bare::Bare;
use load::{Load, Outcome};
use serde_json::Value;
use testkit::process::{Dofs, Start};
use tokio::runtime::Runtime;

const CONNECTIONS: usize = 64;
/// Orders that are read in turn.
const N_READ: usize = 2_000;

fn request(head: &str, body: &str) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("content-type: application/json\r\ncontent-length: {length}\r\n"),
    };
    format!("{head} HTTP/1.1\r\nhost: bench\r\n{length}\r\n{body}").into_bytes()
}

fn order(customer: usize) -> String {
    format!(
        "{{\"customer_id\":\"cust-retail-{customer:03}\",\"items\":[\
         {{\"product_id\":\"prod-widget-001\",\"quantity\":2}},\
         {{\"product_id\":\"prod-gadget-002\",\"quantity\":5}}]}}"
    )
}

fn placing(span: Duration, rate: Option<f64>) -> Load {
    let requests = (0..100).map(|it| request("POST /v1/orders", &order(it))).collect();
    Load { requests, status: 202, connections: CONNECTIONS, span, rate }
}

/// One round's load on one address: as much as it takes, then half of that.
struct Placed {
    full: Outcome,
    half: Outcome,
}

impl Placed {
    fn on(runtime: &Runtime, address: SocketAddr, span: Duration) -> Self {
        let full = runtime.block_on(placing(span, None).on(address));
        let half = runtime.block_on(placing(span, Some(full.per_second / 2.0)).on(address));
        Self { full, half }
    }

    fn tell(&self, what: &str) {
        println!(
            "  {what}: {:.0} accepted/s (p50 {:.1?}, p99 {:.1?}); at half load p50 {:.1?}, p99 {:.1?}; {} refused",
            self.full.per_second,
            self.full.percentile(50),
            self.full.percentile(99),
            self.half.percentile(50),
            self.half.percentile(99),
            self.full.n_refused + self.half.n_refused,
        );
    }
}

/// Everything in one process on the embedded defaults, as a user starts it.
fn start(folder: &Path) -> (Dofs, SocketAddr) {
    let start = Start::dev(env!("CARGO_BIN_EXE_dofs"), folder).env("RUST_LOG", "info");
    let mut process = start.spawn();
    let address = process.http();
    (process, address)
}

/// The ids of so many orders that the read model has, as requests for them.
fn reads(runtime: &Runtime, address: SocketAddr) -> Vec<Vec<u8>> {
    let api = testkit::api::Api::new(address);
    let requests = (0..N_READ).map(|it| request("POST /v1/orders", &order(it % 100))).collect();
    let span = Duration::from_secs(1);
    let load = Load { requests, status: 202, connections: 8, span, rate: Some(2_000.0) };
    let last: Value = serde_json::from_slice(&runtime.block_on(load.on(address)).body).unwrap();
    api.projected(last["order_id"].as_str().unwrap());
    // The whole backlog, so that nothing else runs while orders are read.
    testkit::wait::until("nothing waits", || {
        let stats = api.get("/v1/stats").json();
        (stats["orders"]["PROCESSING"] == 0 && stats["projection"]["lag_events"] == 0).then_some(())
    });
    let mut ids = Vec::new();
    let mut path = "/v1/orders?limit=200".to_owned();
    while ids.len() < N_READ {
        let page = api.get(&path).json();
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|it| it["order_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/orders?limit=200&cursor={cursor}");
    }
    ids.iter().map(|id| request(&format!("GET /v1/orders/{id}"), "")).collect()
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|it| it.parse().ok()).collect();
    let span = Duration::from_secs(numbers.first().copied().unwrap_or(5));
    let rounds = numbers.get(1).copied().unwrap_or(3);
    // One thread: what it costs is the same for whatever is measured.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    for round in 1..=rounds {
        println!("round {round}: {CONNECTIONS} connections, {} s each", span.as_secs());
        let folder = tempfile::tempdir().unwrap();
        let validating = Placed::on(&runtime, Bare::validating().address, span);
        validating.tell("(a) parses and validates");
        let appending = Placed::on(&runtime, Bare::appending(folder.path()).address, span);
        appending.tell("(b) and appends durably");
        let logging = Placed::on(&runtime, Bare::logging().address, span);
        logging.tell("(c) or appends its events through the client");
        let (process, address) = start(&folder.path().join("dofs"));
        let ours = Placed::on(&runtime, address, span);
        ours.tell("dofs");
        drop(process);
        println!(
            "  accepted: {:.2} of (a), {:.2} of (b), {:.2} of (c), which is {:.2} of (b); p99 at half load {:.1} times (b)'s",
            ours.full.per_second / validating.full.per_second,
            ours.full.per_second / appending.full.per_second,
            ours.full.per_second / logging.full.per_second,
            logging.full.per_second / appending.full.per_second,
            ours.half.percentile(99).as_secs_f64() / appending.half.percentile(99).as_secs_f64(),
        );
        let (_process, address) = start(&folder.path().join("read"));
        let requests = reads(&runtime, address).into();
        let load = Load { requests, status: 200, connections: CONNECTIONS, span, rate: None };
        let read = runtime.block_on(load.on(address));
        let constant = runtime.block_on(load.on(Bare::constant(read.body.clone()).address));
        println!(
            "  read by id: {:.0}/s (p99 {:.1?}) of {} bytes; a constant of that size: {:.0}/s (p99 {:.1?}): {:.2}",
            read.per_second,
            read.percentile(99),
            read.body.len(),
            constant.per_second,
            constant.percentile(99),
            read.per_second / constant.per_second,
        );
    }
}
