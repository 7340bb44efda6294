//! Any sequence of writes is decided and numbered as a simple model says.
//!
//! The model follows the rules of the protocol one by one and keeps every event in memory; it
//! knows nothing of files, indexes or caches. What the store holds is spread at random over what
//! is being committed, what waits for the index, and the index.

use std::{collections::HashMap, sync::Arc};

use proptest::{prelude::*, test_runner::TestRunner};
use prost::bytes::Bytes;
use service_kit::clock::Clock;
use uuid::Uuid;

use crate::log::{
    chunk::FIRST_ENTRY,
    disk::{DiskFolder, Folder},
    event::{METADATA_TYPE, NewEvent, TOMBSTONE_REVISION, metastream_of},
    file::LogFile,
    index::Index,
    memory::Memory,
    memtable::{Memtable, Progress},
    pending::{BOUNDS, Bounds, Pending},
    read::{AllQuery, Direction, read_all, read_revision},
    session::{Batch, Session},
    verify,
    view::View,
    write::{Append, Expected, Outcome, Removal, Write},
};

/// Streams that take part; each has its metastream.
const STREAMS: [&str; 2] = ["order-1", "order-2"];

/// Event ids that appends draw from: few, so that they repeat.
const IDS: u128 = 6;

/// Data that appends to a metastream carry, and the `$tb` it sets.
const METADATA: [(&str, Option<u64>); 3] = [
    ("{}", None),
    (r#"{"$tb":1}"#, Some(1)),
    (r#"{"$tb":9223372036854775807}"#, Some(i64::MAX as u64)),
];

#[derive(Debug, Clone)]
enum Step {
    Append {
        stream: usize,
        expected: Expected,
        ids: Vec<u128>,
    },
    AppendMetadata {
        stream: usize,
        expected: Expected,
        id: u128,
        data: usize,
    },
    SoftDelete {
        stream: usize,
        expected: Expected,
    },
    Tombstone {
        stream: usize,
        expected: Expected,
    },
    /// What was written since the last commit is committed together.
    Commit,
    /// The index learns of the older part of what it does not know.
    Index,
    /// The node starts anew: what was only in memory is gone.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = || 0..STREAMS.len();
    let expected = || {
        prop_oneof![
            3 => Just(Expected::Any),
            3 => Just(Expected::NoStream),
            2 => Just(Expected::StreamExists),
            8 => (0..9_u64).prop_map(Expected::Revision),
        ]
    };
    let id = || 1..=IDS;
    let step = prop_oneof![
        12 => (stream(), expected(), prop::collection::vec(id(), 0..4))
            .prop_map(|(stream, expected, ids)| Step::Append { stream, expected, ids }),
        3 => (stream(), expected(), id(), 0..METADATA.len()).prop_map(
            |(stream, expected, id, data)| Step::AppendMetadata { stream, expected, id, data }
        ),
        3 => (stream(), expected()).prop_map(|(stream, expected)| Step::SoftDelete { stream, expected }),
        1 => (stream(), expected()).prop_map(|(stream, expected)| Step::Tombstone { stream, expected }),
        5 => Just(Step::Commit),
        3 => Just(Step::Index),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Default)]
struct ModelStream {
    /// Id and position of each event; `None` for ids that the store itself chose.
    events: Vec<(Option<u128>, u64)>,
    /// Where an id was first written, as far as it is remembered.
    known: HashMap<u128, usize>,
    truncate_before: Option<u64>,
    is_tombstoned: bool,
}

#[derive(Debug, Default)]
struct Model {
    streams: HashMap<String, ModelStream>,
    last_position: u64,
}

/// What the model says about an append.
enum Verdict {
    Write,
    Duplicate(usize),
    Refused(Outcome),
}

impl Model {
    fn stream(&mut self, name: &str) -> &mut ModelStream {
        self.streams.entry(name.to_owned()).or_default()
    }

    fn is_soft_deleted(&mut self, name: &str) -> bool {
        self.stream(name).truncate_before == Some(i64::MAX as u64)
    }

    fn next(&mut self, name: &str) -> usize {
        self.stream(name).events.len()
    }

    fn wrong(&mut self, name: &str) -> Outcome {
        let current = self.stream(name).events.len().checked_sub(1).map(|last| last as u64);
        Outcome::WrongExpectedVersion { current }
    }

    fn decide(&mut self, name: &str, expected: Expected, ids: &[u128]) -> Verdict {
        let soft_deleted = self.is_soft_deleted(name);
        let has_metadata = self.next(&metastream_of(name)) > 0;
        let wrong = Verdict::Refused(self.wrong(name));
        let stream = self.stream(name);
        if stream.is_tombstoned {
            return Verdict::Refused(Outcome::StreamDeleted);
        }
        let next = stream.events.len();
        let expected_next = match expected {
            Expected::StreamExists if soft_deleted => {
                return Verdict::Refused(Outcome::StreamDeleted);
            }
            Expected::StreamExists if next == 0 && !has_metadata => return wrong,
            Expected::Any | Expected::StreamExists => {
                let places: Vec<_> = ids.iter().map(|id| stream.known.get(id).copied()).collect();
                return match (places.first(), places.iter().copied().collect::<Option<Vec<_>>>()) {
                    (None | Some(None), _) => Verdict::Write,
                    (_, Some(places)) => {
                        places.last().map_or(wrong, |last| Verdict::Duplicate(*last))
                    }
                    (_, None) => wrong,
                };
            }
            Expected::NoStream => 0,
            Expected::Revision(revision) => usize::try_from(revision).unwrap() + 1,
        };
        if expected_next >= next {
            return if expected_next == next { Verdict::Write } else { wrong };
        }
        let stored = &stream.events[expected_next..];
        let is_repeated = stored.len() >= ids.len()
            && !ids.is_empty()
            && stored.iter().zip(ids).all(|((stored, _), id)| *stored == Some(*id));
        if is_repeated {
            return Verdict::Duplicate(expected_next + ids.len() - 1);
        }
        let first_differs = ids.first().is_some_and(|id| stored[0].0 != Some(*id));
        if expected == Expected::NoStream && soft_deleted && first_differs {
            return Verdict::Write;
        }
        wrong
    }

    fn write(&mut self, name: &str, id: Option<u128>) -> Outcome {
        self.last_position += 1;
        let position = self.last_position;
        let stream = self.stream(name);
        stream.events.push((id, position));
        let last = stream.events.len() - 1;
        if let Some(id) = id {
            stream.known.entry(id).or_insert(last);
        }
        Outcome::Written { revision: Some(last as u64), position: Some(position) }
    }

    fn write_metadata(&mut self, name: &str, truncate_before: u64) -> Outcome {
        self.stream(name).truncate_before = Some(truncate_before);
        self.write(&metastream_of(name), None)
    }

    fn append(&mut self, name: &str, expected: Expected, ids: &[u128]) -> Outcome {
        match self.decide(name, expected, ids) {
            Verdict::Refused(outcome) => return outcome,
            Verdict::Duplicate(last) => {
                let position = self.stream(name).events[last].1;
                return Outcome::Written { revision: Some(last as u64), position: Some(position) };
            }
            Verdict::Write => {}
        }
        let before = self.next(name) as u64;
        let position = Some(self.last_position).filter(|position| *position > 0);
        let mut outcome = Outcome::Written { revision: before.checked_sub(1), position };
        for id in ids {
            outcome = self.write(name, Some(*id));
        }
        if self.is_soft_deleted(name) {
            self.write_metadata(name, before);
        }
        outcome
    }

    fn append_metadata(
        &mut self,
        name: &str,
        expected: Expected,
        id: u128,
        data: usize,
    ) -> Outcome {
        let metastream = metastream_of(name);
        let is_tombstoned = self.stream(name).is_tombstoned;
        let before = self.next(&metastream);
        if is_tombstoned && before == 0 {
            return Outcome::StreamDeleted;
        }
        let outcome = self.append(&metastream, expected, &[id]);
        if self.next(&metastream) == before {
            return outcome;
        }
        let was_soft_deleted = self.is_soft_deleted(name);
        self.stream(name).truncate_before = METADATA[data].1;
        if was_soft_deleted && !is_tombstoned {
            let next = self.next(name) as u64;
            self.write_metadata(name, next);
        }
        outcome
    }

    fn soft_delete(&mut self, name: &str, expected: Expected) -> Outcome {
        if let Verdict::Refused(outcome) = self.decide(name, expected, &[0]) {
            return outcome;
        }
        if self.next(name) == 0 && self.next(&metastream_of(name)) == 0 {
            return self.wrong(name);
        }
        let revision = (self.next(name) as u64).checked_sub(1);
        self.write_metadata(name, i64::MAX as u64);
        Outcome::Written { revision, position: Some(self.last_position) }
    }

    fn tombstone(&mut self, name: &str, expected: Expected) -> Outcome {
        if let Verdict::Refused(outcome) = self.decide(name, expected, &[0]) {
            return outcome;
        }
        self.last_position += 1;
        self.stream(name).is_tombstoned = true;
        Outcome::Written { revision: Some(TOMBSTONE_REVISION), position: Some(self.last_position) }
    }

    fn apply(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Append { stream, expected, ids } => self.append(STREAMS[*stream], *expected, ids),
            Step::AppendMetadata { stream, expected, id, data } => {
                self.append_metadata(STREAMS[*stream], *expected, *id, *data)
            }
            Step::SoftDelete { stream, expected } => self.soft_delete(STREAMS[*stream], *expected),
            Step::Tombstone { stream, expected } => self.tombstone(STREAMS[*stream], *expected),
            Step::Commit | Step::Index => Outcome::Written { revision: None, position: None },
            Step::Restart => {
                self.streams.values_mut().for_each(|stream| stream.known.clear());
                Outcome::Written { revision: None, position: None }
            }
        }
    }
}

fn event(id: u128, event_type: &str, data: &str) -> NewEvent {
    NewEvent {
        id: Uuid::from_u128(id),
        event_type: event_type.to_owned(),
        is_json: true,
        metadata: Bytes::new(),
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

fn write_of(step: &Step) -> Option<Write> {
    let removal = |stream: usize, expected: Expected| Removal {
        stream: STREAMS[stream].to_owned(),
        expected,
    };
    Some(match step {
        Step::Append { stream, expected, ids } => Write::Append(Append {
            stream: STREAMS[*stream].to_owned(),
            expected: *expected,
            events: ids.iter().map(|id| event(*id, "happened", "")).collect(),
        }),
        Step::AppendMetadata { stream, expected, id, data } => Write::Append(Append {
            stream: metastream_of(STREAMS[*stream]),
            expected: *expected,
            events: vec![event(*id, METADATA_TYPE, METADATA[*data].0)],
        }),
        Step::SoftDelete { stream, expected } => Write::SoftDelete(removal(*stream, *expected)),
        Step::Tombstone { stream, expected } => Write::Tombstone(removal(*stream, *expected)),
        Step::Commit | Step::Index | Step::Restart => return None,
    })
}

/// A store of which nothing runs by itself.
struct Store {
    index: Index,
    log: LogFile,
    pending: Pending,
    memory: Memory,
    clock: Clock,
    folder: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files: Arc<dyn Folder> = Arc::new(DiskFolder::writable(folder.path()));
        let log = LogFile::create(Arc::clone(&files), Uuid::nil()).unwrap();
        let index = Index::open(&files, &log).unwrap();
        let start = Progress { offset: FIRST_ENTRY, position: 0 };
        let pending = Pending::new(Memtable::behind(start), Bounds { freeze_at_rows: 1, ..BOUNDS });
        // Then nobody waits for an indexer.
        pending.close();
        #[expect(clippy::disallowed_methods, reason = "tests are where a clock is made")]
        let clock = Clock::new(jiff::Timestamp::now, Uuid::new_v4);
        Self { index, log, pending, memory: Memory::default(), clock, folder }
    }

    fn view(&self) -> View<'_> {
        View { index: &self.index, pending: &self.pending, log: &self.log, staged: None }
    }

    fn commit(&mut self, writes: &[Write]) -> Vec<Outcome> {
        let (index, pending, log) = (&self.index, &self.pending, &self.log);
        let mut session = Session {
            view: View { index, pending, log, staged: None },
            memory: &mut self.memory,
            clock: &self.clock,
            batch: Batch::behind(pending.progress()),
        };
        let outcomes = writes.iter().map(|write| session.apply(write).unwrap()).collect();
        let Batch { entries, table, .. } = session.batch;
        self.log.appender(u64::MAX).append(entries.bytes()).unwrap();
        self.pending.absorb(table);
        outcomes
    }

    fn index(&mut self) {
        if let Some(table) = self.pending.next_frozen() {
            self.index.apply(&table).unwrap();
            while self.index.merge_due(&mut |_, _| {}).unwrap() {}
            self.pending.indexed(Ok(()));
        }
    }

    /// Positions of all events, read in this direction.
    fn positions(&self, direction: Direction) -> Vec<u64> {
        let mut from = if direction == Direction::Forwards { 0 } else { u64::MAX };
        let mut positions = Vec::new();
        loop {
            let query = AllQuery { direction, from, until: u64::MAX, limit: 3, filter: None };
            let page = read_all(&self.view(), &query).unwrap();
            positions.extend(page.events.iter().map(|event| event.position));
            if page.at_end {
                return positions;
            }
            from = page.looked_to;
        }
    }
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut store = Store::new();
    let mut model = Model::default();
    let (mut writes, mut wanted) = (Vec::new(), Vec::new());
    for step in steps.iter().chain([&Step::Commit]) {
        let outcome = model.apply(step);
        if let Some(write) = write_of(step) {
            writes.push(write);
            wanted.push(outcome);
            continue;
        }
        prop_assert_eq!(store.commit(&writes), &wanted[..], "{:?}", writes);
        writes.clear();
        wanted.clear();
        if matches!(step, Step::Index) {
            store.index();
        }
        if matches!(step, Step::Restart) {
            store.memory.clear();
        }
    }
    check_content(&store, &model)?;
    verify(store.folder.path()).unwrap();
    Ok(())
}

/// What is read is what the model holds.
fn check_content(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    for (name, stream) in &model.streams {
        for (revision, (id, position)) in stream.events.iter().enumerate() {
            let event = read_revision(&store.view(), name, revision as u64).unwrap();
            let event = event.unwrap();
            prop_assert_eq!(event.position, *position, "{} {}", name, revision);
            prop_assert!(id.is_none_or(|id| Uuid::from_u128(id) == event.id));
        }
        check_runs(store, name, stream)?;
        let last = if stream.is_tombstoned {
            Some(TOMBSTONE_REVISION)
        } else {
            (stream.events.len() as u64).checked_sub(1)
        };
        prop_assert_eq!(store.view().stream(name).unwrap().last, last, "{}", name);
    }
    let mut positions: Vec<u64> = (1..=model.last_position).collect();
    prop_assert_eq!(store.positions(Direction::Forwards), &positions[..]);
    positions.reverse();
    prop_assert_eq!(store.positions(Direction::Backwards), positions);
    Ok(())
}

/// Any stretch of a stream is found in runs that follow one another, in both directions.
fn check_runs(store: &Store, name: &str, stream: &ModelStream) -> Result<(), TestCaseError> {
    let n_events = stream.events.len() as u64;
    for (low, limit) in (0..n_events).flat_map(|low| [(low, 1), (low, 2), (low, usize::MAX)]) {
        let range = (low, n_events - 1);
        let runs = |direction| store.view().runs(name, range, direction, limit).unwrap();
        let forwards = runs(Direction::Forwards);
        prop_assert!(forwards[0].first <= low && low <= forwards[0].last());
        let backwards = runs(Direction::Backwards);
        prop_assert_eq!(backwards[0].last(), range.1);
        for runs in [forwards.into_iter().collect(), backwards.into_iter().rev().collect()] {
            let runs: Vec<_> = runs;
            prop_assert!(runs.len() <= limit);
            prop_assert!(runs.windows(2).all(|two| two[0].last() + 1 == two[1].first));
        }
    }
    Ok(())
}

#[test]
fn any_sequence_of_writes_is_decided_as_the_model_says() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(128));
    runner.run(&steps(), |steps| check(&steps)).unwrap();
}
