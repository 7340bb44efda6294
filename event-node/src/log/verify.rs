//! Verification of a whole store while no node runs on it.

mod comparison;
mod mark_check;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::log::{
    SCAVENGE_FILE,
    chunk::FIRST_CHUNK,
    chunked_log::{ChunkedLog, LONG_READ},
    disk::{DiskFolder, Folder},
    entry::{Entry, Record},
    error::{LogError, OpenError},
    event::TOMBSTONE_REVISION,
    folder_lock::FolderLock,
    index::{Index, MergedRows, Row, Snapshot, StoredIndex, UnusableFile, decode_row},
    memtable::{Memtable, Progress, Run},
    recovery::was_durable_at,
    sorted_table::TableError,
    verify::{
        comparison::{check_blocks, compare_snapshots},
        mark_check::MarkCheck,
    },
};

const MAX_FINDINGS: usize = 20;

/// Number of rows per table of the temporary index.
const ROWS_AT_ONCE: usize = 64 * 1_024;

/// Content of a verified store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifySummary {
    /// Number of events, including those no reader can see any more.
    pub events: u64,
    /// Number of streams with events.
    pub streams: u64,
    /// Number of persistent subscription groups.
    pub groups: u64,
}

/// Reason why a store could not be verified, or damage that was found.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("there is no store in {}: specify the data folder of the node", .folder.display())]
    Missing { folder: PathBuf },
    #[error(
        "permission denied on {}: run this command as the user of the node",
        .file.display()
    )]
    Denied { file: PathBuf },
    #[error("the store cannot be checked")]
    Unavailable(#[source] OpenError),
    #[error("the store cannot be read")]
    Unreadable(#[source] LogError),
    #[error(
        "the temporary index for the comparison cannot be created: free space in the folder for \
         temporary files, or set TMPDIR to another folder"
    )]
    Scratch(#[source] LogError),
    /// The log is damaged. Each finding is a sentence without a full stop.
    #[error("the store is damaged: {}; restore it from a backup, or save intact events with `dofs node salvage`", .findings.join("; "))]
    Damaged { findings: Vec<String> },
    /// Only the index is damaged. Each finding is a sentence without a full stop.
    #[error(
        "the index does not match the log, which is intact: {}; remove the files `index*` in {}, \
         and the next start of the node rebuilds them",
        .findings.join("; "),
        .folder.display()
    )]
    DamagedIndex { folder: PathBuf, findings: Vec<String> },
}

impl VerifyError {
    /// Converts an error of opening a file or folder of the store.
    fn from_open_error(error: OpenError) -> Self {
        if let OpenError::LockFile { file, source }
        | OpenError::UnreadableLog { file, source }
        | OpenError::UnreadableIndex { file, source } = &error
            && source.kind() == io::ErrorKind::PermissionDenied
        {
            return Self::Denied { file: file.clone() };
        }
        Self::Unavailable(error)
    }
}

/// Differences found, limited to the first [`MAX_FINDINGS`].
#[derive(Debug, Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, finding: String) {
        if !self.is_full() {
            self.0.push(finding);
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_FINDINGS
    }
}

/// Verifies the store in `data`: every entry is intact, positions and revisions have no gaps, the
/// index matches the log, and each index block is intact.
///
/// Reads the whole store and changes nothing. The node must not be running. The stored index is
/// compared with one that is built from the log in a temporary folder.
pub fn verify_store(data: &Path) -> Result<VerifySummary, VerifyError> {
    let folder = DiskFolder::read_only(data);
    let Some((log, _lock)) = open_log(&folder, data)? else {
        return Err(VerifyError::Missing { folder: data.to_owned() });
    };
    let mut findings = Findings::default();
    let stored = open_index(&folder, &log, &mut findings)?;
    let scratch = scratch_folder()?;
    let files: Arc<dyn Folder> = Arc::new(DiskFolder::writable(scratch.path()));
    let index = Index::open(&files, &log).map_err(VerifyError::from_open_error)?;
    let mut reading = LogCheck {
        log: &log,
        index: &index,
        table: Memtable::starting_at(index.progress()),
        marks: MarkCheck::default(),
        disorder: Findings::default(),
        gaps: Gaps::default(),
        follows_gap: false,
    };
    if let Some(stored) = &stored {
        reading.marks = MarkCheck::new(stored).map_err(unreadable_error)?;
        // Stop where the stored index ends: the temporary index then covers the same part of the
        // log and can be compared.
        let is_at_entry = reading.read_to(Some(stored.progress))?;
        findings.0.extend(reading.marks.finish());
        if is_at_entry {
            compare_snapshots(stored, &index.snapshot(), &mut findings)
                .map_err(unreadable_error)?;
        } else {
            findings.add("its progress is not at the end of a log entry".to_owned());
        }
    }
    reading.read_to(None)?;
    let mut disorder = reading.disorder;
    let verified = check_revisions(&index.snapshot(), &reading.gaps, &mut disorder)
        .map_err(unreadable_error)?;
    if !disorder.0.is_empty() {
        return Err(VerifyError::Damaged { findings: disorder.0 });
    }
    if !findings.0.is_empty() {
        let findings = findings.0;
        return Err(VerifyError::DamagedIndex { folder: data.to_owned(), findings });
    }
    Ok(verified)
}

/// Opens and locks the log, so that no node can start on it; `None` if there is none.
fn open_log(
    folder: &DiskFolder,
    data: &Path,
) -> Result<Option<(ChunkedLog, Option<FolderLock>)>, VerifyError> {
    if !data.join(FIRST_CHUNK).exists() {
        return Ok(None);
    }
    let lock = FolderLock::acquire_for_reading(data).map_err(VerifyError::from_open_error)?;
    match ChunkedLog::open(Arc::new(folder.clone())) {
        Ok(log) => Ok(log.map(|log| (log, lock))),
        Err(error @ OpenError::DamagedLog { .. }) => {
            Err(VerifyError::Damaged { findings: vec![error.to_string()] })
        }
        Err(error) => Err(VerifyError::from_open_error(error)),
    }
}

/// Opens the stored index; `None` if there is none to compare. The index of another store is not
/// damage: the next start rebuilds it.
fn open_index(
    folder: &DiskFolder,
    log: &ChunkedLog,
    findings: &mut Findings,
) -> Result<Option<Snapshot>, VerifyError> {
    // During a scavenge the index still lists removed entries. It is rebuilt when the scavenge
    // ends.
    let checkpoint = folder.open_file(SCAVENGE_FILE).map_err(|source| {
        VerifyError::from_open_error(OpenError::UnreadableLog { file: folder.path(), source })
    })?;
    if checkpoint.is_some() {
        return Ok(None);
    }
    match Snapshot::open(folder, log.store_id()) {
        Ok(StoredIndex::Missing | StoredIndex::Foreign) => Ok(None),
        Ok(StoredIndex::Found { snapshot, .. }) => {
            let is_intact = check_blocks(&snapshot, findings).map_err(unreadable_error)?;
            Ok(is_intact.then_some(snapshot))
        }
        Err(UnusableFile { file, error: TableError::Damaged }) => {
            findings.add(format!("its file `{file}` is damaged or missing"));
            Ok(None)
        }
        Err(UnusableFile { file, error: TableError::Io(source) }) => {
            Err(VerifyError::from_open_error(OpenError::index_file(folder, &file, source)))
        }
    }
}

fn scratch_folder() -> Result<tempfile::TempDir, VerifyError> {
    tempfile::tempdir().map_err(|error| VerifyError::Scratch(LogError::from_io(error)))
}

fn unreadable_error(error: TableError) -> VerifyError {
    VerifyError::Unreadable(error.into())
}

/// A scan of the log in progress.
struct LogCheck<'a> {
    log: &'a ChunkedLog,
    /// Temporary index of the scanned part.
    index: &'a Index,
    /// Scanned part that is not in the temporary index yet.
    table: Memtable,
    marks: MarkCheck<'a>,
    /// Findings about the order of revisions.
    disorder: Findings,
    gaps: Gaps,
    /// Whether a gap follows the last scanned event.
    follows_gap: bool,
}

/// Gaps that a scavenge or a salvage left: the positions before and after each one.
#[derive(Debug, Default)]
struct Gaps(Vec<(u64, u64)>);

impl Gaps {
    /// Returns whether events may be missing between these positions.
    fn is_between(&self, before: u64, after: u64) -> bool {
        let at = self.0.partition_point(|gap| gap.0 < before);
        self.0.get(at).is_some_and(|gap| gap.1 <= after)
    }
}

impl LogCheck<'_> {
    /// Scans the log up to `known`, which must exist, or to its end. Returns whether an entry ends
    /// at `known`. A torn write at the end is not damage: its appends were never acknowledged, and
    /// the next start truncates it.
    fn read_to(&mut self, known: Option<Progress>) -> Result<bool, VerifyError> {
        let mut scanner = self.log.scan_from(self.table.progress.offset, LONG_READ);
        while known.is_none_or(|known| scanner.next_offset() < known.offset) {
            let offset = scanner.next_offset();
            let is_intact = match scanner.next_entry() {
                Ok(Some((offset, entry))) => self.add_entry(offset, &entry),
                // At the end of the log, or in a gap before it.
                Ok(None) if known.is_none_or(|known| self.log.durable_end() >= known.offset) => {
                    break;
                }
                Ok(None) => false,
                Err(LogError::Damaged { .. }) => {
                    // Within the indexed part a broken entry is damage, because the index covers
                    // durable entries only.
                    let is_torn_write = known.is_none()
                        && !was_durable_at(self.log, offset).map_err(VerifyError::Unreadable)?;
                    if is_torn_write {
                        break;
                    }
                    false
                }
                Err(error) => return Err(VerifyError::Unreadable(error)),
            };
            if !is_intact {
                return Err(damaged_log_error(offset, &self.table.progress));
            }
            if self.table.n_rows >= ROWS_AT_ONCE {
                self.flush_table()?;
            }
        }
        // The log may end with a gap, which the scanner does not return.
        self.table.progress.offset = scanner.next_offset();
        self.flush_table()?;
        Ok(known.is_none_or(|known| known == self.table.progress))
    }

    fn add_entry(&mut self, offset: u64, entry: &Entry<'_>) -> bool {
        let first_position = entry.records().find_map(|record| match record {
            Some(Record::Events(events)) => Some(events.stamp.position),
            Some(Record::Group(_)) | None => None,
        });
        self.follows_gap |= offset > self.table.progress.offset;
        if let Some(position) = first_position {
            self.marks.check_entry(position, offset);
            let before = self.table.progress.position;
            // Group records may stand between the gap and the next event, so the flag is kept until
            // an event is found.
            let follows_gap = std::mem::take(&mut self.follows_gap);
            if position != before + 1 {
                if !follows_gap {
                    return false;
                }
                self.gaps.0.push((before, position));
            }
        }
        self.table.add_entry(offset, entry).is_ok()
    }

    fn flush_table(&mut self) -> Result<(), VerifyError> {
        // Only the order within this table is checked here; the order across tables is checked at
        // the end.
        for (stream, part) in &self.table.streams {
            for two in
                part.runs.windows(2).filter(|two| !is_next(Some(&two[0]), &two[1], &self.gaps))
            {
                self.disorder.add(describe_disorder(stream, Some(&two[0]), &two[1]));
            }
        }
        self.index.flush_memtable(&self.table).map_err(VerifyError::Scratch)?;
        self.table = Memtable::starting_at(self.table.progress);
        let disorder = &mut self.disorder;
        let mut on_duplicate = |stream: &str, revision: u64| {
            disorder.add(format!("stream `{stream}` has revision {revision} twice"));
        };
        while self.index.merge_due_tables(&mut on_duplicate).map_err(VerifyError::Scratch)? {}
        Ok(())
    }
}

fn damaged_log_error(offset: u64, read: &Progress) -> VerifyError {
    let position = read.position;
    let finding =
        format!("its log is broken at byte {offset}, after the event at position {position}");
    VerifyError::Damaged { findings: vec![finding] }
}

/// Returns whether `run` may follow `before` in a stream. Revisions start at 0, have no gaps except
/// before a tombstone and at gaps of the log, and increase with positions.
fn is_next(before: Option<&Run>, run: &Run, gaps: &Gaps) -> bool {
    let first = before.map_or(0, |before| before.last_revision().saturating_add(1));
    let is_tombstone = run.first == TOMBSTONE_REVISION && first <= TOMBSTONE_REVISION;
    let is_left_out = || {
        let before = before.map_or(0, |before| before.position + before.count.saturating_sub(1));
        run.first > first && gaps.is_between(before, run.position)
    };
    let is_after = before.is_none_or(|before| before.position < run.position);
    (run.first == first || is_tombstone || is_left_out()) && is_after
}

fn describe_disorder(stream: &str, before: Option<&Run>, run: &Run) -> String {
    let first = run.first;
    match before {
        Some(before) => {
            let before = before.last_revision();
            format!("in stream `{stream}`, revision {first} is out of order after {before}")
        }
        None => format!("in stream `{stream}`, revision {first} is the first one instead of 0"),
    }
}

/// Checks the revision order of every stream and counts the content.
fn check_revisions(
    rebuilt: &Snapshot,
    gaps: &Gaps,
    disorder: &mut Findings,
) -> Result<VerifySummary, TableError> {
    let mut verified =
        VerifySummary { events: 0, streams: 0, groups: rebuilt.groups.0.len() as u64 };
    let mut rows = MergedRows::new(&rebuilt.tables)?;
    let mut current = String::new();
    let mut before = None;
    while let Some(row) = rows.next_row()? {
        let Some(Row::Run { stream, run }) = decode_row(Some((row.key, row.value)))? else {
            continue;
        };
        if before.is_none() || current != stream {
            stream.clone_into(&mut current);
            before = None;
            verified.streams += 1;
        }
        if row.n_versions > 1 {
            disorder.add(format!("stream `{stream}` has revision {} twice", run.first));
        }
        if !is_next(before.as_ref(), &run, gaps) {
            disorder.add(describe_disorder(stream, before.as_ref(), &run));
        }
        verified.events += run.count;
        before = Some(run);
    }
    Ok(verified)
}
