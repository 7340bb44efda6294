//! Harmed files give no wrong answer: the index is made anew from the log.

use std::sync::Arc;

use super::{Model, START, Write, catch_up, log_of, memtables, open};
use crate::log::{
    disk::{
        Disk, Folder,
        simulated::{Power, SimulatedFolder},
    },
    error::LogError,
    file::LogFile,
    index::{Index, MANIFEST_FILE},
};

const WRITES: [Write; 9] = [
    Write::Events { stream: 1, count: 2, size: 5 },
    Write::Group { group: 1, kind: 0 },
    Write::Metadata { stream: 1, max_count: 3 },
    Write::Events { stream: 2, count: 1, size: 5 },
    Write::Tombstone { stream: 2 },
    Write::Group { group: 1, kind: 2 },
    Write::Events { stream: 1, count: 3, size: 5 },
    Write::Metadata { stream: 1, max_count: 4 },
    Write::Events { stream: 3, count: 1, size: 5 },
];

/// A log and its index, of three tables.
fn store() -> (tempfile::TempDir, LogFile, SimulatedFolder) {
    let (data, log) = log_of(&WRITES);
    let folder = SimulatedFolder::default();
    let index = open(&folder, &log);
    for table in memtables(&log, START, 3) {
        index.apply(&table).unwrap();
    }
    assert_eq!(index.snapshot().tables.len(), 3);
    (data, log, folder)
}

fn flip(disk: &dyn Disk, at: u64, bit: u8) {
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at).unwrap();
    disk.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
}

#[test]
fn every_flipped_bit_is_found_at_the_next_start_or_harmless() {
    let (_data, log, folder) = store();
    let model = Model::of(&log);
    for name in folder.names().unwrap() {
        let length = folder.disk(&name).unwrap().length().unwrap();
        for (at, bit) in (0..length).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let harmed = folder.after_kill(Power::default());
            flip(harmed.disk(&name).unwrap().as_ref(), at, bit);
            let index = open(&harmed, &log);
            catch_up(&index, &log);
            model.check_briefly(&index);
        }
    }
}

#[test]
fn every_byte_that_changes_under_a_running_store_is_found_or_harmless() {
    let (_data, log, folder) = store();
    let model = Model::of(&log);
    let tables = folder.names().unwrap().into_iter().filter(|name| name != MANIFEST_FILE);
    for name in tables {
        let length = folder.disk(&name).unwrap().length().unwrap();
        for at in 0..length {
            let harmed = folder.after_kill(Power::default());
            let index = open(&harmed, &log);
            flip(harmed.disk(&name).unwrap().as_ref(), at, 3);
            model.check_briefly(&index);
        }
    }
}

#[test]
fn files_that_are_cut_off_or_gone_lead_to_a_new_index() {
    let (_data, log, folder) = store();
    let model = Model::of(&log);
    for name in folder.names().unwrap() {
        let length = folder.disk(&name).unwrap().length().unwrap();
        for kept in (0..length).step_by(7) {
            let harmed = folder.after_kill(Power::default());
            harmed.disk(&name).unwrap().cut(kept).unwrap();
            let index = open(&harmed, &log);
            catch_up(&index, &log);
            model.check_briefly(&index);
        }
        let harmed = folder.after_kill(Power::default());
        harmed.remove(&name).unwrap();
        let index = open(&harmed, &log);
        catch_up(&index, &log);
        model.check_briefly(&index);
    }
}

/// A table that is cut off while it is open: reads fail at once, and are answered by the new index.
#[test]
fn open_table_that_is_cut_off_is_made_anew() {
    let (_data, log, folder) = store();
    let model = Model::of(&log);
    let index = open(&folder, &log);
    for name in folder.names().unwrap().iter().filter(|name| *name != MANIFEST_FILE) {
        folder.disk(name).unwrap().cut(0).unwrap();
    }
    model.check_briefly(&index);
    let names = folder.names().unwrap();
    assert_eq!(names.len(), index.snapshot().tables.len() + 1, "{names:?}");
}

#[test]
fn damaged_log_below_a_damaged_index_is_reported_and_not_answered() {
    let (data, log, folder) = store();
    let index = open(&folder, &log);
    for name in folder.names().unwrap().iter().filter(|name| *name != MANIFEST_FILE) {
        folder.disk(name).unwrap().cut(0).unwrap();
    }
    let file = data.path().join(crate::log::chunk::FIRST_CHUNK);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for _ in 0..2 {
        let refused = index.stream("order-1").unwrap_err();
        assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    }
}

/// The index of another store, and one of an earlier format.
#[test]
fn foreign_index_is_made_anew() {
    let (_data, log, folder) = store();
    let model = Model::of(&log);
    let other_data = tempfile::tempdir().unwrap();
    let other = LogFile::create(
        Arc::new(crate::log::disk::DiskFolder::writable(other_data.path())),
        uuid::Uuid::from_u128(9),
    )
    .unwrap();
    let index = open(&folder, &other);
    assert_eq!(index.progress(), START);
    drop(index);
    folder.create("index.sqlite").unwrap();
    folder.create("index.sqlite-wal").unwrap();
    let index = open(&folder, &log);
    catch_up(&index, &log);
    model.check_briefly(&index);
    assert!(!folder.names().unwrap().iter().any(|name| name.contains("sqlite")));
}

#[test]
fn numbers_of_tables_are_not_used_again() {
    let (_data, log, folder) = store();
    let numbers = |index: &Index| -> Vec<u64> {
        index.snapshot().tables.iter().map(|table| table.number).collect()
    };
    let index = open(&folder, &log);
    let before = numbers(&index);
    index.clear().unwrap();
    catch_up(&index, &log);
    let after = numbers(&index);
    drop(index);
    folder.remove(MANIFEST_FILE).unwrap();
    let index = open(&folder, &log);
    catch_up(&index, &log);
    let highest = before.into_iter().max();
    assert!(after.iter().copied().min() > highest);
    assert!(numbers(&index).into_iter().min() > after.into_iter().max());
}

/// Readers that hold a table which was merged away still read it.
#[test]
fn merged_away_tables_stay_readable_for_who_has_them_open() {
    let (_data, log) = log_of(&[Write::Events { stream: 1, count: 1, size: 1 }; 8]);
    let folder = SimulatedFolder::default();
    let index = open(&folder, &log);
    for table in memtables(&log, START, 1) {
        index.apply(&table).unwrap();
    }
    let before = index.snapshot();
    super::merge_all(&index);
    assert_eq!(index.snapshot().tables.len(), 1);
    assert_eq!(folder.names().unwrap().len(), 2);
    assert_eq!(before.stream("order-1").unwrap(), index.snapshot().stream("order-1").unwrap());
    assert!(!Arc::ptr_eq(&before, &index.snapshot()));
}
