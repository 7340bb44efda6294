//! The redrive of many orders: begun, moved on, ended; at most one at a time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::OrderId;
use crate::order::Stage;

/// The stream of all redrives of many.
pub const REDRIVES: &str = "fulfillment-redrives";

/// Which failed orders are meant. What is not given does not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Those that failed before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<Timestamp>,
    /// Exactly these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_ids: Option<Vec<OrderId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveEntry {
    Begun(Box<RedriveBegun>),
    Moved(RedriveMoved),
    /// Somebody asked it to end; whoever runs it does.
    Cancelled(RedriveCancelled),
}

/// Somebody asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveBegun {
    pub task_id: Uuid,
    pub filter: RedriveFilter,
    /// Orders per second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
    /// Why, in the operator's words.
    pub reason: String,
    pub actor: String,
    pub started_at: Timestamp,
    /// How many orders the filter found then.
    pub n_total: u64,
    /// The process that runs it.
    pub runner: Uuid,
}

/// It came so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveMoved {
    pub task_id: Uuid,
    /// The process that runs it from here on.
    pub runner: Uuid,
    pub counts: RedriveCounts,
    /// When it was over, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it gave up, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Somebody asked it to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveCancelled {
    pub task_id: Uuid,
    pub actor: String,
    pub cancelled_at: Timestamp,
}

impl RedriveEntry {
    /// The stored name.
    pub fn entry_type(&self) -> &'static str {
        match self {
            Self::Begun(_) => "RedriveBegun",
            Self::Moved(_) => "RedriveMoved",
            Self::Cancelled(_) => "RedriveCancelled",
        }
    }

    /// The entry of that name with that data; `None` if there is no such.
    pub fn read(name: &str, data: &[u8]) -> Option<Self> {
        match name {
            "RedriveBegun" => serde_json::from_slice(data).ok().map(Self::Begun),
            "RedriveMoved" => serde_json::from_slice(data).ok().map(Self::Moved),
            "RedriveCancelled" => serde_json::from_slice(data).ok().map(Self::Cancelled),
            _ => None,
        }
    }
}

/// What came of the orders so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveCounts {
    pub n_redriven: u64,
    /// Not to be redriven any more: somebody else did, or it is no longer what the filter says.
    pub n_skipped: u64,
    /// Of which the redrive could not be recorded.
    pub n_failed: u64,
}

/// How far a redrive has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedriveState {
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// A redrive of many, as its entries say it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveTask {
    pub begun: RedriveBegun,
    pub state: RedriveState,
    pub counts: RedriveCounts,
    /// The process that runs it.
    pub runner: Uuid,
    pub ended_at: Option<Timestamp>,
    pub error: Option<String>,
}

impl RedriveTask {
    fn new(begun: RedriveBegun) -> Self {
        let runner = begun.runner;
        let counts = RedriveCounts::default();
        Self { begun, state: RedriveState::Running, counts, runner, ended_at: None, error: None }
    }

    /// Takes an entry about it for what it says. What comes after its end changes nothing, but that
    /// whoever ran it when it was cancelled may say how far it came.
    fn evolve(&mut self, entry: &RedriveEntry) {
        match entry {
            RedriveEntry::Moved(it)
                if self.state == RedriveState::Cancelled && it.task_id == self.begun.task_id =>
            {
                self.counts = it.counts;
            }
            _ if self.state != RedriveState::Running => {}
            RedriveEntry::Moved(it) if it.task_id == self.begun.task_id => {
                self.runner = it.runner;
                self.counts = it.counts;
                self.ended_at = it.ended_at;
                self.error.clone_from(&it.error);
                if it.ended_at.is_some() {
                    self.state = match it.error {
                        None => RedriveState::Succeeded,
                        Some(_) => RedriveState::Failed,
                    };
                }
            }
            RedriveEntry::Cancelled(it) if it.task_id == self.begun.task_id => {
                self.state = RedriveState::Cancelled;
                self.ended_at = Some(it.cancelled_at);
            }
            RedriveEntry::Begun(_) | RedriveEntry::Moved(_) | RedriveEntry::Cancelled(_) => {}
        }
    }

    /// The redrives that these entries tell of, the oldest first. Entries whose beginning is not
    /// among them tell of none.
    pub fn fold(entries: impl IntoIterator<Item = RedriveEntry>) -> Vec<Self> {
        let mut tasks: Vec<Self> = Vec::new();
        for entry in entries {
            match (entry, tasks.last_mut()) {
                (RedriveEntry::Begun(begun), _) => tasks.push(Self::new(*begun)),
                (entry @ (RedriveEntry::Moved(_) | RedriveEntry::Cancelled(_)), Some(task)) => {
                    task.evolve(&entry);
                }
                (RedriveEntry::Moved(_) | RedriveEntry::Cancelled(_), None) => {}
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
            filter: RedriveFilter::default(),
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
        tasks.into_iter().map(|it| (it.state, it.counts.n_redriven)).collect()
    }

    #[test]
    fn task_is_what_its_last_entry_says() {
        use RedriveState::{Cancelled, Running, Succeeded};
        let entries = [begun(1), moved(1, 100, 5, false), moved(1, 100, 9, true), begun(2)];
        assert_eq!(states(entries), [(Succeeded, 9), (Running, 0)]);
        assert_eq!(states([begun(1), moved(1, 100, 5, false), cancelled(1)]), [(Cancelled, 5)]);
    }

    #[test]
    fn what_comes_after_the_end_changes_nothing_but_how_far_a_cancelled_one_came() {
        let entries = [begun(1), moved(1, 100, 9, true), moved(1, 100, 10, false), cancelled(1)];
        assert_eq!(states(entries), [(RedriveState::Succeeded, 9)]);
        let entries = [begun(1), cancelled(1), moved(1, 100, 9, true)];
        assert_eq!(states(entries), [(RedriveState::Cancelled, 9)]);
        assert_eq!(states([moved(1, 100, 9, true), cancelled(1)]), []);
    }

    #[test]
    fn another_process_may_go_on_with_it() {
        let tasks = RedriveTask::fold([begun(1), moved(1, 101, 5, false)]);
        assert_eq!((tasks[0].runner, tasks[0].state), (id(101), RedriveState::Running));
    }

    #[test]
    fn entries_read_back() {
        for entry in [begun(1), moved(1, 2, 3, true), cancelled(1)] {
            let data = match &entry {
                RedriveEntry::Begun(it) => serde_json::to_vec(it),
                RedriveEntry::Moved(it) => serde_json::to_vec(it),
                RedriveEntry::Cancelled(it) => serde_json::to_vec(it),
            };
            let read = RedriveEntry::read(entry.entry_type(), &data.unwrap());
            assert_eq!(read, Some(entry));
        }
        assert_eq!(RedriveEntry::read("RedriveLost", b"{}"), None);
    }
}
