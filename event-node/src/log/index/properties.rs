//! Property tests: after any writes, merges, damage and truncation, the index answers what the log
//! contains.

mod crash;
mod damage;

use std::{collections::HashMap, sync::Arc};

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::{Index, groups::Groups};
use crate::log::{
    appender::Appender,
    chunk::FIRST_ENTRY,
    chunked_log::{ChunkedLog, LONG_READ},
    direction::Direction,
    disk::{Folder, simulated::SimulatedFolder},
    entry::{Encoder, EventStamp},
    event::{NewEvent, TOMBSTONE_REVISION, metastream_of},
    memtable::{Mark, Memtable, Progress, Run, StreamChanges},
    requests::{GroupKey, GroupWrite},
};

/// An entry of the log.
#[derive(Debug, Clone, Copy)]
enum Write {
    Events { stream: u8, count: u8, size: u16 },
    Metadata { stream: u8, max_count: u64 },
    Tombstone { stream: u8 },
    Group { group: u8, kind: u8 },
}

fn any_writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        8 => (0_u8..9, 1_u8..4, 0_u16..9_000)
            .prop_map(|(stream, count, size)| Write::Events { stream, count, size }),
        2 => (0_u8..9, 1_u64..9).prop_map(|(stream, max_count)| Write::Metadata { stream, max_count }),
        1 => (0_u8..9).prop_map(|stream| Write::Tombstone { stream }),
        2 => (0_u8..3, 0_u8..4).prop_map(|(group, kind)| Write::Group { group, kind }),
    ];
    vec(write, 1..60)
}

/// Returns stream names that are prefixes of each other.
fn stream_name(stream: u8) -> String {
    format!("order{}", "-1".repeat(stream.into()))
}

/// Encodes entries and assigns revisions and positions.
#[derive(Default)]
struct Entries {
    encoder: Encoder,
    next_revisions: HashMap<String, u64>,
    n_events: u64,
}

impl Entries {
    fn add(&mut self, write: Write) {
        self.encoder.begin_entry(0);
        match write {
            Write::Events { stream, count, size } => {
                self.add_events(stream_name(stream), vec![7; size.into()], count.into());
            }
            Write::Metadata { stream, max_count } => {
                let data = format!(r#"{{"$maxCount":{max_count}}}"#);
                self.add_events(metastream_of(&stream_name(stream)), data.into_bytes(), 1);
            }
            Write::Tombstone { stream } => {
                let stream = stream_name(stream);
                // The log never holds two tombstones or events after one; the writer refuses them.
                if self.next_revisions.get(&stream).is_none_or(|next| *next < TOMBSTONE_REVISION) {
                    self.next_revisions.insert(stream.clone(), TOMBSTONE_REVISION);
                    self.add_events(stream, Vec::new(), 1);
                }
            }
            Write::Group { group, kind } => self.add_group_write(group, kind),
        }
        self.encoder.finish_entry();
    }

    fn add_events(&mut self, stream: String, data: Vec<u8>, count: usize) {
        let revision = self.next_revisions.get(&stream).copied().unwrap_or_default();
        if revision > TOMBSTONE_REVISION {
            return;
        }
        let event = NewEvent::new(Uuid::nil(), "happened", true, data);
        let stamp = EventStamp { position: self.n_events + 1, revision, created_ticks: 0 };
        self.encoder.add_events(&stream, stamp, &vec![event; count]);
        self.n_events += count as u64;
        self.next_revisions.insert(stream, revision + count as u64);
    }

    fn add_group_write(&mut self, group: u8, kind: u8) {
        let key = GroupKey { stream: "$all".to_owned(), name: group.to_string() };
        self.encoder.add_group_write(&match kind {
            0 | 1 => GroupWrite::Save { key, settings: "{}".to_owned() },
            2 => GroupWrite::Checkpoint { key, checkpoint: self.n_events },
            _ => GroupWrite::Remove { key },
        });
    }
}

/// Creates a log of these entries. The folder lives as long as the returned guard.
fn log_of(writes: &[Write]) -> (tempfile::TempDir, ChunkedLog) {
    let mut entries = Entries::default();
    for write in writes {
        entries.add(*write);
    }
    let folder = tempfile::tempdir().unwrap();
    let log = ChunkedLog::create(
        Arc::new(crate::log::disk::DiskFolder::writable(folder.path())),
        Uuid::from_u128(3),
    )
    .unwrap();
    Appender::new(log.clone(), u64::MAX).append(entries.encoder.bytes()).unwrap();
    (folder, log)
}

const START: Progress = Progress { offset: FIRST_ENTRY, position: 0 };

/// Reads the log after `progress` into memtables of `n_entries` entries.
fn read_memtables(log: &ChunkedLog, progress: Progress, n_entries: usize) -> Vec<Memtable> {
    let mut scanner = log.scan_from(progress.offset, LONG_READ);
    let mut tables = vec![Memtable::starting_at(progress)];
    let mut n_in_last = 0;
    loop {
        let Some((offset, entry)) = scanner.next_entry().unwrap() else { return tables };
        if n_in_last == n_entries {
            // Without gaps: each memtable begins where the one before it ended.
            let progress = tables.last().unwrap().progress;
            tables.push(Memtable::starting_at(progress));
            n_in_last = 0;
        }
        tables.last_mut().unwrap().add_entry(offset, &entry).unwrap();
        n_in_last += 1;
    }
}

fn open_index(folder: &SimulatedFolder, log: &ChunkedLog) -> Index {
    let folder: Arc<dyn Folder> = Arc::new(folder.clone());
    Index::open(&folder, log).unwrap()
}

fn merge_all(index: &Index) {
    while index.merge_due_tables(&mut |_, _| panic!("a revision is duplicate")).unwrap() {}
}

/// Indexes the rest of the log, as a start does.
fn catch_up(index: &Index, log: &ChunkedLog) {
    for table in read_memtables(log, index.progress(), usize::MAX) {
        index.flush_memtable(&table).unwrap();
    }
}

/// Expected answers of an index that covers the whole log.
struct Model {
    table: Memtable,
    groups: Groups,
    /// First position and log offset of each run.
    entries: Vec<Mark>,
}

/// Bounds of the tested revision ranges.
const REVISIONS: [u64; 6] = [0, 1, 2, 7, TOMBSTONE_REVISION, u64::MAX];

impl Model {
    fn from_log(log: &ChunkedLog) -> Self {
        let table = read_memtables(log, START, usize::MAX).pop().unwrap();
        let mut groups = Groups::default();
        table.groups.iter().for_each(|record| groups.apply_record(record));
        let runs = table.streams.values().flat_map(|part| &part.runs);
        let entries = runs.map(|run| Mark { position: run.position, offset: run.offset }).collect();
        Self { table, groups, entries }
    }

    /// Compares all kinds of lookups.
    fn check_fully(&self, index: &Index) {
        self.check_with(index, &REVISIONS, &[1, 2, usize::MAX]);
    }

    /// Compares all kinds of lookups, with a single revision range.
    fn check_briefly(&self, index: &Index) {
        self.check_with(index, &[u64::MAX], &[usize::MAX]);
    }

    fn check_with(&self, index: &Index, highs: &[u64], limits: &[usize]) {
        assert_eq!(index.progress(), self.table.progress);
        assert_eq!(index.groups(), self.groups.0);
        self.check_marks(index);
        let unknown = StreamChanges::default();
        let streams = self.table.streams.iter().map(|(name, part)| (&**name, part));
        for (stream, part) in streams.chain([("missing", &unknown), ("order-", &unknown)]) {
            let last = part.runs.last().map(Run::last_revision);
            let wanted = (last, part.limits.unwrap_or_default());
            assert_eq!(
                index.look_up(|snapshot| snapshot.find_stream(stream)).unwrap(),
                wanted,
                "{stream}"
            );
            for high in highs {
                for low in REVISIONS.into_iter().filter(|low| highs.len() > 1 || *low == 0) {
                    check_runs(index, stream, part.runs_between(low, *high), (low, *high), limits);
                }
            }
        }
    }

    /// Checks that each mark refers to an entry at or shortly before the searched one.
    fn check_marks(&self, index: &Index) {
        for entry in &self.entries {
            let wanted = self.table.find_mark_before(entry.position).unwrap();
            let by_position = index
                .look_up(|snapshot| snapshot.find_mark_before(entry.position))
                .unwrap()
                .unwrap();
            let by_offset = index
                .look_up(|snapshot| snapshot.find_mark_before_offset(entry.offset))
                .unwrap()
                .unwrap();
            for mark in [by_position, by_offset] {
                assert!((wanted.position..=entry.position).contains(&mark.position));
                assert!(self.entries.contains(&mark), "{mark:?}");
            }
        }
        assert_eq!(index.look_up(|snapshot| snapshot.find_mark_before(0)).unwrap(), None);
        assert_eq!(index.look_up(|snapshot| snapshot.find_mark_before_offset(0)).unwrap(), None);
    }
}

fn check_runs(index: &Index, stream: &str, wanted: &[Run], range: (u64, u64), limits: &[usize]) {
    let mut wanted = wanted.to_vec();
    for direction in [Direction::Forwards, Direction::Backwards] {
        for limit in limits {
            let found = index
                .look_up(|snapshot| snapshot.find_runs(stream, range, direction, *limit))
                .unwrap();
            let n_wanted = wanted.len().min(*limit);
            assert_eq!(found, wanted[..n_wanted], "{stream} {range:?} {direction:?}");
        }
        wanted.reverse();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_of_flushes_and_merges_answers_alike(
        writes in any_writes(),
        n_entries in 1_usize..7,
        merges in vec(any::<bool>(), 60),
    ) {
        let (_data, log) = log_of(&writes);
        let model = Model::from_log(&log);
        let folder = SimulatedFolder::default();
        let index = open_index(&folder, &log);
        for (table, is_merged) in read_memtables(&log, START, n_entries).iter().zip(merges) {
            index.flush_memtable(table).unwrap();
            if is_merged {
                merge_all(&index);
            }
        }
        model.check_fully(&index);
        merge_all(&index);
        prop_assert!(index.snapshot().tables.len() < 8);
        model.check_fully(&index);
        // A restart must find the same content and no unnamed file.
        drop(index);
        let index = open_index(&folder, &log);
        model.check_fully(&index);
        prop_assert_eq!(folder.list_names().unwrap().len(), index.snapshot().tables.len() + 1);
    }
}

#[test]
fn concurrent_merges_and_flushes_lose_nothing() {
    let writes: Vec<_> = (0..200_u16)
        .map(|number| Write::Events { stream: number.to_le_bytes()[0] % 9, count: 1, size: 300 })
        .collect();
    let (_data, log) = log_of(&writes);
    let model = Model::from_log(&log);
    let index = open_index(&SimulatedFolder::default(), &log);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let merger = scope.spawn(|| {
            // Merges run without pause, so that flushes change the table list in the middle of a
            // merge.
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                merge_all(&index);
            }
        });
        for table in read_memtables(&log, START, 1) {
            index.flush_memtable(&table).unwrap();
            let (last, _) =
                index.look_up(|snapshot| snapshot.find_stream(&stream_name(0))).unwrap();
            assert!(last.is_some());
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        merger.join().unwrap();
    });
    model.check_fully(&index);
}
