//! Index changes of the newest part of the log, in memory.

use std::{collections::HashMap, sync::Arc};

use crate::log::{
    entry::{Entry, Record},
    event::described_stream,
    requests::GroupWrite,
    stream_metadata::StreamLimits,
};

/// Distance of marks: the first entry with events in each 64 KiB of the log has one. A reader of
/// `$all` starts at a mark and skips about this many bytes at most.
const MARK_STRIDE: u64 = 64 * 1_024;

/// Consecutive events of one stream in one log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Revision of the first event.
    pub first: u64,
    pub count: u64,
    /// Position of the first event.
    pub position: u64,
    /// Log offset of the entry.
    pub offset: u64,
}

impl Run {
    pub(super) fn last_revision(&self) -> u64 {
        self.first + self.count.saturating_sub(1)
    }
}

/// Mark of the sparse position index: the log offset of the entry with the event at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: u64,
    pub offset: u64,
}

/// Returns whether the entry at `offset` needs a mark. `marked` is the offset of the previous mark.
pub(super) fn is_mark_due(marked: Option<u64>, offset: u64) -> bool {
    marked.is_none_or(|marked| marked / MARK_STRIDE != offset / MARK_STRIDE)
}

/// A change of a group, with its place in the log.
#[derive(Debug, Clone)]
pub(super) struct GroupRecord {
    /// Log offset of the entry.
    pub offset: u64,
    pub write: GroupWrite,
}

/// Part of the log that a table or an index covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Log offset of the first entry that is not covered.
    pub offset: u64,
    /// Position of the last event that is covered.
    pub position: u64,
}

/// Error: an entry has a valid checksum but invalid content.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnreadableEntry;

/// Index changes of a range of the log.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    pub streams: HashMap<Arc<str>, StreamChanges>,
    /// In log order.
    pub groups: Vec<GroupRecord>,
    /// In log order.
    pub marks: Vec<Mark>,
    /// Number of rows that the index will have to write.
    pub n_rows: usize,
    pub progress: Progress,
}

#[derive(Debug, Default)]
pub(super) struct StreamChanges {
    /// In revision order, without gaps except before a tombstone.
    pub runs: Vec<Run>,
    /// New metadata limits, if they changed.
    pub limits: Option<StreamLimits>,
}

impl StreamChanges {
    /// Returns the runs that overlap the revisions from `low` to `high`.
    pub(super) fn runs_between(&self, low: u64, high: u64) -> &[Run] {
        let begin = self.runs.partition_point(|run| run.last_revision() < low);
        let end = self.runs.partition_point(|run| run.first <= high);
        self.runs.get(begin..end).unwrap_or_default()
    }
}

impl Memtable {
    /// Creates an empty table that continues at `progress`.
    pub(super) fn starting_at(progress: Progress) -> Self {
        Self { progress, ..Self::default() }
    }

    pub(super) fn add_run(&mut self, stream: Arc<str>, run: Run) {
        self.add_mark_if_due(Mark { position: run.position, offset: run.offset });
        self.streams.entry(stream).or_default().runs.push(run);
        self.n_rows += 1;
    }

    pub(super) fn set_limits(&mut self, stream: Arc<str>, limits: StreamLimits) {
        self.streams.entry(stream).or_default().limits = Some(limits);
        self.n_rows += 1;
    }

    pub(super) fn add_group(&mut self, offset: u64, write: GroupWrite) {
        self.groups.push(GroupRecord { offset, write });
        self.n_rows += 1;
    }

    fn add_mark_if_due(&mut self, mark: Mark) {
        if is_mark_due(self.marks.last().map(|last| last.offset), mark.offset) {
            self.marks.push(mark);
        }
    }

    /// Adds an entry read from the log. Positions may jump at a gap in the log; only `verify`
    /// checks that a gap exists.
    pub(super) fn add_entry(
        &mut self,
        offset: u64,
        entry: &Entry<'_>,
    ) -> Result<(), UnreadableEntry> {
        for record in entry.records() {
            match record.ok_or(UnreadableEntry)? {
                Record::Group(write) => self.add_group(offset, write),
                Record::Events(events) => {
                    let (first, position) = (events.stamp.revision, events.stamp.position);
                    // Positions strictly increase along the log. Anything else is an entry in the
                    // wrong place.
                    if position <= self.progress.position {
                        return Err(UnreadableEntry);
                    }
                    let count = u64::from(events.count);
                    let run = Run { first, count, position, offset };
                    self.add_run(events.stream.into(), run);
                    self.progress.position = position + count - 1;
                    let described = described_stream(events.stream);
                    if let (Some(described), Some(newest)) = (described, events.events().last()) {
                        let limits = StreamLimits::from_metadata(newest.is_json, newest.data);
                        self.set_limits(described.into(), limits);
                    }
                }
            }
        }
        self.progress.offset = offset + entry.length() as u64;
        Ok(())
    }

    /// Appends the changes of the following range.
    pub(super) fn append_newer(&mut self, next: Self) {
        for (stream, part) in next.streams {
            let known = self.streams.entry(stream).or_default();
            known.runs.extend(part.runs);
            known.limits = part.limits.or(known.limits);
        }
        self.groups.extend(next.groups);
        next.marks.into_iter().for_each(|mark| self.add_mark_if_due(mark));
        self.n_rows += next.n_rows;
        self.progress = next.progress;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Returns the last mark at or before `position`.
    pub(super) fn find_mark_before(&self, position: u64) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.position <= position);
        self.marks.get(after.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64, position: u64) -> Run {
        Run { first, count, position, offset: position * 40_000 }
    }

    #[test]
    fn runs_are_found_by_revision() {
        let part =
            StreamChanges { runs: vec![run(0, 4, 1), run(4, 1, 6), run(5, 3, 9)], limits: None };
        assert_eq!(part.runs_between(3, 4), [run(0, 4, 1), run(4, 1, 6)]);
        assert_eq!(part.runs_between(6, 6), [run(5, 3, 9)]);
        assert_eq!(part.runs_between(8, 20), []);
        assert_eq!(part.runs_between(5, 4), []);
    }

    #[test]
    fn first_entry_of_each_stride_has_a_mark() {
        let mut table = Memtable::default();
        (1..=4).for_each(|position| table.add_run("s".into(), run(position - 1, 1, position)));
        let mut next = Memtable::default();
        (5..=6).for_each(|position| next.add_run("s".into(), run(position - 1, 1, position)));
        table.append_newer(next);
        let marked: Vec<_> = table.marks.iter().map(|mark| mark.position).collect();
        assert_eq!(marked, [1, 2, 4, 5]);
        assert_eq!(table.find_mark_before(3), Some(Mark { position: 2, offset: 80_000 }));
        assert_eq!(table.find_mark_before(0), None);
        assert_eq!(table.streams["s"].runs.len(), 6);
    }

    #[test]
    fn newer_limits_win() {
        let limits = |count| StreamLimits { max_count: Some(count), ..StreamLimits::default() };
        let mut table = Memtable::default();
        table.set_limits("s".into(), limits(1));
        let mut next = Memtable::default();
        next.set_limits("s".into(), limits(2));
        table.append_newer(next);
        assert_eq!(table.streams["s"].limits, Some(limits(2)));
    }
}
