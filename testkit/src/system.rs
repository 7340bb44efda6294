//! The whole system for one test.

use tempfile::TempDir;

use crate::api::Api;
use crate::process::{Dofs, Start};

/// Everything in one process, on free ports and a folder of its own. Gone when dropped.
pub struct System {
    pub api: Api,
    pub process: Dofs,
    // The last field: the process has let go of it by then.
    _data: TempDir,
}

impl System {
    /// Starts one with these environment variables.
    pub fn start(binary: &str, environment: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("there is room for a temporary folder");
        let start = Start::dev(binary, data.path());
        let start = environment.iter().fold(start, |start, (name, value)| start.env(name, value));
        let mut process = start.spawn();
        Self { api: Api::new(process.http()), process, _data: data }
    }
}
