//! Roles exit with an error if the event store denies a permission they need.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use testkit::command::{self, CommandOutput};
use testkit::strict_store::StrictStore;
use testkit::system::sqlite_url;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

/// Runs roles on a store until the process exits.
fn serve_until_exit(store: &StrictStore, roles: &[&str]) -> CommandOutput {
    let data = tempfile::tempdir().unwrap();
    let (store, read_model) = (store.url(), sqlite_url(data.path()));
    let environment =
        [("DOFS__EVENT_STORE__URL", store.as_str()), ("DOFS__READ_MODEL__URL", &read_model)];
    command::run(BINARY, &["migrate"], &environment).success();
    let serve = [&["serve"], roles, &["--listen", "127.0.0.1:0"]].concat();
    command::run(BINARY, &serve, &environment)
}

#[track_caller]
fn assert_denied(output: &CommandOutput, permission: &str) {
    output.assert_failure(1, &format!("event store denies permission to {permission}"));
    assert!(output.stderr.contains("docs/event-store.md"), "{output:?}");
    assert!(!output.stderr.contains("HTTP server listening"), "{output:?}");
}

#[test]
fn role_without_permission_to_read_all_exits() {
    for role in ["api", "worker", "projector"] {
        let store = StrictStore::start();
        store.deny_reading("$all");
        assert_denied(&serve_until_exit(&store, &[role]), "read `$all`");
    }
}

#[test]
fn worker_without_permission_to_read_parked_messages_exits() {
    let store = StrictStore::start();
    store.deny_reading("$persistentsubscription-$all::fulfillment-parked");
    assert_denied(&serve_until_exit(&store, &["worker"]), "read the parked messages");
}
