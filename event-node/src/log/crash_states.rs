//! Crash tests: power fails at each file change in turn. Acknowledged events must survive the
//! restart, and the index must match the log.
//!
//! A scenario runs once per file change, with power for that many changes. Each time, several
//! states that a journaling file system may leave behind are opened, some with another power
//! failure during recovery. `DOFS_TEST_SEED` and `DOFS_TEST_CRASH_SEEDS` set the first seed and their
//! number.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use testkit::variation;

use crate::log::{
    chunk::FIRST_ENTRY,
    chunked_log::{ChunkedLog, LONG_READ},
    compaction::{Liveness, compact_chunk},
    direction::Direction,
    disk::{
        Folder,
        simulated::{Power, SimulatedFolder, pseudo_random_choices},
    },
    error::LogError,
    event::NewEvent,
    pages::{StreamQuery, StreamRead, read_stream},
    requests::{
        Append, Deletion, ExpectedRevision, GroupKey, GroupWrite, WriteOutcome, WriteRequest,
    },
    store_copy::{backup_log, restore_folder},
    test_store::TestStore,
};

/// Small enough that a scenario creates several chunks.
const CHUNK_BYTES: u64 = 2_000;

/// Default number of crash states per change.
const SEEDS: u64 = 4;

/// Last acknowledged revision per stream.
type Ledger = BTreeMap<String, u64>;

/// Appends to a stream and records the revision if it was acknowledged.
fn append_event(store: &mut TestStore, stream: &str, ledger: &mut Ledger) -> Result<(), LogError> {
    let event = NewEvent::new(store.clock.new_id(), "happened", false, vec![7; 300]);
    let append =
        Append { stream: stream.to_owned(), expected: ExpectedRevision::Any, events: vec![event] };
    let outcomes = store.commit(&[WriteRequest::Append(append)])?;
    if let [WriteOutcome::Written { revision: Some(revision), .. }] = outcomes[..] {
        ledger.insert(stream.to_owned(), revision);
    }
    Ok(())
}

fn visible_revisions(store: &TestStore, stream: &str) -> Vec<u64> {
    let query = StreamQuery {
        stream: stream.to_owned(),
        direction: Direction::Forwards,
        from: 0,
        limit: 512,
        now_ticks: 0,
    };
    match read_stream(&store.read_view(), &query).unwrap() {
        StreamRead::Missing | StreamRead::Deleted => Vec::new(),
        StreamRead::Page(page) => page.events.iter().map(|event| event.revision).collect(),
    }
}

/// Runs first start, appends, index flushes, chunk changes, a scavenge and a stop, until power
/// fails.
fn run_scenario(files: &SimulatedFolder, ledger: &mut Ledger) -> Result<(), LogError> {
    let mut store = open_store(files).ok_or(LogError::Closed)?;
    for round in 0..4 {
        for order in 0..4 {
            append_event(&mut store, &format!("order-{order}"), ledger)?;
            append_event(&mut store, "gone", ledger)?;
        }
        let key = GroupKey { stream: "$all".to_owned(), name: "workers".to_owned() };
        let group = match round {
            0 => GroupWrite::Save { key, settings: "{}".to_owned() },
            checkpoint => GroupWrite::Checkpoint { key, checkpoint },
        };
        store.commit(&[WriteRequest::Group(group)])?;
        store.flush_index()?;
    }
    let deletion = Deletion { stream: "gone".to_owned(), expected: ExpectedRevision::Any };
    // Before the commit: a tombstone that was written but not acknowledged may or may not survive,
    // so the stream promises nothing from here on.
    ledger.remove("gone");
    store.commit(&[WriteRequest::Tombstone(deletion)])?;
    store.appender.begin_chunk()?;
    append_event(&mut store, "order-0", ledger)?;
    store.flush_index()?;
    let starts: Vec<u64> = store.log.chunks().iter().map(|chunk| chunk.start_offset()).collect();
    for start in starts {
        let liveness =
            Liveness { view: store.read_view(), groups: store.index.groups(), now_ticks: 0 };
        compact_chunk(&liveness, start, |_| Ok(()))?;
    }
    store.index.rebuild_after_scavenge()?;
    append_event(&mut store, "order-1", ledger)?;
    store.flush_index()
}

/// Checks that every acknowledged event exists exactly once.
fn check_acknowledged(files: &SimulatedFolder, ledger: &Ledger, state: &str) {
    let mut store = open_store(files).unwrap_or_else(|| panic!("{state}: the store does not open"));
    for (stream, last) in ledger {
        let shown = visible_revisions(&store, stream);
        let wanted: Vec<u64> = (0..shown.len() as u64).collect();
        assert_eq!(shown, wanted, "{state}: {stream}");
        // More than the acknowledged events may be there: the last write can reach the disk
        // although its fsync failed.
        assert!(shown.last() >= Some(last), "{state}: {stream} ended at {last}");
    }
    let mut read = store.log.scan_from(FIRST_ENTRY, LONG_READ);
    while read.next_entry().unwrap_or_else(|error| panic!("{state}: {error}")).is_some() {}
    // The recovered store must accept appends.
    let mut ledger = ledger.clone();
    append_event(&mut store, "order-0", &mut ledger)
        .unwrap_or_else(|error| panic!("{state}: {error}"));
    assert_eq!(visible_revisions(&store, "order-0").last(), ledger.get("order-0"), "{state}");
}

fn as_folder(files: &SimulatedFolder) -> Arc<dyn Folder> {
    Arc::new(files.clone())
}

fn open_store(files: &SimulatedFolder) -> Option<TestStore> {
    TestStore::open(&as_folder(files), CHUNK_BYTES)
}

fn seeds() -> Range<u64> {
    let first = variation::seed(0);
    first..first + variation::number("DOFS_TEST_CRASH_SEEDS", SEEDS)
}

#[test]
fn acknowledged_events_survive_power_loss_at_any_change() {
    let seeds = seeds();
    let mut n_states = 0;
    for changes in 0.. {
        let power = Power::for_changes(changes);
        let files = SimulatedFolder::with_power(power.clone());
        let mut ledger = Ledger::new();
        let is_done = run_scenario(&files, &mut ledger).is_ok();
        // A kill leaves one state only: the page cache survives.
        let killed = format!("killed after {changes} changes");
        check_acknowledged(&files.after_kill(Power::default()), &ledger, &killed);
        n_states += 1;
        for (second_power, seed) in (0..).step_by(3).zip(seeds.clone()) {
            let state = format!("power for {changes} changes, seed {seed}");
            let left = files.after_power_loss(pseudo_random_choices(seed), Power::default());
            check_acknowledged(&left, &ledger, &state);
            // Power fails a second time, during recovery.
            let again = files.after_power_loss(
                pseudo_random_choices(seed),
                // A recovery makes few changes: this spreads the second failure over the first
                // ones.
                Power::for_changes(second_power + changes % 5),
            );
            drop(open_store(&again));
            let left = again.after_power_loss(
                pseudo_random_choices(seed.wrapping_add(changes)),
                Power::default(),
            );
            check_acknowledged(&left, &ledger, &format!("{state}, and again during recovery"));
            n_states += 2;
        }
        if is_done {
            break;
        }
    }
    assert!(n_states >= 500, "{n_states} states");
}

#[test]
fn interrupted_backup_and_restore_can_be_repeated() {
    let store = SimulatedFolder::with_power(Power::default());
    let mut ledger = Ledger::new();
    run_scenario(&store, &mut ledger).unwrap();
    let source = ChunkedLog::open(Arc::new(store)).unwrap().unwrap();
    let seeds = seeds();
    for changes in 0.. {
        let backup = SimulatedFolder::with_power(Power::for_changes(changes));
        let is_done = backup_log(&source, &as_folder(&backup), |_| {}).is_ok();
        let mut is_restored = true;
        for seed in seeds.clone() {
            let state = format!("power for {changes} changes, seed {seed}");
            let backup = backup.after_power_loss(pseudo_random_choices(seed), Power::default());
            backup_log(&source, &as_folder(&backup), |_| {})
                .unwrap_or_else(|error| panic!("{state}: {error}"));
            let target = SimulatedFolder::with_power(Power::for_changes(changes));
            let from: Arc<dyn Folder> = Arc::new(backup);
            let restored = restore_folder(Arc::clone(&from), &as_folder(&target), |_| {});
            is_restored &= restored.is_ok();
            let target = target.after_power_loss(pseudo_random_choices(seed), Power::default());
            // If the first restore was complete, the second one must be refused.
            match restore_folder(from, &as_folder(&target), |_| {}) {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.to_string().contains("holds a store"), "{state}: {error}");
                }
            }
            check_acknowledged(&target, &ledger, &state);
        }
        if is_done && is_restored {
            break;
        }
    }
}
