//! Damage tests: a damaged file gives no wrong answer, and the index is rebuilt from the log.

use std::sync::Arc;

use super::{Model, START, Write, catch_up, log_of, open_index, read_memtables};
use crate::log::{
    chunked_log::ChunkedLog,
    disk::{
        Disk, Folder,
        simulated::{Power, SimulatedFolder},
    },
    error::LogError,
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

/// Creates a log and an index of three tables.
fn store_of_three_tables() -> (tempfile::TempDir, ChunkedLog, SimulatedFolder) {
    let (data, log) = log_of(&WRITES);
    let folder = SimulatedFolder::default();
    let index = open_index(&folder, &log);
    for table in read_memtables(&log, START, 3) {
        index.flush_memtable(&table).unwrap();
    }
    assert_eq!(index.snapshot().tables.len(), 3);
    (data, log, folder)
}

fn flip_bit(disk: &dyn Disk, at: u64, bit: u8) {
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at).unwrap();
    disk.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
}

#[test]
fn flipped_bit_is_detected_at_start_or_harmless() {
    let (_data, log, folder) = store_of_three_tables();
    let model = Model::from_log(&log);
    for name in folder.list_names().unwrap() {
        let length = folder.simulated_disk(&name).unwrap().byte_length().unwrap();
        for (at, bit) in (0..length).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let damaged = folder.after_kill(Power::default());
            flip_bit(damaged.simulated_disk(&name).unwrap().as_ref(), at, bit);
            let index = open_index(&damaged, &log);
            catch_up(&index, &log);
            model.check_briefly(&index);
        }
    }
}

#[test]
fn byte_changed_while_running_is_detected_or_harmless() {
    let (_data, log, folder) = store_of_three_tables();
    let model = Model::from_log(&log);
    let tables = folder.list_names().unwrap().into_iter().filter(|name| name != MANIFEST_FILE);
    for name in tables {
        let length = folder.simulated_disk(&name).unwrap().byte_length().unwrap();
        for at in 0..length {
            // Opened while intact: the damage is met by a read of a block, not by the checks at the
            // start.
            let damaged = folder.after_kill(Power::default());
            let index = open_index(&damaged, &log);
            flip_bit(damaged.simulated_disk(&name).unwrap().as_ref(), at, 3);
            model.check_briefly(&index);
        }
    }
}

#[test]
fn truncated_or_missing_files_rebuild_the_index() {
    let (_data, log, folder) = store_of_three_tables();
    let model = Model::from_log(&log);
    for name in folder.list_names().unwrap() {
        let length = folder.simulated_disk(&name).unwrap().byte_length().unwrap();
        for kept in (0..length).step_by(7) {
            let damaged = folder.after_kill(Power::default());
            damaged.simulated_disk(&name).unwrap().truncate_to(kept).unwrap();
            let index = open_index(&damaged, &log);
            catch_up(&index, &log);
            model.check_briefly(&index);
        }
        let damaged = folder.after_kill(Power::default());
        damaged.remove_file(&name).unwrap();
        let index = open_index(&damaged, &log);
        catch_up(&index, &log);
        model.check_briefly(&index);
    }
}

/// A table is truncated while it is open: its reads fail, and the rebuilt index answers.
#[test]
fn truncated_open_table_is_rebuilt() {
    let (_data, log, folder) = store_of_three_tables();
    let model = Model::from_log(&log);
    let index = open_index(&folder, &log);
    for name in folder.list_names().unwrap().iter().filter(|name| *name != MANIFEST_FILE) {
        folder.simulated_disk(name).unwrap().truncate_to(0).unwrap();
    }
    model.check_briefly(&index);
    let names = folder.list_names().unwrap();
    assert_eq!(names.len(), index.snapshot().tables.len() + 1, "{names:?}");
}

#[test]
fn damaged_index_over_a_damaged_log_is_reported() {
    let (data, log, folder) = store_of_three_tables();
    let index = open_index(&folder, &log);
    for name in folder.list_names().unwrap().iter().filter(|name| *name != MANIFEST_FILE) {
        folder.simulated_disk(name).unwrap().truncate_to(0).unwrap();
    }
    let file = data.path().join(crate::log::chunk::FIRST_CHUNK);
    let mut bytes = std::fs::read(&file).unwrap();
    // Behind the chunk's header, within the first entry.
    bytes[70] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for _ in 0..2 {
        let refused = index.look_up(|snapshot| snapshot.find_stream("order-1")).unwrap_err();
        assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    }
}

/// Covers the index of another store and an index of an earlier format.
#[test]
fn foreign_index_is_rebuilt() {
    let (_data, log, folder) = store_of_three_tables();
    let model = Model::from_log(&log);
    let other_data = tempfile::tempdir().unwrap();
    let other = ChunkedLog::create(
        Arc::new(crate::log::disk::DiskFolder::writable(other_data.path())),
        uuid::Uuid::from_u128(9),
    )
    .unwrap();
    let index = open_index(&folder, &other);
    assert_eq!(index.progress(), START);
    drop(index);
    // Names of the index in stores of an earlier version; a start removes such files.
    folder.create_file("index.sqlite").unwrap();
    folder.create_file("index.sqlite-wal").unwrap();
    let index = open_index(&folder, &log);
    catch_up(&index, &log);
    model.check_briefly(&index);
    assert!(!folder.list_names().unwrap().iter().any(|name| name.contains("sqlite")));
}

#[test]
fn table_numbers_are_never_reused() {
    let (_data, log, folder) = store_of_three_tables();
    let numbers = |index: &Index| -> Vec<u64> {
        index.snapshot().tables.iter().map(|table| table.number).collect()
    };
    let index = open_index(&folder, &log);
    let before = numbers(&index);
    index.clear().unwrap();
    catch_up(&index, &log);
    let after = numbers(&index);
    drop(index);
    folder.remove_file(MANIFEST_FILE).unwrap();
    let index = open_index(&folder, &log);
    catch_up(&index, &log);
    let highest = before.into_iter().max();
    assert!(after.iter().copied().min() > highest);
    assert!(numbers(&index).into_iter().min() > after.into_iter().max());
}

/// Snapshots keep a merged table open after its file is removed.
#[test]
fn merged_tables_stay_readable_in_old_snapshots() {
    let (_data, log) = log_of(&[Write::Events { stream: 1, count: 1, size: 1 }; 8]);
    let folder = SimulatedFolder::default();
    let index = open_index(&folder, &log);
    for table in read_memtables(&log, START, 1) {
        index.flush_memtable(&table).unwrap();
    }
    let before = index.snapshot();
    super::merge_all(&index);
    assert_eq!(index.snapshot().tables.len(), 1);
    assert_eq!(folder.list_names().unwrap().len(), 2);
    assert_eq!(
        before.find_stream("order-1").unwrap(),
        index.snapshot().find_stream("order-1").unwrap()
    );
    assert!(!Arc::ptr_eq(&before, &index.snapshot()));
}
