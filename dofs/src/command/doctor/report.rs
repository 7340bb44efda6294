//! The report of all findings, as lines and as JSON.

use std::io::IsTerminal;
use std::process::ExitCode;

use serde::Serialize;

use super::finding::{Finding, Status};
use crate::cli::{Global, Role};
use crate::error::CliError;
use crate::output::{CHECK_FAILED, format_cell, print_json_or_text, print_notice};
use crate::process;

/// Exit code if there are warnings and no failures.
const WARNINGS: u8 = 1;

/// All findings about an installation.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The worst status of all findings.
    status: Status,
    version: &'static str,
    /// `None` if the configuration cannot be read.
    environment: Option<&'static str>,
    roles: Vec<&'static str>,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(
        environment: Option<&'static str>,
        roles: &[Role],
        findings: Vec<Finding>,
    ) -> Self {
        Self {
            status: findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok),
            version: env!("CARGO_PKG_VERSION"),
            environment,
            roles: roles.iter().map(|role| role.as_str()).collect(),
            findings,
        }
    }

    /// Prints one line per finding, and the numbers of problems as a notice. Returns the exit code.
    pub(super) fn print(&self, global: &Global) -> Result<ExitCode, CliError> {
        let is_colorful = std::io::stdout().is_terminal() && !process::is_color_disabled();
        print_json_or_text(global, self, format_lines(&self.findings, is_colorful))?;
        let count = |status| self.findings.iter().filter(|it| it.status == status).count();
        if !global.json && !global.quiet {
            let (n_failed, n_warnings) = (count(Status::Fail), count(Status::Warn));
            print_notice(format!(
                "{n_failed} failed, {n_warnings} warnings, {} ok",
                count(Status::Ok)
            ));
        }
        Ok(self.exit_code())
    }

    fn exit_code(&self) -> ExitCode {
        match self.status {
            Status::Ok => ExitCode::SUCCESS,
            Status::Warn => ExitCode::from(WARNINGS),
            Status::Fail => ExitCode::from(CHECK_FAILED),
        }
    }
}

fn format_lines(findings: &[Finding], is_colorful: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let lines = findings.iter().map(|finding| {
        let status = finding.status.as_str();
        let padding = " ".repeat(4 - status.len());
        let status = if is_colorful { with_color(finding.status) } else { status.to_owned() };
        // Names and reasons come from other programs: a terminal must not execute them.
        let detail = format_cell(&finding.detail);
        let advice = finding.advice.as_ref();
        let advice =
            advice.map_or_else(String::new, |advice| format!(" -> {}", format_cell(advice)));
        format!("{status}{padding}  {:width$}  {detail}{advice}", finding.check)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn with_color(status: Status) -> String {
    let color = match status {
        Status::Ok => 32,
        Status::Warn => 33,
        Status::Fail => 31,
    };
    format!("\u{1b}[{color}m{}\u{1b}[0m", status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_aligned_lines_with_advice() {
        let findings = [
            Finding::ok("gateway", "simulated"),
            Finding::fail("event_store.tcp", "refused\u{1b}[2J", "start it"),
            Finding::not_checked("event_store.tls", "event_store.tcp failed"),
        ];
        let expected = "ok    gateway          simulated\n\
                        fail  event_store.tcp  refused\\u{1b}[2J -> start it\n\
                        warn  event_store.tls  not checked: event_store.tcp failed";
        assert_eq!(format_lines(&findings, false), expected);
        assert!(format_lines(&findings, true).starts_with("\u{1b}[32mok\u{1b}[0m    gateway"));
    }

    #[test]
    fn worst_finding_decides_the_status() {
        let status = |findings: &[Finding]| Report::new(None, &[], findings.to_vec()).status;
        let (ok, warn) = (Finding::ok("a", ""), Finding::warn("b", "", "do"));
        assert_eq!(status(&[]), Status::Ok);
        assert_eq!(status(&[ok.clone(), warn.clone()]), Status::Warn);
        assert_eq!(status(&[ok, Finding::fail("c", "", "do"), warn]), Status::Fail);
    }
}
