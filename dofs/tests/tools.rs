//! Commands for scripts and packagers: `healthcheck`, `completions`, `man`, `version`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::command::{self, CommandOutput};
use testkit::stub::Stub;
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

fn dofs(arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    command::run(BINARY, arguments, environment)
}

#[test]
fn healthcheck_asks_the_configured_listener() {
    let system = System::start(BINARY, &[]);
    let listen = system.api.url().replace("http://", "");
    let configured = [("DOFS__API__LISTEN", listen.as_str()), ("DOFS_URL", "http://127.0.0.1:1")];
    let line = format!("ok: http://{listen}/readyz\n");
    assert_eq!(dofs(&["healthcheck"], &configured).success(), line);
    assert_eq!(dofs(&["healthcheck", "--url", &system.api.url()], &[]).success(), line);
    let json = dofs(&["healthcheck", "--json"], &configured).json();
    let url = format!("http://{listen}/readyz");
    assert_eq!(json, json!({"status": "ok", "url": url, "reason": ""}));
}

#[test]
fn healthcheck_reports_state_and_reason_in_one_line() {
    let degraded = json!({"status": "degraded", "reasons": {"read_model": "5 events behind"}});
    let unavailable = json!({"status": "unavailable", "reasons": {"event_store": "disk\nfull"}});
    let other = Value::from("hello");
    for (status, body, exit_code, line) in [
        (200, json!({"status": "ok"}), 0, "ok: URL"),
        (200, degraded, 0, "degraded: URL: read_model: 5 events behind"),
        (503, unavailable, 1, "unavailable: URL: event_store: disk\\nfull"),
        (503, json!({"status": "draining"}), 1, "draining: URL"),
        (404, other, 1, "unknown: URL: unexpected answer: status 404 Not Found"),
    ] {
        let stub = Stub::start([(status, body)]);
        let checked = dofs(&["healthcheck", "--url", &stub.url()], &[]);
        let url = format!("{}/readyz", stub.url());
        assert_eq!(checked.stdout, format!("{}\n", line.replace("URL", &url)));
        assert_eq!((checked.status.code(), &*checked.stderr), (Some(exit_code), ""));
        assert_eq!(stub.request_lines(), ["GET /readyz"]);
    }
}

#[test]
fn healthcheck_without_answer_fails_in_bounded_time() {
    let refused = dofs(&["healthcheck", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!((refused.status.code(), &*refused.stderr), (Some(1), ""));
    assert!(refused.stdout.contains("Connection refused"), "{refused:?}");
    assert_eq!(refused.stdout.lines().count(), 1, "{refused:?}");
    // A listener that accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let started = Instant::now();
    let checked = dofs(&["healthcheck", "--url", &url, "--timeout", "1"], &[]);
    assert_eq!(checked.stdout, format!("unknown: {url}/readyz: no answer within 1 s\n"));
    assert_eq!(checked.status.code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn healthcheck_with_invalid_settings_or_url_is_unhealthy() {
    // Container runtimes reserve every exit code except 0 and 1.
    let invalid = dofs(&["healthcheck"], &[("DOFS__API__LISTN", "x")]);
    assert_eq!(invalid.status.code(), Some(1), "{invalid:?}");
    assert!(invalid.stdout.starts_with("unknown: unknown setting `api.listn`"), "{invalid:?}");
    let invalid = dofs(&["healthcheck", "--url", "localhost:8080"], &[]);
    assert_eq!(invalid.status.code(), Some(1), "{invalid:?}");
    assert!(invalid.stdout.starts_with("unknown: invalid URL `localhost:8080`"), "{invalid:?}");
    dofs(&["healthcheck", "--role", "cook"], &[]).assert_failure(2, "invalid value 'cook'");
    dofs(&["healthcheck", "--timeout", "0"], &[]).assert_failure(2, "invalid value '0'");
}

#[test]
fn completion_scripts_contain_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = dofs(&["completions", shell], &[]).success();
        for word in ["dead-letters", "healthcheck", "rollback", "customer"] {
            assert!(script.contains(word), "{shell}: no `{word}`");
        }
    }
    dofs(&["completions", "csh"], &[]).assert_failure(2, "invalid value 'csh'");
    dofs(&["completions"], &[]).assert_failure(2, "<SHELL>");
}

#[test]
fn bash_completes_commands_with_the_script() {
    let script = dofs(&["completions", "bash"], &[]).success();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let checked = Command::new("bash").arg("-n").arg(file.path()).status().unwrap();
    assert!(checked.success(), "bash -n: {checked}");
    let completion = r#"source "$1"; COMP_WORDS=(dofs config s); COMP_CWORD=2; _dofs dofs s config; echo "${COMPREPLY[@]}""#;
    let completed = Command::new("bash").args(["-c", completion, "bash"]).arg(file.path()).output();
    let completed = completed.unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "show", "{completed:?}");
}

#[test]
fn manual_has_a_page_for_every_command() {
    let page = dofs(&["man"], &[]).success();
    assert!(page.contains(".TH dofs 1"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man");
    let out = out.to_str().unwrap();
    dofs(&["man", "--out", out], &[]).success();
    for name in ["dofs", "dofs-config-show", "dofs-dead-letters", "dofs-node-backup"] {
        let page = std::fs::read_to_string(format!("{out}/{name}.1")).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = dofs(&["man", "--out", file.to_str().unwrap()], &[]);
    refused.assert_failure(1, "cannot use folder");
}

#[test]
fn version_names_program_formats_and_protocol() {
    assert_eq!(dofs(&["--version"], &[]).success(), "dofs 0.1.0\n");
    let version = dofs(&["version", "--json"], &[]).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["rustc"].as_str().unwrap().starts_with("rustc 1."), "{version}");
    // Without a checkout, the commit is null.
    let commit = version["commit"].as_str().unwrap_or("0000000");
    assert!(commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
    assert_eq!(version["event_schema"], json!({"written": 1, "oldest_readable": 1}));
    assert_eq!(version["read_model_schema"], 10);
    assert_eq!(version["projections"]["orders"].as_u64().map(|version| version > 0), Some(true));
    assert_eq!(version["event_store_protocol"], "24.6.0");
    let text = dofs(&["version"], &[]).success();
    let rows = ["commit", "stored events", "read model schema", "event store protocol"];
    for row in rows {
        assert!(text.contains(row), "{text}");
    }
}

#[test]
fn database_with_tls_and_any_verification_never_panics() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut ssl_request = [0; 8];
            connection.read_exact(&mut ssl_request).unwrap();
            // The server accepts TLS, and then ends the handshake.
            connection.write_all(b"S").unwrap();
        });
        let url = format!("postgres://dofs:secret@127.0.0.1:{port}/dofs?sslmode={mode}");
        let output = dofs(&["migrate"], &[("DOFS__READ_MODEL__URL", &url)]);
        assert!(!output.stderr.contains("panicked"), "{mode}: {}", output.stderr);
        assert!(output.stderr.contains("error: database"), "{mode}: {}", output.stderr);
        database.join().unwrap();
    }
}
