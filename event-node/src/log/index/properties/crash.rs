//! Crash tests: power fails at each change of the index. The index left behind is correct or empty.

use std::sync::Arc;

use super::{Model, START, Write, catch_up, log_of, open_index, read_memtables};
use crate::log::{
    chunked_log::ChunkedLog,
    disk::{
        Folder,
        simulated::{Fault, Power, SimulatedFolder, pseudo_random_choices},
    },
    error::LogError,
    index::Index,
    memtable::Progress,
};

/// Enough for two merges of eight tables.
fn writes_for_two_merges() -> Vec<Write> {
    let events = |number: u8| Write::Events { stream: number % 5, count: 1, size: 40 };
    let mut writes: Vec<_> = (0..17).map(events).collect();
    writes.push(Write::Group { group: 1, kind: 0 });
    writes.push(Write::Metadata { stream: 2, max_count: 1 });
    writes
}

/// Indexes the whole log while power lasts. Returns the progress that was reported as durable.
fn index_whole_log(folder: &SimulatedFolder, log: &ChunkedLog) -> Option<Progress> {
    let files: Arc<dyn Folder> = Arc::new(folder.clone());
    let index = Index::open(&files, log).ok()?;
    let mut promised = index.progress();
    for table in read_memtables(log, START, 1) {
        index.flush_memtable(&table).ok()?;
        promised = index.progress();
        // A failed merge promises nothing: the manifest still names its inputs.
        while index.merge_due_tables(&mut |_, _| {}).unwrap_or(false) {}
    }
    Some(promised)
}

#[test]
fn power_loss_at_any_change_leaves_a_correct_index() {
    let (_data, log) = log_of(&writes_for_two_merges());
    let power = Power::default();
    let before = power.changes_left();
    index_whole_log(&SimulatedFolder::with_power(power.clone()), &log).unwrap();
    let n_changes = before - power.changes_left();
    assert!(n_changes > 100);
    let (model, tables) = (Model::from_log(&log), read_memtables(&log, START, 1));
    for changes in 0..=n_changes {
        for seed in 0..4 {
            let folder = SimulatedFolder::with_power(Power::for_changes(changes));
            index_whole_log(&folder, &log);
            let left = folder
                .after_power_loss(pseudo_random_choices(seed + 4 * changes), Power::default());
            let index = open_index(&left, &log);
            let is_state = |progress| tables.iter().any(|table| table.progress == progress);
            // A power loss may cost the whole index, but what is left ends where a flushed table
            // ended.
            assert!(index.progress() == START || is_state(index.progress()));
            catch_up(&index, &log);
            model.check_briefly(&index);
        }
    }
}

/// Flushed tables need not be read from the log again.
#[test]
fn flushed_tables_survive_a_power_loss() {
    let (_data, log) = log_of(&writes_for_two_merges());
    let folder = SimulatedFolder::default();
    let promised = index_whole_log(&folder, &log).unwrap();
    let left = folder.after_power_loss(|| false, Power::default());
    assert_eq!(open_index(&left, &log).progress(), promised);
}

#[test]
fn failed_change_keeps_the_index_and_can_be_retried() {
    let (_data, log) = log_of(&writes_for_two_merges());
    let (model, tables) = (Model::from_log(&log), read_memtables(&log, START, 1));
    for (fault, n_changes) in
        [Fault::Full, Fault::Failed].iter().flat_map(|fault| (0..170).map(move |n| (*fault, n)))
    {
        let power = Power::default();
        let folder = SimulatedFolder::with_power(power.clone());
        let index = open_index(&folder, &log);
        power.plan_fault(n_changes, fault);
        let mut n_failed = 0;
        for table in &tables {
            let before = index.progress();
            if let Err(error) = index.flush_memtable(table) {
                n_failed += 1;
                assert_eq!(matches!(error, LogError::Full), fault == Fault::Full, "{error}");
                assert_eq!(index.progress(), before);
                index.flush_memtable(table).unwrap();
            }
            if index.merge_due_tables(&mut |_, _| {}).is_err() {
                n_failed += 1;
                super::merge_all(&index);
            }
        }
        // A fault without an error would lose its change silently; a second error would mean that
        // the failed attempt has left something behind.
        assert_eq!(n_failed, 1, "change {n_changes}");
        model.check_briefly(&index);
        let left = folder.after_power_loss(|| false, Power::default());
        let index = open_index(&left, &log);
        assert!(index.progress() != START);
        model.check_briefly(&index);
    }
}
