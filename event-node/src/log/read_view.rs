//! A combined view of the staged commit, the memtables, the index and the log.

use std::collections::VecDeque;

use crate::log::{
    chunk::FIRST_ENTRY,
    chunked_log::{ChunkedLog, SHORT_READ},
    direction::Direction,
    entry::{Entry, EventsRecord, Parsed, Record},
    entry_scanner::EntryScanner,
    error::LogError,
    event::{TOMBSTONE_REVISION, described_stream},
    index::Index,
    index_buffer::IndexBuffer,
    memtable::{Mark, Memtable, Run},
    stream_metadata::StreamLimits,
};

/// Index information about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StreamInfo {
    /// Last revision; `None` if the stream has no events.
    pub last: Option<u64>,
    pub limits: StreamLimits,
}

/// Entries of a commit in progress.
#[derive(Clone, Copy)]
pub(super) struct StagedEntries<'a> {
    pub table: &'a Memtable,
    pub bytes: &'a [u8],
    /// Log offset at which the bytes will be written.
    pub base: u64,
}

/// A view for lookups. The memtables are read before the index: a table flushed in between is found
/// twice, never missed.
#[derive(Clone, Copy)]
pub(super) struct ReadView<'a> {
    pub index: &'a Index,
    pub index_buffer: &'a IndexBuffer,
    pub log: &'a ChunkedLog,
    pub staged: Option<StagedEntries<'a>>,
}

impl<'a> ReadView<'a> {
    pub(super) fn find_stream(&self, name: &str) -> Result<StreamInfo, LogError> {
        let is_metastream = described_stream(name).is_some();
        let staged = self.staged.and_then(|staged| staged.table.streams.get(name));
        // The newest source wins: staged commit, then memtables, then index.
        let mut last = staged.and_then(|part| part.runs.last().map(Run::last_revision));
        let mut limits = staged.and_then(|part| part.limits);
        let (buffered_last, buffered_limits) = self.index_buffer.find_stream(name);
        last = last.or(buffered_last);
        limits = limits.or(buffered_limits);
        let (indexed_last, indexed_limits) = match (last, limits) {
            (Some(_), Some(_)) => (None, StreamLimits::default()),
            _ => self.index.look_up(|snapshot| snapshot.find_stream(name))?,
        };
        let limits = match limits {
            _ if is_metastream => StreamLimits::FOR_METASTREAMS,
            Some(limits) => limits,
            None => indexed_limits,
        };
        Ok(StreamInfo { last: last.or(indexed_last), limits })
    }

    /// Returns whether the stream, or the stream it describes, is tombstoned.
    pub(super) fn is_tombstoned(&self, name: &str, info: &StreamInfo) -> Result<bool, LogError> {
        if info.last == Some(TOMBSTONE_REVISION) {
            return Ok(true);
        }
        let Some(described) = described_stream(name) else { return Ok(false) };
        Ok(self.find_stream(described)?.last == Some(TOMBSTONE_REVISION))
    }

    pub(super) fn find_runs(
        &self,
        name: &str,
        (low, high): (u64, u64),
        direction: Direction,
        limit: usize,
    ) -> Result<VecDeque<Run>, LogError> {
        let buffered = self.index_buffer.find_runs(name, (low, high), direction, limit);
        let staged = self.staged.and_then(|staged| staged.table.streams.get(name));
        let staged = staged.map(|part| part.runs_between(low, high)).unwrap_or_default();
        // A table just flushed may be in the buffer and in the index. Ask the index only for
        // revisions below the buffered ones, so that no run is returned twice.
        let newer = buffered.iter().chain(staged).map(|run| run.first).min();
        let indexed_high = newer.map_or(Some(high), |first| first.checked_sub(1));
        // Backwards, the buffered runs come first. With enough of them the index need not be read.
        let is_enough = direction == Direction::Backwards && buffered.len() >= limit;
        let indexed = match indexed_high {
            Some(high) if low <= high && !is_enough => self
                .index
                .look_up(|snapshot| snapshot.find_runs(name, (low, high), direction, limit))?,
            _ => Vec::new(),
        };
        // `buffered` and `indexed` are in read direction; staged runs are always in ascending
        // order.
        let staged = staged.iter().copied();
        Ok(match direction {
            Direction::Forwards => {
                indexed.into_iter().chain(buffered).chain(staged).take(limit).collect()
            }
            Direction::Backwards => {
                staged.rev().chain(buffered).chain(indexed).take(limit).collect()
            }
        })
    }

    /// Returns a mark at or before the event at `position`, from which a reader of `$all` can scan.
    pub(super) fn find_mark_before(&self, position: u64) -> Result<Mark, LogError> {
        let mark = match self.index_buffer.find_mark_before(position) {
            Some(mark) => Some(mark),
            None => self.index.look_up(|snapshot| snapshot.find_mark_before(position))?,
        };
        Ok(mark.unwrap_or(Mark { position: 1, offset: FIRST_ENTRY }))
    }

    pub(super) fn record_reader(&self) -> RecordReader<'a> {
        RecordReader { staged: self.staged, scanner: self.log.scan_from(FIRST_ENTRY, SHORT_READ) }
    }
}

/// Reads the records that runs refer to.
pub(super) struct RecordReader<'a> {
    staged: Option<StagedEntries<'a>>,
    scanner: EntryScanner,
}

impl RecordReader<'_> {
    /// Reads the events of `run`; `None` if a scavenge has removed them.
    pub(super) fn read_record(
        &mut self,
        stream: &str,
        run: Run,
    ) -> Result<Option<EventsRecord<'_>>, LogError> {
        let offset = run.offset;
        let entry = match self.staged {
            // Entries from `base` on are not in the log yet.
            Some(staged) if offset >= staged.base => staged_entry(staged, offset),
            _ => {
                self.scanner.seek_to(offset);
                match self.scanner.next_entry()? {
                    // The index lists removed entries until it is rebuilt at the end of the
                    // scavenge.
                    Some((found, _)) if found > offset => return Ok(None),
                    found => found.map(|(_, entry)| entry),
                }
            }
        };
        let mut records = entry.into_iter().flat_map(|entry| entry.records());
        let found = records.find_map(|record| match record {
            Some(Record::Events(events))
                if events.stream == stream && events.stamp.revision == run.first =>
            {
                Some(events)
            }
            Some(Record::Events(_) | Record::Group(_)) | None => None,
        });
        // Every run refers to an entry with its events. Anything else means that the index or the
        // log is damaged.
        found.map(Some).ok_or(LogError::Damaged { offset })
    }
}

fn staged_entry(staged: StagedEntries<'_>, offset: u64) -> Option<Entry<'_>> {
    let begin = usize::try_from(offset - staged.base).ok()?;
    match Entry::parse(staged.bytes.get(begin..)?) {
        Parsed::Entry(entry) => Some(entry),
        Parsed::Incomplete(_) | Parsed::Broken => None,
    }
}
