//! The `dofs` binary as a child process on free ports.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::api::Api;
use crate::wait;
use service_kit::mutex::lock;

/// Maximum number of log lines to keep; older ones are dropped.
const KEPT_LINES: usize = 200;

/// A running `dofs` process. Killed when dropped.
pub struct Dofs {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
}

pub struct Start {
    command: Command,
}

impl Start {
    /// Prepares the binary with these arguments. It inherits no `DOFS_*` variable of the test's own
    /// environment.
    pub fn new(binary: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOFS_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).env("DOFS_LOG", "json").env_remove("RUST_LOG");
        // Tests run many processes at once.
        command.env("DOFS__OPS__LISTEN", "127.0.0.1:0");
        Self { command }
    }

    /// Prepares `dofs dev` with its data in this folder, on free ports.
    pub fn dev(binary: &str, data: &Path) -> Self {
        let mut start = Self::new(binary, &["dev"]);
        let ports = ["--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"];
        start.command.arg("--data").arg(data).args(ports);
        start
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    #[must_use]
    pub fn envs(mut self, variables: &[(&str, &str)]) -> Self {
        self.command.envs(variables.iter().copied());
        self
    }

    /// Returns the command, for a test that reads its output itself.
    pub fn into_command(self) -> Command {
        self.command
    }

    pub fn spawn(mut self) -> Dofs {
        let child = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let written = Arc::clone(&log);
        // The thread ends when the child closes its standard error.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lock(&written);
                log.push_back(line);
                if log.len() > KEPT_LINES {
                    log.pop_front();
                }
            }
        });
        Dofs { child, log }
    }

    /// Starts a process that serves HTTP, and returns it with a client of its API.
    pub fn spawn_api(self) -> (Dofs, Api) {
        let mut process = self.spawn();
        let api = Api::new(process.http_address());
        (process, api)
    }
}

impl Dofs {
    /// Waits until the process serves HTTP, and returns the address.
    pub fn http_address(&mut self) -> SocketAddr {
        self.wait_for_address("HTTP server listening")
    }

    /// Waits until the embedded event store listens, and returns the address.
    pub fn node_address(&mut self) -> SocketAddr {
        self.wait_for_address("Event store listening")
    }

    /// Waits until the operations listener is started, and returns its address.
    pub fn ops_address(&mut self) -> SocketAddr {
        self.wait_for_address("Operations listener started")
    }

    /// Returns the connection string of the embedded event store; waits until it listens.
    pub fn node_url(&mut self) -> String {
        format!("esdb://{}?tls=false", self.node_address())
    }

    /// Kills the process with SIGKILL, as in a crash.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child ended");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("kill runs").success(), "signal {name} was not sent");
    }

    /// Sends SIGTERM and waits until the process has ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_until_ended()
    }

    pub fn wait_until_ended(&mut self) -> ExitStatus {
        wait::until("the process ends", || self.child.try_wait().expect("the child is ours"))
    }

    /// Returns the last log lines.
    pub fn log_lines(&self) -> Vec<Value> {
        parse_lines(&self.log)
    }

    fn wait_for_address(&mut self, message: &str) -> SocketAddr {
        let log = Arc::clone(&self.log);
        wait::until(&format!("log line `{message}`"), || {
            // Before the log is read: the lines of a process that ends in between are complete in
            // the next turn.
            let ended = self.child.try_wait().expect("the child is ours");
            let log = parse_lines(&log);
            let line = log.iter().find(|line| line["message"] == message);
            if let Some(line) = line {
                return line["address"].as_str().and_then(|address| address.parse().ok());
            }
            assert!(ended.is_none(), "ended with {ended:?} before it logged `{message}`: {log:#?}");
            None
        })
    }
}

/// Parses log lines as JSON; other lines become strings. Parsed on demand only: under load, parsing
/// every line would slow down the process under test.
fn parse_lines(log: &Mutex<VecDeque<String>>) -> Vec<Value> {
    let log = lock(log);
    let parsed =
        |line: &String| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.clone()));
    log.iter().map(parsed).collect()
}

impl Drop for Dofs {
    fn drop(&mut self) {
        // The process may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
