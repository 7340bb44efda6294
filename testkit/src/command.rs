//! Runs of the `dofs` command line.

use std::process::{ExitStatus, Output};

use serde_json::Value;

use crate::process::Start;

/// Output of a command that has ended.
#[derive(Debug)]
pub struct CommandOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command with these environment variables until it ends. Errors are text, without colors.
pub fn run(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    let start = Start::new(binary, arguments).env("DOFS_LOG", "text").env("NO_COLOR", "1");
    start.envs(environment).into_command().output().expect("the binary starts").into()
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Self { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl CommandOutput {
    /// Returns standard output of a successful command.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.stdout
    }

    /// Returns standard output parsed as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that the command ended with this exit code and with `text` on standard error.
    #[track_caller]
    pub fn assert_exit(&self, exit_code: i32, text: &str) {
        assert_eq!(self.status.code(), Some(exit_code), "{self:?}");
        assert!(self.stderr.contains(text), "`{text}` is not in: {}", self.stderr);
    }

    /// Asserts that the command failed with this exit code and error, and printed no result.
    #[track_caller]
    pub fn assert_failure(&self, exit_code: i32, error: &str) {
        self.assert_exit(exit_code, error);
        assert_eq!(self.stdout, "", "standard output is for results only");
    }
}
