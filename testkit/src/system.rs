//! A complete system for one test.

use std::path::Path;

use tempfile::TempDir;

use crate::api::Api;
use crate::process::{Dofs, Start};
use crate::strict_store::{self, StrictStore};

/// Returns the URL of the SQLite read model that `dofs dev` keeps in its data folder.
pub fn sqlite_url(data: &Path) -> String {
    format!("sqlite://{}", data.join("read-model.sqlite").display())
}

/// Starts an API with a migrated read model and without an event store: it refuses every order.
pub fn start_api_without_event_store(binary: &str, data: &Path) -> (Dofs, Api) {
    let read_model = sqlite_url(data);
    let start = |arguments: &[&str]| {
        Start::new(binary, arguments).env("DOFS__READ_MODEL__URL", &read_model)
    };
    assert!(start(&["migrate"]).spawn().wait_until_ended().success());
    start(&["serve", "api", "--listen", "127.0.0.1:0"])
        .env("DOFS__EVENT_STORE__URL", "")
        .spawn_api()
}

/// All roles in one process, on free ports, with data in a temporary folder. Stopped when dropped.
pub struct System {
    pub api: Api,
    pub process: Dofs,
    event_store: String,
    // Fields are dropped in order: the process ends before its store and folder are removed.
    _store: Option<StrictStore>,
    _data: TempDir,
}

impl System {
    /// Starts a system with these environment variables, on an embedded node, or on a strict store
    /// if `DOFS_TEST_EVENT_STORE` is `strict`.
    pub fn start(binary: &str, environment: &[(&str, &str)]) -> Self {
        if !strict_store::is_selected() {
            return Self::start_embedded(binary, environment);
        }
        let store = StrictStore::start();
        let system = Self::start_on(binary, &store.url(), environment);
        Self { _store: Some(store), ..system }
    }

    /// Starts a system on the event store at `url`.
    pub fn start_on(binary: &str, url: &str, environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("there is room for a temporary folder");
        let read_model = sqlite_url(data.path());
        let start = |arguments: &[&str]| {
            let start = Start::new(binary, arguments).env("DOFS__EVENT_STORE__URL", url);
            start.env("DOFS__READ_MODEL__URL", &read_model).env("DOFS_ENV", "dev").envs(environment)
        };
        let migrated = start(&["migrate"]).spawn().wait_until_ended();
        assert!(migrated.success(), "`dofs migrate` failed: {migrated}");
        let (process, api) = start(&["serve", "--listen", "127.0.0.1:0"]).spawn_api();
        Self { api, process, event_store: url.to_owned(), _store: None, _data: data }
    }

    fn start_embedded(binary: &str, environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("there is room for a temporary folder");
        let (mut process, api) = Start::dev(binary, data.path()).envs(environment).spawn_api();
        let event_store = process.node_url();
        Self { api, process, event_store, _store: None, _data: data }
    }

    /// Returns the connection string of the event store.
    pub fn event_store(&self) -> &str {
        &self.event_store
    }
}
