//! Customers that place orders, and a system whose roles are separate processes.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;
use testkit::api::{Api, valid_order};
use testkit::process::{Dofs, Start};
use testkit::system::sqlite_url;
use testkit::wait;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_dofs");

/// Sets an error rate of the gateway, with short retries.
pub(crate) fn with_fast_retries(start: Start) -> Start {
    start
        .env("DOFS__FULFILLMENT__LATENCY_MS", "2")
        .env("DOFS__FULFILLMENT__ERROR_RATE", "0.1")
        .env("DOFS__FULFILLMENT__BACKOFF_MS", "5")
        .env("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "20")
}

/// Places orders on several threads until stopped, and records the accepted ones.
pub(crate) struct Customers {
    n_threads: usize,
    accepted: Mutex<Vec<String>>,
    n_accepted: AtomicUsize,
    enough: AtomicBool,
}

impl Customers {
    pub(crate) fn new(n_threads: usize) -> Self {
        Self {
            n_threads,
            accepted: Mutex::default(),
            n_accepted: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
        }
    }

    /// Runs `meanwhile` while the customers place orders.
    pub(crate) fn place_during(&self, api: &Api, meanwhile: impl FnOnce()) {
        std::thread::scope(|scope| {
            for _ in 0..self.n_threads {
                scope.spawn(|| self.place_until_stopped(api));
            }
            meanwhile();
            self.enough.store(true, Ordering::Relaxed);
        });
    }

    fn place_until_stopped(&self, api: &Api) {
        while !self.enough.load(Ordering::Relaxed) {
            let request = api.request("POST", "/v1/orders").json(&valid_order());
            // Without a response, the order may or may not be accepted: it is not recorded.
            let Ok(answer) = Api::try_send(request) else { return };
            if answer.status == 202 {
                let id = answer.json()["order_id"].as_str().unwrap().to_owned();
                self.accepted.lock().unwrap().push(id);
                self.n_accepted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn wait_for_accepted(&self, n_orders: usize) {
        wait::until("orders are accepted", || {
            (self.n_accepted.load(Ordering::Relaxed) >= n_orders).then_some(())
        });
    }

    pub(crate) fn into_accepted(self) -> Vec<String> {
        self.accepted.into_inner().unwrap()
    }
}

/// Asserts that every order has ended exactly once, and that its history begins as expected.
pub(crate) fn assert_all_ended_once(api: &Api, ids: &[String]) {
    for id in ids {
        api.wait_until_ended(id);
        let events = api.event_types(id);
        let beginning = ["OrderReceived", "OrderValidated", "OrderStored", "OrderQueued"];
        assert_eq!(events[..4], beginning, "{id}");
        let is_end = |event: &&String| *event == "OrderFulfilled" || *event == "OrderFailed";
        assert_eq!(events.iter().filter(is_end).count(), 1, "{id}: {events:?}");
        assert!(events.last().iter().all(is_end), "{id}: {events:?}");
    }
}

/// An event store and roles as separate processes.
pub(crate) struct SeparateProcesses {
    pub(crate) node: Dofs,
    pub(crate) store: String,
    read_model: String,
    pub(crate) data: TempDir,
}

impl SeparateProcesses {
    pub(crate) fn start_over_sqlite() -> Self {
        let data = tempfile::tempdir().unwrap();
        let read_model = sqlite_url(data.path());
        Self::start(data, read_model)
    }

    pub(crate) fn start_over_postgres(url: &str) -> Self {
        Self::start(tempfile::tempdir().unwrap(), url.to_owned())
    }

    fn start(data: TempDir, read_model: String) -> Self {
        let mut node = start_node(data.path(), "127.0.0.1:0");
        let store = node.node_url();
        let this = Self { node, store, read_model, data };
        assert!(this.command(&["migrate"]).spawn().wait_until_ended().success());
        this
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Start {
        with_fast_retries(Start::new(BINARY, arguments))
            .env("DOFS__EVENT_STORE__URL", &self.store)
            .env("DOFS__READ_MODEL__URL", &self.read_model)
    }

    /// Starts a process with the `api` role, or all roles if `roles` is empty.
    pub(crate) fn serve_api(&self, roles: &[&str]) -> (Dofs, Api) {
        self.serve_command(roles).spawn_api()
    }

    pub(crate) fn serve(&self, roles: &[&str]) -> Dofs {
        self.serve_command(roles).spawn()
    }

    fn serve_command(&self, roles: &[&str]) -> Start {
        self.command(&[&["serve"], roles, &["--listen", "127.0.0.1:0"]].concat())
    }
}

pub(crate) fn start_node(data: &Path, listen: &str) -> Dofs {
    let data = data.join("events");
    Start::new(BINARY, &["node", "--data", data.to_str().unwrap(), "--listen", listen]).spawn()
}
