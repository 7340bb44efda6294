//! The audit as an operator uses it: what an order was, whether the record is whole, and a copy of
//! it for elsewhere.

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::os::unix::fs::{FileExt, FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use testkit::api::Api;
use testkit::process::{Dofs, Start};
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const FULFIL: (&str, &str) = ("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0");

/// The connection string of the event store that a process runs.
fn node(process: &mut Dofs) -> String {
    format!("esdb://{}?tls=false", process.node())
}

/// Runs `dofs audit` against an event store.
fn audit(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOFS_") {
            command.env_remove(name);
        }
    }
    command.arg("audit").args(arguments).env("DOFS__EVENT_STORE__URL", url);
    command.output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    stdout(output)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|it| serde_json::from_str(it).expect("a line is JSON")).collect()
}

#[test]
fn order_is_shown_as_it_was_and_compared() {
    let system = System::start(BINARY, &[FULFIL]);
    let id = system.api.accepted();
    system.api.ended(&id);
    let url = system.api.url();
    let run = |arguments: &[&str]| {
        succeeded(&audit(system.event_store(), &[arguments, &["--url", &url]].concat()))
    };
    let was = run(&["show", &id, "--at-revision", "3"]);
    assert!(was.contains("PROCESSING") && !was.contains("FULFILLED"), "{was}");
    let is = run(&["show", &id, "--at", "2999-01-01T00:00:00Z", "--json"]);
    assert_eq!(lines(&is)[0]["status"], "FULFILLED");

    let compared = run(&["compare", &id, "0"]);
    let status = compared.lines().find(|it| it.trim_start().starts_with("status"));
    let words: Vec<_> = status.expect("the status differs").split_whitespace().collect();
    assert_eq!(words, ["status", "PROCESSING", "FULFILLED"]);
    let compared = lines(&run(&["compare", &id, "0", "3", "--json"]));
    assert_eq!(
        (&compared[0]["from"]["revision"], &compared[0]["to"]["revision"]),
        (&json!(0), &json!(3))
    );
}

#[test]
fn store_of_a_running_system_is_sound() {
    let system = System::start(BINARY, &[FULFIL]);
    let ids: Vec<_> = (0..3).map(|_| system.api.accepted()).collect();
    for id in &ids {
        system.api.ended(id);
    }
    let refused = system
        .api
        .place(&json!({"customer_id": "ab", "items": [{"product_id": "p", "quantity": 1}]}));
    assert_eq!(refused.status, 422);
    let verified = lines(&succeeded(&audit(system.event_store(), &["verify", "--json"])));
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
    let text = succeeded(&audit(system.event_store(), &["verify"]));
    assert!(text.starts_with("sound: 17 events of 4 orders"), "{text}");
}

/// Changes what is stored, and the sums of the entries that hold it: the hand of somebody who
/// knows the format of the log (`event-node/src/log/entry.rs`).
fn tamper(log: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len(), "or the file is damaged");
    let mut bytes = std::fs::read(log).expect("the log can be read");
    let places: Vec<_> =
        (0..bytes.len()).filter(|it| bytes[*it..].starts_with(from.as_bytes())).collect();
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
fn change_on_disk_is_found() {
    let data = tempfile::tempdir().expect("there is room");
    let start = || Start::dev(BINARY, data.path()).env(FULFIL.0, FULFIL.1).spawn();
    let mut process = start();
    let api = Api::new(process.http());
    let id = api.accepted();
    api.ended(&id);
    succeeded(&audit(&node(&mut process), &["verify"]));
    assert!(process.terminate().success());

    let item = |quantity| format!("\"product_id\":\"prod-widget-001\",\"quantity\":{quantity}");
    tamper(&data.path().join("events/events.log"), &item(2), &item(9));
    let mut process = start();
    let verified = audit(&node(&mut process), &["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(3), "{verified:?}");
    let report = &lines(&stdout(&verified))[0];
    let found: Vec<_> = report["violations"]
        .as_array()
        .expect("violations are listed")
        .iter()
        .map(|it| (it["order_id"].clone(), it["revision"].clone(), it["check"].clone()))
        .collect();
    // What was received and what was queued: each shows behind it, and in the total between them.
    let expected = [(1, "chain"), (1, "I4"), (3, "I4"), (4, "chain")]
        .map(|(revision, check)| (json!(id), json!(revision), json!(check)));
    assert_eq!((report["n_violations"].clone(), found), (json!(4), expected.to_vec()));
    let text = audit(&node(&mut process), &["verify"]);
    assert!(
        stdout(&text).contains(&format!("order {id} revision 1: chain: expected `")),
        "{text:?}"
    );
    assert!(stdout(&text).contains("4 violations: 5 events of 1 orders"), "{text:?}");
}

/// A sector that rotted: what was stored is another thing, and its sum is not.
#[test]
fn damaged_log_is_a_finding_and_no_outage() {
    let data = tempfile::tempdir().expect("there is room");
    let mut process = Start::dev(BINARY, data.path()).env(FULFIL.0, FULFIL.1).spawn();
    let api = Api::new(process.http());
    let ids = [api.accepted(), api.accepted()];
    for id in &ids {
        api.ended(id);
    }
    let log = data.path().join("events/events.log");
    let bytes = std::fs::read(&log).expect("the log can be read");
    let second = (0..bytes.len()).find(|it| bytes[*it..].starts_with(ids[1].as_bytes()));
    let second = second.expect("the second order is there");
    let file = std::fs::File::options().write(true).open(&log).expect("the log can be opened");
    file.write_at(&[bytes[second] ^ 1], second as u64).expect("the log can be written");

    let verified = audit(&node(&mut process), &["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(3), "{verified:?}");
    let report = &lines(&stdout(&verified))[0];
    let violation = &report["violations"][0];
    assert_eq!((&report["n_violations"], &violation["check"]), (&json!(1), &json!("readable")));
    let text = stdout(&audit(&node(&mut process), &["verify"]));
    let told = ["the store: readable: ", "reports that its log is damaged", "`dofs node verify`"];
    assert!(told.iter().all(|it| text.contains(it)), "{text}");

    let exported = audit(&node(&mut process), &["export"]);
    assert_eq!(exported.status.code(), Some(3), "{exported:?}");
    let said = stderr(&exported);
    let told = said.contains("reports that its log is damaged") && said.contains("from a backup");
    assert!(told && !said.contains("is it running"), "{said}");
}

#[test]
fn export_is_every_event_and_a_later_one_begins_with_it() {
    let system = System::start(BINARY, &[FULFIL]);
    let id = system.api.accepted();
    system.api.ended(&id);
    let first = succeeded(&audit(system.event_store(), &["export"]));
    let events = lines(&first);
    let types: Vec<_> = events.iter().map(|it| it["type"].clone()).collect();
    assert_eq!(json!(types), json!(system.api.event_types(&id)));
    for pair in events.windows(2) {
        assert_eq!(pair[1]["metadata"]["previous_hash"], pair[0]["hash"]);
    }

    let other = system.api.accepted();
    system.api.ended(&other);
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("events.jsonl");
    let file = file.to_str().expect("the folder's name is text");
    succeeded(&audit(system.event_store(), &["export", "--output", file]));
    let second = std::fs::read_to_string(file).expect("it was written");
    assert!(second.starts_with(&first) && second.len() > first.len());

    let again = audit(system.event_store(), &["export", "--output", file]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(stderr(&again).contains("replace it with --yes"), "{again:?}");
    let one = ["export", "--output", file, "--yes", "--order", &other];
    succeeded(&audit(system.event_store(), &one));
    let only = lines(&std::fs::read_to_string(file).expect("it was replaced"));
    assert!(only.len() == 5 && only.iter().all(|it| it["order_id"] == json!(other)), "{only:?}");

    let cloud = audit(system.event_store(), &["export", "--format", "cloudevents", "--order", &id]);
    let last = &lines(&succeeded(&cloud))[4];
    assert_eq!((&last["specversion"], &last["type"]), (&json!("1.0"), &json!("OrderFulfilled")));
    assert_eq!(last["source"], format!("/v1/orders/{id}"));
    assert_eq!((&last["id"], &last["eventhash"]), (&events[4]["event_id"], &events[4]["hash"]));
    assert_eq!((&last["data"], &last["previoushash"]), (&events[4]["data"], &events[3]["hash"]));
    assert_eq!(last["causationid"], events[3]["event_id"]);

    let nobody = ["export", "--order", "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33"];
    let nobody = audit(system.event_store(), &nobody);
    assert_eq!((nobody.status.code(), stdout(&nobody)), (Some(4), String::new()));
}

#[test]
fn export_replaces_files_and_nothing_else() {
    let system = System::start(BINARY, &[FULFIL]);
    let id = system.api.accepted();
    system.api.ended(&id);
    let events = succeeded(&audit(system.event_store(), &["export"]));
    let folder = tempfile::tempdir().expect("there is room");
    let path = |name: &str| folder.path().join(name);
    let export = |to: &Path| {
        let to = to.to_str().expect("the folder's name is text");
        audit(system.event_store(), &["export", "--yes", "--output", to])
    };

    std::fs::write(path("file"), "before").expect("the file can be written");
    symlink(path("file"), path("link")).expect("a link can be made");
    succeeded(&export(&path("link")));
    assert!(path("link").is_symlink());
    assert_eq!(std::fs::read_to_string(path("file")).ok(), Some(events.clone()));

    let made = Command::new("mkfifo").arg(path("pipe")).status();
    assert!(made.expect("mkfifo runs").success());
    let pipe = path("pipe");
    let reader = std::thread::spawn(move || std::fs::read_to_string(pipe));
    succeeded(&export(&path("pipe")));
    let read = reader.join().expect("the reader ended").expect("the pipe can be read");
    assert_eq!(read, events);
    let kind = path("pipe").metadata().expect("the pipe is there").file_type();
    assert!(kind.is_fifo());

    symlink("/proc/self/fd/1", path("stdout")).expect("a link can be made");
    assert_eq!(succeeded(&export(&path("stdout"))), events);
    assert!(path("stdout").is_symlink());

    symlink(path("nothing"), path("dangling")).expect("a link can be made");
    for (to, why) in [(folder.path(), "Is a directory"), (&path("dangling"), "No such file")] {
        let refused = export(to);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(stderr(&refused).contains(why), "{refused:?}");
    }
}

#[test]
fn audit_without_an_event_store_says_so() {
    let run = |url: &str| {
        let mut command = Command::new(BINARY);
        command.args(["audit", "verify"]).env("DOFS__EVENT_STORE__URL", url);
        command.output().expect("the binary starts")
    };
    assert_eq!(run("").status.code(), Some(2));
    let nobody = run("esdb://127.0.0.1:1?tls=false");
    assert_eq!(nobody.status.code(), Some(7), "{nobody:?}");
    assert!(stderr(&nobody).contains("is unreachable: connection refused"), "{nobody:?}");
    assert!(stderr(&nobody).contains("event_store.url"), "it says where it looked: {nobody:?}");
}
