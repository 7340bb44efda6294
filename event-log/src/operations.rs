//! What operators tell the workers, and what the workers report of themselves.

use domain::operations::{BreakerPhase, CONTROL, Control, Pause, REPORTS, WorkerReport};
use jiff::{SignedDuration, Timestamp};

use crate::client::EventLog;
use crate::error::LogError;
use crate::group::GroupStats;
use crate::journal::{Entry, Last};
use crate::metadata::Cause;

/// For how long a report holds: a worker says again in less what is worth knowing.
const REPORT_HOLDS: SignedDuration = SignedDuration::from_mins(3);
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

impl WorkerStatus {
    /// How its breaker stands.
    pub fn breaker(&self) -> BreakerPhase {
        self.report.as_ref().map_or(BreakerPhase::Closed, |(report, _)| report.breaker)
    }
}

impl EventLog {
    /// Tells all workers, for good: whoever starts later obeys it too.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store did not answer: they may have been told.
    pub async fn tell_workers(
        &self,
        control: Control,
        pause: &Pause,
        cause: &Cause,
    ) -> Result<(), LogError> {
        self.journal(CONTROL).append(Last::Any, control.entry_type(), pause, cause).await?;
        Ok(())
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
        let connected =
            info.members.into_iter().map(|it| WorkerStatus { worker: it.name, report: None });
        let mut workers: Vec<WorkerStatus> = connected.collect();
        let read = |it: &Entry| Some((it.read::<WorkerReport>()?, it.recorded_at));
        for (report, at) in entries.iter().filter_map(read) {
            match workers.iter_mut().find(|it| it.worker == report.worker) {
                Some(known) if known.report.is_none() => known.report = Some((report, at)),
                Some(_) => {}
                None if now.duration_since(at) < REPORT_HOLDS => {
                    let worker = report.worker.clone();
                    workers.push(WorkerStatus { worker, report: Some((report, at)) });
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
        Some(Self { control, reason: pause.reason, actor, at: entry.recorded_at })
    }
}
