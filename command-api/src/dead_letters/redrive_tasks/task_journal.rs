//! The journal of redrive tasks: a stream that every API process reads and appends to.

use domain::operations::{REDRIVES, RedriveEntry, RedriveTask};
use event_log::{Cause, EventLog, ExpectedLast, Journal, JournalEntry, LogError};
use uuid::Uuid;

/// Number of entries that are read at once. An entry may name a whole batch of orders.
const PAGE: usize = 100;

/// Reads and appends entries of the journal.
pub(super) struct TaskJournal {
    journal: Journal,
}

impl TaskJournal {
    pub(super) fn new(log: &EventLog) -> Self {
        Self { journal: log.store().open_journal(REDRIVES) }
    }

    /// Returns the last entry's revision, and the process that wrote it if that process runs a task; `None`
    /// without entries.
    pub(super) async fn last(&self) -> Result<Option<(u64, Option<Uuid>)>, LogError> {
        let newest = self.journal.newest_entries(1).await?;
        Ok(newest
            .first()
            .map(|entry| (entry.revision, parse_entry(entry).and_then(|it| it.runner()))))
    }

    /// Returns the newest tasks, the newest first, and the revision of the last entry.
    pub(super) async fn newest(
        &self,
        limit: usize,
    ) -> Result<(Vec<RedriveTask>, Option<u64>), LogError> {
        let (mut tasks, revision) = self.read_until(|tasks| tasks.len() >= limit).await?;
        tasks.reverse();
        tasks.truncate(limit);
        Ok((tasks, revision))
    }

    /// Returns a task, and the revision of the last entry.
    pub(super) async fn find(
        &self,
        task_id: Uuid,
    ) -> Result<Option<(RedriveTask, Option<u64>)>, LogError> {
        let is_it = |task: &RedriveTask| task.begun.task_id == task_id;
        let (tasks, revision) = self.read_until(|tasks| tasks.iter().any(is_it)).await?;
        Ok(tasks.into_iter().find(is_it).map(|task| (task, revision)))
    }

    /// Appends an entry after the one with revision `last`, and returns its revision.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if another entry was appended since.
    pub(super) async fn append(
        &self,
        entry: &RedriveEntry,
        last: Option<u64>,
        cause: &Cause,
    ) -> Result<u64, LogError> {
        let last = ExpectedLast::Revision(last);
        let entry_type = entry.entry_type();
        match entry {
            RedriveEntry::Begun(begun) => self.journal.append(last, entry_type, begun, cause).await,
            RedriveEntry::Moved(moved) => self.journal.append(last, entry_type, moved, cause).await,
            RedriveEntry::Cancelled(cancelled) => {
                self.journal.append(last, entry_type, cancelled, cause).await
            }
        }
    }

    /// Reads backwards until `is_enough`, and returns the tasks, the oldest first.
    async fn read_until(
        &self,
        is_enough: impl Fn(&[RedriveTask]) -> bool,
    ) -> Result<(Vec<RedriveTask>, Option<u64>), LogError> {
        let mut newest_first: Vec<RedriveEntry> = Vec::new();
        let mut page = self.journal.newest_entries(PAGE).await?;
        let revision = page.first().map(|entry| entry.revision);
        loop {
            newest_first.extend(page.iter().filter_map(parse_entry));
            // Anew with each page: an entry counts only after the beginning of its task.
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

/// Returns the entry; `None` if this release does not know its type or its schema.
fn parse_entry(entry: &JournalEntry) -> Option<RedriveEntry> {
    RedriveEntry::decode(&entry.entry_type, entry.data()?)
}
