//! The operations listener: metrics, health checks and the log filter.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::api::{Api, valid_order};
use testkit::process::{Dofs, Start};
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// Maximum number of series of one process after a mixed load.
const MAX_SERIES: usize = 1_500;

/// Maximum time until every sampled metric has been sampled.
const SAMPLED_WITHIN: Duration = Duration::from_secs(20);

/// Names of the metrics of a process with all roles and the embedded event store, under a mixed load.
const NAMES: &str = include_str!("metrics/names.txt");

/// Values that each label may have.
const LABEL_VALUES: [(&str, &[&str]); 19] = [
    ("activity", &["read", "written"]),
    ("component", &["event_store", "read_model", "projector", "worker", "process"]),
    ("event_stream_id", &["$all"]),
    ("group", &["fulfillment"]),
    ("group_name", &["fulfillment"]),
    ("http_request_method", &["GET", "POST", "_OTHER"]),
    (
        "kind",
        &[
            "mismatch",
            "read_model",
            "event_store",
            "schema",
            "lease_lost",
            "used",
            "total",
            "failed",
            "unimplemented",
            "deadline-exceeded",
        ],
    ),
    ("invariant", &["I1", "I2", "I3", "I4", "I5", "I6", "I7", "chain", "readable"]),
    ("name", &["writer"]),
    (
        "outcome",
        &[
            "success",
            "conflict",
            "unavailable",
            "refused",
            "failed_fast",
            "business_failure",
            "transient_error",
            "permanent_error",
            "poison",
            "fulfilled",
            "failed",
            "redriven",
            "skipped",
        ],
    ),
    ("pool", &["readers", "writer"]),
    ("projection", &["orders", "customer_orders"]),
    ("read", &["non-flushed"]),
    (
        "reason",
        &[
            "transient_error",
            "probe_failed",
            "postponed",
            "not_recorded",
            "retries_exhausted",
            "permanent",
            "poison",
            "parked_by_store",
            "undecodable",
            "missing_stream",
        ],
    ),
    ("source", &["read_model", "event_store"]),
    ("stage", &["validation", "fulfillment", "dead_letter"]),
    ("state", &["closed", "half_open", "open", "idle", "in_use"]),
    ("status", &["processing", "fulfilled", "failed"]),
    ("version", &[env!("CARGO_PKG_VERSION")]),
];

/// Returns whether a label has one of its known values.
fn is_known(label: &str, value: &str) -> bool {
    match label {
        "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
        "http_response_status_code" => value.parse::<u16>().is_ok(),
        // Templates contain no digits but those of the version.
        "http_route" => {
            value == "unmatched"
                || (value.starts_with('/')
                    && !value.replace("/v1/", "/").contains(char::is_numeric))
        }
        // Of the working copy that built the program, if it is one.
        "commit" => value == "unknown" || value.chars().all(|digit| digit.is_ascii_hexdigit()),
        "disk" => value.starts_with('/'),
        _ => LABEL_VALUES.iter().any(|(name, values)| *name == label && values.contains(&value)),
    }
}

/// Starts a system with a gateway of random outcomes, and returns it with a client of its operations
/// listener.
fn start_system(data: &Path) -> (Dofs, Api, Api) {
    let (mut process, api) = Start::dev(BINARY, data)
        .env("DOFS__OPS__LISTEN", "127.0.0.1:0")
        .env("DOFS__FULFILLMENT__ERROR_RATE", "0.4")
        .env("DOFS__FULFILLMENT__MAX_RETRIES", "1")
        .env("DOFS__FULFILLMENT__BACKOFF_MS", "2")
        .env("DOFS__FULFILLMENT__LATENCY_MS", "1")
        .spawn_api();
    let ops = Api::new(process.ops_address());
    (process, api, ops)
}

fn scrape(ops: &Api) -> String {
    let response = ops.request("GET", "/metrics").send().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().unwrap()
}

/// Returns the families of a scrape: names with their types.
fn parse_types(scrape: &str) -> BTreeMap<String, String> {
    let types = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let pairs = types.filter_map(|line| line.split_once(' '));
    pairs.map(|(name, metric_type)| (name.to_owned(), metric_type.to_owned())).collect()
}

fn series(scrape: &str) -> impl Iterator<Item = &str> {
    scrape.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Returns the labels of a series.
fn parse_labels(series: &str) -> Vec<(&str, &str)> {
    let Some((_, labels)) = series.split_once('{') else { return Vec::new() };
    let labels = labels.rsplit_once('}').unwrap().0;
    labels
        .split("\",")
        .map(|label| label.trim_end_matches('"').split_once("=\"").unwrap())
        .collect()
}

/// Returns the value of the series with this beginning.
fn value_of<'a>(scrape: &'a str, beginning: &str) -> Option<&'a str> {
    let found = series(scrape).find(|series| series.starts_with(beginning))?;
    Some(found.rsplit_once(' ')?.1)
}

/// Returns the value of a series that counts.
fn count_of(scrape: &str, beginning: &str) -> Option<usize> {
    value_of(scrape, beginning)?.parse().ok()
}

/// Asserts that promtool finds nothing wrong with the names, types and help texts.
fn assert_promtool_accepts(scrape: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed, see scripts/test");
    promtool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let found = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && found.is_empty(), "{found}");
}

/// Uses every route of the API at least once, some with errors. Returns the ids of the orders.
fn run_mixed_load(api: &Api) -> Vec<String> {
    let place = |body: &serde_json::Value, key: &str| {
        let request = api.request("POST", "/v1/orders").header("Idempotency-Key", key);
        Api::send(request.json(body)).status
    };
    assert_eq!(place(&valid_order(), "first"), 202);
    assert_eq!(place(&valid_order(), "first"), 202);
    let other = json!({"customer_id": "cust-other-002", "items": valid_order()["items"]});
    assert_eq!(place(&other, "first"), 422);
    let too_many = json!([{"product_id": "prod-widget-001", "quantity": 101}]);
    let invalid = json!({"customer_id": "cust-vip-001", "items": too_many});
    assert_eq!(api.place(&invalid).status, 422);
    let ids: Vec<String> = (0..60).map(|_| api.place_valid_order()).collect();
    let ended: Vec<_> = ids.iter().map(|id| api.wait_until_projected(id)).collect();
    let dead = |order: &&serde_json::Value| order["stage"] == "dead_letter";
    let dead: Vec<_> = ended.iter().filter(dead).map(|order| order["order_id"].clone()).collect();
    assert!(dead.len() > 1, "too few dead letters: {ended:?}");
    let post = |path: &str| {
        let body = json!({"reason": "test"});
        Api::send(api.request("POST", path).json(&body)).status
    };
    assert_eq!(post(&format!("/v1/orders/{}/redrive", dead[0].as_str().unwrap())), 202);
    assert_eq!(post(&format!("/v1/dead-letters/{}/discard", dead[1].as_str().unwrap())), 200);
    for path in ["/v1/orders", "/v1/stats", "/v1/failed-orders", "/livez", "/readyz"] {
        assert_eq!(api.get(path).status, 200, "{path}");
    }
    api.request("GET", "/no/such/path/4711").send().unwrap();
    api.request("PURGE", "/v1/orders").send().unwrap();
    ids
}

#[test]
fn every_metric_is_exported_after_a_mixed_load() {
    let data = tempfile::tempdir().unwrap();
    let (_process, api, ops) = start_system(data.path());
    let ids = run_mixed_load(&api);
    let wanted: BTreeSet<&str> = NAMES.split_whitespace().collect();
    let missing = |text: &str| -> Vec<&str> {
        let types = parse_types(text);
        wanted.iter().copied().filter(|name| !types.contains_key(*name)).collect()
    };
    let started = Instant::now();
    // Some are sampled every few seconds.
    let text = wait::until("every metric is exported", || {
        let text = scrape(&ops);
        (missing(&text).is_empty() || started.elapsed() > SAMPLED_WITHIN).then_some(text)
    });
    assert_eq!(missing(&text), Vec::<&str>::new());
    let unknown: Vec<_> =
        parse_types(&text).into_keys().filter(|name| !wanted.contains(name.as_str())).collect();
    assert_eq!(unknown, Vec::<String>::new(), "names that are not in names.txt");
    let n_series = series(&text).count();
    assert!(n_series < MAX_SERIES, "{n_series} series");
    for id in &ids {
        assert!(!text.contains(id.as_str()), "an order's id is in the metrics");
    }
    assert!(!text.contains("cust-") && !text.contains("4711") && !text.contains("PURGE"));
    for (label, value) in series(&text).flat_map(parse_labels) {
        assert!(is_known(label, value), "unknown value {value} of label {label}");
    }
    assert_promtool_accepts(&text);
    // For scripts/check-observability.
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics.prom"), text).unwrap();
}

#[test]
fn counters_agree_with_the_load() {
    let data = tempfile::tempdir().unwrap();
    let (_process, api, ops) = start_system(data.path());
    let ids = run_mixed_load(&api);
    let n_accepted = ids.len() + 1;
    let text = wait::until("the samples show all orders", || {
        let text = scrape(&ops);
        let in_progress = count_of(&text, "dofs_orders{status=\"processing\"}")?;
        let fulfilled = count_of(&text, "dofs_orders{status=\"fulfilled\"}")?;
        let failed = count_of(&text, "dofs_orders{status=\"failed\"}")?;
        let is_ready = value_of(&text, "dofs_ready{component=\"process\"}") == Some("1");
        (is_ready && in_progress == 0 && fulfilled + failed == n_accepted + 1).then_some(text)
    });
    let count = |beginning: &str| count_of(&text, beginning).unwrap_or(usize::MAX);
    assert_eq!(count("dofs_orders_accepted_total"), n_accepted);
    assert_eq!(count("dofs_idempotent_replays_total"), 1);
    assert_eq!(count("dofs_idempotency_conflicts_total"), 1);
    assert_eq!(count("dofs_discarded_total"), 1);
    assert_eq!(count("dofs_redriven_total{outcome=\"redriven\"}"), 1);
    assert_eq!(count("dofs_orders_completed_total{outcome=\"failed\",stage=\"validation\"}"), 1);
    assert_eq!(count("dofs_order_completion_seconds_count"), n_accepted);
    let ended: usize = [
        "dofs_orders_completed_total{outcome=\"fulfilled\",stage=\"fulfillment\"}",
        "dofs_orders_completed_total{outcome=\"failed\",stage=\"fulfillment\"}",
        "dofs_orders_completed_total{outcome=\"failed\",stage=\"dead_letter\"}",
    ]
    .map(count)
    .iter()
    .sum();
    assert_eq!(ended, n_accepted + 1, "the redriven order ended twice");
    let accepted = "http_server_request_duration_seconds_count{http_request_method=\"POST\",\
        http_route=\"/v1/orders\",http_response_status_code=\"202\"}";
    assert_eq!(count(accepted), n_accepted + 1, "the repeated request is counted");
    assert_eq!(count("dofs_fulfillment_in_flight"), 0);
    assert_eq!(value_of(&text, "dofs_fulfillment_success_rate_configured"), Some("0.7"));
    assert!(count("dofs_projection_events_applied_total{projection=\"orders\"}") > 200);
}

#[test]
fn log_filter_is_replaced_while_the_process_runs() {
    let data = tempfile::tempdir().unwrap();
    let (process, api, ops) = start_system(data.path());
    let put = |filter: &'static str| {
        let response = ops.request("PUT", "/debug/log").body(filter).send().unwrap();
        (response.status().as_u16(), response.text().unwrap())
    };
    let is_logged = |id: &str| {
        let lines = process.log_lines();
        lines.iter().any(|line| line["message"] == "Order accepted" && line["order.id"] == id)
    };
    let logged = api.place_valid_order();
    wait::until("the order is logged", || is_logged(&logged).then_some(()));

    assert_eq!(put("warn").0, 200);
    let silent = api.place_valid_order();
    assert_eq!(put("info").0, 200);
    let last = api.place_valid_order();
    wait::until("the last order is logged", || is_logged(&last).then_some(()));
    assert!(!is_logged(&silent), "the filter was replaced");

    let shown = ops.request("GET", "/debug/log").send().unwrap().text().unwrap();
    assert!(shown.trim_end().ends_with("info"), "{shown}");
    let (status, error) = put("dofs=loud");
    assert_eq!(status, 400);
    assert!(error.contains("invalid log filter `dofs=loud`: expected e.g. `info`"), "{error}");
    let page = ops.request("PUT", "/debug/log").header("Origin", "https://evil.example");
    assert_eq!(page.body("off").send().unwrap().status(), 403, "a web page must not change it");
    let rebound = ops.request("GET", "/metrics").header("Host", "evil.example");
    assert_eq!(rebound.send().unwrap().status(), 421);
}

#[test]
fn empty_address_turns_the_operations_listener_off() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) =
        Start::dev(BINARY, data.path()).env("DOFS__OPS__LISTEN", "").spawn_api();
    api.place_valid_order();
    assert!(process.terminate().success());
    let lines = process.log_lines();
    assert!(lines.iter().any(|line| line["message"] == "Stopped"));
    assert!(!lines.iter().any(|line| line["message"] == "Operations listener started"));
}

#[test]
fn node_exports_metrics_under_the_names_of_eventstoredb() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let start = Start::new(BINARY, &["node", "--listen", "127.0.0.1:0", "--data", folder]);
    let mut node = start.env("DOFS__OPS__LISTEN", "127.0.0.1:0").spawn();
    let ops = Api::new(node.ops_address());
    let text = wait::until("the store is sampled", || {
        let text = scrape(&ops);
        value_of(&text, "eventstore_accepts_appends").is_some().then_some(text)
    });
    assert_eq!(value_of(&text, "eventstore_accepts_appends"), Some("1"));
    assert!(count_of(&text, "eventstore_store_bytes").unwrap() > 0);
    assert!(!text.contains("dofs_orders"), "a node knows nothing of orders");
    for path in ["/livez", "/readyz"] {
        assert_eq!(ops.request("GET", path).send().unwrap().status(), 200, "{path}");
    }
    assert_promtool_accepts(&text);
}

#[test]
fn taken_address_is_a_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = testkit::command::run(
        BINARY,
        &["serve", "--listen", "127.0.0.1:0"],
        &[("DOFS__OPS__LISTEN", &address)],
    );
    let error = format!("cannot listen on `{address}`, the address in setting `ops.listen`");
    output.assert_exit(1, &error);
    let invalid = [("DOFS__OPS__LISTEN", "9610")];
    let output = testkit::command::run(BINARY, &["serve"], &invalid);
    output.assert_exit(2, "invalid address `9610`: expected host and port");
}
