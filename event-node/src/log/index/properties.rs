//! Whatever is written, merged, harmed or cut off: the index says what the log holds.

mod crash;
mod damage;

use std::{collections::HashMap, sync::Arc};

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::{Index, groups::Groups};
use crate::log::{
    chunk::FIRST_ENTRY,
    disk::{Folder, simulated::SimulatedFolder},
    entry::{Encoder, Place},
    event::{NewEvent, TOMBSTONE_REVISION, metastream_of},
    file::{LONG_READ, LogFile},
    memtable::{Mark, Memtable, Progress, Run, StreamPart},
    read::Direction,
    write::{GroupKey, GroupWrite},
};

/// An entry of the log.
#[derive(Debug, Clone, Copy)]
enum Write {
    Events { stream: u8, count: u8, size: u16 },
    Metadata { stream: u8, max_count: u64 },
    Tombstone { stream: u8 },
    Group { group: u8, kind: u8 },
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        8 => (0_u8..9, 1_u8..4, 0_u16..9_000)
            .prop_map(|(stream, count, size)| Write::Events { stream, count, size }),
        2 => (0_u8..9, 1_u64..9).prop_map(|(stream, max_count)| Write::Metadata { stream, max_count }),
        1 => (0_u8..9).prop_map(|stream| Write::Tombstone { stream }),
        2 => (0_u8..3, 0_u8..4).prop_map(|(group, kind)| Write::Group { group, kind }),
    ];
    vec(write, 1..60)
}

/// Names of which one begins another.
fn name(stream: u8) -> String {
    format!("order{}", "-1".repeat(stream.into()))
}

/// Encodes entries and counts on.
#[derive(Default)]
struct Entries {
    encoder: Encoder,
    next_revisions: HashMap<String, u64>,
    n_events: u64,
}

impl Entries {
    fn add(&mut self, write: Write) {
        self.encoder.begin(0);
        match write {
            Write::Events { stream, count, size } => {
                self.events(name(stream), vec![7; size.into()], count.into());
            }
            Write::Metadata { stream, max_count } => {
                let data = format!(r#"{{"$maxCount":{max_count}}}"#);
                self.events(metastream_of(&name(stream)), data.into_bytes(), 1);
            }
            Write::Tombstone { stream } => {
                let stream = name(stream);
                if self.next_revisions.get(&stream).is_none_or(|next| *next < TOMBSTONE_REVISION) {
                    self.next_revisions.insert(stream.clone(), TOMBSTONE_REVISION);
                    self.events(stream, Vec::new(), 1);
                }
            }
            Write::Group { group, kind } => self.group(group, kind),
        }
        self.encoder.finish();
    }

    fn events(&mut self, stream: String, data: Vec<u8>, count: usize) {
        let revision = self.next_revisions.get(&stream).copied().unwrap_or_default();
        if revision > TOMBSTONE_REVISION {
            return;
        }
        let event = NewEvent {
            id: Uuid::nil(),
            event_type: "happened".to_owned(),
            is_json: true,
            metadata: "".into(),
            data: data.into(),
        };
        let place = Place { position: self.n_events + 1, revision, created_ticks: 0 };
        self.encoder.events(&stream, place, &vec![event; count]);
        self.n_events += count as u64;
        self.next_revisions.insert(stream, revision + count as u64);
    }

    fn group(&mut self, group: u8, kind: u8) {
        let key = GroupKey { stream: "$all".to_owned(), name: group.to_string() };
        self.encoder.group(&match kind {
            0 | 1 => GroupWrite::Save { key, settings: "{}".to_owned() },
            2 => GroupWrite::Checkpoint { key, checkpoint: self.n_events },
            _ => GroupWrite::Remove { key },
        });
    }
}

/// A log of these entries. Its folder goes with it.
fn log_of(writes: &[Write]) -> (tempfile::TempDir, LogFile) {
    let mut entries = Entries::default();
    for write in writes {
        entries.add(*write);
    }
    let folder = tempfile::tempdir().unwrap();
    let log = LogFile::create(
        Arc::new(crate::log::disk::DiskFolder::writable(folder.path())),
        Uuid::from_u128(3),
    )
    .unwrap();
    log.appender(u64::MAX).append(entries.encoder.bytes()).unwrap();
    (folder, log)
}

const START: Progress = Progress { offset: FIRST_ENTRY, position: 0 };

/// What the log holds behind `progress`, in tables of so many entries.
fn memtables(log: &LogFile, progress: Progress, n_entries: usize) -> Vec<Memtable> {
    let mut scanner = log.scan(progress.offset, LONG_READ);
    let mut tables = vec![Memtable::behind(progress)];
    let mut n_in_last = 0;
    loop {
        let Some((offset, entry)) = scanner.next().unwrap() else { return tables };
        if n_in_last == n_entries {
            let progress = tables.last().unwrap().progress;
            tables.push(Memtable::behind(progress));
            n_in_last = 0;
        }
        tables.last_mut().unwrap().add_entry(offset, &entry).unwrap();
        n_in_last += 1;
    }
}

fn open(folder: &SimulatedFolder, log: &LogFile) -> Index {
    let folder: Arc<dyn Folder> = Arc::new(folder.clone());
    Index::open(&folder, log).unwrap()
}

fn merge_all(index: &Index) {
    while index.merge_due(&mut |_, _| panic!("no revision is there twice")).unwrap() {}
}

/// Adds to the index what the log holds behind it, as a start does.
fn catch_up(index: &Index, log: &LogFile) {
    for table in memtables(log, index.progress(), usize::MAX) {
        index.apply(&table).unwrap();
    }
}

/// What an index that knows all of the log has to answer.
struct Model {
    table: Memtable,
    groups: Groups,
    /// The first position of each run, and where it is.
    entries: Vec<Mark>,
}

/// Revisions that ranges are made of.
const REVISIONS: [u64; 6] = [0, 1, 2, 7, TOMBSTONE_REVISION, u64::MAX];

impl Model {
    fn of(log: &LogFile) -> Self {
        let table = memtables(log, START, usize::MAX).pop().unwrap();
        let mut groups = Groups::default();
        table.groups.iter().for_each(|record| groups.apply(record));
        let runs = table.streams.values().flat_map(|part| &part.runs);
        let entries = runs.map(|run| Mark { position: run.position, offset: run.offset }).collect();
        Self { table, groups, entries }
    }

    /// Compares every kind of answer.
    fn check(&self, index: &Index) {
        self.check_with(index, &REVISIONS, &[1, 2, usize::MAX]);
    }

    /// Compares every kind of answer, with one range of revisions.
    fn check_briefly(&self, index: &Index) {
        self.check_with(index, &[u64::MAX], &[usize::MAX]);
    }

    fn check_with(&self, index: &Index, highs: &[u64], limits: &[usize]) {
        assert_eq!(index.progress(), self.table.progress);
        assert_eq!(index.groups(), self.groups.0);
        self.check_marks(index);
        let unknown = StreamPart::default();
        let streams = self.table.streams.iter().map(|(name, part)| (&**name, part));
        for (stream, part) in streams.chain([("missing", &unknown), ("order-", &unknown)]) {
            let last = part.runs.last().map(Run::last);
            let wanted = (last, part.limits.unwrap_or_default());
            assert_eq!(index.stream(stream).unwrap(), wanted, "{stream}");
            for high in highs {
                for low in REVISIONS.into_iter().filter(|low| highs.len() > 1 || *low == 0) {
                    check_runs(index, stream, part.between(low, *high), (low, *high), limits);
                }
            }
        }
    }

    /// Marks lead to an entry at or before what is looked for, and not far from it.
    fn check_marks(&self, index: &Index) {
        for entry in &self.entries {
            let wanted = self.table.mark_before(entry.position).unwrap();
            let by_position = index.mark_before(entry.position).unwrap().unwrap();
            let by_offset = index.mark_before_offset(entry.offset).unwrap().unwrap();
            for mark in [by_position, by_offset] {
                assert!((wanted.position..=entry.position).contains(&mark.position));
                assert!(self.entries.contains(&mark), "{mark:?}");
            }
        }
        assert_eq!(index.mark_before(0).unwrap(), None);
        assert_eq!(index.mark_before_offset(0).unwrap(), None);
    }
}

fn check_runs(index: &Index, stream: &str, wanted: &[Run], range: (u64, u64), limits: &[usize]) {
    let mut wanted = wanted.to_vec();
    for direction in [Direction::Forwards, Direction::Backwards] {
        for limit in limits {
            let found = index.runs(stream, range, direction, *limit).unwrap();
            let n_wanted = wanted.len().min(*limit);
            assert_eq!(found, wanted[..n_wanted], "{stream} {range:?} {direction:?}");
        }
        wanted.reverse();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_of_flushes_and_merges_leads_to_the_same_answers(
        writes in writes(),
        n_entries in 1_usize..7,
        merges in vec(any::<bool>(), 60),
    ) {
        let (_data, log) = log_of(&writes);
        let model = Model::of(&log);
        let folder = SimulatedFolder::default();
        let index = open(&folder, &log);
        for (table, is_merged) in memtables(&log, START, n_entries).iter().zip(merges) {
            index.apply(table).unwrap();
            if is_merged {
                merge_all(&index);
            }
        }
        model.check(&index);
        merge_all(&index);
        prop_assert!(index.snapshot().tables.len() < 8);
        model.check(&index);
        // The next run finds the same, and no file that is not named.
        drop(index);
        let index = open(&folder, &log);
        model.check(&index);
        prop_assert_eq!(folder.names().unwrap().len(), index.snapshot().tables.len() + 1);
    }
}

#[test]
fn merges_beside_flushes_lose_nothing() {
    let writes: Vec<_> = (0..200_u16)
        .map(|number| Write::Events { stream: number.to_le_bytes()[0] % 9, count: 1, size: 300 })
        .collect();
    let (_data, log) = log_of(&writes);
    let model = Model::of(&log);
    let index = open(&SimulatedFolder::default(), &log);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let merger = scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                merge_all(&index);
            }
        });
        for table in memtables(&log, START, 1) {
            index.apply(&table).unwrap();
            let (last, _) = index.stream(&name(0)).unwrap();
            assert!(last.is_some());
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        merger.join().unwrap();
    });
    model.check(&index);
}
