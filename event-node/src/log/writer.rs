//! The one thread that writes: it commits all that waits in one transaction.

use std::{path::Path, sync::Arc, thread::JoinHandle};

use prost::bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};
use service_kit::clock::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::log::{
    checkpointer::Checkpointer,
    error::{LogError, OpenError},
    event::{METADATA_TYPE, NewEvent},
    recent::Recent,
    schema::{DATABASE_FILE, from_sql, open_writer},
    session::{Memory, Session},
    wal_check::refuse_broken_log,
    write::{Append, Expected, Outcome, Write},
};

/// Writes that may wait before askers have to.
pub(super) const MAX_WAITING_WRITES: usize = 2_048;

/// Most writes in one commit.
const MAX_BATCH_WRITES: usize = 1_024;

/// Event bytes after which a commit takes no further writes.
const MAX_BATCH_BYTES: usize = 8 * 1_024 * 1_024;

/// Newest events that are looked at when the store is opened: what a bad end of the last run would
/// have hurt. All of them would take minutes in a large store; that is what `verify` is for.
const TAIL_EVENTS: i64 = 1_000;

/// The stream of the event that every store begins with: readers of `$all` may count on a
/// system event being there.
const SEED_STREAM: &str = "$$$scavenges";

/// A write and where its answer goes.
pub(super) struct Request {
    pub write: Write,
    pub reply: oneshot::Sender<Result<Outcome, LogError>>,
}

/// What reaches the writer.
pub(super) enum Message {
    Write(Request),
    /// Finish what was asked before, and close the database.
    Close,
}

/// Where the writer announces commits.
pub(super) struct Announcements {
    pub recent: Arc<Recent>,
    /// Position of the last committed event.
    pub head: watch::Sender<u64>,
}

/// The writer's state, moved into its thread.
pub(super) struct Writer {
    connection: Connection,
    memory: Memory,
    clock: Clock,
    announcements: Announcements,
    checkpointer: Checkpointer,
    last_position: u64,
}

impl Writer {
    /// Opens the database, creating and seeding it if it is new.
    pub(super) fn open(
        folder: &Path,
        clock: Clock,
        announcements: Announcements,
    ) -> Result<Self, OpenError> {
        let database = |source| OpenError::database(folder, source);
        refuse_broken_log(folder)?;
        let connection = open_writer(folder).map_err(database)?;
        let last: Option<i64> = connection
            .query_row("SELECT max(position) FROM events", [], |row| row.get(0))
            .map_err(database)?;
        if !is_tail_sound(&connection, last.unwrap_or(0)).map_err(database)? {
            return Err(OpenError::BrokenTail { file: folder.join(DATABASE_FILE) });
        }
        let checkpointer = Checkpointer::start(folder)?;
        let mut writer = Self {
            connection,
            memory: Memory::default(),
            clock,
            announcements,
            checkpointer,
            last_position: last.map_or(0, from_sql),
        };
        if writer.last_position == 0 {
            writer.seed().map_err(database)?;
        }
        writer.announcements.head.send_replace(writer.last_position);
        Ok(writer)
    }

    fn seed(&mut self) -> rusqlite::Result<()> {
        let seed = Write::Append(Append {
            stream: SEED_STREAM.to_owned(),
            expected: Expected::NoStream,
            events: vec![NewEvent {
                id: self.clock.new_id(),
                event_type: METADATA_TYPE.to_owned(),
                is_json: true,
                metadata: Bytes::new(),
                data: Bytes::from_static(br#"{"$maxAge":2592000}"#),
            }],
        });
        self.commit(&[&seed]).map(drop)
    }

    /// Starts the thread. It ends after [`Message::Close`] or when every sender is gone.
    pub(super) fn start(self, inbox: mpsc::Receiver<Message>) -> Result<JoinHandle<()>, OpenError> {
        std::thread::Builder::new()
            .name("event-log-writer".to_owned())
            .spawn(move || self.run(inbox))
            .map_err(OpenError::Thread)
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut open = true;
        while open && let Some(first) = inbox.blocking_recv() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Write(request) => {
                        bytes += request.write.weight();
                        batch.push(request);
                    }
                    Message::Close => {
                        open = false;
                        break;
                    }
                }
                let full = batch.len() >= MAX_BATCH_WRITES || bytes >= MAX_BATCH_BYTES;
                next = if full { None } else { inbox.try_recv().ok() };
            }
            self.answer(batch);
            self.checkpointer.after_commit(&self.connection, bytes);
        }
        inbox.close();
        self.checkpointer.finish(&self.connection);
    }

    /// Commits the batch and answers every request of it.
    fn answer(&mut self, batch: Vec<Request>) {
        let writes: Vec<&Write> = batch.iter().map(|request| &request.write).collect();
        let result = self.commit(&writes).map_err(LogError::from);
        if let Err(error) = &result {
            tracing::error!(error = error as &dyn std::error::Error, "a commit failed");
        }
        for (index, request) in batch.into_iter().enumerate() {
            let answer = match &result {
                Ok(outcomes) => outcomes.get(index).copied().ok_or(LogError::Closed),
                Err(error) => Err(error.clone()),
            };
            // An asker that no longer waits does not need the answer.
            drop(request.reply.send(answer));
        }
    }

    /// All writes or none, durable on return.
    fn commit(&mut self, writes: &[&Write]) -> rusqlite::Result<Vec<Outcome>> {
        let committed = self.try_commit(writes);
        if committed.is_err() {
            self.memory.clear();
        }
        committed
    }

    fn try_commit(&mut self, writes: &[&Write]) -> rusqlite::Result<Vec<Outcome>> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut session = Session {
            connection: &transaction,
            memory: &mut self.memory,
            clock: &self.clock,
            last_position: self.last_position,
            written: Vec::new(),
        };
        let outcomes = writes
            .iter()
            .map(|write| session.apply(write))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let (last_position, written) = (session.last_position, session.written);
        transaction.commit()?;
        tracing::trace!(writes = writes.len(), events = written.len(), "committed");
        self.last_position = last_position;
        if !written.is_empty() {
            // First the window, then the head: whoever sees the head finds the events.
            self.announcements.recent.extend(written);
            self.announcements.head.send_replace(last_position);
        }
        Ok(outcomes)
    }
}

/// Whether the newest events can be read, have no gaps and are found through their streams.
fn is_tail_sound(connection: &Connection, last: i64) -> rusqlite::Result<bool> {
    let first = (last - TAIL_EVENTS).max(0) + 1;
    let sound: i64 = connection.query_row(
        "SELECT count(*) FROM events AS e WHERE position >= ? \
         AND position = (SELECT position FROM events AS s INDEXED BY events_by_stream \
                         WHERE s.stream_id = e.stream_id AND s.revision = e.revision)",
        [first],
        |row| row.get(0),
    )?;
    Ok(sound == last - first + 1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::log::verify;

    #[expect(clippy::disallowed_methods, reason = "tests are where a clock is made")]
    fn open(folder: &Path) -> Result<Writer, OpenError> {
        let clock = Clock::new(jiff::Timestamp::now, uuid::Uuid::new_v4);
        let announcements =
            Announcements { recent: Arc::new(Recent::default()), head: watch::channel(0).0 };
        Writer::open(folder, clock, announcements)
    }

    fn append(writer: &Writer, bytes: usize) -> Write {
        let event = NewEvent {
            id: writer.clock.new_id(),
            event_type: "happened".to_owned(),
            is_json: false,
            metadata: Bytes::new(),
            data: vec![7; bytes].into(),
        };
        let (stream, expected) = ("order-1".to_owned(), Expected::Any);
        Write::Append(Append { stream, expected, events: vec![event] })
    }

    /// The limit on pages makes the database say what it says when the disk is full.
    #[test]
    fn a_full_disk_refuses_appends_harms_nothing_and_ends_when_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open(folder.path()).unwrap();
        let small = append(&writer, 10);
        writer.commit(&[&small]).unwrap();
        let pages: i64 =
            writer.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        writer.connection.pragma_update(None, "max_page_count", pages).unwrap();

        let (before, large) = (append(&writer, 10), append(&writer, 100_000));
        let refused = LogError::from(writer.commit(&[&before, &large]).unwrap_err());
        assert!(matches!(refused, LogError::Full), "{refused}");

        writer.connection.pragma_update(None, "max_page_count", pages + 1_000).unwrap();
        let outcomes = writer.commit(&[&large, &before]).unwrap();
        let written = |at| Outcome::Written { revision: Some(at), position: Some(at + 2) };
        assert_eq!(outcomes, [written(1), written(2)]);
        drop(writer);
        assert_eq!(verify(folder.path()).unwrap().events, 4);
    }

    #[test]
    fn a_broken_end_of_the_store_is_found_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open(folder.path()).unwrap();
        let (first, second) = (append(&writer, 10), append(&writer, 10));
        writer.commit(&[&first, &second]).unwrap();
        writer.connection.execute("DELETE FROM events WHERE position = 2", []).unwrap();
        drop(writer);
        assert!(matches!(open(folder.path()), Err(OpenError::BrokenTail { .. })));
    }
}
