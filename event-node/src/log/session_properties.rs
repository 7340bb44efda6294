//! Any sequence of writes is decided and numbered as a simple model says.
//!
//! The model follows the rules of the protocol one by one and keeps every event in memory; it
//! knows nothing of tables, indexes or caches.

use std::collections::HashMap;

use proptest::{prelude::*, test_runner::TestRunner};
use prost::bytes::Bytes;
use rusqlite::Connection;
use service_kit::clock::Clock;
use uuid::Uuid;

use crate::log::{
    event::{METADATA_TYPE, NewEvent, TOMBSTONE_REVISION, metastream_of},
    schema::{from_sql, open_writer},
    session::{Memory, Session},
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
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Default)]
struct ModelStream {
    /// Id and position of each event; `None` for ids that the store itself chose.
    events: Vec<(Option<u128>, u64)>,
    /// Where an id was last written, as far as it is remembered.
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
            stream.known.insert(id, last);
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
        let mut outcome = Outcome::Written { revision: before.checked_sub(1), position: None };
        for id in ids {
            outcome = self.write(name, Some(*id));
        }
        if !ids.is_empty() && self.is_soft_deleted(name) {
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
        let before = self.next(&metastream);
        let outcome = self.append(&metastream, expected, &[id]);
        if self.next(&metastream) == before {
            return outcome;
        }
        let was_soft_deleted = self.is_soft_deleted(name);
        self.stream(name).truncate_before = METADATA[data].1;
        if was_soft_deleted {
            let stream = self.stream(name);
            let next = if stream.is_tombstoned { 1 << 63 } else { stream.events.len() as u64 };
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
        Step::Restart => return None,
    })
}

/// Position, revision and id of a stream's events but for its tombstone.
fn stored(connection: &Connection, name: &str) -> Vec<(u64, u64, Uuid)> {
    let mut select = connection
        .prepare(
            "SELECT position, revision, events.id FROM events JOIN streams ON streams.id = stream_id \
             WHERE name = ? AND type <> '$streamDeleted' ORDER BY revision",
        )
        .unwrap();
    let rows = select.query_map([name], |row| {
        let id: [u8; 16] = row.get(2)?;
        Ok((from_sql(row.get(0)?), from_sql(row.get(1)?), Uuid::from_bytes(id)))
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

fn check(connection: &Connection, steps: &[Step]) -> Result<(), TestCaseError> {
    #[expect(clippy::disallowed_methods, reason = "tests are where a clock is made")]
    let clock = Clock::new(jiff::Timestamp::now, Uuid::new_v4);
    let mut memory = Memory::default();
    let mut model = Model::default();
    let mut last_position = 0;
    for step in steps {
        let wanted = model.apply(step);
        let Some(write) = write_of(step) else {
            memory.clear();
            continue;
        };
        let mut session = Session {
            connection,
            memory: &mut memory,
            clock: &clock,
            last_position,
            written: Vec::new(),
        };
        let outcome = session.apply(&write).unwrap();
        last_position = session.last_position;
        prop_assert_eq!(outcome, wanted, "{:?}", step);
    }
    for (name, stream) in &model.streams {
        let stored = stored(connection, name);
        prop_assert_eq!(stored.len(), stream.events.len(), "{}", name);
        for (index, (row, (id, position))) in stored.iter().zip(&stream.events).enumerate() {
            prop_assert_eq!((row.0, row.1), (*position, index as u64));
            prop_assert!(id.is_none_or(|id| Uuid::from_u128(id) == row.2));
        }
    }
    prop_assert_eq!(last_position, model.last_position);
    Ok(())
}

#[test]
fn any_sequence_of_writes_is_decided_as_the_model_says() {
    let folder = tempfile::tempdir().unwrap();
    let connection = open_writer(folder.path()).unwrap();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(512));
    let result = runner.run(&steps(), |steps| {
        // Never committed: what is tested does not depend on the disk.
        connection.execute_batch("BEGIN").unwrap();
        let checked = check(&connection, &steps);
        connection.execute_batch("ROLLBACK").unwrap();
        checked
    });
    result.unwrap();
}
