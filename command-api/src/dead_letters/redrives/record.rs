//! The record of redrives of many: a stream that every API process reads and appends to.

use domain::operations::{REDRIVES, RedriveEntry, RedriveTask};
use event_log::{Cause, EventLog, ExpectedLast, Journal, JournalEntry, LogError};
use uuid::Uuid;

/// How many entries are read at once: each may name a whole batch of orders.
const PAGE: usize = 100;

/// The record.
pub(super) struct Redrives {
    journal: Journal,
}

impl Redrives {
    pub(super) fn new(log: &EventLog) -> Self {
        Self { journal: log.open_journal(REDRIVES) }
    }

    /// The last entry's revision, and the process that wrote it and runs a redrive, if one did; `None`
    /// without entries.
    pub(super) async fn last(&self) -> Result<Option<(u64, Option<Uuid>)>, LogError> {
        let newest = self.journal.newest_entries(1).await?;
        Ok(newest.first().map(|entry| (entry.revision, read(entry).and_then(|it| it.runner()))))
    }

    /// The two newest redrives, the newest first, and the revision of the last entry. One that was
    /// cancelled may still have to be counted after the next has begun.
    pub(super) async fn newest_two(&self) -> Result<(Vec<RedriveTask>, Option<u64>), LogError> {
        let (mut tasks, revision) = self.read_until(|tasks| tasks.len() >= 2).await?;
        tasks.reverse();
        tasks.truncate(2);
        Ok((tasks, revision))
    }

    /// The newest redrive, and the revision of the last entry.
    pub(super) async fn latest(&self) -> Result<(Option<RedriveTask>, Option<u64>), LogError> {
        let (mut tasks, revision) = self.read_until(|tasks| !tasks.is_empty()).await?;
        Ok((tasks.pop(), revision))
    }

    /// The newest redrives, the newest first.
    pub(super) async fn newest(&self, limit: usize) -> Result<Vec<RedriveTask>, LogError> {
        let (mut tasks, _) = self.read_until(|tasks| tasks.len() >= limit).await?;
        tasks.reverse();
        tasks.truncate(limit);
        Ok(tasks)
    }

    /// A redrive, and the revision of the last entry.
    pub(super) async fn find(
        &self,
        task_id: Uuid,
    ) -> Result<Option<(RedriveTask, Option<u64>)>, LogError> {
        let is_it = |it: &RedriveTask| it.begun.task_id == task_id;
        let (tasks, revision) = self.read_until(|tasks| tasks.iter().any(is_it)).await?;
        Ok(tasks.into_iter().find(is_it).map(|task| (task, revision)))
    }

    /// Adds an entry behind the one of that revision, and returns its own.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if another entry was added meanwhile.
    pub(super) async fn append(
        &self,
        entry: &RedriveEntry,
        last: Option<u64>,
        cause: &Cause,
    ) -> Result<u64, LogError> {
        let last = ExpectedLast::Revision(last);
        let entry_type = entry.entry_type();
        match entry {
            RedriveEntry::Begun(it) => self.journal.append(last, entry_type, it, cause).await,
            RedriveEntry::Moved(it) => self.journal.append(last, entry_type, it, cause).await,
            RedriveEntry::Cancelled(it) => self.journal.append(last, entry_type, it, cause).await,
        }
    }

    /// Reads backwards until it is enough, and returns the redrives, the oldest first.
    async fn read_until(
        &self,
        is_enough: impl Fn(&[RedriveTask]) -> bool,
    ) -> Result<(Vec<RedriveTask>, Option<u64>), LogError> {
        let mut newest_first: Vec<RedriveEntry> = Vec::new();
        let mut page = self.journal.newest_entries(PAGE).await?;
        let revision = page.first().map(|it| it.revision);
        loop {
            newest_first.extend(page.iter().filter_map(read));
            let tasks = RedriveTask::fold(newest_first.iter().rev().cloned());
            match page.last() {
                Some(oldest) if !is_enough(&tasks) => {
                    page = self.journal.entries_before(oldest.revision, PAGE).await?;
                }
                Some(_) | None => return Ok((tasks, revision)),
            }
        }
    }
}

/// What the entry says; `None` if this release does not know it.
fn read(entry: &JournalEntry) -> Option<RedriveEntry> {
    RedriveEntry::decode(&entry.entry_type, entry.data())
}
