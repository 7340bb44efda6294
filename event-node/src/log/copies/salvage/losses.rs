//! Which revisions of which streams were in the damaged parts of a log.

use std::sync::Arc;

use crate::log::{
    copies::CopyError,
    disk::{DiskFolder, Folder},
    file::LogFile,
    index::{Kept, MergedRows, Row, Snapshot, row_at},
    pending::BOUNDS,
    recover::recover_log,
    sorted_table::TableError,
};

/// A damaged part of a file of the log, and the positions of the events that were in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// Name of the file. With the same `from` and `to`, a file before this one is missing.
    pub file: String,
    /// First byte of the range, and the first behind it.
    pub from: u64,
    pub to: u64,
    pub first_position: u64,
    /// `None` at the end of the log if no index knows how far it went.
    pub last_position: Option<u64>,
}

/// Revisions of a stream that are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRevisions {
    pub stream: String,
    pub first: u64,
    pub last: u64,
}

/// All that is known of what is lost.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub ranges: Vec<LostRange>,
    pub revisions: Vec<LostRevisions>,
    pub is_complete: bool,
}

/// Finds what is lost: from the index of the damaged store if that is whole, else from gaps in
/// `saved`.
pub(super) fn find_lost_revisions(
    source: &dyn Folder,
    saved: LogFile,
    ranges: &[LostRange],
) -> Result<Losses, CopyError> {
    if let Ok(Kept::Index { snapshot, .. }) = Snapshot::open(source, saved.id())
        && let Ok(losses) = known_losses(&snapshot, ranges)
    {
        return Ok(losses);
    }
    let scratch = tempfile::tempdir()
        .map_err(|source| CopyError::Write { folder: std::env::temp_dir(), source })?;
    let folder: Arc<dyn Folder> = Arc::new(DiskFolder::writable(scratch.path()));
    let made = recover_log(&folder, saved, BOUNDS).map_err(CopyError::Folder)?;
    made.index.apply(&made.behind).map_err(CopyError::Read)?;
    let revisions = gaps(&made.index.snapshot(), ranges);
    let revisions = revisions.map_err(|error| CopyError::Read(error.into()))?;
    Ok(Losses { ranges: ranges.to_vec(), revisions, is_complete: ranges.is_empty() })
}

/// The runs that the index knows and that were in the ranges.
fn known_losses(index: &Snapshot, ranges: &[LostRange]) -> Result<Losses, TableError> {
    let end = index.progress.position;
    // What is behind the end that the index knows, and cannot be read, was never acknowledged or is
    // in no index.
    let ranges: Vec<LostRange> = ranges
        .iter()
        .filter(|range| range.first_position <= end)
        .map(|range| LostRange {
            last_position: Some(range.last_position.unwrap_or(end)),
            ..range.clone()
        })
        .collect();
    let mut revisions: Vec<LostRevisions> = Vec::new();
    let mut rows = MergedRows::new(&index.tables)?;
    while let Some(row) = rows.next()? {
        let Some(Row::Run { stream, run }) = row_at(Some((row.key, row.value)))? else { continue };
        if !ranges.iter().any(|range| range.holds(run.position)) {
            continue;
        }
        match revisions.last_mut() {
            Some(last) if last.stream == stream && last.last + 1 == run.first => {
                last.last = run.last();
            }
            Some(_) | None => revisions.push(LostRevisions {
                stream: stream.to_owned(),
                first: run.first,
                last: run.last(),
            }),
        }
    }
    Ok(Losses { ranges, revisions, is_complete: true })
}

/// Missing revisions before saved ones, where a range lies between the two.
fn gaps(saved: &Snapshot, ranges: &[LostRange]) -> Result<Vec<LostRevisions>, TableError> {
    let mut found = Vec::new();
    let mut before: Option<(String, u64, u64)> = None;
    let mut rows = MergedRows::new(&saved.tables)?;
    while let Some(row) = rows.next()? {
        let Some(Row::Run { stream, run }) = row_at(Some((row.key, row.value)))? else { continue };
        let (first, position) = match &before {
            Some((before, last, position)) if before == stream => (last + 1, *position),
            Some(_) | None => (0, 0),
        };
        let is_lost = |range: &LostRange| {
            range.first_position > position && range.first_position < run.position
        };
        if run.first > first && ranges.iter().any(is_lost) {
            found.push(LostRevisions { stream: stream.to_owned(), first, last: run.first - 1 });
        }
        before = Some((stream.to_owned(), run.last(), run.position));
    }
    Ok(found)
}

impl LostRange {
    fn holds(&self, position: u64) -> bool {
        position >= self.first_position && self.last_position.is_none_or(|last| position <= last)
    }
}
