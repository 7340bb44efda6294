//! The redrive of many orders: its entries and its state. At most one runs at a time.

use std::ops::Add;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::OrderId;
use crate::order::Stage;

/// Journal of the redrives of many orders.
pub const REDRIVES: &str = "fulfillment-redrives";

/// Filter of failed orders. An absent member does not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Orders that failed before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<Timestamp>,
    /// Exactly these orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_ids: Option<Vec<OrderId>>,
    /// Current customer of the order, after corrections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveEntry {
    Begun(Box<RedriveBegun>),
    Moved(RedriveMoved),
    /// An operator cancelled the redrive; the process that runs it stops.
    Cancelled(RedriveCancelled),
}

/// An operator started a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveBegun {
    pub task_id: Uuid,
    pub filter: FailureFilter,
    /// Maximum number of orders per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
    /// The operator's reason.
    pub reason: String,
    pub actor: String,
    pub started_at: Timestamp,
    /// Number of orders that the filter matched at the start.
    pub n_total: u64,
    /// The process that runs the redrive.
    pub runner: Uuid,
}

/// Progress of a redrive. Each batch is recorded before its first order is redriven, and counted with
/// the next entry. A process that resumes the redrive begins with the batch of the last entry, so each
/// order is counted once, also after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveMoved {
    pub task_id: Uuid,
    /// The process that runs the redrive from here on.
    pub runner: Uuid,
    /// Outcomes of all batches before `batch`.
    pub counts: RedriveCounts,
    /// The orders in progress. `counts` does not include them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batch: Vec<OrderId>,
    /// The last order of `batch`: the next batch begins behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_end: Option<RedriveMark>,
    /// Why no order is redriven at present, if the redrive waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// When the redrive ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why the redrive failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Place of a failed order in the result of a filter, which is sorted by these members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveMark {
    pub failed_at: Timestamp,
    pub order_id: OrderId,
}

/// An operator cancelled a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveCancelled {
    pub task_id: Uuid,
    pub actor: String,
    pub cancelled_at: Timestamp,
}

impl RedriveEntry {
    /// Returns the stored name.
    pub fn entry_type(&self) -> &'static str {
        match self {
            Self::Begun(_) => "RedriveBegun",
            Self::Moved(_) => "RedriveMoved",
            Self::Cancelled(_) => "RedriveCancelled",
        }
    }

    /// Returns the redrive that the entry is about.
    fn task_id(&self) -> Uuid {
        match self {
            Self::Begun(it) => it.task_id,
            Self::Moved(it) => it.task_id,
            Self::Cancelled(it) => it.task_id,
        }
    }

    /// Returns the process that wrote the entry and runs the redrive; `None` for an operator's entry.
    pub fn runner(&self) -> Option<Uuid> {
        match self {
            Self::Begun(it) => Some(it.runner),
            Self::Moved(it) => Some(it.runner),
            Self::Cancelled(_) => None,
        }
    }

    /// Decodes the entry with this stored name; `None` if name or data are invalid.
    pub fn decode(name: &str, data: &[u8]) -> Option<Self> {
        match name {
            "RedriveBegun" => serde_json::from_slice(data).ok().map(Self::Begun),
            "RedriveMoved" => serde_json::from_slice(data).ok().map(Self::Moved),
            "RedriveCancelled" => serde_json::from_slice(data).ok().map(Self::Cancelled),
            // Written by a later release.
            _ => None,
        }
    }
}

/// Outcomes of the orders so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveCounts {
    pub n_redriven: u64,
    /// Orders that were redriven otherwise, or no longer match the filter.
    pub n_skipped: u64,
    /// Orders whose redrive could not be recorded.
    pub n_failed: u64,
}

impl RedriveCounts {
    /// Returns the number of counted orders.
    pub fn n_total(&self) -> u64 {
        self.n_redriven + self.n_skipped + self.n_failed
    }
}

impl Add for RedriveCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            n_redriven: self.n_redriven + other.n_redriven,
            n_skipped: self.n_skipped + other.n_skipped,
            n_failed: self.n_failed + other.n_failed,
        }
    }
}

/// State of a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedriveState {
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// A redrive of many orders, folded from its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveTask {
    pub begun: RedriveBegun,
    pub state: RedriveState,
    /// Outcomes of all batches before `batch`.
    pub counts: RedriveCounts,
    /// The orders in progress. `counts` does not include them.
    pub batch: Vec<OrderId>,
    /// The last order of `batch`.
    pub batch_end: Option<RedriveMark>,
    /// Why no order is redriven at present.
    pub waiting_for: Option<String>,
    /// The process that runs the redrive.
    pub runner: Uuid,
    pub ended_at: Option<Timestamp>,
    pub error: Option<String>,
}

impl RedriveTask {
    /// Returns a task that has just begun.
    pub fn new(begun: RedriveBegun) -> Self {
        Self {
            state: RedriveState::Running,
            counts: RedriveCounts::default(),
            batch: Vec::new(),
            batch_end: None,
            waiting_for: None,
            runner: begun.runner,
            ended_at: None,
            error: None,
            begun,
        }
    }

    /// Returns whether a process must run the redrive, or count the batch that was in progress when it
    /// was cancelled.
    pub fn is_unfinished(&self) -> bool {
        match self.state {
            RedriveState::Running => true,
            RedriveState::Cancelled => !self.batch.is_empty(),
            RedriveState::Succeeded | RedriveState::Failed => false,
        }
    }

    /// Applies an entry. An entry after the end changes nothing, except that the batch in progress when
    /// the redrive was cancelled may still be counted.
    fn evolve(&mut self, entry: RedriveEntry) {
        match (self.state, entry) {
            (RedriveState::Running, RedriveEntry::Moved(it)) => {
                self.state = match (it.ended_at, &it.error) {
                    (None, _) => RedriveState::Running,
                    (Some(_), None) => RedriveState::Succeeded,
                    (Some(_), Some(_)) => RedriveState::Failed,
                };
                // Another process may have taken the redrive over.
                self.runner = it.runner;
                self.counts = it.counts;
                self.batch = it.batch;
                self.batch_end = it.batch_end;
                self.waiting_for = it.waiting_for;
                self.ended_at = it.ended_at;
                self.error = it.error;
            }
            (RedriveState::Running, RedriveEntry::Cancelled(it)) => {
                self.state = RedriveState::Cancelled;
                self.waiting_for = None;
                self.ended_at = Some(it.cancelled_at);
            }
            // The runner counts its last batch afterwards. The end stays the operator's.
            (RedriveState::Cancelled, RedriveEntry::Moved(it)) => {
                self.counts = it.counts;
                self.batch = it.batch;
            }
            (RedriveState::Running, RedriveEntry::Begun(_))
            | (RedriveState::Cancelled, RedriveEntry::Begun(_) | RedriveEntry::Cancelled(_))
            | (RedriveState::Succeeded | RedriveState::Failed, _) => {}
        }
    }

    /// Folds entries to redrives, the oldest first. Ignores entries without the beginning of their
    /// redrive.
    pub fn fold(entries: impl IntoIterator<Item = RedriveEntry>) -> Vec<Self> {
        let mut tasks: Vec<Self> = Vec::new();
        for entry in entries {
            let task_id = entry.task_id();
            // Most entries are about the newest redrive.
            let mut newest_first = tasks.iter_mut().rev();
            match newest_first.find(|task| task.begun.task_id == task_id) {
                Some(task) => task.evolve(entry),
                None => {
                    if let RedriveEntry::Begun(begun) = entry {
                        tasks.push(Self::new(*begun));
                    }
                }
            }
        }
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn begun(task: u128) -> RedriveEntry {
        RedriveEntry::Begun(Box::new(RedriveBegun {
            task_id: id(task),
            filter: FailureFilter::default(),
            rate_per_second: None,
            reason: "gateway is back".to_owned(),
            actor: "ann".to_owned(),
            started_at: at(1),
            n_total: 10,
            runner: id(100),
        }))
    }

    fn moved(task: u128, runner: u128, n_redriven: u64, ended: bool) -> RedriveEntry {
        RedriveEntry::Moved(RedriveMoved {
            task_id: id(task),
            runner: id(runner),
            counts: RedriveCounts { n_redriven, ..RedriveCounts::default() },
            batch: if ended { Vec::new() } else { vec![OrderId(id(7))] },
            batch_end: Some(RedriveMark { failed_at: at(1), order_id: OrderId(id(7)) }),
            waiting_for: None,
            ended_at: ended.then(|| at(2)),
            error: None,
        })
    }

    fn cancelled(task: u128) -> RedriveEntry {
        let (task_id, actor) = (id(task), "bob".to_owned());
        RedriveEntry::Cancelled(RedriveCancelled { task_id, actor, cancelled_at: at(3) })
    }

    fn states(entries: impl IntoIterator<Item = RedriveEntry>) -> Vec<(RedriveState, u64)> {
        let tasks = RedriveTask::fold(entries);
        tasks.into_iter().map(|task| (task.state, task.counts.n_redriven)).collect()
    }

    #[test]
    fn last_entry_determines_the_state() {
        use RedriveState::{Cancelled, Running, Succeeded};
        let entries = [begun(1), moved(1, 100, 5, false), moved(1, 100, 9, true), begun(2)];
        assert_eq!(states(entries), [(Succeeded, 9), (Running, 0)]);
        assert_eq!(states([begun(1), moved(1, 100, 5, false), cancelled(1)]), [(Cancelled, 5)]);
    }

    #[test]
    fn entries_after_the_end_change_only_the_counts_of_a_cancelled_redrive() {
        let entries = [begun(1), moved(1, 100, 9, true), moved(1, 100, 10, false), cancelled(1)];
        assert_eq!(states(entries), [(RedriveState::Succeeded, 9)]);
        let entries = [begun(1), cancelled(1), moved(1, 100, 9, true)];
        assert_eq!(states(entries), [(RedriveState::Cancelled, 9)]);
        assert_eq!(states([moved(1, 100, 9, true), cancelled(1)]), []);
    }

    #[test]
    fn batch_of_a_cancelled_redrive_is_counted_after_the_next_began() {
        let entries = [begun(1), moved(1, 100, 5, false), cancelled(1)];
        assert!(RedriveTask::fold(entries.clone())[0].is_unfinished());
        let next = [begun(2), moved(1, 100, 6, true), moved(2, 100, 1, false)];
        let tasks = RedriveTask::fold(entries.into_iter().chain(next));
        let counted: Vec<_> = tasks.iter().map(|task| task.counts.n_redriven).collect();
        assert_eq!(counted, [6, 1]);
        assert!(!tasks[0].is_unfinished() && tasks[1].is_unfinished());
    }

    #[test]
    fn entry_of_a_release_without_batches_is_decoded() {
        let data = br#"{"task_id": "00000000-0000-0000-0000-000000000001",
            "runner": "00000000-0000-0000-0000-000000000064",
            "counts": {"n_redriven": 5, "n_skipped": 0, "n_failed": 0}}"#;
        let moved = RedriveEntry::decode("RedriveMoved", data).unwrap();
        assert_eq!(states([begun(1), moved]), [(RedriveState::Running, 5)]);
    }

    #[test]
    fn another_process_may_resume_the_redrive() {
        let tasks = RedriveTask::fold([begun(1), moved(1, 101, 5, false)]);
        assert_eq!((tasks[0].runner, tasks[0].state), (id(101), RedriveState::Running));
    }

    #[test]
    fn encoded_entries_are_decoded_to_the_same() {
        for entry in [begun(1), moved(1, 2, 3, true), cancelled(1)] {
            let data = match &entry {
                RedriveEntry::Begun(it) => serde_json::to_vec(it),
                RedriveEntry::Moved(it) => serde_json::to_vec(it),
                RedriveEntry::Cancelled(it) => serde_json::to_vec(it),
            };
            let read = RedriveEntry::decode(entry.entry_type(), &data.unwrap());
            assert_eq!(read, Some(entry));
        }
        assert_eq!(RedriveEntry::decode("RedriveLost", b"{}"), None);
    }
}
