//! Property test: after any sequence of failures, every acknowledged or visible entry exists after
//! the next start. The simulated disk behaves like the page cache of Linux.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::recover_log;
use crate::log::{
    appender::Appender,
    chunk::FIRST_ENTRY,
    chunked_log::{ChunkedLog, LONG_READ},
    disk::{
        Folder,
        simulated::{Fault, Power, SimulatedDisk, SimulatedFolder},
    },
    entry::{Encoder, Record},
    index::MANIFEST_FILE,
    index_buffer::INDEX_BUFFER_LIMITS,
    requests::{GroupKey, GroupWrite},
};

/// An action or failure of the store.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Appends entries of this size. The write, its fsync and the fsync of the truncation may fail.
    Append {
        n_entries: u8,
        size: u16,
        write: Option<Fault>,
        sync: Option<Fault>,
        next_sync: Option<Fault>,
    },
    /// Kills the process between write and fsync; the page cache survives.
    Kill { n_entries: u8, size: u16 },
    /// Power loss. The bits select the unsynced pages that reach the disk.
    PowerLoss { written: u64 },
    /// Loses the index but not the log.
    LoseIndex,
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![4 => Just(None), 1 => Just(Some(Fault::Failed)), 1 => Just(Some(Fault::Full))]
}

fn any_steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u8, 1..3_000_u16, any_fault(), any_fault(), any_fault()).prop_map(
            |(n_entries, size, write, sync, next_sync)| Step::Append { n_entries, size, write, sync, next_sync }
        ),
        2 => (1..6_u8, 1..3_000_u16).prop_map(|(n_entries, size)| Step::Kill { n_entries, size }),
        2 => any::<u64>().prop_map(|written| Step::PowerLoss { written }),
        1 => Just(Step::LoseIndex),
    ]
}

/// Small enough that a case creates several chunks.
const CHUNK_BYTES: u64 = 10_000;

/// A store in a simulated folder and its expected content.
struct Store {
    files: SimulatedFolder,
    log: ChunkedLog,
    appender: Appender,
    /// Acknowledged or visible entries in order.
    promised: Vec<u64>,
    next: u64,
}

impl Store {
    fn new() -> Self {
        let files = SimulatedFolder::with_power(Power::default());
        let log = ChunkedLog::create(Arc::new(files.clone()), Uuid::from_u128(7)).unwrap();
        let appender = Appender::new(log.clone(), CHUNK_BYTES);
        Self { files, log, appender, promised: Vec::new(), next: 1 }
    }

    /// Returns the file that receives appends.
    fn last_disk(&self) -> Arc<SimulatedDisk> {
        self.files.simulated_disk(self.log.last_chunk().name()).unwrap()
    }

    /// Encodes numbered entries and returns their numbers.
    fn encode_entries(&mut self, n_entries: u8, size: u16) -> (Vec<u8>, Vec<u64>) {
        let mut encoder = Encoder::default();
        let numbers: Vec<u64> = (self.next..).take(n_entries.into()).collect();
        for checkpoint in numbers.iter().copied() {
            let key = GroupKey { stream: "$all".to_owned(), name: "g".repeat(size.into()) };
            encoder.begin_entry(self.appender.end_offset());
            encoder.add_group_write(&GroupWrite::Checkpoint { key, checkpoint });
            encoder.finish_entry();
        }
        self.next += u64::from(n_entries);
        (encoder.bytes().to_vec(), numbers)
    }

    fn perform_step(&mut self, step: Step) {
        match step {
            Step::Append { n_entries, size, write, sync, next_sync } => {
                let (bytes, numbers) = self.encode_entries(n_entries, size);
                if let Some(fault) = write {
                    self.last_disk().fail_next_write(fault);
                }
                if let Some(fault) = sync {
                    self.last_disk().fail_next_sync(fault);
                }
                let answered = self.appender.append(&bytes).is_ok();
                // Hits the next append: the truncation with which it begins if this one left a torn
                // write, else its own fsync.
                if let Some(fault) = next_sync {
                    self.last_disk().fail_next_sync(fault);
                }
                if answered {
                    self.promised.extend(numbers);
                }
            }
            Step::Kill { n_entries, size } => {
                let (bytes, _) = self.encode_entries(n_entries, size);
                let last = self.log.last_chunk();
                if last
                    .disk()
                    // Past the appender, which would sync: these entries are complete in the page
                    // cache but nobody has acknowledged them.
                    .write_all_at(&bytes, last.file_offset(self.appender.end_offset()))
                    .is_ok()
                {
                    self.restart(self.files.after_kill(Power::default()));
                }
            }
            Step::PowerLoss { mut written } => {
                let is_written = || {
                    // Each bit decides about one page, again from the first after 64.
                    written = written.rotate_right(1);
                    written & 1 == 1
                };
                self.restart(self.files.after_power_loss(is_written, Power::default()));
            }
            Step::LoseIndex => {
                self.files.remove_file(MANIFEST_FILE).unwrap();
            }
        }
    }

    /// Reopens the store and checks that it contains all promised entries.
    fn restart(&mut self, files: SimulatedFolder) {
        let log = open_log(&files);
        let folder: Arc<dyn Folder> = Arc::new(files.clone());
        let recovered = recover_log(&folder, log.clone(), INDEX_BUFFER_LIMITS).unwrap();
        drop(recovered);
        let shown = read_numbers(&log);
        assert!(shown.starts_with(&self.promised), "{shown:?} of {:?}", self.promised);
        // Entries that were visible once must stay.
        self.promised = shown;
        self.appender = Appender::new(log.clone(), CHUNK_BYTES);
        (self.files, self.log) = (files, log);
    }
}

fn open_log(files: &SimulatedFolder) -> ChunkedLog {
    ChunkedLog::open(Arc::new(files.clone())).unwrap().unwrap()
}

/// Reads the numbers of all entries in the log.
fn read_numbers(log: &ChunkedLog) -> Vec<u64> {
    let mut scanner = log.scan_from(FIRST_ENTRY, LONG_READ);
    let mut numbers = Vec::new();
    while let Some((_, entry)) = scanner.next_entry().unwrap() {
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
    fn acknowledged_or_visible_entries_survive_any_failure(steps in vec(any_steps(), 1..24)) {
        let mut store = Store::new();
        for step in steps {
            store.perform_step(step);
        }
        // Steps may end without a restart, and only a restart checks what is left.
        store.perform_step(Step::PowerLoss { written: 0 });
    }
}
