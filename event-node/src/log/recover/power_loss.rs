//! Whatever fails and in whatever order: what was answered or shown is there after the next start.
//! The disk is simulated, with the habits of a page cache.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::recover_log;
use crate::log::{
    appender::Appender,
    chunk::FIRST_ENTRY,
    disk::{
        Folder,
        simulated::{Fault, Power, SimulatedDisk, SimulatedFolder},
    },
    entry::{Encoder, Record},
    file::{LONG_READ, LogFile},
    index::MANIFEST_FILE,
    pending::BOUNDS,
    write::{GroupKey, GroupWrite},
};

/// What happens to the store.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An append of entries of this size. Its write, its flush and the flush after it may fail.
    Append {
        n_entries: u8,
        size: u16,
        write: Option<Fault>,
        sync: Option<Fault>,
        next_sync: Option<Fault>,
    },
    /// An append that is cut off by a kill between write and flush; the page cache stays.
    Kill { n_entries: u8, size: u16 },
    /// Power is lost. Of the pages that were not flushed, those are on the disk whose bit is set.
    PowerLoss { written: u64 },
    /// The index is lost with its log kept.
    LoseIndex,
}

fn faults() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![4 => Just(None), 1 => Just(Some(Fault::Failed)), 1 => Just(Some(Fault::Full))]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u8, 1..3_000_u16, faults(), faults(), faults()).prop_map(
            |(n_entries, size, write, sync, next_sync)| Step::Append { n_entries, size, write, sync, next_sync }
        ),
        2 => (1..6_u8, 1..3_000_u16).prop_map(|(n_entries, size)| Step::Kill { n_entries, size }),
        2 => any::<u64>().prop_map(|written| Step::PowerLoss { written }),
        1 => Just(Step::LoseIndex),
    ]
}

/// Chunks are so small that a case begins several.
const CHUNK_BYTES: u64 = 10_000;

/// A store in a simulated folder, and what it must hold.
struct Store {
    files: SimulatedFolder,
    log: LogFile,
    appender: Appender,
    /// Entries that were answered or shown, in their order.
    promised: Vec<u64>,
    next: u64,
}

impl Store {
    fn new() -> Self {
        let files = SimulatedFolder::powered(Power::default());
        let log = LogFile::create(Arc::new(files.clone()), Uuid::from_u128(7)).unwrap();
        let appender = log.appender(CHUNK_BYTES);
        Self { files, log, appender, promised: Vec::new(), next: 1 }
    }

    /// The file that is appended to.
    fn last_disk(&self) -> Arc<SimulatedDisk> {
        self.files.disk(self.log.last().name()).unwrap()
    }

    /// Entries with numbers of their own, and these numbers.
    fn entries(&mut self, n_entries: u8, size: u16) -> (Vec<u8>, Vec<u64>) {
        let mut encoder = Encoder::default();
        let numbers: Vec<u64> = (self.next..).take(n_entries.into()).collect();
        for checkpoint in numbers.iter().copied() {
            let key = GroupKey { stream: "$all".to_owned(), name: "g".repeat(size.into()) };
            encoder.begin(self.appender.end());
            encoder.group(&GroupWrite::Checkpoint { key, checkpoint });
            encoder.finish();
        }
        self.next += u64::from(n_entries);
        (encoder.bytes().to_vec(), numbers)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append { n_entries, size, write, sync, next_sync } => {
                let (bytes, numbers) = self.entries(n_entries, size);
                if let Some(fault) = write {
                    self.last_disk().fail_next_write(fault);
                }
                if let Some(fault) = sync {
                    self.last_disk().fail_next_sync(fault);
                }
                let answered = self.appender.append(&bytes).is_ok();
                if let Some(fault) = next_sync {
                    self.last_disk().fail_next_sync(fault);
                }
                if answered {
                    self.promised.extend(numbers);
                }
            }
            Step::Kill { n_entries, size } => {
                let (bytes, _) = self.entries(n_entries, size);
                let last = self.log.last();
                if last.disk().write_all_at(&bytes, last.place(self.appender.end())).is_ok() {
                    self.restart(self.files.after_kill(Power::default()));
                }
            }
            Step::PowerLoss { mut written } => {
                let is_written = || {
                    written = written.rotate_right(1);
                    written & 1 == 1
                };
                self.restart(self.files.after_power_loss(is_written, Power::default()));
            }
            Step::LoseIndex => {
                self.files.remove(MANIFEST_FILE).unwrap();
            }
        }
    }

    /// Opens the store as the next run does, and compares what it shows with what was promised.
    fn restart(&mut self, files: SimulatedFolder) {
        let log = open(&files);
        let folder: Arc<dyn Folder> = Arc::new(files.clone());
        let recovered = recover_log(&folder, log.clone(), BOUNDS).unwrap();
        drop(recovered);
        let shown = numbers(&log);
        assert!(shown.starts_with(&self.promised), "{shown:?} of {:?}", self.promised);
        // Shown once, they may not go away.
        self.promised = shown;
        self.appender = log.appender(CHUNK_BYTES);
        (self.files, self.log) = (files, log);
    }
}

fn open(files: &SimulatedFolder) -> LogFile {
    LogFile::open(Arc::new(files.clone())).unwrap().unwrap()
}

/// The numbers of the entries that a log holds.
fn numbers(log: &LogFile) -> Vec<u64> {
    let mut scanner = log.scan(FIRST_ENTRY, LONG_READ);
    let mut numbers = Vec::new();
    while let Some((_, entry)) = scanner.next().unwrap() {
        numbers.extend(entry.records().map(|record| match record {
            Some(Record::Group(GroupWrite::Checkpoint { checkpoint, .. })) => checkpoint,
            other => panic!("{other:?} was not appended"),
        }));
    }
    numbers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_answered_or_shown_is_there_after_any_failure(steps in vec(steps(), 1..24)) {
        let mut store = Store::new();
        for step in steps {
            store.take(step);
        }
        store.take(Step::PowerLoss { written: 0 });
        let shown = numbers(&store.log);
        prop_assert_eq!(&shown, &store.promised);
    }
}
