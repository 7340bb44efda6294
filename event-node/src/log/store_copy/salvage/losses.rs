//! Determines which revisions were in the damaged ranges of a log.

use std::sync::Arc;

use crate::log::{
    chunked_log::ChunkedLog,
    disk::{DiskFolder, Folder},
    index::{MergedRows, Row, Snapshot, StoredIndex, decode_row},
    index_buffer::INDEX_BUFFER_LIMITS,
    recovery::recover_log,
    sorted_table::TableError,
    store_copy::CopyError,
};

/// A damaged range of a chunk file, and the positions of the lost events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// Name of the file. If `from` equals `to`, the chunk file before this one is missing.
    pub file: String,
    /// First byte of the range, and first byte after it.
    pub from: u64,
    pub to: u64,
    pub first_position: u64,
    /// `None` at the end of the log if no index knows the last position.
    pub last_position: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRevisions {
    pub stream: String,
    pub first: u64,
    pub last: u64,
}

#[derive(Debug, Default)]
pub(super) struct LossReport {
    pub ranges: Vec<LostRange>,
    pub revisions: Vec<LostRevisions>,
    pub is_complete: bool,
}

/// Finds the lost revisions: from the index of the damaged store if that is intact, otherwise from
/// revision gaps in `saved`.
pub(super) fn find_lost_revisions(
    source: &dyn Folder,
    saved: ChunkedLog,
    ranges: &[LostRange],
) -> Result<LossReport, CopyError> {
    if let Ok(StoredIndex::Found { snapshot, .. }) = Snapshot::open(source, saved.store_id())
        // A damaged block of the index is no error: the saved log is searched instead.
        && let Ok(losses) = find_indexed_losses(&snapshot, ranges)
    {
        return Ok(losses);
    }
    // A temporary index: the new store builds its own at its first start.
    let scratch = tempfile::tempdir()
        .map_err(|source| CopyError::Write { folder: std::env::temp_dir(), source })?;
    let folder: Arc<dyn Folder> = Arc::new(DiskFolder::writable(scratch.path()));
    let made = recover_log(&folder, saved, INDEX_BUFFER_LIMITS).map_err(CopyError::Folder)?;
    made.index.flush_memtable(&made.unindexed).map_err(CopyError::Read)?;
    let revisions = find_revision_gaps(&made.index.snapshot(), ranges);
    let revisions = revisions.map_err(|error| CopyError::Read(error.into()))?;
    Ok(LossReport { ranges: ranges.to_vec(), revisions, is_complete: ranges.is_empty() })
}

/// Returns the indexed runs within the ranges.
fn find_indexed_losses(index: &Snapshot, ranges: &[LostRange]) -> Result<LossReport, TableError> {
    let end = index.progress.position;
    // Damage after the last indexed event was either never acknowledged or is not in the index.
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
    while let Some(row) = rows.next_row()? {
        let Some(Row::Run { stream, run }) = decode_row(Some((row.key, row.value)))? else {
            continue;
        };
        if !ranges.iter().any(|range| range.contains(run.position)) {
            continue;
        }
        match revisions.last_mut() {
            Some(last) if last.stream == stream && last.last + 1 == run.first => {
                last.last = run.last_revision();
            }
            Some(_) | None => revisions.push(LostRevisions {
                stream: stream.to_owned(),
                first: run.first,
                last: run.last_revision(),
            }),
        }
    }
    Ok(LossReport { ranges, revisions, is_complete: true })
}

/// Returns missing revisions before saved events, if a damaged range lies in between.
fn find_revision_gaps(
    saved: &Snapshot,
    ranges: &[LostRange],
) -> Result<Vec<LostRevisions>, TableError> {
    let mut found = Vec::new();
    let mut before: Option<(String, u64, u64)> = None;
    let mut rows = MergedRows::new(&saved.tables)?;
    while let Some(row) = rows.next_row()? {
        let Some(Row::Run { stream, run }) = decode_row(Some((row.key, row.value)))? else {
            continue;
        };
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
        before = Some((stream.to_owned(), run.last_revision(), run.position));
    }
    Ok(found)
}

impl LostRange {
    fn contains(&self, position: u64) -> bool {
        position >= self.first_position && self.last_position.is_none_or(|last| position <= last)
    }
}
