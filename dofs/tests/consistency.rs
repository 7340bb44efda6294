//! What a client may rely on when it asks again, asks at once, waits, or listens.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use reqwest::blocking::Response;
use serde_json::{Value, json};
use testkit::api::{Answer, Api, order};
use testkit::process::{Dofs, Start};
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const FULFILLED: (&str, &str) = ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0");
/// Longer than any test takes: the order does not end.
const NEVER: [(&str, &str); 3] = [
    ("DOFS__FULFILLMENT__LATENCY_MS", "60000"),
    ("DOFS__FULFILLMENT__TIMEOUT_MS", "90000"),
    ("DOFS__FULFILLMENT__MESSAGE_TIMEOUT_MS", "300000"),
];

fn with(api: &Api, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers
        .iter()
        .fold(api.request(method, path), |request, (name, value)| request.header(*name, *value));
    let request = if method == "POST" { request.json(&order()) } else { request };
    Api::send(request)
}

fn get(api: &Api, id: &str, headers: &[(&str, &str)]) -> Answer {
    with(api, "GET", &format!("/v1/orders/{id}"), headers)
}

const N_CLIENTS: usize = 50;

/// An API process without worker and projector, on the stores of a system.
fn api_beside(node: &str, read_model: &str) -> (Dofs, Api) {
    let mut process = Start::new(BINARY, &["serve", "api", "--listen", "127.0.0.1:0"])
        .env("DOFS__EVENT_STORE__URL", node)
        .env("DOFS__READ_MODEL__URL", read_model)
        .spawn();
    let api = Api::new(process.http());
    (process, api)
}

#[test]
fn client_that_prefers_to_wait_is_answered_with_the_end_of_its_order() {
    let system = System::start(BINARY, &[FULFILLED]);
    let prefer = [("prefer", "respond-async, wait=20"), ("idempotency-key", "k")];
    let answer = with(&system.api, "POST", "/v1/orders", &prefer);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("FULFILLED")), "{answer:?}");
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    assert_eq!(answer.header("etag"), Some("\"4\""));
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/orders/{id}").as_str()));
    // The same again, waiting or not.
    let again = with(&system.api, "POST", "/v1/orders", &prefer);
    assert_eq!((again.status, &again.text), (answer.status, &answer.text));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let accepted = with(&system.api, "POST", "/v1/orders", &[("idempotency-key", "k")]);
    assert_eq!((accepted.status, &accepted.json()["status"]), (202, &json!("processing")));

    let id = system.api.accepted();
    let ended = get(&system.api, &id, &[("prefer", "wait=20")]);
    assert_eq!((ended.status, &ended.json()["status"]), (200, &json!("FULFILLED")), "{ended:?}");
    assert_eq!(ended.header("preference-applied"), Some("wait=20"));
}

#[test]
fn wait_that_is_in_vain_ends_by_its_time_and_says_so() {
    let system = System::start(BINARY, &NEVER);
    let begun = Instant::now();
    let answer = with(&system.api, "POST", "/v1/orders", &[("prefer", "wait=1")]);
    assert_eq!((answer.status, answer.header("preference-applied")), (202, None), "{answer:?}");
    let id = answer.json()["order_id"].as_str().unwrap().to_owned();

    let stale = get(&system.api, &id, &[("prefer", "wait=1")]);
    assert_eq!((stale.status, stale.header("stale")), (200, Some("true")), "{stale:?}");
    assert_eq!(
        (&stale.json()["stale"], &stale.json()["status"]),
        (&json!(true), &json!("PROCESSING"))
    );
    let stale = get(&system.api, &id, &[("wait-for-revision", "9"), ("prefer", "wait=1")]);
    assert_eq!((stale.status, stale.header("stale")), (200, Some("true")), "{stale:?}");
    let unchanged = get(&system.api, &id, &[("if-none-match", "\"3\""), ("prefer", "wait=1")]);
    assert_eq!((unchanged.status, unchanged.text.as_str()), (304, ""), "{unchanged:?}");
    assert_eq!(
        (unchanged.header("etag"), unchanged.header("stale")),
        (Some("\"3\""), Some("true"))
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(get(&system.api, &id, &[]).header("stale").is_none());
}

#[test]
fn revision_that_is_in_the_log_is_shown_before_it_is_projected() {
    let system = System::start(BINARY, &[FULFILLED]);
    let id = system.api.accepted();
    system.api.projected(&id);
    let node = system.event_store().to_owned();
    // Tables that nobody projects into: always behind.
    let data = tempfile::tempdir().unwrap();
    let tables = format!("sqlite://{}", data.path().join("rows.sqlite").display());
    let migrated =
        Start::new(BINARY, &["migrate"]).env("DOFS__READ_MODEL__URL", &tables).spawn().ended();
    assert!(migrated.success());
    let (_process, behind) = api_beside(&node, &tables);

    let shown = get(&behind, &id, &[("wait-for-revision", "4")]);
    assert_eq!((shown.status, &shown.json()["revision"]), (200, &json!(4)), "{shown:?}");
    assert_eq!((&shown.json()["source"], shown.header("stale")), (&json!("stream"), None));
    let answer = with(&behind, "POST", "/order", &[("prefer", "wait=20")]);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("FULFILLED")), "{answer:?}");
}

#[test]
fn tag_that_was_handed_out_is_not_contradicted() {
    let system = System::start(BINARY, &[FULFILLED]);
    // The log is ahead of the row about every second time.
    for _ in 0..20 {
        let placed = with(&system.api, "POST", "/v1/orders", &[("prefer", "wait=20")]);
        let id = placed.json()["order_id"].as_str().unwrap().to_owned();
        let tag = placed.header("etag").unwrap();
        let (met, known) = (("if-match", tag), ("if-none-match", tag));
        assert_eq!(get(&system.api, &id, &[met]).status, 200, "{tag}");
        assert_eq!(get(&system.api, &id, &[known]).status, 304, "{tag}");
    }
}

#[test]
fn conditions_are_kept_and_malformed_ones_refused() {
    let system = System::start(BINARY, &[FULFILLED]);
    let id = system.api.accepted();
    system.api.projected(&id);
    let status = |name: &str, value: &str| get(&system.api, &id, &[(name, value)]).status;
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
fn one_key_in_a_thousand_requests_to_two_processes_is_one_order() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Start::dev(BINARY, data.path()).spawn();
    let (node, api) = (format!("esdb://{}?tls=false", first.node()), Api::new(first.http()));
    let tables = format!("sqlite://{}", data.path().join("read-model.sqlite").display());
    let (_second, other) = api_beside(&node, &tables);
    let keyed = |api: &Api| {
        Api::try_send(
            api.request("POST", "/v1/orders").header("idempotency-key", "k").json(&order()),
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
        clients.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), 1_000);
    let distinct: BTreeSet<_> = answers.iter().map(|it| (it.status, &it.text)).collect();
    assert_eq!(distinct.len(), 1, "{distinct:?}");
    assert_eq!(answers[0].status, 202);
    let replays = answers.iter().filter(|it| it.header("idempotent-replayed") == Some("true"));
    assert_eq!(replays.count(), 999);
    let id = answers[0].json()["order_id"].as_str().unwrap().to_owned();
    api.ended(&id);
    let n_placed = api.event_types(&id).iter().filter(|it| *it == "OrderReceived").count();
    assert_eq!(n_placed, 1);
}

#[test]
fn process_that_dies_while_it_appends_leaves_one_order_or_none() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Start::dev(BINARY, data.path()).spawn();
    let (node, api) = (format!("esdb://{}?tls=false", first.node()), Api::new(first.http()));
    let tables = format!("sqlite://{}", data.path().join("read-model.sqlite").display());
    let (mut second, other) = api_beside(&node, &tables);
    let request = |key: &str| {
        other.request("POST", "/v1/orders").header("idempotency-key", key).json(&order())
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
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for (key, before) in keys.iter().zip(before) {
        let after = Api::send(
            api.request("POST", "/v1/orders").header("idempotency-key", key).json(&order()),
        );
        assert_eq!(after.status, 202, "{after:?}");
        if let Some(before) = before {
            assert_eq!(before.text, after.text);
        }
        let id = after.json()["order_id"].as_str().unwrap().to_owned();
        let events = api.event_types(&id);
        let n_queued = events.iter().filter(|it| *it == "OrderQueued").count();
        assert_eq!(n_queued, 1, "{events:?}");
    }
}

#[test]
fn pages_hold_every_order_once_while_others_come_in() {
    let system = System::start(BINARY, &[FULFILLED]);
    let before: BTreeSet<String> = (0..30).map(|_| system.api.accepted()).collect();
    for id in &before {
        system.api.projected(id);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/orders?limit=7".to_owned();
    loop {
        let page = system.api.get(&path).json();
        let items = page["items"].as_array().unwrap().iter();
        seen.extend(items.map(|it| it["order_id"].as_str().unwrap().to_owned()));
        // They stand before what is still to come.
        let newest = system.api.accepted();
        system.api.projected(&newest);
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/orders?limit=7&cursor={next}");
    }
    let distinct: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!((seen.len(), &distinct), (before.len(), &before));
}

/// A client of the live feed.
struct Listener {
    lines: std::io::Lines<BufReader<Response>>,
}

#[derive(Debug)]
struct Heard {
    id: String,
    event: String,
    data: Value,
}

impl Listener {
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

    fn next(&mut self) -> Heard {
        let mut heard = Heard { id: String::new(), event: String::new(), data: Value::Null };
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
fn feed_brings_every_event_once_and_resumes_also_after_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let mut process = Start::dev(BINARY, data.path()).env(FULFILLED.0, FULFILLED.1).spawn();
    let api = Api::new(process.http());
    let mut listener = Listener::new(&api, "", None);
    let id = api.accepted();
    let types = ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued", "OrderFulfilled"];
    let heard: Vec<_> = types.iter().map(|_| listener.next()).collect();
    assert_eq!(heard.iter().map(|it| it.event.as_str()).collect::<Vec<_>>(), types);
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
    let mut process = Start::dev(BINARY, data.path()).env(FULFILLED.0, FULFILLED.1).spawn();
    let api = Api::new(process.http());
    let mut resumed = Listener::new(&api, "", Some(&heard[1].id));
    let missed: Vec<_> =
        (0..3).map(|_| resumed.next()).map(|it| it.data["revision"].clone()).collect();
    assert_eq!(missed, [2, 3, 4]);

    let other = api.accepted();
    let mut ends = Listener::new(&api, "?types=OrderFulfilled,OrderFailed", Some(&heard[0].id));
    assert_eq!(
        [ends.next().data["order_id"].clone(), ends.next().data["order_id"].clone()],
        [id, other.clone()]
    );
    let mut of_one = Listener::new(&api, &format!("?order_id={other}"), Some(&heard[0].id));
    assert_eq!(of_one.next().data["order_id"], json!(other));

    let mut unknown = Listener::new(&api, "", Some("999999999-999999999"));
    let reset = unknown.next();
    assert_eq!((reset.event.as_str(), reset.id.as_str()), ("reset", ""));
    assert_eq!(reset.data, json!({"reason": "unknown_position"}));
    for query in ["?order_id=7", "?types=OrderLost", "?types="] {
        assert_eq!(api.get(&format!("/v1/events/stream{query}")).status, 400, "{query}");
    }
    // Listeners do not hold the end up.
    let begun = Instant::now();
    assert!(process.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn order_is_watched_to_its_end() {
    let system = System::start(BINARY, &[FULFILLED, ("DOFS__FULFILLMENT__LATENCY_MS", "300")]);
    let id = system.api.accepted();
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
            .split(|it| *it == b'\n')
            .filter(|it| !it.is_empty())
            .map(|it| serde_json::from_slice(it).unwrap())
            .collect();
        assert_eq!(
            events.iter().map(|it| it["revision"].clone()).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
    }
    let text = String::from_utf8(watch(&[]).stdout).unwrap();
    assert!(text.contains("OrderFulfilled") && text.contains("PROCESSING -> FULFILLED"), "{text}");
}
