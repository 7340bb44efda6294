//! The real binary as a child process, on free ports.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::wait;

/// How many log lines are kept for the message of a test that fails.
const KEPT_LINES: usize = 200;

/// A running `dofs`. Killed when dropped.
pub struct Dofs {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
}

/// How to start one.
pub struct Start {
    command: Command,
}

impl Start {
    /// The binary, to be run with these arguments. Nothing of the test's own environment that
    /// concerns DOFS reaches it.
    pub fn new(binary: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOFS_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).env("DOFS_LOG", "json").env_remove("RUST_LOG");
        Self { command }
    }

    /// Everything in one process over this folder, on free ports.
    pub fn dev(binary: &str, data: &Path) -> Self {
        let mut start = Self::new(binary, &["dev"]);
        let ports = ["--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"];
        start.command.arg("--data").arg(data).args(ports);
        start
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Returns the command, for a test that reads its output itself.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts it.
    pub fn spawn(mut self) -> Dofs {
        let child = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let written = Arc::clone(&log);
        // Ends by itself when the child closes its end.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = written.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_back(line);
                if log.len() > KEPT_LINES {
                    log.pop_front();
                }
            }
        });
        Dofs { child, log }
    }
}

impl Dofs {
    /// Where it serves HTTP; waits until it does.
    pub fn http(&mut self) -> SocketAddr {
        self.address("HTTP listens")
    }

    /// Where its event store listens; waits until it does.
    pub fn node(&mut self) -> SocketAddr {
        self.address("Event store listens")
    }

    /// Ends it as a crash would: SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child ended");
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("kill runs").success(), "signal {name} was not sent");
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        wait::until("the process ends", || self.child.try_wait().expect("the child is ours"))
    }

    /// Its last log lines.
    pub fn log(&self) -> Vec<Value> {
        parsed(&self.log)
    }

    fn address(&mut self, message: &str) -> SocketAddr {
        let log = Arc::clone(&self.log);
        wait::until(&format!("log line `{message}`"), || {
            let ended = self.child.try_wait().expect("the child is ours");
            let log = parsed(&log);
            let line = log.iter().find(|line| line["message"] == message);
            if let Some(line) = line {
                return line["address"].as_str().and_then(|it| it.parse().ok());
            }
            assert!(ended.is_none(), "ended with {ended:?} before it listened: {log:#?}");
            None
        })
    }
}

/// The lines as JSON, or as they are. Not before somebody asks: a process under load writes more of
/// them than it is fair to read beside it.
fn parsed(log: &Mutex<VecDeque<String>>) -> Vec<Value> {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let parsed =
        |line: &String| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.clone()));
    log.iter().map(parsed).collect()
}

impl Drop for Dofs {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
