//! The command line as people and scripts use it: results on stdout, words on stderr, exit codes.

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::process::{Command, Output};

use serde_json::Value;
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

fn dofs(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOFS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).env("NO_COLOR", "1");
    command.output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(stderr(output).contains(words), "{}", stderr(output));
    assert_eq!(stdout(output), "", "results only on stdout");
}

#[test]
fn help_is_as_documented() {
    insta::assert_snapshot!("help", stdout(&dofs(&["--help"], &[])));
    insta::assert_snapshot!("help_dev", stdout(&dofs(&["dev", "--help"], &[])));
    insta::assert_snapshot!("help_serve", stdout(&dofs(&["serve", "--help"], &[])));
    insta::assert_snapshot!("help_stress", stdout(&dofs(&["stress", "--help"], &[])));
}

#[test]
fn order_is_placed_shown_listed_and_audited() {
    let system = System::start(BINARY, &[("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0")]);
    let url = system.api.url();
    let run = |arguments: &[&str]| dofs(&[arguments, &["--url", &url]].concat(), &[]);

    let placed = run(&["order", "place", "--customer", "cust-1", "--item", "prod-1:2"]);
    assert!(placed.status.success(), "{placed:?}");
    let id = stdout(&placed).trim().to_owned();
    system.api.projected(&id);

    let shown = json(&run(&["order", "get", &id, "--json"]));
    assert_eq!((&shown["order_id"], &shown["total_quantity"]), (&id.clone().into(), &2.into()));
    assert!(stdout(&run(&["order", "get", &id])).contains("FULFILLED"));

    let listed = json(&run(&["order", "list", "--customer", "cust-1", "--json"]));
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    assert!(stdout(&run(&["order", "list", "--status", "fulfilled"])).contains(&id));
    assert!(!stdout(&run(&["order", "list", "--status", "failed"])).contains(&id));

    let audit = stdout(&run(&["audit", "show", &id]));
    assert!(audit.contains("OrderFulfilled") && audit.contains("status: PROCESSING -> FULFILLED"));
    let audit = json(&run(&["audit", "show", &id, "--json"]));
    assert_eq!(audit["events"].as_array().map(Vec::len), Some(5));

    let unknown = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";
    let not_found = format!("Order {unknown} not found");
    assert_fails(&run(&["order", "get", unknown]), 4, &not_found);
    assert_fails(&run(&["audit", "show", unknown]), 4, &not_found);
    let refused = run(&["order", "place", "--customer", "ab", "--item", "prod-1:2"]);
    assert_fails(&refused, 1, "Invalid customer_id format");
}

#[test]
fn stress_reports_what_came_of_its_orders() {
    let system = System::start(BINARY, &[("DOFS__FULFILLMENT__LATENCY_MS", "1")]);
    let url = system.api.url();
    let report = json(&dofs(&["stress", "--url", &url, "--json", "--seed", "7"], &[]));
    assert_eq!((&report["accepted"], &report["unfinished"]), (&60.into(), &0.into()));
    let n_ended = report["fulfilled"].as_u64().zip(report["failed"].as_u64());
    assert_eq!(n_ended.map(|(fulfilled, failed)| fulfilled + failed), Some(60));
    let staging = dofs(&["stress", "--url", &url, "--preset", "staging"], &[]);
    assert!(staging.status.success() && stdout(&staging).contains("25"), "{staging:?}");
}

#[test]
fn demo_shows_sixty_orders_and_one_history_and_ends() {
    let demo = dofs(&["demo"], &[]);
    assert!(demo.status.success(), "{demo:?}");
    let shown = stdout(&demo);
    let accepted = shown.lines().find(|line| line.trim_start().starts_with("accepted"));
    assert!(accepted.is_some_and(|line| line.contains("60")), "{shown}");
    assert!(shown.contains("OrderReceived") && shown.contains("What to try next"), "{shown}");
}

#[test]
fn demo_leaves_the_configured_stores_alone() {
    let data = tempfile::tempdir().expect("there is room");
    let read_model = data.path().join("rows.sqlite");
    let events = data.path().join("events");
    let url = format!("sqlite://{}", read_model.display());
    let environment = [
        ("DOFS__READ_MODEL__URL", url.as_str()),
        ("DOFS__NODE__DATA", events.to_str().expect("the folder's name is text")),
    ];
    assert!(dofs(&["demo"], &environment).status.success());
    assert!(!read_model.exists() && !events.exists());
}

#[test]
fn what_is_wrong_is_said_with_an_exit_code() {
    let nobody = ["order", "list", "--url", "http://127.0.0.1:1"];
    assert_fails(&dofs(&nobody, &[]), 7, "hint: is it running?");
    assert_fails(&dofs(&["order", "get", "no-uuid"], &[]), 2, "invalid value");
    assert_fails(&dofs(&["serve"], &[("DOFS_ENV", "prod")]), 2, "staging or production");
    for environment in ["staging", "production"] {
        let open = [("DOFS_ENV", environment), ("DOFS__AUTH__MODE", "none")];
        assert_fails(&dofs(&["serve"], &open), 2, "auth.mode");
    }
    let listen = [("DOFS__API__LISTEN", "8080")];
    assert_fails(&dofs(&["serve", "api"], &listen), 2, "`8080`: expected host and port");
    let burst = [("DOFS__API__RATE_PER_SECOND", "5"), ("DOFS__API__RATE_BURST", "0")];
    assert_fails(&dofs(&["serve", "api"], &burst), 2, "api.rate_burst");
    let half = [("DOFS__API__TLS_KEY", "key.pem")];
    assert_fails(&dofs(&["serve", "api"], &half), 2, "api.tls_certificate");
    assert_fails(&dofs(&["migrate"], &[("RUST_LOG", "dofs=loud")]), 2, "RUST_LOG");
    let unknown_key = [("DOFS__API__LISTN", "127.0.0.1:1")];
    assert_fails(&dofs(&["order", "list"], &unknown_key), 2, "did you mean `api.listen`?");
    let store = [("DOFS__EVENT_STORE__URL", "esdb://admin:hunter2@[bad")];
    let refused = dofs(&["serve", "api"], &store);
    assert_fails(&refused, 2, "event store address `esdb://[bad` is invalid");
    assert!(!stderr(&refused).contains("hunter2"), "{refused:?}");
    let unknown_database = [("DOFS__READ_MODEL__URL", "mysql://user:secret@host/db")];
    let refused = dofs(&["migrate"], &unknown_database);
    assert_fails(&refused, 2, "it must begin with `sqlite://` or `postgres://`");
    assert!(!stderr(&refused).contains("secret"), "{refused:?}");
}

#[test]
fn closed_pipe_is_a_failure() {
    let mut command = Command::new(BINARY);
    command.arg("migrate");
    let (reader, writer) = std::io::pipe().expect("there is a pipe");
    drop(reader);
    let data = tempfile::tempdir().expect("there is room");
    let url = format!("sqlite://{}", data.path().join("rows.sqlite").display());
    let ended = command.env("DOFS__READ_MODEL__URL", url).stdout(writer).status();
    assert_eq!(ended.expect("the binary starts").code(), Some(1));
}

#[test]
fn last_words_are_json_where_the_log_is() {
    let failed = dofs(&["serve", "api", "--listen", "256.0.0.1:1"], &[("DOFS_LOG", "json")]);
    assert_eq!(failed.status.code(), Some(2));
    for line in stderr(&failed).lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|it| panic!("{it}: {line}"));
        assert!(line["level"].is_string(), "{line}");
    }
    assert!(stderr(&failed).contains("256.0.0.1"), "{failed:?}");
}

#[test]
fn process_refuses_tables_that_nobody_migrated_and_names_the_command() {
    let data = tempfile::tempdir().expect("there is room");
    let url = format!("sqlite://{}", data.path().join("rows.sqlite").display());
    let environment = [("DOFS__READ_MODEL__URL", url.as_str())];
    let refused = dofs(&["serve", "api", "--listen", "127.0.0.1:0"], &environment);
    assert_fails(&refused, 1, "run `dofs migrate`");

    let applied = json(&dofs(&["migrate", "--json"], &environment));
    assert_eq!(applied["applied"][0], "0001_read_model");
    let again = dofs(&["migrate"], &environment);
    assert_eq!(stdout(&again), "read model is up to date: nothing to apply\n");
}

#[test]
fn store_is_verified_and_damage_is_found() {
    let data = tempfile::tempdir().expect("there is room");
    let folder = data.path().join("events");
    let folder = folder.to_str().expect("the folder's name is text");
    let verify = || dofs(&["node", "verify", "--json", "--data", folder], &[]);
    assert_fails(&verify(), 4, "there is no store");

    let mut process = testkit::process::Start::dev(BINARY, data.path()).spawn();
    let api = testkit::api::Api::new(process.http());
    api.ended(&api.accepted());
    assert_fails(&verify(), 1, "another process");
    assert!(process.terminate().success());
    let sound = json(&verify());
    // The store's own seed, the order's five, the record of the group and that stream's metadata.
    assert_eq!((&sound["events"], &sound["groups"]), (&8.into(), &1.into()), "{sound}");

    let log = data.path().join("events/events.log");
    std::fs::write(log, [7; 8_192]).expect("the log can be overwritten");
    assert_fails(&verify(), 3, "the store is damaged");
}

#[test]
fn store_is_moved_to_another_and_compared() {
    let source = System::start(BINARY, &[]);
    let target = System::start(BINARY, &[]);
    let id = source.api.accepted();
    source.api.ended(&id);
    let (from, to) = (source.event_store(), target.event_store());
    let ours = [("DOFS__EVENT_STORE__URL", from)];
    let exported = json(&dofs(&["node", "export", "--to", to, "--json"], &ours));
    assert_eq!((&exported["events"], &exported["copied"]), (&5.into(), &5.into()));
    assert_eq!(target.api.ended(&id)["order_id"], id.as_str(), "its new home knows the order");

    let ours = [("DOFS__EVENT_STORE__URL", to)];
    let checked = json(&dofs(&["node", "import", "--from", from, "--json"], &ours));
    assert_eq!((&checked["events"], &checked["copied"]), (&5.into(), &0.into()));

    target.api.accepted();
    let ours = [("DOFS__EVENT_STORE__URL", from)];
    let refused = dofs(&["node", "export", "--to", to], &ours);
    assert_fails(&refused, 3, "which the source lacks");
}
