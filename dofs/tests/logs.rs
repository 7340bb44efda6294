//! A stalled or closed reader of the log never affects the service.

#![expect(clippy::unwrap_used, reason = "a failing set-up fails the test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::api::Api;
use testkit::process::Start;
use testkit::wait;

/// Maximum time to stop, including the wait for the reader of the last log lines.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A `dofs dev` whose log is no longer read once it listens. Killed when dropped.
struct UnreadProcess {
    child: Child,
    /// `None`: the pipe is closed.
    log: Option<BufReader<ChildStderr>>,
    api: Api,
}

impl UnreadProcess {
    fn start(data: &Path, filter: &str) -> Self {
        let mut command = Start::dev(env!("CARGO_BIN_EXE_dofs"), data).into_command();
        command.env("RUST_LOG", filter).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let listens = find_line(&mut log, "HTTP server listening").unwrap();
        let api = Api::new(listens["address"].as_str().unwrap().parse().unwrap());
        Self { child, log: Some(log), api }
    }

    fn send_terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        wait::until_within(STOP_TIMEOUT, "the process ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for UnreadProcess {
    fn drop(&mut self) {
        // The process may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads to the log line with this message; `None` if the log ends before it.
fn find_line(log: &mut BufReader<ChildStderr>, message: &str) -> Option<Value> {
    let mut lines = log.lines().map_while(Result::ok);
    lines.find_map(|line| {
        serde_json::from_str(&line).ok().filter(|line: &Value| line["message"] == message)
    })
}

#[test]
fn unread_log_blocks_neither_orders_nor_shutdown() {
    let data = tempfile::tempdir().unwrap();
    let mut dofs = UnreadProcess::start(data.path(), "info");
    for _ in 0..500 {
        dofs.api.place_valid_order();
    }
    assert_eq!(dofs.api.get("/livez").status, 200);
    dofs.send_terminate();
    assert!(dofs.wait_for_end().success());
}

#[test]
fn resumed_reader_sees_dropped_count_and_last_lines() {
    let data = tempfile::tempdir().unwrap();
    // Logs far more lines than the queue holds.
    let mut dofs = UnreadProcess::start(data.path(), "debug");
    for _ in 0..300 {
        dofs.api.place_valid_order();
    }
    let mut log = dofs.log.take().unwrap();
    let report = find_line(&mut log, "Log lines dropped: stderr was not read").unwrap();
    assert_eq!(report["level"], "WARN");
    assert!(report["n_lines"].as_u64().unwrap() > 0, "{report}");
    dofs.send_terminate();
    assert!(find_line(&mut log, "Stopped").is_some(), "the last lines are written");
    assert!(dofs.wait_for_end().success());
}

#[test]
fn closed_log_pipe_does_not_stop_the_process() {
    let data = tempfile::tempdir().unwrap();
    let mut dofs = UnreadProcess::start(data.path(), "info");
    drop(dofs.log.take());
    for _ in 0..50 {
        dofs.api.place_valid_order();
    }
    assert_eq!(dofs.api.get("/livez").status, 200);
    dofs.send_terminate();
    assert!(dofs.wait_for_end().success());
}
