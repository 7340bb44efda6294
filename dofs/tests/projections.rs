//! The read model under faults, with real processes: takeover, rebuild under load, verification and
//! repair.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::api::{Api, valid_order};
use testkit::process::{Dofs, Start};
use testkit::system::sqlite_url;
use testkit::{postgres, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
/// Maximum time for a standby projector to take over.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// Default number of orders before a rebuild: few, so that the test is quick.
const ORDERS_BEFORE_REBUILD: u64 = 100;

#[expect(clippy::disallowed_methods, reason = "the setting is the test's own, not the product's")]
fn orders_before_rebuild() -> u64 {
    let given = std::env::var("DOFS_TEST_REBUILD_ORDERS").ok();
    given.map_or(ORDERS_BEFORE_REBUILD, |number| number.parse().unwrap())
}

/// Stops other threads when dropped, also by a panic.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An event store, an API with a worker, and the environment of a projector.
struct Installation {
    _node: Dofs,
    _roles: Dofs,
    api: Api,
    environment: Vec<(&'static str, String)>,
}

impl Installation {
    fn start(data: &Path, read_model: &str) -> Self {
        let data = data.join("events").display().to_string();
        let node = ["node", "--data", &data, "--listen", "127.0.0.1:0"];
        let mut node = Start::new(BINARY, &node).spawn();
        let environment = vec![
            ("DOFS__EVENT_STORE__URL", node.node_url()),
            ("DOFS__READ_MODEL__URL", read_model.to_owned()),
            ("DOFS__FULFILLMENT__LATENCY_MS", "1".to_owned()),
        ];
        let migrated = Self::command(&environment, &["migrate"]).output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        let serve = ["serve", "api", "worker", "--listen", "127.0.0.1:0"];
        let mut roles = Self::process(&environment, &serve);
        let api = Api::new(roles.http_address());
        Self { _node: node, _roles: roles, api, environment }
    }

    fn process(environment: &[(&'static str, String)], arguments: &[&str]) -> Dofs {
        let start = Start::new(BINARY, arguments);
        environment.iter().fold(start, |start, (name, value)| start.env(name, value)).spawn()
    }

    fn command(environment: &[(&'static str, String)], arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOFS_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).env("NO_COLOR", "1");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn projector(&self) -> Dofs {
        Self::process(&self.environment, &["serve", "projector"])
    }

    fn projections(&self, arguments: &[&str]) -> Output {
        let arguments = [&["projections"], arguments].concat();
        Self::command(&self.environment, &arguments).output().unwrap()
    }

    /// Starts a rebuild in small batches, so that it can be killed in progress.
    fn begin_rebuild(&self, resume: &[&str]) -> Child {
        let arguments =
            [&["projections", "rebuild", "--no-swap", "--batch", "20"], resume].concat();
        let mut command = Self::command(&self.environment, &arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Places orders, and waits until all are projected.
    fn place(&self, n_orders: u64) {
        let url = self.api.request("GET", "").build().unwrap().url().origin().ascii_serialization();
        let n_orders = n_orders.to_string();
        let arguments = ["stress", "--orders", &n_orders, "--concurrency", "32", "--url", &url];
        let placed = Self::command(&self.environment, &arguments).output().unwrap();
        assert!(placed.status.success(), "{placed:?}");
        self.assert_projects();
    }

    fn status(&self) -> Value {
        let status = self.projections(&["status", "--json"]);
        serde_json::from_slice(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status:?}"))
    }

    /// Returns the outcome of the last verification of the orders.
    fn last_verification(&self) -> Value {
        let projections = self.api.get("/v1/ops/projections").json();
        projections["items"][0]["verification"].clone()
    }

    /// Runs `meanwhile` while orders are placed, and returns the number of accepted orders.
    fn under_load(&self, meanwhile: impl FnOnce()) -> usize {
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let customer = scope.spawn(|| {
                let mut n_accepted = 0;
                while !enough.load(Ordering::Relaxed) {
                    let request = self.api.request("POST", "/v1/orders").json(&valid_order());
                    n_accepted += usize::from(Api::send(request).status == 202);
                }
                n_accepted
            });
            let over = StopOnDrop(&enough);
            meanwhile();
            drop(over);
            customer.join().unwrap()
        })
    }

    /// Asserts that a new order reaches the read model, and returns how long that takes.
    #[track_caller]
    fn assert_projects(&self) -> Duration {
        let begun = Instant::now();
        let id = self.api.place_valid_order();
        self.api.wait_until_projected(&id);
        begun.elapsed()
    }

    #[track_caller]
    fn assert_sound(&self) {
        let verified = self.projections(&["verify"]);
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    }
}

/// Returns the process id of the lease holder.
fn holder_id(status: &Value) -> Option<u32> {
    status["holder"].as_str()?.split('-').next()?.parse().ok()
}

#[test]
fn standby_projector_takes_over_and_frozen_one_cannot_write() {
    let (data, database) = (tempfile::tempdir().unwrap(), postgres::create_database_blocking());
    let installation = Installation::start(data.path(), database.url());
    let mut projectors = [installation.projector(), installation.projector()];
    installation.assert_projects();
    installation.under_load(|| {
        let holder = holder_id(&installation.status()).unwrap();
        let index = usize::from(projectors[0].id() != holder);
        projectors[index].signal("STOP");
        let waited = installation.assert_projects();
        assert!(waited < TAKE_OVER, "took over after {waited:?}");
        let second = holder_id(&installation.status()).unwrap();
        assert_ne!(second, holder);
        // It continues in the middle of a batch, whose writes have no effect.
        projectors[index].signal("CONT");
        for _order in 0..20 {
            installation.assert_projects();
        }
        assert_eq!(holder_id(&installation.status()), Some(second));

        projectors[1 - index].kill();
        let waited = installation.assert_projects();
        assert!(waited < TAKE_OVER, "took over after {waited:?}");
        assert_eq!(holder_id(&installation.status()), Some(holder));
    });
    installation.assert_projects();
    installation.assert_sound();
}

#[test]
fn rebuild_killed_twice_under_load_resumes_without_a_gap() {
    let (data, database) = (tempfile::tempdir().unwrap(), postgres::create_database_blocking());
    let installation = Installation::start(data.path(), database.url());
    let _projector = installation.projector();
    installation.assert_projects();
    installation.place(orders_before_rebuild());
    let enough = AtomicBool::new(false);
    let n_accepted = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let answer = installation.api.get("/v1/orders?limit=50");
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.json()["items"].as_array().unwrap().len(), 50);
            }
        });
        let over = StopOnDrop(&enough);
        let n_accepted =
            installation.under_load(|| kill_and_resume_rebuild(&installation, &database));
        drop(over);
        reader.join().unwrap();
        n_accepted
    });
    assert!(n_accepted > 0);
    installation.assert_projects();
    installation.assert_sound();
    let rolled_back = installation.projections(&["rollback", "--yes"]);
    assert_eq!(rolled_back.status.code(), Some(0), "{rolled_back:?}");
    installation.assert_projects();
    installation.assert_sound();
}

fn kill_and_resume_rebuild(installation: &Installation, database: &postgres::Database) {
    let mut n_before = 0;
    for resume in [&[][..], &["--resume"]] {
        let mut rebuild = installation.begin_rebuild(resume);
        wait::until("the rebuild has made progress", || {
            (n_events(database.url(), "next") > n_before).then_some(())
        });
        rebuild.kill().unwrap();
        rebuild.wait().unwrap();
        n_before = n_events(database.url(), "next");
    }
    let rebuilt = installation.projections(&["rebuild", "--resume", "--json"]);
    assert_eq!(rebuilt.status.code(), Some(0), "{rebuilt:?}");
    let rebuilt: Value = serde_json::from_slice(&rebuilt.stdout).unwrap();
    assert_eq!((&rebuilt["live"], &rebuilt["orders_differing"]), (&json!(true), &json!(0)));
    installation.assert_projects();
}

/// Returns the number of events in a set of tables. Faster than the command, to observe a rebuild in
/// progress.
fn n_events(read_model: &str, set: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sets = projectors::open(read_model).unwrap().sets().await.unwrap();
        let of_set = sets.iter().find(|known| known.name == set);
        of_set.map_or(0, |known| known.checkpoint.events_applied)
    })
}

/// Deletes the rows of an order directly in the database.
fn delete_rows(read_model: &str, id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = projectors::open(read_model).unwrap();
        let rows = BTreeMap::from([(id.parse().unwrap(), projectors::OrderRecords::default())]);
        wait::until_async("nobody writes meanwhile", async || {
            let checkpoint = store.checkpoint().await.unwrap();
            store.mend_rows(&rows, &checkpoint).await.ok()
        })
        .await;
    });
}

#[test]
fn deleted_rows_are_reported_and_repaired() {
    let data = tempfile::tempdir().unwrap();
    let read_model = sqlite_url(data.path());
    let installation = Installation::start(data.path(), &read_model);
    let _projector = installation.projector();
    let deleted = installation.api.place_valid_order();
    installation.api.wait_until_projected(&deleted);
    installation.assert_projects();
    let stdout = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    installation.assert_sound();

    delete_rows(&read_model, &deleted);
    let found = installation.projections(&["verify", "--json"]);
    assert_eq!(found.status.code(), Some(3), "{found:?}");
    let lines = stdout(&found);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["differing"], json!(1), "{lines:?}");
    assert!(lines[..lines.len() - 1].iter().all(|line| line["order_id"] == json!(deleted)));
    assert_ne!(installation.last_verification()["findings"], json!(0));

    let mended = installation.projections(&["verify", "--repair"]);
    assert_eq!(mended.status.code(), Some(0), "{mended:?}");
    assert!(stdout(&mended).contains("(mended)"), "{mended:?}");
    assert_eq!(installation.last_verification()["findings"], json!(0));
    installation.assert_sound();
    let sampled = installation.projections(&["verify", "--sample", "5"]);
    assert!(stdout(&sampled).contains("sound: 2 orders"), "{sampled:?}");
}

#[test]
fn resume_and_rollback_before_any_rebuild_are_rejected() {
    let data = tempfile::tempdir().unwrap();
    let read_model = sqlite_url(data.path());
    let installation = Installation::start(data.path(), &read_model);
    for arguments in [&["rollback", "--yes"][..], &["rebuild", "--resume"]] {
        let refused = installation.projections(arguments);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    }
    let status = installation.status();
    assert_eq!((&status["holder"], &status["stuck"]), (&Value::Null, &json!(false)));
}

#[test]
fn rollback_during_an_unfinished_rebuild_is_rejected_with_advice() {
    let data = tempfile::tempdir().unwrap();
    let database = postgres::create_database_blocking();
    let sqlite = sqlite_url(data.path());
    for read_model in [sqlite.as_str(), database.url()] {
        let installation = Installation::start(&data.path().join(&read_model[..4]), read_model);
        let _projector = installation.projector();
        installation.assert_projects();
        for arguments in [&["rebuild"][..], &["rebuild", "--no-swap"]] {
            let built = installation.projections(arguments);
            assert_eq!(built.status.code(), Some(0), "{built:?}");
            let stderr = String::from_utf8_lossy(&built.stderr);
            assert!(stderr.contains("replay: ") && stderr.contains("compare: "), "{stderr}");
        }
        let refused = installation.projections(&["rollback", "--yes"]);
        assert_eq!(refused.status.code(), Some(5), "{refused:?}");
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(stderr.contains("--resume") && stderr.contains("--discard"), "{stderr}");
        assert!(!stderr.contains("running"), "{stderr}");

        let rolled_back = installation.projections(&["rollback", "--discard", "--yes"]);
        assert_eq!(rolled_back.status.code(), Some(0), "{rolled_back:?}");
        let built = installation.projections(&["rebuild", "--no-swap", "--quiet"]);
        assert_eq!((built.status.code(), built.stderr.is_empty()), (Some(0), true), "{built:?}");
        for was_there in [true, false] {
            let discarded = installation.projections(&["rebuild", "--discard", "--yes", "--json"]);
            let answer: Value = serde_json::from_slice(&discarded.stdout).unwrap();
            assert_eq!(answer["discarded"], json!(was_there));
        }
        installation.assert_projects();
        installation.assert_sound();
    }
}

#[test]
fn database_crash_under_load_leaves_the_rows_correct() {
    let (data, mut server) = (tempfile::tempdir().unwrap(), postgres::start_private_server());
    let installation = Installation::start(data.path(), &server.url());
    let _projectors = [installation.projector(), installation.projector()];
    installation.assert_projects();
    installation.under_load(|| {
        for _time in 0..2 {
            server.stop_immediately();
            installation.api.place_valid_order();
            server.start();
            installation.assert_projects();
        }
    });
    installation.assert_projects();
    installation.assert_sound();
}
