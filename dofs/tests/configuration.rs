//! `dofs config`, `--config`, and the options that select an API: `DOFS_URL` and `--cacert`.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::certificates::TestAuthority;
use testkit::command::{self, CommandOutput};
use testkit::system::{System, sqlite_url};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";
/// URL at which no API listens.
const NOBODY: &str = "http://127.0.0.1:1";

fn dofs(arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    command::run(BINARY, arguments, environment)
}

/// Writes a configuration file, and returns its path with the folder that contains it.
fn write_file(toml: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dofs.toml");
    std::fs::write(&path, toml).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn config_check_reports_all_problems_at_once() {
    // Given a file and variables with problems of every kind
    let (_folder, file) = write_file("[projctor]\nbatch_ms = 1\n\n[api]\nmax_concurrency = 0\n");
    let environment = [
        ("DOFS_ENV", "production"),
        ("DOFS__API__LISTN", "0.0.0.0:80"),
        ("DOFS__API__RATE_PER_SECOND", "many"),
        ("DOFS__API__TLS_KEY", "key.pem"),
        ("DOFS__API__RATE_BURST", "0"),
        ("DOFS__EVENT_STORE__URL", "esdb://admin:changeit@store:2113?tls=false"),
        ("DOFS__FULFILLMENT__CONCURRENCY", "0"),
        ("DOFS__READ_MODEL__URL_FILE", "/nonexistent/url"),
    ];
    // When they are checked
    let checked = dofs(&["config", "check", "--config", &file], &environment);
    // Then the result has a line for each problem, and the exit code of invalid settings
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    assert_eq!(checked.stderr, "");
    let in_file = format!("in file `{file}`");
    let problems = [
        "cannot read file `/nonexistent/url`, the value of `DOFS__READ_MODEL__URL_FILE`".to_owned(),
        format!("unknown setting `projctor` {in_file}: did you mean `projector`?"),
        format!("invalid setting `api.max_concurrency` {in_file}: "),
        "unknown setting `api.listn` in environment variable `DOFS__API__LISTN`: did you mean \
         `api.listen`?"
            .to_owned(),
        "invalid setting `api.rate_per_second` in environment variable".to_owned(),
        "only one of the settings `api.tls_certificate` and `api.tls_key` is set".to_owned(),
        "setting `api.rate_burst` is 0".to_owned(),
        "`event_store.url` contains a default password".to_owned(),
        "`event_store.url` connects to another machine without TLS".to_owned(),
        "`fulfillment.gateway` is `simulated`".to_owned(),
        "invalid `fulfillment.concurrency` 0".to_owned(),
        "API keys would be sent unencrypted".to_owned(),
        "12 problems".to_owned(),
    ];
    for problem in &problems {
        assert!(checked.stdout.contains(problem), "`{problem}` is not in: {}", checked.stdout);
    }
    assert_eq!(checked.stdout.lines().count(), problems.len(), "{}", checked.stdout);
    let json = dofs(&["config", "check", "--json", "--config", &file], &environment).json();
    assert_eq!(json["problems"].as_array().map(Vec::len), Some(12), "{json}");
    assert_eq!(json["environment"], "production");
}

#[test]
fn config_check_agrees_with_serve() {
    let valid = dofs(&["config", "check"], &[]).success();
    assert_eq!(valid, "settings are valid: environment dev, roles api, worker, projector\n");
    // Each role has its own requirements.
    let production = [("DOFS_ENV", "production"), ("DOFS__API__BEHIND_TLS_PROXY", "true")];
    dofs(&["config", "check", "api", "projector"], &production).success();
    let refused = dofs(&["config", "check", "worker", "--json"], &production);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert_eq!(refused.json()["problems"].as_array().map(Vec::len), Some(1), "{refused:?}");
    for (name, value) in [
        ("DOFS_ENV", "prod"),
        ("DOFS__API__ACCEPTED_STATUS", "201"),
        ("DOFS__API__LISTEN", "8080"),
        ("DOFS__AUTH__MODE", "keys"),
        ("DOFS__FULFILLMENT__GATEWAY", "http"),
        ("DOFS__FULFILLMENT__SUCCESS_RATE", "2"),
        ("DOFS__X", "y"),
    ] {
        let environment = [(name, value)];
        let checked = dofs(&["config", "check"], &environment);
        assert_eq!(checked.status.code(), Some(2), "{name}={value}: {checked:?}");
        let problem = checked.stdout.lines().next().unwrap();
        // A worker needs no read model, so it refuses for the checked reason.
        dofs(&["serve", "worker"], &environment).assert_failure(2, problem);
    }
    dofs(&["config", "check", "teapot"], &[]).assert_failure(2, "invalid value 'teapot'");
    dofs(&["config"], &[]).assert_failure(2, "Usage: dofs config");
}

#[test]
fn config_show_names_the_source_of_each_value() {
    // Given a value from each kind of source
    let (folder, file) = write_file("[projector]\nbatch_ms = 1\nbatch_size = 2\n");
    let secret = folder.path().join("store-url");
    std::fs::write(&secret, "esdb://ops:s3cret@store:2113\n").unwrap();
    let environment = [
        ("DOFS_ENV", "staging"),
        ("DOFS__PROJECTOR__BATCH_SIZE", "3"),
        ("DOFS__READ_MODEL__URL", "postgres://dofs:s3cret@db/dofs?sslmode=require"),
        ("DOFS__EVENT_STORE__URL_FILE", secret.to_str().unwrap()),
    ];
    // When the settings are shown as JSON
    let show = ["config", "show", "--sources", "--config", &file];
    let shown = dofs(&[&show[..], &["--json"]].concat(), &environment);
    // Then each value has its source, and no password is shown
    let json = shown.json();
    let settings = &json["settings"];
    assert_eq!(json["environment"], "staging");
    for (section, key, value, kind, name) in [
        ("api", "accepted_status", json!(202), "built_in_file", "default.toml"),
        ("api", "listen", json!("0.0.0.0:8080"), "built_in_file", "staging.toml"),
        ("projector", "batch_ms", json!(1), "file", &file),
        (
            "projector",
            "batch_size",
            json!(3),
            "environment_variable",
            "DOFS__PROJECTOR__BATCH_SIZE",
        ),
        (
            "read_model",
            "url",
            json!("postgres://***@db/dofs?***"),
            "environment_variable",
            "DOFS__READ_MODEL__URL",
        ),
        (
            "event_store",
            "url",
            json!("esdb://***@store:2113"),
            "environment_variable",
            "DOFS__EVENT_STORE__URL_FILE",
        ),
    ] {
        let expected = json!({"value": value, "source": {"kind": kind, "name": name}});
        assert_eq!(settings[section][key], expected, "{section}.{key}");
    }
    assert!(!format!("{shown:?}").contains("s3cret"), "{shown:?}");
    // And the text is a configuration file with the sources as comments
    let text = dofs(&show, &environment).success();
    assert!(text.starts_with("# DOFS_ENV: staging\n\n[api]\n"), "{text}");
    let line = text.lines().find(|line| line.starts_with("batch_ms = 1 ")).unwrap();
    assert!(line.ends_with(&format!("# file `{file}`")), "{line}");
    let plain = dofs(&["config", "show"], &[]).success();
    let (_copy, copy) = write_file(&plain);
    let again = dofs(&["config", "show", "--config", &copy], &[]).success();
    assert_eq!(again, plain);
    let values = dofs(&["config", "show", "--json"], &[]).json();
    assert_eq!(values["settings"]["auth"], json!({"mode": "none"}));
    let unknown = dofs(&["config", "show"], &[("DOFS__API__LISTN", "x")]);
    unknown.assert_failure(2, "did you mean `api.listen`?");
}

#[test]
fn config_file_overrides_built_in_files_only() {
    let data = tempfile::tempdir().unwrap();
    let (in_file, in_variable) = (data.path().join("a"), data.path().join("b"));
    for folder in [&in_file, &in_variable] {
        std::fs::create_dir(folder).unwrap();
    }
    let toml = format!("[read_model]\nurl = '{}'\n", sqlite_url(&in_file));
    let (_folder, file) = write_file(&toml);
    let migrate = ["migrate", "--json", "--config", &file];
    let address = |environment: &[(&str, &str)]| {
        dofs(&migrate, environment).json()["read_model"]["address"].clone()
    };
    assert_eq!(address(&[]), Value::from(sqlite_url(&in_file)));
    let variable = sqlite_url(&in_variable);
    assert_eq!(address(&[("DOFS__READ_MODEL__URL", &variable)]), Value::from(variable.clone()));
    // The option may precede the command.
    dofs(&["--config", &file, "migrate"], &[]).success();
}

#[test]
fn every_command_that_reads_settings_reads_the_config_file() {
    let reading: [&[&str]; 19] = [
        &["dev"],
        &["demo"],
        &["serve"],
        &["serve", "worker"],
        &["node"],
        &["node", "verify"],
        &["node", "scavenge"],
        &["node", "export", "--to", "esdb://127.0.0.1:1?tls=false"],
        &["migrate"],
        &["keys", "list"],
        &["order", "list"],
        &["audit", "show", ID],
        &["audit", "verify"],
        &["audit", "export"],
        &["dead-letters", "list"],
        &["worker", "status"],
        &["projections", "status"],
        &["stress"],
        &["config", "show"],
    ];
    for command in reading {
        let refused = dofs(&[command, &["--config", "/nonexistent/dofs.toml"]].concat(), &[]);
        refused.assert_failure(
            2,
            "error: cannot read configuration file `/nonexistent/dofs.toml`: No such file",
        );
    }
    let (_folder, malformed) = write_file("[api]\nlisten = '127.0.0.1:1\nurl = s3cret'\n");
    let refused = dofs(&["migrate", "--config", &malformed], &[]);
    refused.assert_failure(2, &format!("error: invalid TOML in file `{malformed}`, line 2: "));
    assert!(!refused.stderr.contains("s3cret"), "{refused:?}");
    for command in [&["openapi"][..], &["version"], &["man"], &["completions", "bash"]] {
        let refused = dofs(&[command, &["--config", &malformed]].concat(), &[]);
        refused.assert_failure(2, "unexpected argument '--config'");
    }
}

#[test]
fn dofs_url_selects_the_api_unless_url_is_given() {
    let system = System::start(BINARY, &[]);
    let url = system.api.url();
    let clients: [&[&str]; 5] = [
        &["order", "list"],
        &["dead-letters", "list"],
        &["worker", "status"],
        &["audit", "show", ID],
        &["stress", "--orders", "1"],
    ];
    for command in clients {
        dofs(command, &[("DOFS_URL", NOBODY)])
            .assert_failure(7, "no response from http://127.0.0.1:1");
        let reached = dofs(command, &[("DOFS_URL", &url)]);
        assert!(matches!(reached.status.code(), Some(0 | 4)), "{reached:?}");
    }
    dofs(&["order", "list", "--url", &url], &[("DOFS_URL", NOBODY)]).success();
    dofs(&["order", "list"], &[("DOFS_URL", "api")]).assert_failure(2, "invalid API URL `api`");
    dofs(&["openapi"], &[("DOFS_URL", "api")]).success();
}

#[test]
fn cacert_makes_an_api_with_a_private_authority_trusted() {
    // Given an API whose certificate was issued by a private authority
    let folder = tempfile::tempdir().unwrap();
    let authority = TestAuthority::create(folder.path(), "ca");
    let files = authority.issue("api");
    let tls = [
        ("DOFS__API__TLS_CERTIFICATE", files.certificate.to_str().unwrap()),
        ("DOFS__API__TLS_KEY", files.key.to_str().unwrap()),
    ];
    let system = System::start(BINARY, &tls);
    let url = system.api.url().replace("http://", "https://");
    let authority = authority.certificate.to_str().unwrap();
    let list = ["order", "list", "--url", &url];
    // When clients call it, then only those that trust the authority get an answer
    dofs(&list, &[]).assert_failure(7, "name the authority's file by `--cacert`");
    dofs(&[&list[..], &["--cacert", authority]].concat(), &[]).success();
    dofs(&list, &[("DOFS_CACERT", authority)]).success();
    // And a file without certificates is an error that names it
    let key = files.key.to_str().unwrap();
    for (file, cause) in [("/nonexistent/ca.pem", "No such file"), (key, "no certificate")] {
        let refused = dofs(&[&list[..], &["--cacert", file]].concat(), &[]);
        refused
            .assert_failure(2, &format!("cannot read certificates of authorities from `{file}`"));
        assert!(refused.stderr.contains(cause), "{refused:?}");
    }
    // And the health check of the own listener needs no authority, while one by URL does
    let listen = system.api.url().replace("http://", "");
    let own = [&tls[..], &[("DOFS__API__LISTEN", &listen)]].concat();
    dofs(&["healthcheck"], &own).success();
    let by_url = dofs(&["healthcheck", "--url", &url], &[]);
    assert_eq!(by_url.status.code(), Some(1), "{by_url:?}");
    assert!(by_url.stdout.contains("certificate"), "{by_url:?}");
}
