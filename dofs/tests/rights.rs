//! A store that denies a right: each role says which one, and ends.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::process::{Command, Output};

use testkit::strict_store::StrictStore;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

/// Runs roles on a store until they have ended by themselves.
fn serve(store: &StrictStore, roles: &[&str]) -> Output {
    let data = tempfile::tempdir().unwrap();
    let read_model = format!("sqlite://{}", data.path().join("read-model.sqlite").display());
    let dofs = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOFS_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("DOFS__EVENT_STORE__URL", store.url())
            .env("DOFS__READ_MODEL__URL", &read_model)
            .output()
            .unwrap()
    };
    assert!(dofs(&["migrate"]).status.success());
    dofs(&[&["serve"], roles, &["--listen", "127.0.0.1:0"]].concat())
}

#[track_caller]
fn assert_names(ended: &Output, right: &str) {
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let expected = format!("event store denies the right to {right}");
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("docs/event-store.md"), "{said}");
    assert!(!said.contains("HTTP listens"), "nothing is served: {said}");
}

#[test]
fn role_that_may_not_read_all_streams_names_the_right_and_ends() {
    for role in ["api", "worker", "projector"] {
        let store = StrictStore::start();
        store.deny_reading("$all");
        assert_names(&serve(&store, &[role]), "read `$all`");
    }
}

#[test]
fn worker_that_may_not_read_parked_messages_names_the_right_and_ends() {
    let store = StrictStore::start();
    store.deny_reading("$persistentsubscription-$all::fulfillment-parked");
    assert_names(&serve(&store, &["worker"]), "read the parked messages");
}
