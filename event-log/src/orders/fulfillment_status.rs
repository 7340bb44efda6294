//! Status of fulfillment: the operators' last control, and the workers' reports.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::operations::{BreakerPhase, CONTROL, Control, Pause, REPORTS, WorkerReport};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::event_log::EventLog;
use crate::store::error::LogError;
use crate::store::group::GroupStats;
use crate::store::journal::{ExpectedLast, JournalEntry};
use crate::store::metadata::Cause;

/// How long the report of a worker that takes no work is valid: the worker repeats it within less time.
const REPORT_VALIDITY: SignedDuration = SignedDuration::from_mins(3);
/// Time between two checks whether the workers have confirmed a pause.
const CONFIRMATION_POLL: Duration = Duration::from_millis(200);
/// Number of controls read at once if the newest is unknown to this release.
const CONTROLS_PAGE: usize = 100;
/// Maximum number of reports that are searched for each worker's last.
const MAX_REPORTS: usize = 1_000;
/// How long a worker counts as alive after a report that it takes work, although it is not connected: it
/// joins the group after the report. Longer, and a worker that was stopped would seem to be alive.
const REJOIN_TIME: SignedDuration = SignedDuration::from_secs(10);

/// The operators' last control of all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestControl {
    pub control: Control,
    /// The operator's reason.
    pub reason: Option<String>,
    pub actor: String,
    pub at: Timestamp,
    /// The entry's revision in the control journal.
    pub revision: u64,
}

/// Status of fulfillment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FulfillmentStatus {
    /// `None` if fulfillment was never paused.
    pub latest_control: Option<LatestControl>,
    /// Connected workers, and those that have reported recently.
    pub workers: Vec<WorkerStatus>,
    pub stats: GroupStats,
}

/// Status of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Name of the worker's connection.
    pub worker: String,
    /// Whether the worker is connected to the group. A worker that is paused, or whose circuit
    /// breaker is open, is not.
    pub is_connected: bool,
    /// Deliveries that the worker has not answered; `None` if it is not connected.
    pub in_flight: Option<usize>,
    /// The worker's last report, and when it was recorded; `None` if it has reported nothing.
    pub report: Option<(WorkerReport, Timestamp)>,
}

impl FulfillmentStatus {
    /// Returns whether operators have paused fulfillment.
    pub fn is_paused(&self) -> bool {
        self.latest_control.as_ref().is_some_and(|latest| latest.control == Control::Pause)
    }

    /// Returns the worst circuit breaker state of all workers.
    pub fn worst_breaker(&self) -> BreakerPhase {
        let phases = self.workers.iter().map(WorkerStatus::breaker_phase);
        phases.max().unwrap_or(BreakerPhase::Closed)
    }

    /// Returns how often these workers have reconnected because their subscriptions were silent.
    pub fn watchdog_reconnects(&self) -> u64 {
        self.workers
            .iter()
            .filter_map(|worker| worker.report.as_ref())
            .map(|(report, _)| report.watchdog_reconnects)
            .sum()
    }

    /// Returns the workers that have not confirmed the current pause; empty if there is none.
    pub fn unconfirmed_workers(&self) -> BTreeSet<String> {
        let Some(pause) = self.latest_control.as_ref().filter(|_| self.is_paused()) else {
            return BTreeSet::new();
        };
        let unconfirmed =
            self.workers.iter().filter(|worker| !worker.has_confirmed(pause.revision));
        unconfirmed.map(|worker| worker.worker.clone()).collect()
    }
}

impl WorkerStatus {
    /// Returns when the worker last gave a sign of life; `None` if it is unknown to the store.
    pub fn last_seen(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_connected { Some(now) } else { self.report.as_ref().map(|(_, at)| *at) }
    }

    /// Returns whether the worker has released all work for the pause with this revision, or a later
    /// one.
    fn has_confirmed(&self, pause: u64) -> bool {
        let obeyed = self.report.as_ref().and_then(|(report, _)| report.obeyed_pause);
        obeyed.is_some_and(|obeyed| obeyed >= pause)
    }

    /// Returns the state of the worker's circuit breaker.
    pub fn breaker_phase(&self) -> BreakerPhase {
        self.report.as_ref().map_or(BreakerPhase::Closed, |(report, _)| report.breaker)
    }
}

impl EventLog {
    /// Records a control for all workers, also for those that start later. Returns its revision.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store did not answer: the control may be recorded.
    pub async fn record_control(
        &self,
        control: Control,
        pause: &Pause,
        cause: &Cause,
    ) -> Result<u64, LogError> {
        self.store.open_journal(CONTROL)
            // Any: of two operators at a time, the later entry applies.
            .append(ExpectedLast::Any, control.entry_type(), pause, cause)
            .await
    }

    /// Reads the operators' last control; `None` if there is none. Controls of a later release that this
    /// release does not know are skipped: they must not end a pause.
    pub async fn latest_control(&self) -> Result<Option<LatestControl>, LogError> {
        let journal = self.store.open_journal(CONTROL);
        let mut page = journal.newest_entries(1).await?;
        loop {
            if let Some(latest) = page.iter().find_map(LatestControl::from_entry) {
                return Ok(Some(latest));
            }
            let Some(oldest) = page.last() else { return Ok(None) };
            page = journal.entries_before(oldest.revision, CONTROLS_PAGE).await?;
        }
    }

    /// Has the store keep no more reports of workers than are read, so that repeated reports need
    /// bounded disk space. `id` identifies the change.
    pub async fn limit_reports(&self, id: Uuid) -> Result<(), LogError> {
        self.store.open_journal(REPORTS).keep_newest(MAX_REPORTS as u64, id).await
    }

    /// Records a worker's report.
    pub async fn report_worker(
        &self,
        report: &WorkerReport,
        cause: &Cause,
    ) -> Result<(), LogError> {
        self.store.open_journal(REPORTS)
            // Any: reports of workers do not depend on each other.
            .append(ExpectedLast::Any, WorkerReport::ENTRY_TYPE, report, cause)
            .await?;
        Ok(())
    }

    /// Waits until every worker that was known at the start has confirmed the current pause, for at
    /// most `limit`. Returns the status at the end, and the workers that have not confirmed.
    pub async fn wait_until_paused(
        &self,
        group: &str,
        now: impl Fn() -> Timestamp,
        limit: Duration,
    ) -> Result<(FulfillmentStatus, BTreeSet<String>), LogError> {
        let deadline = Instant::now() + limit;
        let mut status = self.fulfillment_status(group, now()).await?;
        let mut waiting = status.unconfirmed_workers();
        while !waiting.is_empty() && Instant::now() < deadline {
            sleep(CONFIRMATION_POLL).await;
            status = self.fulfillment_status(group, now()).await?;
            // A worker leaves the group before it confirms, so it may be in no list in between: it counts
            // as unconfirmed until its report arrives.
            let pause = status.latest_control.as_ref().filter(|_| status.is_paused());
            // Resumed meanwhile: there is no pause left to confirm.
            let Some(pause) = pause.map(|pause| pause.revision) else { break };
            let has_confirmed = |worker: &String| {
                let mut known = status.workers.iter();
                known.any(|known| known.worker == *worker && known.has_confirmed(pause))
            };
            waiting.retain(|worker| !has_confirmed(worker));
        }
        Ok((status, waiting))
    }

    /// Reads the status of fulfillment by that group.
    pub async fn fulfillment_status(
        &self,
        group: &str,
        now: Timestamp,
    ) -> Result<FulfillmentStatus, LogError> {
        let reports = self.store.open_journal(REPORTS);
        let (latest_control, info, entries) = tokio::try_join!(
            self.latest_control(),
            self.store.group_info(group),
            reports.newest_entries(MAX_REPORTS)
        )?;
        let connected = info.members.into_iter().map(|member| WorkerStatus {
            worker: member.name,
            is_connected: true,
            in_flight: Some(member.in_flight),
            report: None,
        });
        let mut workers: Vec<WorkerStatus> = connected.collect();
        let parse =
            |entry: &JournalEntry| Some((entry.parse::<WorkerReport>()?, entry.recorded_at));
        // The newest first: of each worker the first report found is its last.
        for (report, at) in entries.iter().filter_map(parse) {
            match workers.iter_mut().find(|known| known.worker == report.worker) {
                Some(known) if known.report.is_none() => known.report = Some((report, at)),
                Some(_) => {}
                // Not connected, but alive: paused, or waiting for the gateway.
                None if now.duration_since(at) < validity_of(&report) => {
                    let worker = report.worker.clone();
                    let (is_connected, in_flight, report) = (false, None, Some((report, at)));
                    workers.push(WorkerStatus { worker, is_connected, in_flight, report });
                }
                None => {}
            }
        }
        Ok(FulfillmentStatus { latest_control, workers, stats: info.stats })
    }
}

/// Returns how long a worker without a connection is alive after its report.
fn validity_of(report: &WorkerReport) -> SignedDuration {
    if report.is_away() { REPORT_VALIDITY } else { REJOIN_TIME }
}

impl LatestControl {
    fn from_entry(entry: &JournalEntry) -> Option<Self> {
        let control = Control::from_entry_type(&entry.entry_type)?;
        // The type decides, whatever the content: an unreadable pause is still a pause.
        let reason = entry.parse::<Pause>().and_then(|pause| pause.reason);
        let actor = entry.actor.clone();
        let (at, revision) = (entry.recorded_at, entry.revision);
        Some(Self { control, reason, actor, at, revision })
    }
}
