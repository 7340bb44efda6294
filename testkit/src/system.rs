//! The whole system for one test.

use tempfile::TempDir;

use crate::api::Api;
use crate::process::{Dofs, Start};
use crate::strict_store::{self, StrictStore};

/// Every role in one process, on free ports and a folder of its own. Gone when dropped.
pub struct System {
    pub api: Api,
    pub process: Dofs,
    event_store: String,
    // The last fields: the process has let go of them by then.
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
        let read_model = format!("sqlite://{}", data.path().join("read-model.sqlite").display());
        let start = |arguments: &[&str]| {
            let usual = [
                ("DOFS__EVENT_STORE__URL", url),
                ("DOFS__READ_MODEL__URL", &read_model),
                ("DOFS_ENV", "dev"),
            ];
            let variables = usual.iter().chain(environment);
            variables
                .fold(Start::new(binary, arguments), |start, (name, value)| start.env(name, value))
        };
        let migrated = start(&["migrate"]).spawn().ended();
        assert!(migrated.success(), "`dofs migrate` ends with {migrated}");
        let mut process = start(&["serve", "--listen", "127.0.0.1:0"]).spawn();
        let api = Api::new(process.http());
        Self { api, process, event_store: url.to_owned(), _store: None, _data: data }
    }

    fn start_embedded(binary: &str, environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("there is room for a temporary folder");
        let start = Start::dev(binary, data.path());
        let start = environment.iter().fold(start, |start, (name, value)| start.env(name, value));
        let mut process = start.spawn();
        let api = Api::new(process.http());
        let event_store = format!("esdb://{}?tls=false", process.node());
        Self { api, process, event_store, _store: None, _data: data }
    }

    /// Returns the connection string of its event store.
    pub fn event_store(&self) -> &str {
        &self.event_store
    }
}
