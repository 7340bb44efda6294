//! Commands whose output cannot be written, confirmations without a terminal, and errors as JSON.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use testkit::process::Start;
use testkit::system::{System, sqlite_url};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";

fn build_command(arguments: &[&str], store: &str) -> Command {
    let start = Start::new(BINARY, arguments).env("DOFS_LOG", "text").env("NO_COLOR", "1");
    start.env("DOFS__EVENT_STORE__URL", store).into_command()
}

/// Creates a SQLite read model in a folder, and returns its URL.
fn create_read_model(folder: &Path) -> String {
    let url = sqlite_url(folder);
    let mut migrate = build_command(&["migrate"], "");
    assert!(migrate.env("DOFS__READ_MODEL__URL", &url).output().unwrap().status.success());
    url
}

fn full_device() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn unwritable_stdout_is_a_failure() {
    let system = System::start(BINARY, &[]);
    let url = system.api.url();
    let id = system.api.place_valid_order();
    system.api.wait_until_projected(&id);
    let commands: [&[&str]; 10] = [
        &["order", "get", &id, "--url", &url],
        &["order", "list", "--url", &url],
        &["audit", "show", &id, "--url", &url, "--json"],
        &["dead-letters", "list", "--url", &url],
        &["worker", "status", "--url", &url],
        &["audit", "verify"],
        &["audit", "export"],
        &["keys", "list"],
        &["openapi"],
        &["--help"],
    ];
    for arguments in commands {
        for stdout in [full_device(), closed_pipe()] {
            let mut command = build_command(arguments, system.event_store());
            let failed = command.stdout(stdout).output().unwrap();
            assert_eq!(failed.status.code(), Some(1), "{arguments:?}: {failed:?}");
        }
    }
}

#[test]
fn key_that_cannot_be_printed_is_not_created() {
    let system = System::start(BINARY, &[]);
    let create = ["keys", "create", "--name", "lost", "--tenant", "a", "--scope", "orders:read"];
    for (arguments, stdout) in [
        (&create[..], full_device()),
        (&create, closed_pipe()),
        (&[&create[..], &["--json"]].concat(), full_device()),
    ] {
        let failed =
            build_command(arguments, system.event_store()).stdout(stdout).output().unwrap();
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(stderr(&failed).contains("standard output"), "{failed:?}");
        assert!(!stderr(&failed).contains("accept the key"), "{failed:?}");
    }
    let listed = build_command(&["keys", "list", "--json"], system.event_store()).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["items"], Value::Array(Vec::new()));
}

#[test]
fn destructive_command_without_terminal_requires_yes() {
    let system = System::start(BINARY, &[]);
    let url = system.api.url();
    let mut create = build_command(
        &["keys", "create", "--name", "x", "--tenant", "a", "--scope", "orders:read", "--json"],
        system.event_store(),
    );
    let created: Value = serde_json::from_slice(&create.output().unwrap().stdout).unwrap();
    let key_id = created["id"].as_str().unwrap();
    let commands: [&[&str]; 4] = [
        &["keys", "revoke", key_id],
        &["projections", "rollback"],
        &["projections", "rebuild", "--discard"],
        &["dead-letters", "discard", ID, "--reason", "old", "--url", &url],
    ];
    let data = tempfile::tempdir().unwrap();
    let read_model = create_read_model(data.path());
    for arguments in commands {
        let mut command = build_command(arguments, system.event_store());
        let command = command.env("DOFS__READ_MODEL__URL", &read_model).stdin(Stdio::null());
        let refused = command.output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {refused:?}");
        assert!(stderr(&refused).contains("pass `--yes`"), "{arguments:?}: {refused:?}");
    }
    let listed = build_command(&["keys", "list"], system.event_store()).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("active"), "{listed:?}");
}

#[test]
fn error_with_json_is_one_problem_document_on_stderr() {
    let system = System::start(BINARY, &[]);
    let url = system.api.url();
    let nobody = "http://127.0.0.1:1";
    let cases: [(&[&str], i32, u16, &str); 8] = [
        (&["order", "get", ID, "--url", &url], 4, 404, "order_not_found"),
        (&["order", "list", "--url", nobody], 7, 503, "service_unavailable"),
        (&["order", "list", "--url", "nowhere"], 2, 400, "bad_request"),
        (&["order", "get", "no-uuid"], 2, 400, "bad_request"),
        (&["migrate", "--url", nobody], 2, 400, "bad_request"),
        (&["keys", "revoke", "no-such-key", "--yes"], 4, 404, "not_found"),
        (&["projections", "rollback"], 2, 400, "bad_request"),
        (&["node", "verify", "--data", "/nonexistent"], 4, 404, "not_found"),
    ];
    let data = tempfile::tempdir().unwrap();
    let read_model = create_read_model(data.path());
    for (arguments, code, status, name) in cases {
        let arguments = [arguments, &["--json"]].concat();
        let mut command = build_command(&arguments, system.event_store());
        let failed = command.env("DOFS__READ_MODEL__URL", &read_model).output().unwrap();
        assert_eq!(failed.status.code(), Some(code), "{arguments:?}: {failed:?}");
        assert!(failed.stdout.is_empty(), "{arguments:?}: {failed:?}");
        let document: Value = serde_json::from_slice(&failed.stderr)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", stderr(&failed)));
        assert_eq!((&document["status"], &document["code"]), (&status.into(), &name.into()));
        assert_eq!(document["type"], format!("urn:dofs:problem:{name}"));
        for member in ["title", "detail"] {
            assert!(document[member].is_string(), "{arguments:?}: {document}");
        }
        assert!(document["errors"].is_array(), "{arguments:?}: {document}");
        assert_eq!(document["exit_code"], code);
    }
}
