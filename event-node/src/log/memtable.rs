//! What the newest part of the log adds to the index, in memory.

use std::{collections::HashMap, sync::Arc};

use crate::log::{
    entry::{Entry, Record},
    event::described_by,
    metadata::Limits,
    write::GroupWrite,
};

/// The first entry with events in each stretch of the log of so many bytes has a mark. A reader of
/// `$all` begins at a mark, so this is what it may have to skip, about.
const MARK_STRIDE: u64 = 64 * 1_024;

/// Events of one stream that follow one another in one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Revision of the first of them.
    pub first: u64,
    pub count: u64,
    /// Position of the first of them.
    pub position: u64,
    /// Where the entry begins in the log.
    pub offset: u64,
}

impl Run {
    /// The last revision in it.
    pub(super) fn last(&self) -> u64 {
        self.first + self.count.saturating_sub(1)
    }
}

/// Where the entry with the event at a position begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: u64,
    pub offset: u64,
}

/// Returns whether the entry at `offset` has a mark if `marked` has the newest one before it.
pub(super) fn is_mark_due(marked: Option<u64>, offset: u64) -> bool {
    marked.is_none_or(|marked| marked / MARK_STRIDE != offset / MARK_STRIDE)
}

/// A change of what is kept about groups, as it stands in the log.
#[derive(Debug, Clone)]
pub(super) struct GroupRecord {
    /// Where its entry begins.
    pub offset: u64,
    pub write: GroupWrite,
}

/// How far something knows the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Where the first entry that it does not know begins.
    pub offset: u64,
    /// Position of the last event that it knows.
    pub position: u64,
}

/// An entry whose sum is right and whose content is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unreadable;

/// What is known of a stretch of the log.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    pub streams: HashMap<Arc<str>, StreamPart>,
    /// In their order.
    pub groups: Vec<GroupRecord>,
    /// In their order.
    pub marks: Vec<Mark>,
    /// Runs and other rows that the index will have to write.
    pub n_rows: usize,
    pub progress: Progress,
}

/// What is known of a stream.
#[derive(Debug, Default)]
pub(super) struct StreamPart {
    /// In the order of revisions, without gaps but for a tombstone's.
    pub runs: Vec<Run>,
    /// What its metadata says now, if that changed.
    pub limits: Option<Limits>,
}

impl StreamPart {
    /// The runs with revisions from `low` to `high`.
    pub(super) fn between(&self, low: u64, high: u64) -> &[Run] {
        let begin = self.runs.partition_point(|run| run.last() < low);
        let end = self.runs.partition_point(|run| run.first <= high);
        self.runs.get(begin..end).unwrap_or_default()
    }
}

impl Memtable {
    /// Knows nothing behind `progress`.
    pub(super) fn behind(progress: Progress) -> Self {
        Self { progress, ..Self::default() }
    }

    pub(super) fn add_run(&mut self, stream: Arc<str>, run: Run) {
        self.mark(Mark { position: run.position, offset: run.offset });
        self.streams.entry(stream).or_default().runs.push(run);
        self.n_rows += 1;
    }

    pub(super) fn set_limits(&mut self, stream: Arc<str>, limits: Limits) {
        self.streams.entry(stream).or_default().limits = Some(limits);
        self.n_rows += 1;
    }

    pub(super) fn add_group(&mut self, offset: u64, write: GroupWrite) {
        self.groups.push(GroupRecord { offset, write });
        self.n_rows += 1;
    }

    fn mark(&mut self, mark: Mark) {
        if is_mark_due(self.marks.last().map(|last| last.offset), mark.offset) {
            self.marks.push(mark);
        }
    }

    /// Adds what an entry that was read back holds. Positions may jump, where a gap in the log stands
    /// for entries that were removed; only `verify` checks that there is one.
    pub(super) fn add_entry(&mut self, offset: u64, entry: &Entry<'_>) -> Result<(), Unreadable> {
        for record in entry.records() {
            match record.ok_or(Unreadable)? {
                Record::Group(write) => self.add_group(offset, write),
                Record::Events(events) => {
                    let (first, position) = (events.place.revision, events.place.position);
                    if position <= self.progress.position {
                        return Err(Unreadable);
                    }
                    let count = u64::from(events.count);
                    let run = Run { first, count, position, offset };
                    self.add_run(events.stream.into(), run);
                    self.progress.position = position + count - 1;
                    let described = described_by(events.stream);
                    if let (Some(described), Some(newest)) = (described, events.events().last()) {
                        let limits = Limits::of(newest.is_json, newest.data);
                        self.set_limits(described.into(), limits);
                    }
                }
            }
        }
        self.progress.offset = offset + entry.length() as u64;
        Ok(())
    }

    /// Adds all that follows.
    pub(super) fn absorb(&mut self, next: Self) {
        for (stream, part) in next.streams {
            let known = self.streams.entry(stream).or_default();
            known.runs.extend(part.runs);
            known.limits = part.limits.or(known.limits);
        }
        self.groups.extend(next.groups);
        next.marks.into_iter().for_each(|mark| self.mark(mark));
        self.n_rows += next.n_rows;
        self.progress = next.progress;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// The last mark at or before `position`.
    pub(super) fn mark_before(&self, position: u64) -> Option<Mark> {
        let behind = self.marks.partition_point(|mark| mark.position <= position);
        self.marks.get(behind.checked_sub(1)?).copied()
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
            StreamPart { runs: vec![run(0, 4, 1), run(4, 1, 6), run(5, 3, 9)], limits: None };
        assert_eq!(part.between(3, 4), [run(0, 4, 1), run(4, 1, 6)]);
        assert_eq!(part.between(6, 6), [run(5, 3, 9)]);
        assert_eq!(part.between(8, 20), []);
        assert_eq!(part.between(5, 4), []);
    }

    #[test]
    fn first_entry_of_each_stretch_has_a_mark() {
        let mut table = Memtable::default();
        (1..=4).for_each(|position| table.add_run("s".into(), run(position - 1, 1, position)));
        let mut next = Memtable::default();
        (5..=6).for_each(|position| next.add_run("s".into(), run(position - 1, 1, position)));
        table.absorb(next);
        let marked: Vec<_> = table.marks.iter().map(|mark| mark.position).collect();
        assert_eq!(marked, [1, 2, 4, 5]);
        assert_eq!(table.mark_before(3), Some(Mark { position: 2, offset: 80_000 }));
        assert_eq!(table.mark_before(0), None);
        assert_eq!(table.streams["s"].runs.len(), 6);
    }

    #[test]
    fn newer_limits_win() {
        let limits = |count| Limits { max_count: Some(count), ..Limits::default() };
        let mut table = Memtable::default();
        table.set_limits("s".into(), limits(1));
        let mut next = Memtable::default();
        next.set_limits("s".into(), limits(2));
        table.absorb(next);
        assert_eq!(table.streams["s"].limits, Some(limits(2)));
    }
}
