//! Checks a whole store while no node runs on it.

mod comparison;
mod marks;
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
    disk::{DiskFolder, Folder},
    entry::{Entry, Record},
    error::{LogError, OpenError},
    event::TOMBSTONE_REVISION,
    file::{LONG_READ, LogFile},
    folder_lock::FolderLock,
    index::{Index, Kept, MergedRows, Row, Snapshot, UnusableFile, row_at},
    memtable::{Memtable, Progress, Run},
    recover::has_later,
    sorted_table::TableError,
    verify::{
        comparison::{check_blocks, compare},
        marks::MarkCheck,
    },
};

/// Most findings that one check reports.
const MAX_FINDINGS: usize = 20;

/// Rows of the log that are compared at once.
const ROWS_AT_ONCE: usize = 64 * 1_024;

/// What a sound store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Events, those included that no reader sees any more.
    pub events: u64,
    /// Streams that have events.
    pub streams: u64,
    /// Persistent subscription groups.
    pub groups: u64,
}

/// Why a store is not known to be sound.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("there is no store in {}: give the folder that the node writes to", .folder.display())]
    Missing { folder: PathBuf },
    #[error(
        "permission denied on {}: run as the user that the node runs as",
        .file.display()
    )]
    Denied { file: PathBuf },
    #[error("the store cannot be checked")]
    Unavailable(#[source] OpenError),
    #[error("the store cannot be read")]
    Unreadable(#[source] LogError),
    #[error(
        "the index with which the store is compared cannot be made in the folder for temporary \
         files: make room there, or name another folder by TMPDIR"
    )]
    Scratch(#[source] LogError),
    /// Each finding is a sentence without a full stop.
    #[error("the store is damaged: {}; restore it from a backup, or save what is whole with `dofs node salvage`", .findings.join("; "))]
    Damaged { findings: Vec<String> },
    /// The log is sound. Each finding is a sentence without a full stop.
    #[error(
        "the index does not agree with the log, which is sound: {}; remove the files `index*` in \
         {}, and the next start of the node makes them anew",
        .findings.join("; "),
        .folder.display()
    )]
    DamagedIndex { folder: PathBuf, findings: Vec<String> },
}

impl VerifyError {
    /// A file or folder of the store that cannot be opened.
    fn unavailable(error: OpenError) -> Self {
        let denied = match &error {
            OpenError::LockFile { file, source }
            | OpenError::UnreadableLog { file, source }
            | OpenError::UnreadableIndex { file, source }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(file.clone())
            }
            OpenError::LockFile { .. }
            | OpenError::UnreadableLog { .. }
            | OpenError::UnreadableIndex { .. }
            | OpenError::CreateFolder { .. }
            | OpenError::InUse { .. }
            | OpenError::CreateLog { .. }
            | OpenError::DamagedLog { .. }
            | OpenError::CutOffLog { .. }
            | OpenError::MissingLog { .. }
            | OpenError::ForeignChunk { .. }
            | OpenError::FirstFormat { .. }
            | OpenError::Log { .. }
            | OpenError::Index { .. }
            | OpenError::RemoveIndex { .. }
            | OpenError::Thread(_) => None,
        };
        denied.map_or(Self::Unavailable(error), |file| Self::Denied { file })
    }
}

/// Differences that were found, of which the first ones are reported.
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

/// Checks everything that is stored in `data`: that each entry of the log is whole, that positions
/// and revisions have no gaps, that the index says of the log what is in it, and that each of its blocks is
/// whole.
///
/// It reads all of the store and changes nothing. The node must not be running. An index made anew,
/// in a temporary folder, is what it compares with.
pub fn verify(data: &Path) -> Result<Verified, VerifyError> {
    let folder = DiskFolder::read_only(data);
    let Some((log, _lock)) = open_log(&folder, data)? else {
        return Err(VerifyError::Missing { folder: data.to_owned() });
    };
    let mut findings = Findings::default();
    let kept = open_index(&folder, &log, &mut findings)?;
    let scratch = scratch_folder()?;
    let files: Arc<dyn Folder> = Arc::new(DiskFolder::writable(scratch.path()));
    let index = Index::open(&files, &log).map_err(VerifyError::unavailable)?;
    let mut reading = LogReading {
        log: &log,
        index: &index,
        table: Memtable::behind(index.progress()),
        marks: MarkCheck::default(),
        disorder: Findings::default(),
        gaps: Gaps::default(),
        follows_gap: false,
    };
    if let Some(kept) = &kept {
        reading.marks = MarkCheck::of(kept).map_err(unreadable)?;
        let is_at_entry = reading.read_to(Some(kept.progress))?;
        findings.0.extend(reading.marks.finish());
        if is_at_entry {
            compare(kept, &index.snapshot(), &mut findings).map_err(unreadable)?;
        } else {
            findings.add("its progress is not where an entry of the log ends".to_owned());
        }
    }
    reading.read_to(None)?;
    let mut disorder = reading.disorder;
    let verified =
        check_revisions(&index.snapshot(), &reading.gaps, &mut disorder).map_err(unreadable)?;
    if !disorder.0.is_empty() {
        return Err(VerifyError::Damaged { findings: disorder.0 });
    }
    if !findings.0.is_empty() {
        let findings = findings.0;
        return Err(VerifyError::DamagedIndex { folder: data.to_owned(), findings });
    }
    Ok(verified)
}

/// Opens the log, and keeps a node from starting on it; `None` if there is none.
fn open_log(
    folder: &DiskFolder,
    data: &Path,
) -> Result<Option<(LogFile, Option<FolderLock>)>, VerifyError> {
    if !data.join(FIRST_CHUNK).exists() {
        return Ok(None);
    }
    let lock = FolderLock::take_to_read(data).map_err(VerifyError::unavailable)?;
    match LogFile::open(Arc::new(folder.clone())) {
        Ok(log) => Ok(log.map(|log| (log, lock))),
        Err(error @ OpenError::DamagedLog { .. }) => {
            Err(VerifyError::Damaged { findings: vec![error.to_string()] })
        }
        Err(error) => Err(VerifyError::unavailable(error)),
    }
}

/// Opens the index that is kept beside the log; `None` if there is none that can be compared. One of another
/// store is no damage: the next start makes it anew.
fn open_index(
    folder: &DiskFolder,
    log: &LogFile,
    findings: &mut Findings,
) -> Result<Option<Snapshot>, VerifyError> {
    // A scavenge makes the index anew when it ends: until then it knows what is gone.
    let is_scavenged = folder.open(SCAVENGE_FILE).map_err(|source| {
        VerifyError::unavailable(OpenError::UnreadableLog { file: folder.path(), source })
    })?;
    if is_scavenged.is_some() {
        return Ok(None);
    }
    match Snapshot::open(folder, log.id()) {
        Ok(Kept::Nothing | Kept::Foreign) => Ok(None),
        Ok(Kept::Index { snapshot, .. }) => {
            let is_whole = check_blocks(&snapshot, findings).map_err(unreadable)?;
            Ok(is_whole.then_some(snapshot))
        }
        Err(UnusableFile { file, error: TableError::Damaged }) => {
            findings.add(format!("its file `{file}` is damaged or missing"));
            Ok(None)
        }
        Err(UnusableFile { file, error: TableError::Io(source) }) => {
            Err(VerifyError::unavailable(OpenError::index_file(folder, &file, source)))
        }
    }
}

fn scratch_folder() -> Result<tempfile::TempDir, VerifyError> {
    tempfile::tempdir().map_err(|error| VerifyError::Scratch(LogError::disk(error)))
}

fn unreadable(error: TableError) -> VerifyError {
    VerifyError::Unreadable(error.into())
}

/// The log as it is being read.
struct LogReading<'a> {
    log: &'a LogFile,
    /// Made anew, of what was read.
    index: &'a Index,
    /// What the index does not know yet.
    table: Memtable,
    marks: MarkCheck<'a>,
    /// What is wrong with the order of revisions.
    disorder: Findings,
    gaps: Gaps,
    /// Whether there is a gap behind the last event that was read.
    follows_gap: bool,
}

/// Where a scavenge or a salvage left events out: the positions before and behind each place.
#[derive(Debug, Default)]
struct Gaps(Vec<(u64, u64)>);

impl Gaps {
    /// Whether events may be missing between these positions.
    fn is_between(&self, before: u64, behind: u64) -> bool {
        let at = self.0.partition_point(|gap| gap.0 < before);
        self.0.get(at).is_some_and(|gap| gap.1 <= behind)
    }
}

impl LogReading<'_> {
    /// Reads the log from where it was read up to `known`, which is there for certain, or up to its end.
    /// Returns whether an entry ends there. An end that was cut off, and so never answered, is no damage:
    /// the next start removes it.
    fn read_to(&mut self, known: Option<Progress>) -> Result<bool, VerifyError> {
        let mut scanner = self.log.scan(self.table.progress.offset, LONG_READ);
        while known.is_none_or(|known| scanner.offset() < known.offset) {
            let offset = scanner.offset();
            let is_sound = match scanner.next() {
                Ok(Some((offset, entry))) => self.add_entry(offset, &entry),
                // At the end of the log, or in a gap at its end.
                Ok(None) if known.is_none_or(|known| self.log.durable() >= known.offset) => break,
                Ok(None) => false,
                Err(LogError::Damaged { .. }) => {
                    let has_later = || has_later(self.log, offset).map_err(VerifyError::Unreadable);
                    if known.is_none() && !has_later()? {
                        break;
                    }
                    false
                }
                Err(error) => return Err(VerifyError::Unreadable(error)),
            };
            if !is_sound {
                return Err(damaged(offset, &self.table.progress));
            }
            if self.table.n_rows >= ROWS_AT_ONCE {
                self.index_table()?;
            }
        }
        // The log may end in a gap, which is no entry.
        self.table.progress.offset = scanner.offset();
        self.index_table()?;
        Ok(known.is_none_or(|known| known == self.table.progress))
    }

    fn add_entry(&mut self, offset: u64, entry: &Entry<'_>) -> bool {
        let first_position = entry.records().find_map(|record| match record {
            Some(Record::Events(events)) => Some(events.place.position),
            Some(Record::Group(_)) | None => None,
        });
        self.follows_gap |= offset > self.table.progress.offset;
        if let Some(position) = first_position {
            self.marks.check(position, offset);
            let before = self.table.progress.position;
            // An entry without events may stand between the gap and the events behind it.
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

    fn index_table(&mut self) -> Result<(), VerifyError> {
        // Across tables, the order is checked when all is read.
        for (stream, part) in &self.table.streams {
            for two in
                part.runs.windows(2).filter(|two| !is_next(Some(&two[0]), &two[1], &self.gaps))
            {
                self.disorder.add(out_of_order(stream, Some(&two[0]), &two[1]));
            }
        }
        self.index.apply(&self.table).map_err(VerifyError::Scratch)?;
        self.table = Memtable::behind(self.table.progress);
        let disorder = &mut self.disorder;
        let mut on_duplicate = |stream: &str, revision: u64| {
            disorder.add(format!("stream `{stream}` has revision {revision} twice"));
        };
        while self.index.merge_due(&mut on_duplicate).map_err(VerifyError::Scratch)? {}
        Ok(())
    }
}

fn damaged(offset: u64, read: &Progress) -> VerifyError {
    let position = read.position;
    let finding =
        format!("its log is broken at byte {offset}, behind the event at position {position}");
    VerifyError::Damaged { findings: vec![finding] }
}

/// Whether `run` may follow `before` in a stream: revisions begin at 0, have no gaps but for the
/// tombstone's and those of the log, and follow the order of positions.
fn is_next(before: Option<&Run>, run: &Run, gaps: &Gaps) -> bool {
    let first = before.map_or(0, |before| before.last().saturating_add(1));
    let is_tombstone = run.first == TOMBSTONE_REVISION && first <= TOMBSTONE_REVISION;
    let is_left_out = || {
        let before = before.map_or(0, |before| before.position + before.count.saturating_sub(1));
        run.first > first && gaps.is_between(before, run.position)
    };
    let is_behind = before.is_none_or(|before| before.position < run.position);
    (run.first == first || is_tombstone || is_left_out()) && is_behind
}

fn out_of_order(stream: &str, before: Option<&Run>, run: &Run) -> String {
    let first = run.first;
    match before {
        Some(before) => {
            let before = before.last();
            format!("in stream `{stream}`, revision {first} is out of order behind {before}")
        }
        None => format!("in stream `{stream}`, revision {first} is the first one"),
    }
}

/// Checks the order of the revisions of each stream, and counts what is there.
fn check_revisions(
    made: &Snapshot,
    gaps: &Gaps,
    disorder: &mut Findings,
) -> Result<Verified, TableError> {
    let mut verified = Verified { events: 0, streams: 0, groups: made.groups.0.len() as u64 };
    let mut rows = MergedRows::new(&made.tables)?;
    let mut current = String::new();
    let mut before = None;
    while let Some(row) = rows.next()? {
        let Some(Row::Run { stream, run }) = row_at(Some((row.key, row.value)))? else { continue };
        if before.is_none() || current != stream {
            stream.clone_into(&mut current);
            before = None;
            verified.streams += 1;
        }
        if row.n_versions > 1 {
            disorder.add(format!("stream `{stream}` has revision {} twice", run.first));
        }
        if !is_next(before.as_ref(), &run, gaps) {
            disorder.add(out_of_order(stream, before.as_ref(), &run));
        }
        verified.events += run.count;
        before = Some(run);
    }
    Ok(verified)
}
