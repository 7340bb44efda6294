//! What operators tell the workers, and what the workers report of themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::operations::{BreakerPhase, CONTROL, Control, Pause, REPORTS, WorkerReport};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use crate::client::EventLog;
use crate::error::LogError;
use crate::group::GroupStats;
use crate::journal::{Entry, Last};
use crate::metadata::Cause;

/// For how long a report holds: a worker says again in less what is worth knowing.
const REPORT_HOLDS: SignedDuration = SignedDuration::from_mins(3);
/// Between two looks whether the workers have confirmed a pause.
const CONFIRMATION_POLL: Duration = Duration::from_millis(200);
/// How many reports are looked through for each worker's last.
const MAX_REPORTS: usize = 1_000;

/// The last thing that operators told all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub control: Control,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    pub actor: String,
    pub at: Timestamp,
    /// Its revision in the stream of what operators told the workers.
    pub revision: u64,
}

/// How fulfillment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FulfillmentStatus {
    /// `None`: nobody ever paused it.
    pub told: Option<Told>,
    /// Those that are connected, and those that reported lately.
    pub workers: Vec<WorkerStatus>,
    pub stats: GroupStats,
}

/// How one worker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The name of its connection.
    pub worker: String,
    /// Whether the store has a connection of it in the group. A worker that is paused, or whose
    /// breaker is open, has none.
    pub is_connected: bool,
    /// Its last report, and when it came; `None`: it has had nothing to report.
    pub report: Option<(WorkerReport, Timestamp)>,
}

impl FulfillmentStatus {
    /// Whether workers were told to take no work.
    pub fn is_paused(&self) -> bool {
        self.told.as_ref().is_some_and(|it| it.control == Control::Pause)
    }

    /// The breaker that stands worst.
    pub fn breaker(&self) -> BreakerPhase {
        let phases = self.workers.iter().map(WorkerStatus::breaker);
        phases.max().unwrap_or(BreakerPhase::Closed)
    }

    /// How often subscriptions were silent while work waited, as these workers count it.
    pub fn watchdog_reconnects(&self) -> u64 {
        self.workers
            .iter()
            .filter_map(|it| it.report.as_ref())
            .map(|it| it.0.watchdog_reconnects)
            .sum()
    }
}

impl FulfillmentStatus {
    /// The workers that have not confirmed the pause that holds; empty unless there is one.
    pub fn unconfirmed(&self) -> BTreeSet<String> {
        let Some(pause) = self.told.as_ref().filter(|_| self.is_paused()) else {
            return BTreeSet::new();
        };
        let unconfirmed = self.workers.iter().filter(|it| !it.has_confirmed(pause.revision));
        unconfirmed.map(|it| it.worker.clone()).collect()
    }
}

impl WorkerStatus {
    /// When the worker showed last that it lives; `None` only of one that the store does not know.
    pub fn last_seen(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_connected { Some(now) } else { self.report.as_ref().map(|(_, at)| *at) }
    }

    /// Whether it has let go of all work because of the pause with this revision, or a later one.
    pub fn has_confirmed(&self, pause: u64) -> bool {
        let obeyed = self.report.as_ref().and_then(|(report, _)| report.obeyed_pause);
        obeyed.is_some_and(|it| it >= pause)
    }

    /// How its breaker stands.
    pub fn breaker(&self) -> BreakerPhase {
        self.report.as_ref().map_or(BreakerPhase::Closed, |(report, _)| report.breaker)
    }
}

impl EventLog {
    /// Tells all workers, for good, and returns the revision of what was told: whoever starts later
    /// obeys it too.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store did not answer: they may have been told.
    pub async fn tell_workers(
        &self,
        control: Control,
        pause: &Pause,
        cause: &Cause,
    ) -> Result<u64, LogError> {
        self.journal(CONTROL).append(Last::Any, control.entry_type(), pause, cause).await
    }

    /// What operators told all workers last.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn told(&self) -> Result<Option<Told>, LogError> {
        let last = self.journal(CONTROL).newest(1).await?;
        Ok(last.first().and_then(Told::read))
    }

    /// Keeps a worker's report for whoever asks.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn report_worker(
        &self,
        report: &WorkerReport,
        cause: &Cause,
    ) -> Result<(), LogError> {
        self.journal(REPORTS).append(Last::Any, WorkerReport::ENTRY_TYPE, report, cause).await?;
        Ok(())
    }

    /// Waits until every worker that was known when the wait began has confirmed the pause that holds,
    /// for at most `patience`. Returns how fulfillment then stands, and the workers that have not
    /// confirmed.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn confirmed_pause(
        &self,
        group: &str,
        now: impl Fn() -> Timestamp,
        patience: Duration,
    ) -> Result<(FulfillmentStatus, BTreeSet<String>), LogError> {
        let deadline = Instant::now() + patience;
        let mut status = self.fulfillment_status(group, now()).await?;
        let mut waiting = status.unconfirmed();
        while !waiting.is_empty() && Instant::now() < deadline {
            sleep(CONFIRMATION_POLL).await;
            status = self.fulfillment_status(group, now()).await?;
            // A worker has left the group before it confirms, and may be in no list in between.
            let pause = status.told.as_ref().filter(|_| status.is_paused());
            let Some(pause) = pause.map(|it| it.revision) else { break };
            let has_confirmed = |worker: &String| {
                let mut known = status.workers.iter();
                known.any(|it| it.worker == *worker && it.has_confirmed(pause))
            };
            waiting.retain(|worker| !has_confirmed(worker));
        }
        Ok((status, waiting))
    }

    /// How fulfillment by that group stands.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn fulfillment_status(
        &self,
        group: &str,
        now: Timestamp,
    ) -> Result<FulfillmentStatus, LogError> {
        let reports = self.journal(REPORTS);
        let (told, info, entries) =
            tokio::try_join!(self.told(), self.group_info(group), reports.newest(MAX_REPORTS))?;
        let connected = info.members.into_iter().map(|it| WorkerStatus {
            worker: it.name,
            is_connected: true,
            report: None,
        });
        let mut workers: Vec<WorkerStatus> = connected.collect();
        let read = |it: &Entry| Some((it.read::<WorkerReport>()?, it.recorded_at));
        for (report, at) in entries.iter().filter_map(read) {
            match workers.iter_mut().find(|it| it.worker == report.worker) {
                Some(known) if known.report.is_none() => known.report = Some((report, at)),
                Some(_) => {}
                None if now.duration_since(at) < REPORT_HOLDS => {
                    let worker = report.worker.clone();
                    let report = Some((report, at));
                    workers.push(WorkerStatus { worker, is_connected: false, report });
                }
                None => {}
            }
        }
        Ok(FulfillmentStatus { told, workers, stats: info.stats })
    }
}

impl Told {
    fn read(entry: &Entry) -> Option<Self> {
        let control = Control::from_entry_type(&entry.entry_type)?;
        let pause: Pause = entry.read()?;
        let actor = entry.actor.clone();
        let (at, revision) = (entry.recorded_at, entry.revision);
        Some(Self { control, reason: pause.reason, actor, at, revision })
    }
}
