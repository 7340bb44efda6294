//! The command line: results on standard output, errors on standard error, exit codes.

use std::process::Command;

use serde_json::Value;
use testkit::command::{self, CommandOutput};
use testkit::system::{System, sqlite_url};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

fn dofs(arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    command::run(BINARY, arguments, environment)
}

#[test]
fn help_matches_snapshots() {
    insta::assert_snapshot!("help", dofs(&["--help"], &[]).stdout);
    insta::assert_snapshot!("help_dev", dofs(&["dev", "--help"], &[]).stdout);
    insta::assert_snapshot!("help_serve", dofs(&["serve", "--help"], &[]).stdout);
    insta::assert_snapshot!("help_config_show", dofs(&["config", "show", "--help"], &[]).stdout);
    insta::assert_snapshot!("help_healthcheck", dofs(&["healthcheck", "--help"], &[]).stdout);
    insta::assert_snapshot!("help_migrate", dofs(&["migrate", "--help"], &[]).stdout);
    insta::assert_snapshot!("help_order_list", dofs(&["order", "list", "--help"], &[]).stdout);
    insta::assert_snapshot!("help_stress", dofs(&["stress", "--help"], &[]).stdout);
}

#[test]
fn order_is_placed_shown_listed_and_audited() {
    let system = System::start(BINARY, &[("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0")]);
    let url = system.api.url();
    let run = |arguments: &[&str]| dofs(&[arguments, &["--url", &url]].concat(), &[]);

    let placed = run(&["order", "place", "--customer", "cust-1", "--item", "prod-1:2"]);
    assert!(placed.status.success(), "{placed:?}");
    let id = placed.stdout.trim().to_owned();
    system.api.wait_until_projected(&id);

    let shown = run(&["order", "get", &id, "--json"]).json();
    assert_eq!((&shown["order_id"], &shown["total_quantity"]), (&id.clone().into(), &2.into()));
    assert!(run(&["order", "get", &id]).stdout.contains("FULFILLED"));

    let listed = run(&["order", "list", "--customer", "cust-1", "--json"]).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    assert!(run(&["order", "list", "--status", "fulfilled"]).stdout.contains(&id));
    assert!(!run(&["order", "list", "--status", "failed"]).stdout.contains(&id));

    let audit = run(&["audit", "show", &id]).stdout;
    assert!(audit.contains("OrderFulfilled") && audit.contains("status: PROCESSING -> FULFILLED"));
    let audit = run(&["audit", "show", &id, "--json"]).json();
    assert_eq!(audit["events"].as_array().map(Vec::len), Some(5));

    let unknown = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";
    let not_found = format!("Order {unknown} not found");
    run(&["order", "get", unknown]).assert_failure(4, &not_found);
    run(&["audit", "show", unknown]).assert_failure(4, &not_found);
    let refused = run(&["order", "place", "--customer", "ab", "--item", "prod-1:2"]);
    refused.assert_failure(1, "Invalid customer_id format");
}

#[test]
fn stress_reports_the_outcomes_of_its_orders() {
    let system = System::start(BINARY, &[("DOFS__FULFILLMENT__LATENCY_MS", "1")]);
    let url = system.api.url();
    let report = dofs(&["stress", "--url", &url, "--json", "--seed", "7"], &[]).json();
    assert_eq!((&report["accepted"], &report["unfinished"]), (&60.into(), &0.into()));
    let n_ended = report["fulfilled"].as_u64().zip(report["failed"].as_u64());
    assert_eq!(n_ended.map(|(fulfilled, failed)| fulfilled + failed), Some(60));
    let staging = dofs(&["stress", "--url", &url, "--preset", "staging"], &[]);
    assert!(staging.status.success() && staging.stdout.contains("25"), "{staging:?}");
}

#[test]
fn demo_reports_sixty_orders_and_one_history() {
    let demo = dofs(&["demo"], &[]);
    assert!(demo.status.success(), "{demo:?}");
    let shown = demo.stdout;
    let accepted = shown.lines().find(|line| line.trim_start().starts_with("accepted"));
    assert!(accepted.is_some_and(|line| line.contains("60")), "{shown}");
    assert!(shown.contains("OrderReceived") && shown.contains("What to try next"), "{shown}");
}

#[test]
fn demo_does_not_touch_configured_stores() {
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
fn errors_have_exit_code_and_cause() {
    let nobody = ["order", "list", "--url", "http://127.0.0.1:1"];
    dofs(&nobody, &[]).assert_failure(7, "hint: start the API");
    dofs(&["order", "get", "no-uuid"], &[]).assert_failure(2, "invalid value");
    dofs(&["serve"], &[("DOFS_ENV", "prod")]).assert_failure(2, "staging or production");
    for environment in ["staging", "production"] {
        let open = [("DOFS_ENV", environment), ("DOFS__AUTH__MODE", "none")];
        dofs(&["serve"], &open).assert_failure(2, "auth.mode");
    }
    let listen = [("DOFS__API__LISTEN", "8080")];
    dofs(&["serve", "api"], &listen).assert_failure(2, "`8080`: expected host and port");
    let burst = [("DOFS__API__RATE_PER_SECOND", "5"), ("DOFS__API__RATE_BURST", "0")];
    dofs(&["serve", "api"], &burst).assert_failure(2, "api.rate_burst");
    let half = [("DOFS__API__TLS_KEY", "key.pem")];
    dofs(&["serve", "api"], &half).assert_failure(2, "api.tls_certificate");
    dofs(&["migrate"], &[("RUST_LOG", "dofs=loud")]).assert_failure(2, "RUST_LOG");
    let unknown_key = [("DOFS__API__LISTN", "127.0.0.1:1")];
    dofs(&["order", "list"], &unknown_key).assert_failure(2, "did you mean `api.listen`?");
    let store = [("DOFS__EVENT_STORE__URL", "esdb://admin:hunter2@[bad")];
    let refused = dofs(&["serve", "api"], &store);
    refused.assert_failure(2, "event store address `esdb://[bad` is invalid");
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    let unknown_database = [("DOFS__READ_MODEL__URL", "mysql://user:secret@host/db")];
    let refused = dofs(&["migrate"], &unknown_database);
    refused.assert_failure(2, "it must begin with `sqlite://` or `postgres://`");
    assert!(!refused.stderr.contains("secret"), "{refused:?}");
}

#[test]
fn closed_stdout_is_a_failure() {
    let mut command = Command::new(BINARY);
    command.arg("migrate");
    let (reader, writer) = std::io::pipe().expect("there is a pipe");
    drop(reader);
    let data = tempfile::tempdir().expect("there is room");
    let url = sqlite_url(data.path());
    let ended = command.env("DOFS__READ_MODEL__URL", url).stdout(writer).status();
    assert_eq!(ended.expect("the binary starts").code(), Some(1));
}

#[test]
fn error_is_json_if_the_log_is_json() {
    let failed = dofs(&["serve", "api", "--listen", "256.0.0.1:1"], &[("DOFS_LOG", "json")]);
    assert_eq!(failed.status.code(), Some(2));
    for line in failed.stderr.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string(), "{line}");
    }
    assert!(failed.stderr.contains("256.0.0.1"), "{failed:?}");
}

#[test]
fn serve_without_migration_is_rejected_with_the_command() {
    let data = tempfile::tempdir().expect("there is room");
    let url = sqlite_url(data.path());
    let environment = [("DOFS__READ_MODEL__URL", url.as_str())];
    let refused = dofs(&["serve", "api", "--listen", "127.0.0.1:0"], &environment);
    refused.assert_failure(1, "run `dofs migrate`");

    let applied = dofs(&["migrate", "--json"], &environment).json();
    assert_eq!(applied["applied"][0], "0001_read_model");
    let again = dofs(&["migrate"], &environment);
    assert_eq!(again.stdout, "read model is up to date: no migration to apply\n");
}

#[test]
fn node_verify_finds_damage() {
    let data = tempfile::tempdir().expect("there is room");
    let folder = data.path().join("events");
    let folder = folder.to_str().expect("the folder's name is text");
    let verify = || dofs(&["node", "verify", "--json", "--data", folder], &[]);
    verify().assert_failure(4, "there is no store");

    let mut process = testkit::process::Start::dev(BINARY, data.path()).spawn();
    let api = testkit::api::Api::new(process.http_address());
    api.wait_until_ended(&api.place_valid_order());
    verify().assert_failure(1, "another process");
    assert!(process.terminate().success());
    let sound = verify().json();
    // The store's own first event, five of the order, the record of the group, and its stream's metadata.
    assert_eq!((&sound["events"], &sound["groups"]), (&8.into(), &1.into()), "{sound}");

    let log = data.path().join("events/events.log");
    std::fs::write(log, [7; 8_192]).expect("the log can be overwritten");
    verify().assert_failure(3, "the store is damaged");
}

#[test]
fn store_is_exported_imported_and_compared() {
    let source = System::start(BINARY, &[]);
    let target = System::start(BINARY, &[]);
    let id = source.api.place_valid_order();
    source.api.wait_until_ended(&id);
    let (from, to) = (source.event_store(), target.event_store());
    let ours = [("DOFS__EVENT_STORE__URL", from)];
    let exported = dofs(&["node", "export", "--to", to, "--json"], &ours).json();
    assert_eq!((&exported["events"], &exported["copied"]), (&5.into(), &5.into()));
    assert_eq!(
        target.api.wait_until_ended(&id)["order_id"],
        id.as_str(),
        "the target has the order"
    );

    let ours = [("DOFS__EVENT_STORE__URL", to)];
    let checked = dofs(&["node", "import", "--from", from, "--json"], &ours).json();
    assert_eq!((&checked["events"], &checked["copied"]), (&5.into(), &0.into()));

    target.api.place_valid_order();
    let ours = [("DOFS__EVENT_STORE__URL", from)];
    let refused = dofs(&["node", "export", "--to", to], &ours);
    refused.assert_failure(3, "which the source lacks");
}
