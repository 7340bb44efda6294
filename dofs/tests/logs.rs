//! A reader of the log never affects the service: not one that stalls, and not one that dies.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::api::Api;
use testkit::process::Start;
use testkit::wait;

/// How long a process may take to stop, with the wait for the reader of its last lines.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A `dofs dev` whose log nobody reads once it listens. Killed when dropped.
struct Unread {
    child: Child,
    /// `None`: its reader is dead.
    log: Option<BufReader<ChildStderr>>,
    api: Api,
}

impl Unread {
    fn start(data: &Path, filter: &str) -> Self {
        let mut command = Start::dev(env!("CARGO_BIN_EXE_dofs"), data).into_command();
        command.env("RUST_LOG", filter).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let listens = find_line(&mut log, "HTTP listens").unwrap();
        let api = Api::new(listens["address"].as_str().unwrap().parse().unwrap());
        Self { child, log: Some(log), api }
    }

    fn signal_to_stop(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        wait::until_within(STOP_PATIENCE, "the process ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads up to the log line with this message; `None` if the log ends before.
fn find_line(log: &mut BufReader<ChildStderr>, message: &str) -> Option<Value> {
    let mut lines = log.lines().map_while(Result::ok);
    lines.find_map(|line| {
        serde_json::from_str(&line).ok().filter(|line: &Value| line["message"] == message)
    })
}

#[test]
fn log_that_nobody_reads_stops_neither_orders_nor_the_stop() {
    let data = tempfile::tempdir().unwrap();
    let mut dofs = Unread::start(data.path(), "info");
    for _ in 0..500 {
        dofs.api.accepted();
    }
    assert_eq!(dofs.api.get("/livez").status, 200);
    dofs.signal_to_stop();
    assert!(dofs.wait_for_end().success());
}

#[test]
fn reader_that_comes_back_is_told_of_dropped_lines_and_reads_the_last() {
    let data = tempfile::tempdir().unwrap();
    // Far more lines than the queue holds.
    let mut dofs = Unread::start(data.path(), "debug");
    for _ in 0..300 {
        dofs.api.accepted();
    }
    let mut log = dofs.log.take().unwrap();
    let report = find_line(&mut log, "Log lines dropped: stderr was not read").unwrap();
    assert_eq!(report["level"], "WARN");
    assert!(report["n_lines"].as_u64().unwrap() > 0, "{report}");
    dofs.signal_to_stop();
    assert!(find_line(&mut log, "Stopped").is_some(), "lines of the end are written");
    assert!(dofs.wait_for_end().success());
}

#[test]
fn reader_that_dies_ends_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut dofs = Unread::start(data.path(), "info");
    drop(dofs.log.take());
    for _ in 0..50 {
        dofs.api.accepted();
    }
    assert_eq!(dofs.api.get("/livez").status, 200);
    dofs.signal_to_stop();
    assert!(dofs.wait_for_end().success());
}
