//! The API compared with minimal servers: orders accepted per second, latency at half load, and orders read
//! by id, while worker and projector run.
//!
//! `cargo bench -p dofs --bench http -- SECONDS ROUNDS`; default: 3 rounds of 5 s.

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
/// Number of different orders to read.
const N_READ: usize = 2_000;

fn build_request(head: &str, body: &str) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("content-type: application/json\r\ncontent-length: {length}\r\n"),
    };
    format!("{head} HTTP/1.1\r\nhost: bench\r\n{length}\r\n{body}").into_bytes()
}

fn order_body(customer: usize) -> String {
    format!(
        "{{\"customer_id\":\"cust-retail-{customer:03}\",\"items\":[\
         {{\"product_id\":\"prod-widget-001\",\"quantity\":2}},\
         {{\"product_id\":\"prod-gadget-002\",\"quantity\":5}}]}}"
    )
}

fn placement_load(span: Duration, rate: Option<f64>) -> Load {
    let requests =
        (0..100).map(|number| build_request("POST /v1/orders", &order_body(number))).collect();
    Load { requests, status: 202, connections: CONNECTIONS, span, rate }
}

/// Measurements of one server: at full load, then at half of that rate.
struct Placed {
    full: Outcome,
    half: Outcome,
}

impl Placed {
    fn measure(runtime: &Runtime, address: SocketAddr, span: Duration) -> Self {
        let full = runtime.block_on(placement_load(span, None).run_against(address));
        let half = runtime
            .block_on(placement_load(span, Some(full.per_second / 2.0)).run_against(address));
        Self { full, half }
    }

    fn print(&self, what: &str) {
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

/// Starts `dofs dev` with its defaults.
fn start_dofs(folder: &Path) -> (Dofs, SocketAddr) {
    let start = Start::dev(env!("CARGO_BIN_EXE_dofs"), folder).env("RUST_LOG", "info");
    let mut process = start.spawn();
    let address = process.http_address();
    (process, address)
}

/// Places orders, and returns requests that read them by id.
fn build_reads(runtime: &Runtime, address: SocketAddr) -> Vec<Vec<u8>> {
    let api = testkit::api::Api::new(address);
    let requests = (0..N_READ)
        .map(|number| build_request("POST /v1/orders", &order_body(number % 100)))
        .collect();
    let span = Duration::from_secs(1);
    let load = Load { requests, status: 202, connections: 8, span, rate: Some(2_000.0) };
    let last: Value =
        serde_json::from_slice(&runtime.block_on(load.run_against(address)).body).unwrap();
    api.wait_until_projected(last["order_id"].as_str().unwrap());
    // Waits for the whole backlog, so that nothing else runs while orders are read.
    testkit::wait::until("nothing waits", || {
        let stats = api.get("/v1/stats").json();
        (stats["orders"]["PROCESSING"] == 0 && stats["projection"]["lag_events"] == 0).then_some(())
    });
    let mut ids = Vec::new();
    let mut path = "/v1/orders?limit=200".to_owned();
    while ids.len() < N_READ {
        let page = api.get(&path).json();
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["order_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/orders?limit=200&cursor={cursor}");
    }
    ids.iter().map(|id| build_request(&format!("GET /v1/orders/{id}"), "")).collect()
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|it| it.parse().ok()).collect();
    let span = Duration::from_secs(numbers.first().copied().unwrap_or(5));
    let rounds = numbers.get(1).copied().unwrap_or(3);
    // One thread, so that the load generator costs the same for every server.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    for round in 1..=rounds {
        println!("round {round}: {CONNECTIONS} connections, {} s each", span.as_secs());
        let folder = tempfile::tempdir().unwrap();
        let validating = Placed::measure(&runtime, Bare::validating().address, span);
        validating.print("(a) parses and validates");
        let appending = Placed::measure(&runtime, Bare::appending(folder.path()).address, span);
        appending.print("(b) and appends durably");
        let logging = Placed::measure(&runtime, Bare::logging().address, span);
        logging.print("(c) or appends its events through the client");
        let (process, address) = start_dofs(&folder.path().join("dofs"));
        let ours = Placed::measure(&runtime, address, span);
        ours.print("dofs");
        drop(process);
        println!(
            "  accepted: {:.2} of (a), {:.2} of (b), {:.2} of (c), which is {:.2} of (b); p99 at half load {:.1} times (b)'s",
            ours.full.per_second / validating.full.per_second,
            ours.full.per_second / appending.full.per_second,
            ours.full.per_second / logging.full.per_second,
            logging.full.per_second / appending.full.per_second,
            ours.half.percentile(99).as_secs_f64() / appending.half.percentile(99).as_secs_f64(),
        );
        let (_process, address) = start_dofs(&folder.path().join("read"));
        let requests = build_reads(&runtime, address).into();
        let load = Load { requests, status: 200, connections: CONNECTIONS, span, rate: None };
        let read = runtime.block_on(load.run_against(address));
        let constant =
            runtime.block_on(load.run_against(Bare::constant(read.body.clone()).address));
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
