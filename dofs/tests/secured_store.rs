//! An embedded event store with TLS and users: its commands, its guard rails, and the whole system with
//! a user that has no other rights than the system needs.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use eventstore::{
    AppendToStreamOptions, Client, DeleteStreamOptions, Error, EventData, ReadStreamOptions,
    TombstoneStreamOptions,
};
use tempfile::TempDir;
use testkit::certificates::TestAuthority;
use testkit::command::{self, CommandOutput};
use testkit::process::{Dofs, Start};
use testkit::system::System;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ADMIN_PASSWORD: &str = "admin-of-the-store";
const PASSWORD: &str = "orders-and-nothing-else";

/// Runs a command with `input` as standard input.
fn dofs_with_input(arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> CommandOutput {
    let start = Start::new(BINARY, arguments).env("DOFS_LOG", "text").env("NO_COLOR", "1");
    let mut command = start.envs(environment).into_command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The command may end before it reads its input.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap().into()
}

fn dofs(arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    command::run(BINARY, arguments, environment)
}

/// A running `dofs node` with TLS and the users `admin` and `dofs`.
struct SecuredStore {
    process: Dofs,
    authority: PathBuf,
    folder: TempDir,
}

impl SecuredStore {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = TestAuthority::create(folder.path(), "ca");
        let files = authority.issue("node");
        let users_file = path_text(&folder.path().join("users.json"));
        let environment = [("DOFS__NODE__USERS", users_file.as_str())];
        for (name, password) in [("admin", ADMIN_PASSWORD), ("dofs", PASSWORD)] {
            let add = ["node", "users", "add", name];
            dofs_with_input(&add, &format!("{password}\n"), &environment).success();
        }
        let data = path_text(&folder.path().join("events"));
        let process = Start::new(BINARY, &["node", "--data", &data, "--listen", "127.0.0.1:0"])
            .envs(&environment)
            .env("DOFS__NODE__TLS_CERTIFICATE", files.certificate)
            .env("DOFS__NODE__TLS_KEY", files.key)
            .spawn();
        Self { process, authority: authority.certificate, folder }
    }

    /// Returns the connection string for a user.
    fn url(&mut self, name: &str, password: &str) -> String {
        let (port, authority) = (self.process.node_address().port(), self.authority.display());
        format!("esdb://{name}:{password}@localhost:{port}?tlsCaFile={authority}")
    }
}

fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn assert_denied<T>(operation: &str, result: &Result<T, Error>) {
    assert!(matches!(result, Err(Error::AccessDenied)), "{operation} is not denied");
}

#[test]
fn system_works_with_a_user_that_can_do_nothing_else() {
    // Given a store whose administrator has granted a user the rights of the system
    let mut store = SecuredStore::start();
    let (admin, user) = (store.url("admin", ADMIN_PASSWORD), store.url("dofs", PASSWORD));
    for _ in 0..2 {
        // A repetition changes nothing.
        dofs(&["node", "grant", "dofs"], &[("DOFS__EVENT_STORE__URL", &admin)]).success();
    }
    // When the system runs as this user
    let failing =
        [("DOFS__FULFILLMENT__ERROR_RATE", "0.2"), ("DOFS__FULFILLMENT__BACKOFF_MS", "1")];
    let system = System::start_on(BINARY, &user, &failing);
    let orders: Vec<_> = (0..5).map(|_| system.api.place_valid_order()).collect();
    for order in &orders {
        system.api.wait_until_ended(order);
        system.api.wait_until_projected(order);
    }
    let examined = dofs(&["doctor", "--json"], &[("DOFS__EVENT_STORE__URL", &user)]);
    let examined = examined.json().to_string();
    assert!(!examined.contains("AccessDenied") && !examined.contains("denies"), "{examined}");
    // Then the store denies everything else
    let scavenge = dofs(&["node", "scavenge"], &[("DOFS__EVENT_STORE__URL", &user)]);
    assert!(!scavenge.status.success(), "{scavenge:?}");
    let grant = dofs(&["node", "grant", "eve"], &[("DOFS__EVENT_STORE__URL", &user)]);
    assert!(!grant.status.success(), "{grant:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = format!("order-{}", orders[0]);
    runtime.block_on(check_denied(&admin, &user, &stream));
    // And the orders are still there
    assert_eq!(system.api.get(&format!("/v1/orders/{}", orders[0])).status, 200);
    drop(store.folder);
}

/// Checks that the store denies `user` what the system does not need.
async fn check_denied(admin: &str, user: &str, order_stream: &str) {
    let client = |url: &str| Client::new(url.parse().unwrap()).unwrap();
    let (admin, user) = (client(admin), client(user));
    let append = AppendToStreamOptions::default();
    let event = |event_type: &str, data: serde_json::Value| {
        EventData::json(event_type, &data).unwrap().id(uuid::Uuid::from_u128(7))
    };
    let secret = serde_json::json!({"$acl": {"$r": "billing", "$w": "billing"}});
    let secret = vec![event("$metadata", secret)];
    admin.append_to_stream("$$billing", &append, secret).await.unwrap();
    let read = ReadStreamOptions::default();
    for stream in ["billing", "$settings", "$persistentSubscriptionConfig"] {
        assert_denied(stream, &user.read_stream(stream, &read).await);
    }
    for stream in ["billing", "$settings", &format!("$${order_stream}"), "$$$all"] {
        let event = vec![event("Forged", serde_json::json!({}))];
        assert_denied(stream, &user.append_to_stream(stream, &append, event).await);
    }
    let delete = DeleteStreamOptions::default();
    assert_denied("delete", &user.delete_stream(order_stream, &delete).await);
    let tombstone = TombstoneStreamOptions::default();
    assert_denied("tombstone", &user.tombstone_stream(order_stream, &tombstone).await);
    let options = eventstore::DeletePersistentSubscriptionOptions::default();
    let deleted = user.delete_persistent_subscription_to_all("fulfillment", &options).await;
    assert_denied("group deletion", &deleted);
}

#[test]
fn roles_without_rights_exit() {
    let mut store = SecuredStore::start();
    let data = tempfile::tempdir().unwrap();
    let read_model = testkit::system::sqlite_url(data.path());
    let (user, wrong) = (store.url("dofs", PASSWORD), store.url("dofs", "wrong"));
    for url in [&user, &wrong] {
        let environment =
            [("DOFS__EVENT_STORE__URL", url.as_str()), ("DOFS__READ_MODEL__URL", &read_model)];
        dofs(&["migrate"], &environment).success();
        let serve = ["serve", "api", "--listen", "127.0.0.1:0"];
        dofs(&serve, &environment)
            .assert_failure(1, "event store denies permission to read `$all`");
    }
}

#[test]
fn users_file_is_maintained_by_commands() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_text(&folder.path().join("users.json"));
    let users = |arguments: &[&str], input: &str| {
        let arguments = [&["node", "users"], arguments, &["--file", &path]].concat();
        dofs_with_input(&arguments, input, &[])
    };
    users(&["list"], "").assert_failure(1, "cannot read the users file");
    users(&["add", "ada", "--group", "$ops", "--group", "team"], "long-enough-password\n")
        .success();
    users(&["add", "ada"], "long-enough-password\n").assert_failure(5, "user `ada` exists");
    users(&["add", "bob"], "short\n").assert_failure(2, "invalid password");
    users(&["add", "$admins"], "long-enough-password\n").assert_failure(2, "invalid name");
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(before.contains("pbkdf2-sha512") && !before.contains("long-enough"), "{before}");
    users(&["password", "ada"], "another-long-password").success();
    assert_ne!(std::fs::read_to_string(&path).unwrap(), before);
    let listed = users(&["list", "--json"], "").json();
    assert_eq!(listed["users"], serde_json::json!([{"name": "ada", "groups": ["$ops", "team"]}]));
    users(&["remove", "ada"], "").assert_failure(2, "confirmation required");
    users(&["remove", "ada", "--yes"], "").success();
    users(&["remove", "ada", "--yes"], "").assert_failure(4, "user `ada` does not exist");
    dofs(&["node", "users", "list"], &[]).assert_failure(2, "`node.users` is empty");
}

#[test]
fn unprotected_store_is_refused_in_production() {
    let folder = tempfile::tempdir().unwrap();
    let data = path_text(folder.path());
    let node = ["node", "--data", &data, "--listen", "0.0.0.0:0"];
    let production = ("DOFS_ENV", "production");
    dofs(&node, &[production]).assert_failure(2, "set `node.users`, or `node.tls_client_ca`");
    let users = ("DOFS__NODE__USERS", "users.json");
    dofs(&node, &[production, users]).assert_failure(2, "would be sent unencrypted");
    let half = ("DOFS__NODE__TLS_KEY", "key.pem");
    dofs(&node, &[half]).assert_failure(2, "set both");
    let missing = ("DOFS__NODE__USERS", "/nonexistent/users.json");
    dofs(&["node", "--data", &data], &[missing]).assert_failure(2, "`dofs node users add`");
    dofs(&["dev", "--data", &data], &[missing])
        .assert_failure(2, "`dofs dev` runs its event store");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was created");
}
