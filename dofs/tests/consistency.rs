//! Consistency guarantees for clients that retry, compete, wait, or listen to the event feed.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use reqwest::blocking::Response;
use serde_json::{Value, json};
use testkit::api::{Answer, Api, valid_order};
use testkit::command;
use testkit::process::{Dofs, Start};
use testkit::system::{System, sqlite_url};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const FULFILLED: (&str, &str) = ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0");
/// Settings under which an order does not end during a test.
const NEVER_ENDING: [(&str, &str); 3] = [
    ("DOFS__FULFILLMENT__LATENCY_MS", "60000"),
    ("DOFS__FULFILLMENT__TIMEOUT_MS", "90000"),
    ("DOFS__FULFILLMENT__MESSAGE_TIMEOUT_MS", "300000"),
];

fn send_with_headers(api: &Api, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers
        .iter()
        .fold(api.request(method, path), |request, (name, value)| request.header(*name, *value));
    let request = if method == "POST" { request.json(&valid_order()) } else { request };
    Api::send(request)
}

fn get_order(api: &Api, id: &str, headers: &[(&str, &str)]) -> Answer {
    send_with_headers(api, "GET", &format!("/v1/orders/{id}"), headers)
}

const N_CLIENTS: usize = 50;

/// Starts an API process without worker and projector, on existing stores.
fn start_second_api(node: &str, read_model: &str) -> (Dofs, Api) {
    let (process, api) = Start::new(BINARY, &["serve", "api", "--listen", "127.0.0.1:0"])
        .env("DOFS__EVENT_STORE__URL", node)
        .env("DOFS__READ_MODEL__URL", read_model)
        .spawn_api();
    (process, api)
}

#[test]
fn prefer_wait_responds_with_the_finished_order() {
    let system = System::start(BINARY, &[FULFILLED]);
    let prefer = [("prefer", "respond-async, wait=20"), ("idempotency-key", "k")];
    let answer = send_with_headers(&system.api, "POST", "/v1/orders", &prefer);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("FULFILLED")), "{answer:?}");
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    assert_eq!(answer.header("etag"), Some("\"4\""));
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/orders/{id}").as_str()));
    // A repetition gets the same response, with and without waiting.
    let again = send_with_headers(&system.api, "POST", "/v1/orders", &prefer);
    assert_eq!((again.status, &again.text), (answer.status, &answer.text));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let accepted =
        send_with_headers(&system.api, "POST", "/v1/orders", &[("idempotency-key", "k")]);
    assert_eq!((accepted.status, &accepted.json()["status"]), (202, &json!("processing")));

    let id = system.api.place_valid_order();
    let ended = get_order(&system.api, &id, &[("prefer", "wait=20")]);
    assert_eq!((ended.status, &ended.json()["status"]), (200, &json!("FULFILLED")), "{ended:?}");
    assert_eq!(ended.header("preference-applied"), Some("wait=20"));
}

#[test]
fn expired_wait_responds_with_stale_state() {
    let system = System::start(BINARY, &NEVER_ENDING);
    let begun = Instant::now();
    let answer = send_with_headers(&system.api, "POST", "/v1/orders", &[("prefer", "wait=1")]);
    assert_eq!((answer.status, answer.header("preference-applied")), (202, None), "{answer:?}");
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();

    let stale = get_order(&system.api, &id, &[("prefer", "wait=1")]);
    assert_eq!((stale.status, stale.header("stale")), (200, Some("true")), "{stale:?}");
    assert_eq!(
        (&stale.json()["stale"], &stale.json()["status"]),
        (&json!(true), &json!("PROCESSING"))
    );
    let stale = get_order(&system.api, &id, &[("wait-for-revision", "9"), ("prefer", "wait=1")]);
    assert_eq!((stale.status, stale.header("stale")), (200, Some("true")), "{stale:?}");
    let unchanged =
        get_order(&system.api, &id, &[("if-none-match", "\"3\""), ("prefer", "wait=1")]);
    assert_eq!((unchanged.status, unchanged.text.as_str()), (304, ""), "{unchanged:?}");
    assert_eq!(
        (unchanged.header("etag"), unchanged.header("stale")),
        (Some("\"3\""), Some("true"))
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(get_order(&system.api, &id, &[]).header("stale").is_none());
}

#[test]
fn waiting_for_a_revision_reads_the_stream_if_projection_lags() {
    let system = System::start(BINARY, &[FULFILLED]);
    let id = system.api.place_valid_order();
    system.api.wait_until_projected(&id);
    let node = system.event_store().to_owned();
    // A read model without a projector lags behind for ever.
    let data = tempfile::tempdir().unwrap();
    let tables = sqlite_url(data.path());
    command::run(BINARY, &["migrate"], &[("DOFS__READ_MODEL__URL", &tables)]).success();
    let (_process, behind) = start_second_api(&node, &tables);

    let shown = get_order(&behind, &id, &[("wait-for-revision", "4")]);
    assert_eq!((shown.status, &shown.json()["revision"]), (200, &json!(4)), "{shown:?}");
    assert_eq!((&shown.json()["source"], shown.header("stale")), (&json!("stream"), None));
    let answer = send_with_headers(&behind, "POST", "/order", &[("prefer", "wait=20")]);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("FULFILLED")), "{answer:?}");
}

#[test]
fn returned_etag_matches_the_next_read() {
    let system = System::start(BINARY, &[FULFILLED]);
    // The log is ahead of the read model in about half of the repetitions.
    for _ in 0..20 {
        let placed = send_with_headers(&system.api, "POST", "/v1/orders", &[("prefer", "wait=20")]);
        let id = placed.json()["order_id"].as_str().unwrap().to_owned();
        let tag = placed.header("etag").unwrap();
        let (met, known) = (("if-match", tag), ("if-none-match", tag));
        assert_eq!(get_order(&system.api, &id, &[met]).status, 200, "{tag}");
        assert_eq!(get_order(&system.api, &id, &[known]).status, 304, "{tag}");
    }
}

#[test]
fn conditional_headers_are_evaluated_and_malformed_ones_rejected() {
    let system = System::start(BINARY, &[FULFILLED]);
    let id = system.api.place_valid_order();
    system.api.wait_until_projected(&id);
    let status = |name: &str, value: &str| get_order(&system.api, &id, &[(name, value)]).status;
    assert_eq!(status("if-none-match", "\"4\""), 304);
    assert_eq!(status("if-none-match", "\"3\", W/\"4\""), 304);
    assert_eq!(status("if-none-match", "*"), 304);
    assert_eq!(status("if-none-match", "\"3\""), 200);
    assert_eq!(status("if-match", "\"4\""), 200);
    assert_eq!(status("if-match", "\"3\""), 412);
    for (name, value) in [("if-none-match", "4"), ("if-match", "\"4"), ("wait-for-revision", "x")] {
        assert_eq!(status(name, value), 400, "{name}: {value}");
    }
}

#[test]
fn concurrent_requests_with_one_key_place_one_order() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Start::dev(BINARY, data.path()).spawn();
    let (node, api) = (first.node_url(), Api::new(first.http_address()));
    let tables = sqlite_url(data.path());
    let (_second, other) = start_second_api(&node, &tables);
    let keyed = |api: &Api| {
        Api::try_send(
            api.request("POST", "/v1/orders").header("idempotency-key", "k").json(&valid_order()),
        )
    };

    let together = Barrier::new(N_CLIENTS);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..N_CLIENTS)
            .map(|number| {
                let (api, together, keyed) =
                    (if number % 2 == 0 { &api } else { &other }, &together, &keyed);
                scope.spawn(move || {
                    together.wait();
                    (0..20).map(|_| keyed(api).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), 1_000);
    let distinct: BTreeSet<_> =
        answers.iter().map(|answer| (answer.status, &answer.text)).collect();
    assert_eq!(distinct.len(), 1, "{distinct:?}");
    assert_eq!(answers[0].status, 202);
    let replays =
        answers.iter().filter(|answer| answer.header("idempotent-replayed") == Some("true"));
    assert_eq!(replays.count(), 999);
    let id = answers[0].json()["order_id"].as_str().unwrap().to_owned();
    api.wait_until_ended(&id);
    let n_placed = api.event_types(&id).iter().filter(|event| *event == "OrderReceived").count();
    assert_eq!(n_placed, 1);
}

#[test]
fn retry_after_a_killed_process_places_exactly_one_order() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Start::dev(BINARY, data.path()).spawn();
    let (node, api) = (first.node_url(), Api::new(first.http_address()));
    let tables = sqlite_url(data.path());
    let (mut second, other) = start_second_api(&node, &tables);
    let request = |key: &str| {
        other.request("POST", "/v1/orders").header("idempotency-key", key).json(&valid_order())
    };
    let keys: Vec<String> = (0..40).map(|number| format!("crash-{number}")).collect();
    let begun = Barrier::new(keys.len() + 1);
    let before: Vec<Option<Answer>> = std::thread::scope(|scope| {
        let clients: Vec<_> = keys
            .iter()
            .map(|key| {
                let (begun, request) = (&begun, &request);
                scope.spawn(move || {
                    begun.wait();
                    Api::try_send(request(key)).ok()
                })
            })
            .collect();
        begun.wait();
        second.kill();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for (key, before) in keys.iter().zip(before) {
        let after = Api::send(
            api.request("POST", "/v1/orders").header("idempotency-key", key).json(&valid_order()),
        );
        assert_eq!(after.status, 202, "{after:?}");
        if let Some(before) = before {
            assert_eq!(before.text, after.text);
        }
        let id = after.json()["order_id"].as_str().unwrap().to_owned();
        let events = api.event_types(&id);
        let n_queued = events.iter().filter(|event| *event == "OrderQueued").count();
        assert_eq!(n_queued, 1, "{events:?}");
    }
}

#[test]
fn pages_contain_each_order_once_during_new_placements() {
    let system = System::start(BINARY, &[FULFILLED]);
    let before: BTreeSet<String> = (0..30).map(|_| system.api.place_valid_order()).collect();
    for id in &before {
        system.api.wait_until_projected(id);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/orders?limit=7".to_owned();
    loop {
        let page = system.api.get(&path).json();
        let items = page["items"].as_array().unwrap().iter();
        seen.extend(items.map(|order| order["order_id"].as_str().unwrap().to_owned()));
        // Newer orders sort before the remaining pages.
        let newest = system.api.place_valid_order();
        system.api.wait_until_projected(&newest);
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/orders?limit=7&cursor={next}");
    }
    let distinct: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!((seen.len(), &distinct), (before.len(), &before));
}

/// A client of the event feed.
struct FeedClient {
    lines: std::io::Lines<BufReader<Response>>,
}

#[derive(Debug)]
struct FeedMessage {
    id: String,
    event: String,
    data: Value,
}

impl FeedClient {
    fn new(api: &Api, query: &str, last_event_id: Option<&str>) -> Self {
        let request = api.request("GET", &format!("/v1/events/stream{query}"));
        let request = request.timeout(Duration::from_mins(1));
        let request = match last_event_id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { lines: BufReader::new(response).lines() }
    }

    fn read_message(&mut self) -> FeedMessage {
        let mut heard = FeedMessage { id: String::new(), event: String::new(), data: Value::Null };
        for line in &mut self.lines {
            let line = line.unwrap();
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut heard.id),
                Some(("event", event)) => event.clone_into(&mut heard.event),
                Some(("data", data)) => heard.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !heard.event.is_empty() => return heard,
                _ => {}
            }
        }
        panic!("the feed ended");
    }
}

#[test]
fn feed_sends_every_event_once_and_resumes_after_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, api) =
        Start::dev(BINARY, data.path()).env(FULFILLED.0, FULFILLED.1).spawn_api();
    let mut listener = FeedClient::new(&api, "", None);
    let id = api.place_valid_order();
    let types = ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued", "OrderFulfilled"];
    let heard: Vec<_> = types.iter().map(|_| listener.read_message()).collect();
    assert_eq!(heard.iter().map(|message| message.event.as_str()).collect::<Vec<_>>(), types);
    for (revision, heard) in heard.iter().enumerate() {
        assert_eq!(
            (&heard.data["order_id"], &heard.data["revision"]),
            (&json!(id), &json!(revision))
        );
    }
    let history = api.get(&format!("/v1/orders/{id}/history")).json();
    for member in ["revision", "event_id", "type", "data", "metadata", "recorded_at"] {
        assert_eq!(heard[4].data[member], history["events"][4][member], "{member}");
    }

    process.kill();
    let (mut process, api) =
        Start::dev(BINARY, data.path()).env(FULFILLED.0, FULFILLED.1).spawn_api();
    let mut resumed = FeedClient::new(&api, "", Some(&heard[1].id));
    let missed: Vec<_> = (0..3)
        .map(|_| resumed.read_message())
        .map(|message| message.data["revision"].clone())
        .collect();
    assert_eq!(missed, [2, 3, 4]);

    let other = api.place_valid_order();
    let mut ends = FeedClient::new(&api, "?types=OrderFulfilled,OrderFailed", Some(&heard[0].id));
    assert_eq!(
        [
            ends.read_message().data["order_id"].clone(),
            ends.read_message().data["order_id"].clone()
        ],
        [id, other.clone()]
    );
    let mut of_one = FeedClient::new(&api, &format!("?order_id={other}"), Some(&heard[0].id));
    assert_eq!(of_one.read_message().data["order_id"], json!(other));

    let mut unknown = FeedClient::new(&api, "", Some("999999999-999999999"));
    let reset = unknown.read_message();
    assert_eq!((reset.event.as_str(), reset.id.as_str()), ("reset", ""));
    assert_eq!(reset.data, json!({"reason": "unknown_position"}));
    for query in ["?order_id=7", "?types=OrderLost", "?types="] {
        assert_eq!(api.get(&format!("/v1/events/stream{query}")).status, 400, "{query}");
    }
    // Open feeds do not delay the stop.
    let begun = Instant::now();
    assert!(process.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn order_watch_prints_events_until_the_order_ends() {
    let system = System::start(BINARY, &[FULFILLED, ("DOFS__FULFILLMENT__LATENCY_MS", "300")]);
    let id = system.api.place_valid_order();
    let watch = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["order", "watch", &id, "--url", &system.api.url()]).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    };
    for _ in ["while it happens", "and when it is over"] {
        let watched = watch(&["--json"]);
        assert!(watched.status.success(), "{watched:?}");
        let events: Vec<Value> = watched
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(
            events.iter().map(|event| event["revision"].clone()).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
    }
    let text = String::from_utf8(watch(&[]).stdout).unwrap();
    assert!(text.contains("OrderFulfilled") && text.contains("PROCESSING -> FULFILLED"), "{text}");
}
