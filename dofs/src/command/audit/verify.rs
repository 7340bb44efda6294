//! `dofs audit verify`: every order of the event store, held against what must hold.

use std::process::ExitCode;

use event_log::{Audit, AuditSummary, EventLog, Finding, LogError};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::progress;
use crate::cli::Global;
use crate::error::CliError;
use crate::output::print;
use crate::settings;
use crate::stores::Stores;

/// The exit code of a check that found problems.
const FOUND_PROBLEMS: u8 = 3;
/// The most findings that are listed; all are counted. A store that is wrong throughout must not
/// need more memory than one that is sound.
const MAX_LISTED: usize = 1_000;

/// What is listed, and how many there were.
#[derive(Default)]
struct Findings {
    listed: Vec<Finding>,
    n_all: u64,
}

impl Findings {
    /// Adds what has to be listed whatever else there is.
    fn put_first(&mut self, finding: Finding) {
        self.n_all += 1;
        self.listed.insert(0, finding);
    }
}

impl Extend<Finding> for Findings {
    fn extend<T: IntoIterator<Item = Finding>>(&mut self, findings: T) {
        for finding in findings {
            self.n_all += 1;
            if self.listed.len() < MAX_LISTED {
                self.listed.push(finding);
            }
        }
    }
}

pub(super) async fn run(global: &Global) -> Result<ExitCode, CliError> {
    // Without the API: the record is audited, and not what somebody says of it.
    let mut stores = Stores::default();
    let log = stores.open_event_log(&settings::load(&[])?, "dofs-audit", global).await?;
    let bar = progress(global);
    let mut audit = Audit::default();
    let mut findings = Findings::default();
    let read = observe_all(&log, &mut audit, &mut findings, &bar).await;
    bar.finish_and_clear();
    let (summary, rest) = audit.finish();
    match read {
        Ok(()) => findings.extend(rest),
        // An order that looks unfinished may go on behind the damage.
        Err(error @ LogError::Damaged { .. }) => {
            findings.put_first(Finding::damaged_log(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    if global.json {
        stores.print_json(as_json(&summary, &findings))?;
    } else {
        print(as_text(&summary, &findings))?;
    }
    Ok(if findings.n_all == 0 { ExitCode::SUCCESS } else { ExitCode::from(FOUND_PROBLEMS) })
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
        .map(|it| {
            json!({
                "order_id": it.order_id,
                "revision": it.revision,
                "check": it.check,
                "expected": it.expected,
                "found": it.found,
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
        "n_violations": findings.n_all,
        "violations": listed,
    })
}

fn as_text(summary: &AuditSummary, findings: &Findings) -> String {
    let mut lines: Vec<_> = findings.listed.iter().map(line).collect();
    let n_unlisted = findings.n_all - findings.listed.len() as u64;
    if n_unlisted > 0 {
        lines.push(format!("... and {n_unlisted} more"));
    }
    let verdict = match findings.n_all {
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
        lines.push(format!("{n_unchained} events are from before the chain: nothing ties them"));
    }
    lines.join("\n")
}

fn line(finding: &Finding) -> String {
    let Finding { order_id, revision, check, expected, found } = finding;
    let place = match (order_id, revision) {
        (Some(order_id), Some(revision)) => format!("order {order_id} revision {revision}"),
        (Some(order_id), None) => format!("order {order_id}"),
        (None, _) => "the store".to_owned(),
    };
    format!("{place}: {check}: expected {expected}, found {found}")
}
