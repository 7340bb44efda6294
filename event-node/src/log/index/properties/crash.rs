//! Power that goes off at any change of the index leaves one that says what the log holds, or none.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Model, START, Write, catch_up, log_of, memtables, open};
use crate::log::{
    disk::{
        Disk, Folder,
        simulated::{Fault, Power, SimulatedDisk, SimulatedFolder},
    },
    error::LogError,
    file::LogFile,
    index::Index,
    memtable::Progress,
};

/// Enough for two merges of eight tables.
fn writes() -> Vec<Write> {
    let events = |number: u8| Write::Events { stream: number % 5, count: 1, size: 40 };
    let mut writes: Vec<_> = (0..17).map(events).collect();
    writes.push(Write::Group { group: 1, kind: 0 });
    writes.push(Write::Metadata { stream: 2, max_count: 1 });
    writes
}

/// Indexes the whole log with as much power as there is. Returns how far the index was said to be.
fn run(folder: &SimulatedFolder, log: &LogFile) -> Option<Progress> {
    let files: Arc<dyn Folder> = Arc::new(folder.clone());
    let index = Index::open(&files, log).ok()?;
    let mut promised = index.progress();
    for table in memtables(log, START, 1) {
        index.apply(&table).ok()?;
        promised = index.progress();
        while index.merge_due(&mut |_, _| {}).unwrap_or(false) {}
    }
    Some(promised)
}

/// Pseudo-random choices.
fn choices(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match seed % 4 {
            0 => false,
            1 => true,
            _ => state >> 63 == 1,
        }
    }
}

#[test]
fn power_that_goes_off_at_any_change_leaves_an_index_that_is_right() {
    let (_data, log) = log_of(&writes());
    let power = Power::default();
    let before = power.changes_left();
    run(&SimulatedFolder::powered(power.clone()), &log).unwrap();
    let n_changes = before - power.changes_left();
    assert!(n_changes > 100);
    let (model, tables) = (Model::of(&log), memtables(&log, START, 1));
    for changes in 0..=n_changes {
        for seed in 0..4 {
            let folder = SimulatedFolder::powered(Power::for_changes(changes));
            run(&folder, &log);
            let left = folder.after_power_loss(choices(seed + 4 * changes), Power::default());
            let index = open(&left, &log);
            let is_state = |progress| tables.iter().any(|table| table.progress == progress);
            assert!(index.progress() == START || is_state(index.progress()));
            catch_up(&index, &log);
            model.check_briefly(&index);
        }
    }
}

/// What was applied need not be read from the log again.
#[test]
fn applied_tables_survive_a_power_loss() {
    let (_data, log) = log_of(&writes());
    let folder = SimulatedFolder::default();
    let promised = run(&folder, &log).unwrap();
    let left = folder.after_power_loss(|| false, Power::default());
    assert_eq!(open(&left, &log).progress(), promised);
}

/// A folder one of whose changes fails, on Linux's terms: what a failed flush leaves in the cache is lost.
#[derive(Debug, Clone)]
struct FaultyFolder {
    folder: SimulatedFolder,
    faults: Faults,
}

#[derive(Debug)]
struct FaultyDisk {
    disk: Arc<SimulatedDisk>,
    faults: Faults,
}

/// The fault of one change, and how many changes come before it.
#[derive(Debug, Clone)]
struct Faults {
    changes_before: Arc<AtomicUsize>,
    fault: Fault,
}

impl Faults {
    fn next(&self) -> Option<Fault> {
        let before = self.changes_before.fetch_sub(1, Ordering::Relaxed);
        (before == 0).then_some(self.fault)
    }

    fn fail(&self) -> io::Result<()> {
        match self.next() {
            Some(Fault::Failed) => Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }
}

impl Folder for FaultyFolder {
    fn path(&self) -> PathBuf {
        self.folder.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.folder.names()
    }

    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        self.folder.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.faults.fail()?;
        self.folder.create(name)?;
        let disk = self.folder.disk(name).unwrap();
        Ok(Arc::new(FaultyDisk { disk, faults: self.faults.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.fail()?;
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.fail()?;
        self.folder.sync()
    }
}

impl Disk for FaultyDisk {
    fn length(&self) -> io::Result<u64> {
        self.disk.length()
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_exact_at(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(fault) = self.faults.next() {
            self.disk.fail_next_write(fault);
        }
        self.disk.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(fault) = self.faults.next() {
            self.disk.fail_next_sync(fault);
        }
        self.disk.sync()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.disk.cut(length)
    }
}

#[test]
fn failed_change_leaves_the_index_as_it_was_and_is_tried_again() {
    let (_data, log) = log_of(&writes());
    let (model, tables) = (Model::of(&log), memtables(&log, START, 1));
    for (fault, n_changes) in
        [Fault::Full, Fault::Failed].iter().flat_map(|fault| (0..170).map(move |n| (*fault, n)))
    {
        let changes_before = Arc::new(AtomicUsize::new(n_changes));
        let folder = SimulatedFolder::default();
        drop(open(&folder, &log));
        let faulty =
            FaultyFolder { folder: folder.clone(), faults: Faults { changes_before, fault } };
        let files: Arc<dyn Folder> = Arc::new(faulty);
        let index = Index::open(&files, &log).unwrap();
        let mut n_failed = 0;
        for table in &tables {
            let before = index.progress();
            if let Err(error) = index.apply(table) {
                n_failed += 1;
                assert_eq!(matches!(error, LogError::Full), fault == Fault::Full, "{error}");
                assert_eq!(index.progress(), before);
                index.apply(table).unwrap();
            }
            if index.merge_due(&mut |_, _| {}).is_err() {
                n_failed += 1;
                super::merge_all(&index);
            }
        }
        assert_eq!(n_failed, 1, "change {n_changes}");
        model.check_briefly(&index);
        let left = folder.after_power_loss(|| false, Power::default());
        let index = open(&left, &log);
        assert!(index.progress() != START);
        model.check_briefly(&index);
    }
}
