//! `dofs audit verify`: verifies the hash chain and the invariants of every order.

use std::process::ExitCode;

use event_log::{Audit, AuditSummary, EventLog, Finding, LogError};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::event_counter;
use crate::cli::Global;
use crate::error::CliError;
use crate::output::CHECK_FAILED;
use crate::settings;
use crate::target_stores::TargetStores;

/// Maximum number of findings to list; all are counted. Bounds the memory for a store with findings
/// in every event.
const MAX_LISTED: usize = 1_000;

/// The findings: the first ones, and the number of all.
#[derive(Default)]
struct Findings {
    listed: Vec<Finding>,
    n_total: u64,
}

impl Findings {
    /// Adds a finding that must be listed even beyond the limit.
    fn push_front(&mut self, finding: Finding) {
        self.n_total += 1;
        self.listed.insert(0, finding);
    }

    fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.n_total += 1;
            if self.listed.len() < MAX_LISTED {
                self.listed.push(finding);
            }
        }
    }
}

pub(super) async fn run(global: &Global) -> Result<ExitCode, CliError> {
    // Reads the event store directly: an audit must not depend on what the API returns.
    let mut stores = TargetStores::default();
    let log = stores.open_event_log(&settings::load(global, &[])?, "dofs-audit", global).await?;
    let bar = event_counter(global);
    let mut audit = Audit::default();
    let mut findings = Findings::default();
    let outcome = observe_all(&log, &mut audit, &mut findings, &bar).await;
    bar.finish_and_clear();
    let (summary, rest) = audit.finish();
    match outcome {
        Ok(()) => findings.extend(rest),
        // `rest` is dropped: orders that look incomplete may have events after the damage.
        Err(error @ LogError::Damaged { .. }) => {
            findings.push_front(Finding::damaged_log(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    stores.print(global, as_json(&summary, &findings), as_text(&summary, &findings))?;
    Ok(if findings.n_total == 0 { ExitCode::SUCCESS } else { ExitCode::from(CHECK_FAILED) })
}

async fn observe_all(
    log: &EventLog,
    audit: &mut Audit,
    findings: &mut Findings,
    bar: &ProgressBar,
) -> Result<(), LogError> {
    let mut scan = log.scan().await?;
    while let Some(event) = scan.next().await? {
        findings.extend(audit.observe(&event));
        bar.inc(1);
    }
    Ok(())
}

fn as_json(summary: &AuditSummary, findings: &Findings) -> Value {
    let listed: Vec<_> = findings
        .listed
        .iter()
        .map(|finding| {
            json!({
                "order_id": finding.order_id,
                "revision": finding.revision,
                "check": finding.check,
                "expected": finding.expected,
                "found": finding.found,
            })
        })
        .collect();
    json!({
        "events": summary.n_events,
        "unchained_events": summary.n_unchained,
        "orders": summary.n_orders,
        "accepted": summary.n_accepted,
        "by_status": {
            "PROCESSING": summary.n_processing,
            "FULFILLED": summary.n_fulfilled,
            "FAILED": summary.n_failed,
        },
        "n_violations": findings.n_total,
        "violations": listed,
    })
}

fn as_text(summary: &AuditSummary, findings: &Findings) -> String {
    let mut lines: Vec<_> = findings.listed.iter().map(format_finding).collect();
    let n_unlisted = findings.n_total - findings.listed.len() as u64;
    if n_unlisted > 0 {
        lines.push(format!("... and {n_unlisted} more"));
    }
    let verdict = match findings.n_total {
        0 => "sound".to_owned(),
        n_violations => format!("{n_violations} violations"),
    };
    let AuditSummary {
        n_events, n_unchained, n_orders, n_processing, n_fulfilled, n_failed, ..
    } = summary;
    lines.push(format!(
        "{verdict}: {n_events} events of {n_orders} orders, of which {n_processing} are processing, \
         {n_fulfilled} fulfilled, {n_failed} failed"
    ));
    if *n_unchained > 0 {
        lines.push(format!(
            "{n_unchained} events are older than the hash chain and not protected by it"
        ));
    }
    lines.join("\n")
}

fn format_finding(finding: &Finding) -> String {
    let Finding { order_id, revision, check, expected, found } = finding;
    let place = match (order_id, revision) {
        (Some(order_id), Some(revision)) => format!("order {order_id} revision {revision}"),
        (Some(order_id), None) => format!("order {order_id}"),
        (None, _) => "event store".to_owned(),
    };
    format!("{place}: {check}: expected {expected}, found {found}")
}
