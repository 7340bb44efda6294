//! `dofs doctor` names what is wrong with an installation, and what to do about it.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::api::Api;
use testkit::command::{self, CommandOutput};
use testkit::postgres;
use testkit::process::{Dofs, Start};
use testkit::strict_store::StrictStore;
use testkit::stub::Stub;
use testkit::system::sqlite_url;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// Checks whose results depend on the machine that runs the tests.
const OF_MACHINE: [&str; 4] =
    ["disk.event_store", "disk.read_model", "disk.temporary", "open_files"];

/// Findings of one run.
struct Diagnosis {
    output: CommandOutput,
    findings: Vec<Value>,
}

impl Diagnosis {
    /// Runs `dofs doctor --json` with these settings and more arguments.
    fn make(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let output =
            command::run(BINARY, &[&["doctor", "--json"], arguments].concat(), environment);
        let findings = output.json()["findings"].as_array().unwrap().clone();
        Self { output, findings }
    }

    fn find(&self, check: &str) -> &Value {
        let found = self.findings.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no check `{check}`: {:#?}", self.findings))
    }

    /// Asserts that a check has this status, and that detail and advice contain these texts.
    #[track_caller]
    fn assert_finding(&self, check: &str, status: &str, detail: &str, advice: &str) {
        let found = self.find(check);
        assert_eq!(found["status"], status, "{found:#}");
        for (member, text) in [("detail", detail), ("advice", advice)] {
            let found_text = found[member].as_str().unwrap_or_default();
            assert!(found_text.contains(text), "`{text}` is not in {found:#}");
        }
    }

    /// Asserts that a check failed, and the exit code with it.
    #[track_caller]
    fn assert_failure(&self, check: &str, detail: &str, advice: &str) {
        self.assert_finding(check, "fail", detail, advice);
        assert_eq!(self.output.status.code(), Some(3));
    }
}

/// A complete system, and the settings that describe it.
struct Installation {
    api: Api,
    process: Dofs,
    settings: Vec<(&'static str, String)>,
    _data: TempDir,
}

impl Installation {
    fn start(environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let start = Start::dev(BINARY, data.path()).env("DOFS__FULFILLMENT__SUCCESS_RATE", "1.0");
        let (mut process, api) = start.envs(environment).spawn_api();
        let settings = vec![
            ("DOFS__EVENT_STORE__URL", process.node_url()),
            ("DOFS__READ_MODEL__URL", sqlite_url(data.path())),
            ("DOFS__API__LISTEN", process.http_address().to_string()),
            ("DOFS__NODE__DATA", data.path().join("events").display().to_string()),
        ];
        Self { api, process, settings, _data: data }
    }

    /// Runs the doctor with the settings of this installation, changed by `environment`.
    fn diagnose(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Diagnosis {
        Diagnosis::make(&self.settings_with(environment), arguments)
    }

    fn settings_with<'a>(&'a self, environment: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        own.chain(environment.iter().copied()).collect()
    }
}

/// Returns an address of this machine at which no program listens.
fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Returns settings with stores that do not exist, for a test of other checks.
fn settings_without_stores(folder: &Path) -> [(&'static str, String); 3] {
    [
        ("DOFS__EVENT_STORE__URL", format!("esdb://{}?tls=false", unused_address())),
        ("DOFS__READ_MODEL__URL", sqlite_url(folder)),
        ("DOFS__API__LISTEN", unused_address().to_string()),
    ]
}

/// Runs the doctor without stores.
fn diagnose_without_stores(environment: &[(&str, &str)], arguments: &[&str]) -> Diagnosis {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings_without_stores(folder.path());
    let own = settings.iter().map(|(name, value)| (*name, value.as_str()));
    let all: Vec<_> = own.chain(environment.iter().copied()).collect();
    Diagnosis::make(&all, arguments)
}

#[test]
fn healthy_system_has_only_ok_lines() {
    let installation = Installation::start(&[]);
    installation.api.wait_until_projected(&installation.api.place_valid_order());

    let lines = command::run(BINARY, &["doctor"], &installation.settings_with(&[]));
    let is_of_machine = |line: &str| OF_MACHINE.iter().any(|check| line.contains(check));
    for line in lines.stdout.lines().filter(|line| !is_of_machine(line)) {
        assert!(line.starts_with("ok    "), "{}", lines.stdout);
    }
    assert!(lines.stderr.contains(" ok\n"), "{lines:?}");

    let diagnosis = installation.diagnose(&[], &["--quiet"]);
    let report = diagnosis.output.json();
    let worst_of_machine = diagnosis.findings.iter().map(|finding| &finding["status"]);
    let worst_of_machine = worst_of_machine
        .fold(
            &json!("ok"),
            |worst, status| {
                if status == "ok" || worst == "fail" { worst } else { status }
            },
        )
        .clone();
    assert_eq!(report["status"], worst_of_machine);
    let expected = [("ok", 0), ("warn", 1), ("fail", 3)];
    let expected = expected.iter().find(|(status, _)| *status == report["status"]).unwrap();
    assert_eq!(diagnosis.output.status.code(), Some(expected.1));
    assert_eq!(diagnosis.output.stderr, "");
    assert_eq!(report["environment"], "dev");
    assert_eq!(report["roles"], json!(["api", "worker", "projector"]));
    for check in ["event_store.append", "clock.event_store", "clock.api", "disk.event_store"] {
        diagnosis.find(check);
    }
}

#[test]
fn roles_are_checked_for_their_own_needs() {
    let installation = Installation::start(&[]);
    installation.api.wait_until_projected(&installation.api.place_valid_order());
    let checks = |role| {
        let diagnosis = installation.diagnose(&[], &["--role", role]);
        let names = diagnosis.findings.iter().map(|finding| finding["check"].to_string());
        names.collect::<String>()
    };
    let worker = checks("worker");
    assert!(worker.contains("gateway") && worker.contains("parked_messages"), "{worker}");
    assert!(!worker.contains("read_model") && !worker.contains("api."), "{worker}");
    let projector = checks("projector");
    assert!(projector.contains("read_model.wal") && projector.contains("disk.temporary"));
    assert!(!projector.contains("gateway") && !projector.contains("port.api"), "{projector}");
    let api = checks("api");
    assert!(api.contains("api.key") && api.contains("port.api"), "{api}");
    assert!(!api.contains("gateway") && !api.contains("disk.temporary"), "{api}");
}

#[test]
fn stopped_event_store_is_named_and_later_checks_are_skipped() {
    let mut installation = Installation::start(&[]);
    installation.api.wait_until_projected(&installation.api.place_valid_order());
    assert!(installation.process.terminate().success());
    let diagnosis = installation.diagnose(&[], &[]);
    diagnosis.assert_failure("event_store.tcp", "connection refused", "check that the store runs");
    for check in ["event_store.tls", "event_store.rights", "workers", "projection.orders"] {
        diagnosis.assert_finding(check, "warn", "not checked", "");
    }
    diagnosis.assert_failure("api.response", "Connection refused", "start `dofs serve api`");
    diagnosis.assert_finding("read_model.migrations", "ok", "up to date", "");
    diagnosis.assert_finding("port.api", "ok", "is free", "");
}

#[test]
fn unresolvable_event_store_names_the_host() {
    let environment = [("DOFS__EVENT_STORE__URL", "esdb://store.invalid:2113?tls=false")];
    let diagnosis = diagnose_without_stores(&environment, &["--role", "worker"]);
    diagnosis.assert_failure("event_store.dns", "store.invalid", "check the host name");
}

#[test]
fn denied_right_names_the_page_about_rights() {
    let store = StrictStore::start();
    store.deny_reading("$all");
    let environment = [("DOFS__EVENT_STORE__URL", &*store.url())];
    let diagnosis = diagnose_without_stores(&environment, &["--role", "worker"]);
    diagnosis.assert_failure("event_store.rights", "read `$all`", "docs/event-store.md");
    diagnosis.assert_finding("event_store.authentication", "ok", "accepted", "");
}

#[test]
fn refused_user_of_the_event_store_is_named() {
    let store = StrictStore::start();
    store.deny_reading("order-00000000-0000-0000-0000-000000000000");
    let environment = [("DOFS__EVENT_STORE__URL", &*store.url())];
    let diagnosis = diagnose_without_stores(&environment, &["--role", "worker"]);
    diagnosis.assert_failure("event_store.authentication", "refuses the user", "user and password");
    diagnosis.assert_finding("event_store.append", "warn", "not checked", "");
}

#[test]
fn missing_group_and_drifted_settings_are_found() {
    let store = StrictStore::start();
    let environment = [("DOFS__EVENT_STORE__URL", &*store.url())];
    let diagnosis = diagnose_without_stores(&environment, &["--role", "worker"]);
    diagnosis.assert_finding(
        "event_store.group",
        "warn",
        "does not exist",
        "start `dofs serve worker`",
    );
    diagnosis.assert_failure("workers", "no worker is connected", "start `dofs serve worker`");

    let installation = Installation::start(&[]);
    installation.api.wait_until_projected(&installation.api.place_valid_order());
    let changed = [("DOFS__FULFILLMENT__MESSAGE_TIMEOUT_MS", "40000")];
    let diagnosis = installation.diagnose(&changed, &["--role", "worker"]);
    let detail = "messageTimeout is 30000 ms, expected 40000 ms";
    let advice = "`fulfillment.message_timeout_ms`";
    diagnosis.assert_finding("event_store.group", "warn", detail, advice);
    assert_eq!(diagnosis.output.status.code(), Some(1), "{:#?}", diagnosis.findings);
}

#[test]
fn wrong_api_key_is_named() {
    let installation = Installation::start(&[("DOFS__AUTH__MODE", "api_key")]);
    let guarded = [("DOFS__AUTH__MODE", "api_key")];
    // Keys are read from the event store after the start.
    let refused = testkit::wait::until("the API knows its keys", || {
        let wrong = [guarded[0], ("DOFS_API_KEY", "wrong")];
        let diagnosis = installation.diagnose(&wrong, &["--role", "api"]);
        (diagnosis.find("api.key")["status"] == "fail").then_some(diagnosis)
    });
    refused.assert_failure("api.key", "refuses the key", "`dofs keys create`");
    let without = installation.diagnose(&guarded, &["--role", "api"]);
    without.assert_finding("api.key", "warn", "not checked: the API requires a key", "");
}

#[test]
fn wrong_database_user_and_schema_are_named() {
    let database = postgres::create_database_blocking();
    let diagnose = |url: &str| {
        let environment = [("DOFS__READ_MODEL__URL", url)];
        diagnose_without_stores(&environment, &["--role", "projector"])
    };
    let unmigrated = diagnose(database.url());
    unmigrated.assert_failure("read_model.migrations", "version 0", "`dofs migrate`");
    unmigrated.assert_finding("read_model.connection", "ok", "as user", "");
    unmigrated.assert_finding("projection.orders", "warn", "not checked", "");

    let environment = [("DOFS__READ_MODEL__URL", database.url())];
    command::run(BINARY, &["migrate"], &environment).success();
    let migrated = diagnose(database.url());
    for check in ["encoding", "privileges", "migrations", "pgbouncer"] {
        migrated.assert_finding(&format!("read_model.{check}"), "ok", "", "");
    }
    migrated.assert_finding("clock.read_model", "ok", "", "");

    let (server, _) = database.url().rsplit_once('/').unwrap();
    let missing = diagnose(&format!("{server}/nonexistent"));
    missing.assert_failure("read_model.connection", "nonexistent", "create database");
    let (scheme, rest) = database.url().split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let stranger = diagnose(&format!("{scheme}://stranger@{host}"));
    stranger.assert_failure("read_model.connection", "stranger", "user and password");
    let away = diagnose(&format!("postgres://dofs:s3cret@{}/dofs", unused_address()));
    away.assert_failure("read_model.connection", "refused", "check that the database runs");
    assert!(!away.output.stdout.contains("s3cret"), "{}", away.output.stdout);
}

#[test]
fn missing_and_damaged_sqlite_files_are_named() {
    let missing = diagnose_without_stores(&[], &["--role", "projector"]);
    missing.assert_failure("read_model.file", "does not exist", "`dofs migrate --create`");
    missing.assert_finding("read_model.migrations", "warn", "not checked", "");

    let folder = tempfile::tempdir().unwrap();
    let url = sqlite_url(folder.path());
    std::fs::write(folder.path().join("read-model.sqlite"), "no database".repeat(1_000)).unwrap();
    let environment = [("DOFS__READ_MODEL__URL", &*url)];
    let damaged = diagnose_without_stores(&environment, &["--role", "projector"]);
    damaged.assert_failure("read_model.connection", "not a database", "can be deleted");
}

/// Answers TLS handshakes with a certificate for `localhost` that expires at the start of a year.
fn serve_certificate(folder: &Path, expires_in: i32) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_before = date_time_ymd(2000, 1, 1);
    parameters.not_after = date_time_ymd(expires_in, 1, 1);
    let pem = parameters.self_signed(&key).unwrap().pem();
    std::fs::write(folder.join("chain.pem"), &pem).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (listener, config) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut stream, mut tls) =
                (stream, ServerConnection::new(Arc::clone(&config)).unwrap());
            // Fails if the client refuses the certificate.
            drop(tls.complete_io(&mut stream));
        }
    });
    address
}

#[test]
fn expired_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let address = serve_certificate(folder.path(), 2001);
    let chain = folder.path().join("chain.pem").display().to_string();
    let key = folder.path().join("key.pem").display().to_string();
    let url = format!("esdb://localhost:{}?tlsCaFile={chain}", address.port());
    let environment = [
        ("DOFS__EVENT_STORE__URL", &*url),
        ("DOFS__API__TLS_CERTIFICATE", &chain),
        ("DOFS__API__TLS_KEY", &key),
    ];
    let expired = diagnose_without_stores(&environment, &["--role", "api"]);
    expired.assert_failure("event_store.tls", "certificate has expired", "renew the certificate");
    expired.assert_failure(
        "configuration.tls",
        "has expired at 2001-01-01",
        "renew the certificate",
    );

    let folder = tempfile::tempdir().unwrap();
    let address = serve_certificate(folder.path(), 4000);
    let chain = folder.path().join("chain.pem").display().to_string();
    let url = format!("esdb://localhost:{}?tlsCaFile={chain}", address.port());
    let environment = [("DOFS__EVENT_STORE__URL", &*url)];
    let valid = diagnose_without_stores(&environment, &["--role", "worker"]);
    valid.assert_finding("event_store.tls", "ok", "valid until 4000-01-01", "");
    let untrusted = format!("esdb://localhost:{}", address.port());
    let environment = [("DOFS__EVENT_STORE__URL", &*untrusted)];
    let untrusted = diagnose_without_stores(&environment, &["--role", "worker"]);
    untrusted.assert_failure("event_store.tls", "unknown issuer", "`tlsCaFile`");
}

#[test]
fn port_held_by_another_program_is_named() {
    let other = Stub::start([(404, Value::Null)]);
    let listen = other.url().replace("http://", "");
    let environment = [("DOFS__API__LISTEN", &*listen)];
    let diagnosis = diagnose_without_stores(&environment, &["--role", "api"]);
    diagnosis.assert_failure("port.api", "held by another program", "ss -ltnp");
    diagnosis.assert_failure("api.readiness", "no health report", "not of another server");
}

#[test]
fn wrong_settings_are_named() {
    let unknown = Diagnosis::make(&[("DOFS__API__LISTN", "127.0.0.1:1")], &[]);
    unknown.assert_failure(
        "configuration",
        "`DOFS__API__LISTN`: did you mean `api.listen`?",
        "correct the setting",
    );
    let environment = [("DOFS_ENV", "production"), ("DOFS__AUTH__MODE", "none")];
    let open = diagnose_without_stores(&environment, &["--role", "api"]);
    open.assert_failure("configuration.safety", "`auth.mode` is `none`", "refuses to start");
    let environment = [("DOFS__FULFILLMENT__MESSAGE_TIMEOUT_MS", "15000")];
    let short = diagnose_without_stores(&environment, &["--role", "worker"]);
    short.assert_failure("configuration.fulfillment", "`message_timeout_ms` (15000)", "change");
}

#[test]
fn gateway_is_probed_without_an_order() {
    let gateway = Stub::start([(405, Value::Null)]);
    let url = format!("{}/orders", gateway.url());
    let environment = [("DOFS__FULFILLMENT__GATEWAY", "http"), ("DOFS__FULFILLMENT__URL", &*url)];
    let reached = diagnose_without_stores(&environment, &["--role", "worker"]);
    reached.assert_finding("gateway", "ok", "responds with 405", "");
    assert_eq!(gateway.request_lines(), ["OPTIONS /orders"]);
    drop(gateway);
    let away = diagnose_without_stores(&environment, &["--role", "worker"]);
    away.assert_failure("gateway", "Connection refused", "check that the gateway runs");
}

#[test]
fn silent_neighbours_are_named_within_fifteen_seconds() {
    // Connections succeed, and nothing is ever answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (store, database) =
        (format!("esdb://{address}?tls=false"), format!("postgres://dofs@{address}/dofs"));
    let (gateway, api) = (format!("http://{address}/orders"), format!("http://{address}"));
    let environment = [
        ("DOFS__EVENT_STORE__URL", &*store),
        ("DOFS__READ_MODEL__URL", &database),
        ("DOFS__FULFILLMENT__GATEWAY", "http"),
        ("DOFS__FULFILLMENT__URL", &gateway),
    ];
    let began = Instant::now();
    let diagnosis = diagnose_without_stores(&environment, &["--url", &api]);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    diagnosis.assert_failure("event_store.version", "", "check the store's log");
    diagnosis.assert_failure("read_model.connection", "did not respond", "the database runs");
    diagnosis.assert_failure("gateway", "", "check that the gateway runs");
    diagnosis.assert_failure("api.response", "", "start `dofs serve api`");
}
