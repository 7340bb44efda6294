//! What keeps an operator from working on another installation than is meant, or from running one
//! that is not fit for its environment.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use testkit::process::Start;
use testkit::stub::Stub;
use testkit::system::System;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";

fn dofs(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let start = Start::new(BINARY, arguments).env("DOFS_LOG", "text").env("NO_COLOR", "1");
    let start = environment.iter().fold(start, |start, (name, value)| start.env(name, value));
    start.into_command().output().unwrap()
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
}

fn sqlite(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

#[test]
fn flag_that_a_command_does_not_use_is_refused() {
    let of_the_api = [["--url", "http://127.0.0.1:1"], ["--api-key", "x"]];
    let without_api: [&[&str]; 14] = [
        &["dev"],
        &["demo"],
        &["serve"],
        &["node"],
        &["node", "verify"],
        &["migrate"],
        &["keys", "list"],
        &["keys", "revoke", "x"],
        &["audit", "verify"],
        &["audit", "export"],
        &["projections", "status"],
        &["projections", "verify"],
        &["projections", "rebuild"],
        &["openapi"],
    ];
    for command in without_api {
        for [flag, value] in of_the_api {
            let refused = dofs(&[command, &[flag, value]].concat(), &[]);
            assert_fails(&refused, 2, &format!("unexpected argument '{flag}'"));
        }
    }
    let that_never_ask: [&[&str]; 6] = [
        &["serve"],
        &["migrate"],
        &["keys", "list"],
        &["order", "list"],
        &["audit", "show", ID],
        &["projections", "verify"],
    ];
    for command in that_never_ask {
        let refused = dofs(&[command, &["--yes"]].concat(), &[]);
        assert_fails(&refused, 2, "unexpected argument '--yes'");
    }
    for command in [&["worker", "status"][..], &["dead-letters", "list"]] {
        let refused = dofs(&[command, &["--actor", "alice"]].concat(), &[]);
        assert_fails(&refused, 2, "unexpected argument '--actor'");
    }
    // A variable for other commands is no reason to refuse this one.
    assert!(dofs(&["openapi"], &[("DOFS_API_KEY", "x")]).status.success());
}

#[test]
fn command_without_the_api_says_first_which_stores_it_works_on() {
    let data = tempfile::tempdir().unwrap();
    let mut process = Start::dev(BINARY, data.path()).spawn();
    let api = testkit::api::Api::new(process.http());
    api.projected(&api.accepted());
    let store = format!("esdb://{}?tls=false", process.node());
    let read_model = sqlite(&data.path().join("read-model.sqlite"));
    let with_password = store.replace("//", "//admin:s3cret@");
    let environment = [
        ("DOFS__EVENT_STORE__URL", with_password.as_str()),
        ("DOFS__READ_MODEL__URL", &read_model),
    ];

    let verified = json(&dofs(&["audit", "verify", "--json"], &environment));
    assert_eq!(verified["event_store"]["address"], store);
    let store_id = verified["event_store"]["store_id"].as_str().unwrap();
    let event_store = format!("event store: {store}, store {store_id}\n");
    let status = json(&dofs(&["projections", "status", "--json"], &environment));
    assert_eq!(status["event_store"], verified["event_store"]);
    assert_eq!(status["read_model"]["address"], read_model);
    let version = status["read_model"]["schema_version"].as_u64().unwrap();
    let both = format!("{event_store}read model: {read_model}, schema version {version}\n");

    for (command, said) in [
        (&["audit", "verify"][..], &event_store),
        (&["audit", "export"], &event_store),
        (&["keys", "list"], &event_store),
        (&["projections", "status"], &both),
        (&["projections", "verify"], &both),
    ] {
        let output = dofs(command, &environment);
        assert!(output.status.success(), "{output:?}");
        assert!(stderr(&output).starts_with(said), "{command:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("s3cret"), "{}", stderr(&output));
        let quiet = dofs(&[command, &["--quiet"]].concat(), &environment);
        assert_eq!(stderr(&quiet), "", "{command:?}");
    }
    assert!(process.terminate().success());
    let folder = data.path().join("events").display().to_string();
    let verify = ["node", "verify", "--data", &folder];
    assert!(stderr(&dofs(&verify, &[])).starts_with(&format!("event store: {folder}\n")));
    let gone = dofs(&["audit", "verify"], &environment);
    assert_fails(&gone, 7, &format!("event store: {store}\n"));
    let unreachable = format!("event store {store} is unreachable: connection refused\n");
    assert!(stderr(&gone).contains(&unreachable), "{gone:?}");
    let gone = dofs(&["keys", "list", "--json"], &environment);
    let document: Value = serde_json::from_slice(&gone.stderr).unwrap();
    assert_eq!(
        (&document["code"], &document["exit_code"]),
        (&"service_unavailable".into(), &7.into())
    );
}

#[test]
fn migrate_names_its_database_and_makes_a_file_outside_of_dev_only_if_told() {
    let data = tempfile::tempdir().unwrap();
    let url = sqlite(&data.path().join("rows.sqlite"));
    for environment in ["staging", "production"] {
        let environment = [("DOFS_ENV", environment), ("DOFS__READ_MODEL__URL", &url)];
        let refused = dofs(&["migrate"], &environment);
        assert_fails(&refused, 2, &format!("read model: {url}, without tables\n"));
        assert!(stderr(&refused).contains("--create"), "{refused:?}");
        assert!(std::fs::read_dir(data.path()).unwrap().next().is_none(), "nothing was made");
    }
    let environment = [("DOFS_ENV", "production"), ("DOFS__READ_MODEL__URL", url.as_str())];
    let made = json(&dofs(&["migrate", "--create", "--json"], &environment));
    assert_eq!(
        (&made["applied"][0], &made["read_model"]["address"]),
        (&"0001_read_model".into(), &url.as_str().into())
    );
    let again = dofs(&["migrate"], &environment);
    let version = &made["read_model"]["schema_version"];
    assert_eq!(stderr(&again), format!("read model: {url}, schema version {version}\n"));
}

#[test]
fn production_refuses_dice_and_keys_in_the_clear() {
    let data = tempfile::tempdir().unwrap();
    let url = sqlite(&data.path().join("rows.sqlite"));
    let safe = [
        ("DOFS_ENV", "production"),
        ("DOFS__READ_MODEL__URL", url.as_str()),
        ("DOFS__FULFILLMENT__ALLOW_SIMULATED", "true"),
        ("DOFS__API__BEHIND_TLS_PROXY", "true"),
    ];
    let without = |name: &str| safe.into_iter().filter(|it| it.0 != name).collect::<Vec<_>>();
    let dice = without("DOFS__FULFILLMENT__ALLOW_SIMULATED");
    assert_fails(&dofs(&["serve", "worker"], &dice), 2, "`fulfillment.allow_simulated = true`");
    let clear = without("DOFS__API__BEHIND_TLS_PROXY");
    assert_fails(&dofs(&["serve", "api"], &clear), 2, "`api.behind_tls_proxy = true`");
    // What is refused is not what the process goes on to find wrong: here, a schema that is not there.
    assert_fails(&dofs(&["serve"], &safe), 1, "run `dofs migrate`");
    let loopback = ["serve", "api", "--listen", "127.0.0.1:0"];
    assert_fails(&dofs(&loopback, &clear), 1, "run `dofs migrate`");
}

#[test]
fn staging_says_loudly_that_it_fulfils_by_dice() {
    let worker = Start::new(BINARY, &["serve", "worker"]).env("DOFS_ENV", "staging").spawn();
    let line = wait::until("the warning", || {
        let mut log = worker.log().into_iter();
        log.find(|line| line["message"].as_str().is_some_and(|it| it.starts_with("SIMULATED")))
    });
    assert_eq!(line["level"], "WARN");
}

#[test]
fn requests_to_this_machine_go_through_no_proxy() {
    let system = System::start(BINARY, &[]);
    let proxy = Stub::start([(502, Value::Null)]);
    let through = [("HTTP_PROXY", proxy.url()), ("http_proxy", proxy.url())];
    let mut list = Command::new(BINARY);
    list.args(["order", "list", "--url", &system.api.url()]).envs(through.clone());
    assert!(list.output().unwrap().status.success());
    assert_eq!(proxy.lines(), Vec::<String>::new());
    let mut elsewhere = Command::new(BINARY);
    elsewhere.args(["order", "list", "--url", "http://api.example"]).envs(through);
    assert!(!elsewhere.output().unwrap().status.success());
    assert_eq!(proxy.lines().len(), 1, "the proxy is what others are reached through");
}
