//! Power that goes off at any change of any file: what was acknowledged is there after the next
//! start, and the index agrees with it.
//!
//! A scenario runs once for each number of changes that it makes, with power for so many. Each time,
//! several of the states that a journaling file system may leave are opened, some of them with
//! power that goes off again during recovery. `DOFS_TEST_CRASH_SEEDS` sets how many.

use std::{collections::BTreeMap, sync::Arc};

use prost::bytes::Bytes;
use service_kit::clock::Clock;
use uuid::Uuid;

use crate::log::{
    appender::Appender,
    chunk::FIRST_ENTRY,
    compact::{Liveness, compact},
    copies::{backup_log, restore_folder},
    disk::{
        Folder,
        simulated::{Power, SimulatedFolder},
    },
    error::LogError,
    event::NewEvent,
    file::{LONG_READ, LogFile},
    index::Index,
    memory::Memory,
    pending::{BOUNDS, Bounds, Pending},
    read::{Direction, StreamQuery, StreamRead, read_stream},
    recover::{Recovered, open_or_create, recover_log},
    session::{Batch, Session},
    view::View,
    write::{Append, Expected, GroupKey, GroupWrite, Outcome, Removal, Write},
};

/// So small that a scenario begins several chunks.
const CHUNK_BYTES: u64 = 2_000;

/// Crash states that are tried for each change of a scenario, unless the environment says more.
const SEEDS: u64 = 4;

/// Acknowledged last revision of each stream.
type Ledger = BTreeMap<String, u64>;

/// The store without its threads.
struct Store {
    log: LogFile,
    index: Index,
    pending: Pending,
    memory: Memory,
    clock: Clock,
    appender: Appender,
}

impl Store {
    fn open(files: &SimulatedFolder) -> Option<Self> {
        let folder: Arc<dyn Folder> = Arc::new(files.clone());
        #[expect(clippy::disallowed_methods, reason = "tests are where a clock is made")]
        let clock = Clock::new(jiff::Timestamp::now, Uuid::new_v4);
        let log = open_or_create(Arc::clone(&folder), &clock, false).ok()?;
        let Recovered { log, index, behind } = recover_log(&folder, log, BOUNDS).ok()?;
        let pending = Pending::new(behind, Bounds { freeze_at_rows: 1, ..BOUNDS });
        // Then nobody waits for an indexer.
        pending.close();
        let appender = log.appender(CHUNK_BYTES);
        Some(Self { log, index, pending, memory: Memory::default(), clock, appender })
    }

    fn view(&self) -> View<'_> {
        View { index: &self.index, pending: &self.pending, log: &self.log, staged: None }
    }

    fn write(&mut self, write: &Write) -> Result<Outcome, LogError> {
        let (index, pending, log) = (&self.index, &self.pending, &self.log);
        let mut session = Session {
            view: View { index, pending, log, staged: None },
            memory: &mut self.memory,
            clock: &self.clock,
            batch: Batch::behind(pending.progress()),
        };
        let outcome = session.apply(write)?;
        let Batch { entries, table, .. } = session.batch;
        let appended = self.appender.append(entries.bytes());
        if appended.is_err() {
            self.memory.clear();
        }
        appended?;
        self.pending.absorb(table);
        Ok(outcome)
    }

    /// Appends to a stream, and notes it if it was acknowledged.
    fn append(&mut self, stream: &str, ledger: &mut Ledger) -> Result<(), LogError> {
        let event = NewEvent {
            id: self.clock.new_id(),
            event_type: "happened".to_owned(),
            is_json: false,
            metadata: Bytes::new(),
            data: Bytes::from(vec![7; 300]),
        };
        let append =
            Append { stream: stream.to_owned(), expected: Expected::Any, events: vec![event] };
        if let Outcome::Written { revision: Some(revision), .. } =
            self.write(&Write::Append(append))?
        {
            ledger.insert(stream.to_owned(), revision);
        }
        Ok(())
    }

    fn flush_index(&mut self) -> Result<(), LogError> {
        if let Some(table) = self.pending.next_frozen() {
            self.index.apply(&table)?;
            self.pending.indexed(Ok(()));
        }
        while self.index.merge_due(&mut |_, _| {})? {}
        Ok(())
    }

    /// The revisions that a stream shows.
    fn revisions(&self, stream: &str) -> Vec<u64> {
        let query = StreamQuery {
            stream: stream.to_owned(),
            direction: Direction::Forwards,
            from: 0,
            limit: 512,
            now_ticks: 0,
        };
        match read_stream(&self.view(), &query).unwrap() {
            StreamRead::Missing | StreamRead::Deleted => Vec::new(),
            StreamRead::Page(page) => page.events.iter().map(|event| event.revision).collect(),
        }
    }
}

/// First start, appends, flushes of the index, chunks, a scavenge, a stop. Ends where power does.
fn run(files: &SimulatedFolder, ledger: &mut Ledger) -> Result<(), LogError> {
    let Some(mut store) = Store::open(files) else { return Err(LogError::Closed) };
    for round in 0..4 {
        for order in 0..4 {
            store.append(&format!("order-{order}"), ledger)?;
            store.append("gone", ledger)?;
        }
        let key = GroupKey { stream: "$all".to_owned(), name: "workers".to_owned() };
        let group = match round {
            0 => GroupWrite::Save { key, settings: "{}".to_owned() },
            checkpoint => GroupWrite::Checkpoint { key, checkpoint },
        };
        store.write(&Write::Group(group))?;
        store.flush_index()?;
    }
    let removal = Removal { stream: "gone".to_owned(), expected: Expected::Any };
    ledger.remove("gone");
    store.write(&Write::Tombstone(removal))?;
    store.appender.begin_chunk()?;
    store.append("order-0", ledger)?;
    store.flush_index()?;
    let starts: Vec<u64> = store.log.chunks().iter().map(|chunk| chunk.start()).collect();
    for start in starts {
        let liveness = Liveness { view: store.view(), groups: store.index.groups(), now_ticks: 0 };
        compact(&liveness, start, |_| Ok(()))?;
    }
    store.index.renew()?;
    store.append("order-1", ledger)?;
    store.flush_index()
}

/// Every acknowledged event is there, and nothing is twice.
fn check(files: &SimulatedFolder, ledger: &Ledger, state: &str) {
    let mut store = Store::open(files).unwrap_or_else(|| panic!("{state}: the store opens"));
    for (stream, last) in ledger {
        let shown = store.revisions(stream);
        let wanted: Vec<u64> = (0..shown.len() as u64).collect();
        assert_eq!(shown, wanted, "{state}: {stream}");
        assert!(shown.last() >= Some(last), "{state}: {stream} ended at {last}");
    }
    let mut read = store.log.scan(FIRST_ENTRY, LONG_READ);
    while read.next().unwrap_or_else(|error| panic!("{state}: {error}")).is_some() {}
    // The store goes on.
    let mut ledger = ledger.clone();
    store.append("order-0", &mut ledger).unwrap_or_else(|error| panic!("{state}: {error}"));
    assert_eq!(store.revisions("order-0").last(), ledger.get("order-0"), "{state}");
}

fn on(files: &SimulatedFolder) -> Arc<dyn Folder> {
    Arc::new(files.clone())
}

fn seeds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a setting of this test alone")]
    let more = std::env::var("DOFS_TEST_CRASH_SEEDS").ok();
    more.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

/// Pseudo-random choices; the first two seeds stand for nothing and for all.
fn choices(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match seed {
            0 => false,
            1 => true,
            _ => state & 1 == 1,
        }
    }
}

#[test]
fn whatever_was_acknowledged_survives_power_loss_at_any_change() {
    let mut n_states = 0;
    for changes in 0.. {
        let power = Power::for_changes(changes);
        let files = SimulatedFolder::powered(power.clone());
        let mut ledger = Ledger::new();
        let is_done = run(&files, &mut ledger).is_ok();
        for seed in 0..seeds() {
            let state = format!("power for {changes} changes, seed {seed}");
            let left = files.after_power_loss(choices(seed), Power::default());
            check(&left, &ledger, &state);
            // Power goes off again while that is recovered.
            let again =
                files.after_power_loss(choices(seed), Power::for_changes(seed * 3 + changes % 5));
            drop(Store::open(&again));
            let left = again.after_power_loss(choices(seed + changes), Power::default());
            check(&left, &ledger, &format!("{state}, and again during recovery"));
            check(&files.after_kill(Power::default()), &ledger, &format!("{state}, killed"));
            n_states += 3;
        }
        if is_done {
            break;
        }
    }
    assert!(n_states >= 500, "{n_states} states");
}

#[test]
fn interrupted_backup_and_restore_are_made_again() {
    let store = SimulatedFolder::powered(Power::default());
    let mut ledger = Ledger::new();
    run(&store, &mut ledger).unwrap();
    let source = LogFile::open(Arc::new(store)).unwrap().unwrap();
    for changes in 0.. {
        let backup = SimulatedFolder::powered(Power::for_changes(changes));
        let is_done = backup_log(&source, &on(&backup), |_| {}).is_ok();
        let mut is_restored = true;
        for seed in 0..seeds() {
            let state = format!("power for {changes} changes, seed {seed}");
            let backup = backup.after_power_loss(choices(seed), Power::default());
            backup_log(&source, &on(&backup), |_| {})
                .unwrap_or_else(|error| panic!("{state}: {error}"));
            let target = SimulatedFolder::powered(Power::for_changes(changes));
            let from: Arc<dyn Folder> = Arc::new(backup);
            let restored = restore_folder(Arc::clone(&from), &on(&target), |_| {});
            is_restored &= restored.is_ok();
            let target = target.after_power_loss(choices(seed), Power::default());
            // Either the restore was complete, or it is made again.
            match restore_folder(from, &on(&target), |_| {}) {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.to_string().contains("holds a store"), "{state}: {error}");
                }
            }
            check(&target, &ledger, &state);
        }
        if is_done && is_restored {
            break;
        }
    }
}
