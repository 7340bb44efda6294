//! `dofs audit`: past states of orders, verification of the event store, and its export.

#![expect(clippy::expect_used, reason = "a failing set-up fails the test")]

use std::os::unix::fs::{FileExt, FileTypeExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::api::Api;
use testkit::command::{self, CommandOutput};
use testkit::process::Start;
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const FULFIL: (&str, &str) = ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0");

/// Runs `dofs audit` on an event store.
fn run_audit(url: &str, arguments: &[&str]) -> CommandOutput {
    let arguments = [&["audit"], arguments].concat();
    command::run(BINARY, &arguments, &[("DOFS__EVENT_STORE__URL", url)])
}

fn parse_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn past_states_of_an_order_are_shown_and_compared() {
    let system = System::start(BINARY, &[FULFIL]);
    let id = system.api.place_valid_order();
    system.api.wait_until_ended(&id);
    let url = system.api.url();
    let run = |arguments: &[&str]| {
        run_audit(system.event_store(), &[arguments, &["--url", &url]].concat()).success()
    };
    let was = run(&["show", &id, "--at-revision", "3"]);
    assert!(was.contains("PROCESSING") && !was.contains("FULFILLED"), "{was}");
    let is = run(&["show", &id, "--at", "2999-01-01T00:00:00Z", "--json"]);
    assert_eq!(parse_lines(&is)[0]["status"], "FULFILLED");

    let history = run(&["show", &id]);
    assert_eq!(history.lines().last(), Some("hash chain: verified"), "{history}");
    let history = parse_lines(&run(&["show", &id, "--json"]));
    assert_eq!(history[0]["chain"], json!({"state": "verified", "broken_at": null}));

    let compared = run(&["compare", &id, "0"]);
    let status = compared.lines().find(|line| line.trim_start().starts_with("status"));
    let words: Vec<_> = status.expect("the status differs").split_whitespace().collect();
    assert_eq!(words, ["status", "PROCESSING", "FULFILLED"]);
    let compared = parse_lines(&run(&["compare", &id, "0", "3", "--json"]));
    assert_eq!(
        (&compared[0]["from"]["revision"], &compared[0]["to"]["revision"]),
        (&json!(0), &json!(3))
    );
}

#[test]
fn store_of_a_running_system_passes_verification() {
    let system = System::start(BINARY, &[FULFIL]);
    let ids: Vec<_> = (0..3).map(|_| system.api.place_valid_order()).collect();
    for id in &ids {
        system.api.wait_until_ended(id);
    }
    let refused = system
        .api
        .place(&json!({"customer_id": "ab", "items": [{"product_id": "p", "quantity": 1}]}));
    assert_eq!(refused.status, 422);
    let verified = parse_lines(&run_audit(system.event_store(), &["verify", "--json"]).success());
    let expected = json!({
        "event_store": verified[0]["event_store"],
        "events": 17,
        "unchained_events": 0,
        "orders": 4,
        "accepted": 4,
        "by_status": {"PROCESSING": 0, "FULFILLED": 3, "FAILED": 1},
        "n_violations": 0,
        "violations": [],
    });
    assert_eq!(verified, [expected]);
    let text = run_audit(system.event_store(), &["verify"]).success();
    assert!(text.starts_with("sound: 17 events of 4 orders"), "{text}");
}

/// Changes stored bytes and the checksums of their entries, like an attacker who knows the format of the
/// log (`event-node/src/log/entry.rs`).
fn tamper(log: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len(), "the replacement must have the same length");
    let mut bytes = std::fs::read(log).expect("the log can be read");
    let places: Vec<_> =
        (0..bytes.len()).filter(|index| bytes[*index..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "`{from}` is not in the log");
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    let mut entry = 32;
    while entry < bytes.len() {
        let length = bytes[entry + 4..entry + 8].try_into().expect("four bytes");
        let end = entry + 20 + u32::from_le_bytes(length) as usize;
        let sum = crc32fast::hash(&bytes[entry + 12..end]);
        bytes[entry + 8..entry + 12].copy_from_slice(&sum.to_le_bytes());
        entry = end;
    }
    std::fs::write(log, bytes).expect("the log can be written");
}

#[test]
fn tampered_event_is_reported() {
    let data = tempfile::tempdir().expect("there is room");
    let start = || Start::dev(BINARY, data.path()).env(FULFIL.0, FULFIL.1).spawn();
    let mut process = start();
    let api = Api::new(process.http_address());
    let id = api.place_valid_order();
    api.wait_until_ended(&id);
    run_audit(&process.node_url(), &["verify"]).success();
    assert!(process.terminate().success());

    let item = |quantity| format!("\"product_id\":\"prod-widget-001\",\"quantity\":{quantity}");
    tamper(&data.path().join("events/events.log"), &item(2), &item(9));
    let mut process = start();
    let verified = run_audit(&process.node_url(), &["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(3), "{verified:?}");
    let report = &parse_lines(&verified.stdout)[0];
    let found: Vec<_> = report["violations"]
        .as_array()
        .expect("violations are listed")
        .iter()
        .map(|finding| {
            (finding["order_id"].clone(), finding["revision"].clone(), finding["check"].clone())
        })
        .collect();
    // The change of `OrderReceived` and `OrderQueued` breaks the hash of the next event each, and the
    // invariant I4 about the total quantity.
    let expected = [(1, "chain"), (1, "I4"), (3, "I4"), (4, "chain")]
        .map(|(revision, check)| (json!(id), json!(revision), json!(check)));
    assert_eq!((report["n_violations"].clone(), found), (json!(4), expected.to_vec()));
    let text = run_audit(&process.node_url(), &["verify"]);
    assert!(text.stdout.contains(&format!("order {id} revision 1: chain: expected `")), "{text:?}");
    assert!(text.stdout.contains("4 violations: 5 events of 1 orders"), "{text:?}");
}

/// Changes a byte without its checksum, like a bad sector.
#[test]
fn damaged_log_is_reported_as_a_finding() {
    let data = tempfile::tempdir().expect("there is room");
    let (mut process, api) = Start::dev(BINARY, data.path()).env(FULFIL.0, FULFIL.1).spawn_api();
    let ids = [api.place_valid_order(), api.place_valid_order()];
    for id in &ids {
        api.wait_until_ended(id);
    }
    let log = data.path().join("events/events.log");
    let bytes = std::fs::read(&log).expect("the log can be read");
    let second = (0..bytes.len()).find(|index| bytes[*index..].starts_with(ids[1].as_bytes()));
    let second = second.expect("the second order is there");
    let file = std::fs::File::options().write(true).open(&log).expect("the log can be opened");
    file.write_at(&[bytes[second] ^ 1], second as u64).expect("the log can be written");

    let verified = run_audit(&process.node_url(), &["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(3), "{verified:?}");
    let report = &parse_lines(&verified.stdout)[0];
    let violation = &report["violations"][0];
    assert_eq!((&report["n_violations"], &violation["check"]), (&json!(1), &json!("readable")));
    let text = run_audit(&process.node_url(), &["verify"]).stdout;
    let told = ["event store: readable: ", "reports that its log is damaged", "`dofs node verify`"];
    assert!(told.iter().all(|told| text.contains(told)), "{text}");

    let exported = run_audit(&process.node_url(), &["export"]);
    assert_eq!(exported.status.code(), Some(3), "{exported:?}");
    let said = exported.stderr;
    let told = said.contains("reports that its log is damaged") && said.contains("from a backup");
    assert!(told && !said.contains("is it running"), "{said}");
}

#[test]
fn export_contains_all_events_in_a_stable_order() {
    let system = System::start(BINARY, &[FULFIL]);
    let id = system.api.place_valid_order();
    system.api.wait_until_ended(&id);
    let first = run_audit(system.event_store(), &["export"]).success();
    let events = parse_lines(&first);
    let types: Vec<_> = events.iter().map(|event| event["type"].clone()).collect();
    assert_eq!(json!(types), json!(system.api.event_types(&id)));
    for pair in events.windows(2) {
        assert_eq!(pair[1]["metadata"]["previous_hash"], pair[0]["hash"]);
    }

    let other = system.api.place_valid_order();
    system.api.wait_until_ended(&other);
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("events.jsonl");
    let file = file.to_str().expect("the folder's name is text");
    run_audit(system.event_store(), &["export", "--output", file]).success();
    let second = std::fs::read_to_string(file).expect("it was written");
    assert!(second.starts_with(&first) && second.len() > first.len());

    let again = run_audit(system.event_store(), &["export", "--output", file]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(again.stderr.contains("pass `--yes` to replace"), "{again:?}");
    let one = ["export", "--output", file, "--yes", "--order", &other];
    run_audit(system.event_store(), &one).success();
    let only = parse_lines(&std::fs::read_to_string(file).expect("it was replaced"));
    assert!(
        only.len() == 5 && only.iter().all(|event| event["order_id"] == json!(other)),
        "{only:?}"
    );

    let cloud =
        run_audit(system.event_store(), &["export", "--format", "cloudevents", "--order", &id]);
    let last = &parse_lines(&cloud.success())[4];
    assert_eq!((&last["specversion"], &last["type"]), (&json!("1.0"), &json!("OrderFulfilled")));
    assert_eq!(last["source"], format!("/v1/orders/{id}"));
    assert_eq!((&last["id"], &last["eventhash"]), (&events[4]["event_id"], &events[4]["hash"]));
    assert_eq!((&last["data"], &last["previoushash"]), (&events[4]["data"], &events[3]["hash"]));
    assert_eq!(last["causationid"], events[3]["event_id"]);

    let nobody = ["export", "--order", "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33"];
    let nobody = run_audit(system.event_store(), &nobody);
    assert_eq!((nobody.status.code(), nobody.stdout), (Some(4), String::new()));
}

#[test]
fn export_replaces_files_but_not_links_or_pipes() {
    let system = System::start(BINARY, &[FULFIL]);
    let id = system.api.place_valid_order();
    system.api.wait_until_ended(&id);
    let events = run_audit(system.event_store(), &["export"]).success();
    let folder = tempfile::tempdir().expect("there is room");
    let path = |name: &str| folder.path().join(name);
    let export = |to: &Path| {
        let to = to.to_str().expect("the folder's name is text");
        run_audit(system.event_store(), &["export", "--yes", "--output", to])
    };

    std::fs::write(path("file"), "before").expect("the file can be written");
    symlink(path("file"), path("link")).expect("a link can be made");
    export(&path("link")).success();
    assert!(path("link").is_symlink());
    assert_eq!(std::fs::read_to_string(path("file")).ok(), Some(events.clone()));

    let made = Command::new("mkfifo").arg(path("pipe")).status();
    assert!(made.expect("mkfifo runs").success());
    let pipe = path("pipe");
    let reader = std::thread::spawn(move || std::fs::read_to_string(pipe));
    export(&path("pipe")).success();
    let read = reader.join().expect("the reader ended").expect("the pipe can be read");
    assert_eq!(read, events);
    let kind = path("pipe").metadata().expect("the pipe is there").file_type();
    assert!(kind.is_fifo());

    symlink("/proc/self/fd/1", path("stdout")).expect("a link can be made");
    assert_eq!(export(&path("stdout")).success(), events);
    assert!(path("stdout").is_symlink());

    symlink(path("nothing"), path("dangling")).expect("a link can be made");
    for (to, why) in [(folder.path(), "Is a directory"), (&path("dangling"), "No such file")] {
        let refused = export(to);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
}

#[test]
fn unreachable_event_store_is_reported() {
    assert_eq!(run_audit("", &["verify"]).status.code(), Some(2));
    let unreachable = run_audit("esdb://127.0.0.1:1?tls=false", &["verify"]);
    assert_eq!(unreachable.status.code(), Some(7), "{unreachable:?}");
    assert!(unreachable.stderr.contains("is unreachable: connection refused"), "{unreachable:?}");
    assert!(unreachable.stderr.contains("event_store.url"), "{unreachable:?}");
}
