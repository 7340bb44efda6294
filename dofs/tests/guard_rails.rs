//! Protection of operators against the wrong installation and against unsafe settings.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::process::Command;

use serde_json::Value;
use sqlx::{Connection, PgConnection, SqliteConnection};
use testkit::command::{self, CommandOutput};
use testkit::postgres;
use testkit::process::Start;
use testkit::stub::Stub;
use testkit::system::{System, sqlite_url};
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";

fn dofs(arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    command::run(BINARY, arguments, environment)
}

#[test]
fn unused_flags_are_rejected() {
    let api_flags = [["--url", "http://127.0.0.1:1"], ["--api-key", "x"]];
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
        for [flag, value] in api_flags {
            let refused = dofs(&[command, &[flag, value]].concat(), &[]);
            refused.assert_failure(2, &format!("unexpected argument '{flag}'"));
        }
    }
    let without_confirmation: [&[&str]; 6] = [
        &["serve"],
        &["migrate"],
        &["keys", "list"],
        &["order", "list"],
        &["audit", "show", ID],
        &["projections", "verify"],
    ];
    for command in without_confirmation {
        let refused = dofs(&[command, &["--yes"]].concat(), &[]);
        refused.assert_failure(2, "unexpected argument '--yes'");
    }
    for command in [&["worker", "status"][..], &["dead-letters", "list"]] {
        let refused = dofs(&[command, &["--actor", "alice"]].concat(), &[]);
        refused.assert_failure(2, "unexpected argument '--actor'");
    }
    // The environment variable of a flag is ignored by other commands.
    assert!(dofs(&["openapi"], &[("DOFS_API_KEY", "x")]).status.success());
}

#[test]
fn direct_store_access_is_announced_first() {
    let data = tempfile::tempdir().unwrap();
    let mut process = Start::dev(BINARY, data.path()).spawn();
    let api = testkit::api::Api::new(process.http_address());
    api.wait_until_projected(&api.place_valid_order());
    let store = process.node_url();
    let read_model = sqlite_url(data.path());
    let with_password = store.replace("//", "//admin:s3cret@");
    let environment = [
        ("DOFS__EVENT_STORE__URL", with_password.as_str()),
        ("DOFS__READ_MODEL__URL", &read_model),
    ];

    let verified = dofs(&["audit", "verify", "--json"], &environment).json();
    assert_eq!(verified["event_store"]["address"], store);
    let store_id = verified["event_store"]["store_id"].as_str().unwrap();
    let event_store = format!("event store: {store}, store {store_id}\n");
    let status = dofs(&["projections", "status", "--json"], &environment).json();
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
        assert!(output.stderr.starts_with(said), "{command:?}: {}", output.stderr);
        assert!(!output.stderr.contains("s3cret"), "{}", output.stderr);
        let quiet = dofs(&[command, &["--quiet"]].concat(), &environment);
        assert_eq!(quiet.stderr, "", "{command:?}");
    }
    assert!(process.terminate().success());
    let folder = data.path().join("events").display().to_string();
    let verify = ["node", "verify", "--data", &folder];
    assert!(dofs(&verify, &[]).stderr.starts_with(&format!("event store: {folder}\n")));
    let gone = dofs(&["audit", "verify"], &environment);
    gone.assert_failure(7, &format!("event store: {store}\n"));
    let unreachable = format!("event store {store} is unreachable: connection refused\n");
    assert!(gone.stderr.contains(&unreachable), "{gone:?}");
    let gone = dofs(&["keys", "list", "--json"], &environment);
    let document: Value = serde_json::from_str(&gone.stderr).unwrap();
    assert_eq!(
        (&document["code"], &document["exit_code"]),
        (&"service_unavailable".into(), &7.into())
    );
}

#[test]
fn dry_run_of_migrate_shows_migrations_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("rows.sqlite").display());
    let environment = [("DOFS__READ_MODEL__URL", url.as_str())];
    let planned = dofs(&["migrate", "--dry-run", "--json"], &environment).json();
    let names = planned["would_apply"].as_array().unwrap();
    assert_eq!(names[0], "0001_read_model");
    assert_eq!(planned["read_model"]["schema_version"], Value::Null);
    assert!(planned["older_release_works"].is_null(), "{planned}");
    assert!(!folder.path().join("rows.sqlite").exists());

    let applied = dofs(&["migrate", "--json"], &environment).json();
    assert_eq!(&applied["applied"], &planned["would_apply"]);
    let nothing = dofs(&["migrate", "--dry-run"], &environment);
    assert!(nothing.stdout.contains("no migration to apply"), "{nothing:?}");
}

/// Runs SQL statements in the database of a read model.
fn execute(url: &str, sql: &'static str) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        if url.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        } else {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    });
}

#[test]
fn compatible_only_refuses_migrations_that_break_the_running_release() {
    let folder = tempfile::tempdir().unwrap();
    let database = postgres::create_database_blocking();
    for url in [sqlite_url(folder.path()).as_str(), database.url()] {
        let migrate =
            |flag: &str| dofs(&["migrate", "--json", flag], &[("DOFS__READ_MODEL__URL", url)]);
        let applied = |output: CommandOutput| {
            let names = output.json()["applied"].as_array().unwrap().clone();
            names.iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let empty = applied(migrate("--compatible-only"));
        assert_eq!(empty.first().map(String::as_str), Some("0001_read_model"));
        assert!(applied(migrate("--compatible-only")).is_empty(), "up to date");

        // The release of schema 9 works after migration 10.
        execute(
            url,
            "drop index failures_now_by_stage; delete from _sqlx_migrations where version = 10",
        );
        assert_eq!(applied(migrate("--compatible-only")), ["0010_failures_by_stage"]);

        // The release of schema 8 does not work after migration 9.
        execute(
            url,
            "drop index failures_now_by_stage; drop table schema_compatibility; \
             alter table projection_checkpoints drop column writer_version; \
             delete from _sqlx_migrations where version > 8",
        );
        let refused = migrate("--compatible-only");
        refused.assert_failure(1, "schema version 8 would not work");
        assert!(refused.stderr.contains("docs/UPGRADING.md"), "{refused:?}");
        let pending = ["0009_compatibility", "0010_failures_by_stage"];
        let planned = migrate("--dry-run").json();
        assert_eq!(planned["would_apply"], serde_json::json!(pending), "nothing was changed");
        assert_eq!(
            applied(dofs(&["migrate", "--json"], &[("DOFS__READ_MODEL__URL", url)])),
            pending
        );
    }
}

#[test]
fn migrate_creates_a_file_outside_dev_only_with_create() {
    let data = tempfile::tempdir().unwrap();
    let url = sqlite_url(data.path());
    for environment in ["staging", "production"] {
        let environment = [("DOFS_ENV", environment), ("DOFS__READ_MODEL__URL", &url)];
        let refused = dofs(&["migrate"], &environment);
        refused.assert_failure(2, &format!("read model: {url}, without tables\n"));
        assert!(refused.stderr.contains("--create"), "{refused:?}");
        assert!(std::fs::read_dir(data.path()).unwrap().next().is_none(), "no file was created");
    }
    let environment = [("DOFS_ENV", "production"), ("DOFS__READ_MODEL__URL", url.as_str())];
    let made = dofs(&["migrate", "--create", "--json"], &environment).json();
    assert_eq!(
        (&made["applied"][0], &made["read_model"]["address"]),
        (&"0001_read_model".into(), &url.as_str().into())
    );
    let again = dofs(&["migrate"], &environment);
    let version = &made["read_model"]["schema_version"];
    assert_eq!(again.stderr, format!("read model: {url}, schema version {version}\n"));
}

#[test]
fn production_rejects_simulation_and_unencrypted_keys() {
    let data = tempfile::tempdir().unwrap();
    let url = sqlite_url(data.path());
    let safe = [
        ("DOFS_ENV", "production"),
        ("DOFS__READ_MODEL__URL", url.as_str()),
        ("DOFS__FULFILLMENT__ALLOW_SIMULATED", "true"),
        ("DOFS__API__BEHIND_TLS_PROXY", "true"),
    ];
    let without =
        |name: &str| safe.into_iter().filter(|setting| setting.0 != name).collect::<Vec<_>>();
    let dice = without("DOFS__FULFILLMENT__ALLOW_SIMULATED");
    dofs(&["serve", "worker"], &dice).assert_failure(2, "`fulfillment.allow_simulated = true`");
    let clear = without("DOFS__API__BEHIND_TLS_PROXY");
    dofs(&["serve", "api"], &clear).assert_failure(2, "`api.behind_tls_proxy = true`");
    // With safe settings, the process gets as far as the missing schema.
    dofs(&["serve"], &safe).assert_failure(1, "run `dofs migrate`");
    let loopback = ["serve", "api", "--listen", "127.0.0.1:0"];
    dofs(&loopback, &clear).assert_failure(1, "run `dofs migrate`");
}

#[test]
fn staging_warns_of_the_simulated_gateway() {
    let worker = Start::new(BINARY, &["serve", "worker"]).env("DOFS_ENV", "staging").spawn();
    let line = wait::until("the warning is logged", || {
        let mut log = worker.log_lines().into_iter();
        log.find(|line| {
            line["message"].as_str().is_some_and(|message| message.starts_with("SIMULATED"))
        })
    });
    assert_eq!(line["level"], "WARN");
}

#[test]
fn loopback_requests_bypass_http_proxy() {
    let system = System::start(BINARY, &[]);
    let proxy = Stub::start([(502, Value::Null)]);
    let through = [("HTTP_PROXY", proxy.url()), ("http_proxy", proxy.url())];
    let mut list = Command::new(BINARY);
    list.args(["order", "list", "--url", &system.api.url()]).envs(through.clone());
    assert!(list.output().unwrap().status.success());
    assert_eq!(proxy.request_lines(), Vec::<String>::new());
    let mut elsewhere = Command::new(BINARY);
    elsewhere.args(["order", "list", "--url", "http://api.example"]).envs(through);
    assert!(!elsewhere.output().unwrap().status.success());
    assert_eq!(proxy.request_lines().len(), 1, "other hosts are reached through the proxy");
}
