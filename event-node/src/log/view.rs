//! The store as one: what is being written, what the index does not know yet, the index, the log.

use std::collections::VecDeque;

use crate::log::{
    chunk::FIRST_ENTRY,
    entry::{Entry, EventsRecord, Parsed, Record},
    error::LogError,
    event::{TOMBSTONE_REVISION, described_by},
    file::{LogFile, SHORT_READ},
    index::Index,
    memtable::{Mark, Memtable, Run},
    metadata::Limits,
    pending::Pending,
    read::Direction,
    scanner::Scanner,
};

/// What is known of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StreamInfo {
    /// `None` if it has no events.
    pub last: Option<u64>,
    pub limits: Limits,
}

/// Entries that are not in the log yet.
#[derive(Clone, Copy)]
pub(super) struct Staged<'a> {
    pub table: &'a Memtable,
    pub bytes: &'a [u8],
    /// Where the bytes will stand in the log.
    pub base: u64,
}

/// Looks everywhere, in an order in which nothing can be missed: from where events come to where
/// they go.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub index: &'a Index,
    pub pending: &'a Pending,
    pub log: &'a LogFile,
    pub staged: Option<Staged<'a>>,
}

impl<'a> View<'a> {
    pub(super) fn stream(&self, name: &str) -> Result<StreamInfo, LogError> {
        let is_metastream = described_by(name).is_some();
        let staged = self.staged.and_then(|staged| staged.table.streams.get(name));
        let mut last = staged.and_then(|part| part.runs.last().map(Run::last));
        let mut limits = staged.and_then(|part| part.limits);
        let (pending_last, pending_limits) = self.pending.stream(name);
        last = last.or(pending_last);
        limits = limits.or(pending_limits);
        let (indexed_last, indexed_limits) = match (last, limits) {
            (Some(_), Some(_)) => (None, Limits::default()),
            _ => self.index.stream(name)?,
        };
        let limits = match limits {
            _ if is_metastream => Limits::OF_METASTREAMS,
            Some(limits) => limits,
            None => indexed_limits,
        };
        Ok(StreamInfo { last: last.or(indexed_last), limits })
    }

    /// Whether a stream, or the stream that it describes, was tombstoned.
    pub(super) fn is_tombstoned(&self, name: &str, info: &StreamInfo) -> Result<bool, LogError> {
        if info.last == Some(TOMBSTONE_REVISION) {
            return Ok(true);
        }
        let Some(described) = described_by(name) else { return Ok(false) };
        Ok(self.stream(described)?.last == Some(TOMBSTONE_REVISION))
    }

    /// The runs of a stream with revisions from `low` to `high`, in this direction, and no more
    /// than `limit` of them.
    pub(super) fn runs(
        &self,
        name: &str,
        (low, high): (u64, u64),
        direction: Direction,
        limit: usize,
    ) -> Result<VecDeque<Run>, LogError> {
        let pending = self.pending.runs(name, (low, high), direction, limit);
        let staged = self.staged.and_then(|staged| staged.table.streams.get(name));
        let staged = staged.map(|part| part.between(low, high)).unwrap_or_default();
        // What was just written to the index may be pending, too.
        let newer = pending.iter().chain(staged).map(|run| run.first).min();
        let indexed_high = newer.map_or(Some(high), |first| first.checked_sub(1));
        let is_enough = direction == Direction::Backwards && pending.len() >= limit;
        let indexed = match indexed_high {
            Some(high) if low <= high && !is_enough => {
                self.index.runs(name, (low, high), direction, limit)?
            }
            _ => Vec::new(),
        };
        let mut runs: VecDeque<Run> = match direction {
            Direction::Forwards => indexed.into_iter().chain(pending).collect(),
            Direction::Backwards => pending.into_iter().chain(indexed).collect(),
        };
        match direction {
            Direction::Forwards => runs.extend(staged),
            Direction::Backwards => staged.iter().for_each(|run| runs.push_front(*run)),
        }
        runs.truncate(limit);
        Ok(runs)
    }

    /// Where a reader of `$all` finds the event at `position`: not behind this mark.
    pub(super) fn mark_before(&self, position: u64) -> Result<Mark, LogError> {
        let mark = match self.pending.mark_before(position) {
            Some(mark) => Some(mark),
            None => self.index.mark_before(position)?,
        };
        Ok(mark.unwrap_or(Mark { position: 1, offset: FIRST_ENTRY }))
    }

    pub(super) fn records(&self) -> RecordReader<'a> {
        RecordReader { staged: self.staged, scanner: self.log.scan(FIRST_ENTRY, SHORT_READ) }
    }
}

/// Reads what runs point to.
pub(super) struct RecordReader<'a> {
    staged: Option<Staged<'a>>,
    scanner: Scanner,
}

impl RecordReader<'_> {
    /// The events that `run` of `stream` stands for; `None` if a scavenge has removed them.
    pub(super) fn read(
        &mut self,
        stream: &str,
        run: Run,
    ) -> Result<Option<EventsRecord<'_>>, LogError> {
        let offset = run.offset;
        let entry = match self.staged {
            Some(staged) if offset >= staged.base => staged_entry(staged, offset),
            _ => {
                self.scanner.seek(offset);
                match self.scanner.next()? {
                    // The index has the entry until it is made anew at the end of the scavenge.
                    Some((found, _)) if found > offset => return Ok(None),
                    found => found.map(|(_, entry)| entry),
                }
            }
        };
        let mut records = entry.into_iter().flat_map(|entry| entry.records());
        let found = records.find_map(|record| match record {
            Some(Record::Events(events))
                if events.stream == stream && events.place.revision == run.first =>
            {
                Some(events)
            }
            Some(Record::Events(_) | Record::Group(_)) | None => None,
        });
        // Each offset is that of an entry with these events: else one of the files is damaged.
        found.map(Some).ok_or(LogError::Damaged { offset })
    }
}

fn staged_entry(staged: Staged<'_>, offset: u64) -> Option<Entry<'_>> {
    let begin = usize::try_from(offset - staged.base).ok()?;
    match Entry::parse(staged.bytes.get(begin..)?) {
        Parsed::Entry(entry) => Some(entry),
        Parsed::Incomplete(_) | Parsed::Broken => None,
    }
}
