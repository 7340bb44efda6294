//! The one thread that writes: it puts all that waits into the log and flushes once.

use std::{sync::Arc, thread::JoinHandle};

use prost::bytes::Bytes;
use service_kit::clock::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::log::{
    appender::Appender,
    error::LogError,
    event::{METADATA_TYPE, NewEvent},
    index::Index,
    indexer::Indexer,
    memory::Memory,
    pending::Pending,
    recent::Recent,
    session::{Batch, Session},
    view::View,
    write::{Append, Expected, Outcome, Write},
};

/// Writes that may wait before askers have to.
pub(super) const MAX_WAITING_WRITES: usize = 2_048;

/// Most writes in one commit.
const MAX_BATCH_WRITES: usize = 1_024;

/// Event bytes after which a commit takes no further writes.
const MAX_BATCH_BYTES: usize = 8 * 1_024 * 1_024;

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
    /// End the chunk that is appended to. The answer is where the next one begins.
    BeginChunk(oneshot::Sender<Result<u64, LogError>>),
    /// Finish what was asked before, and close the store.
    Close,
}

/// Where the writer announces commits.
pub(super) struct Announcements {
    pub recent: Arc<Recent>,
    /// Position of the last committed event.
    pub head: watch::Sender<u64>,
    /// Why nothing is appended until the disk recovers or the store is opened again.
    pub failure: watch::Sender<Option<LogError>>,
}

/// The writer's state, moved into its thread.
pub(super) struct Writer {
    pub appender: Appender,
    /// For look-ups; the indexer writes.
    pub index: Arc<Index>,
    pub pending: Arc<Pending>,
    pub indexer: Indexer,
    pub memory: Memory,
    pub clock: Clock,
    pub announcements: Announcements,
}

impl Writer {
    /// Gives a new store its first event, and starts the thread. It ends after [`Message::Close`]
    /// or when every sender is gone.
    pub(super) fn start(
        mut self,
        inbox: mpsc::Receiver<Message>,
    ) -> Result<JoinHandle<()>, LogError> {
        let position = self.pending.progress().position;
        self.announcements.head.send_replace(position);
        if position == 0 {
            self.seed()?;
        }
        std::thread::Builder::new()
            .name("event-log-writer".to_owned())
            .spawn(move || self.run(inbox))
            .map_err(LogError::disk)
    }

    fn seed(&mut self) -> Result<(), LogError> {
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

    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut open = true;
        while open && let Some(first) = inbox.blocking_recv() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut chunk_wanted = None;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Write(request) => {
                        bytes += request.write.weight();
                        batch.push(request);
                    }
                    Message::BeginChunk(reply) => {
                        chunk_wanted = Some(reply);
                        break;
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
            if let Some(reply) = chunk_wanted {
                let begun = self.appender.begin_chunk().map(|()| self.appender.end());
                // An asker that no longer waits does not need the answer.
                drop(reply.send(begun));
            }
        }
        inbox.close();
        self.indexer.finish();
    }

    /// Commits the batch and answers every request of it.
    fn answer(&mut self, batch: Vec<Request>) {
        let writes: Vec<&Write> = batch.iter().map(|request| &request.write).collect();
        let result = self.commit(&writes);
        if let Err(error) = &result {
            tracing::error!(error = error as &dyn std::error::Error, "a commit failed");
        }
        self.announce_failure(result.as_ref().err());
        for (index, request) in batch.into_iter().enumerate() {
            let answer = match &result {
                Ok(outcomes) => outcomes.get(index).copied().ok_or(LogError::Closed),
                Err(error) => Err(error.clone()),
            };
            // An asker that no longer waits does not need the answer.
            drop(request.reply.send(answer));
        }
    }

    /// Tells whether later appends will fail too. A full disk is no such failure: room helps, and no
    /// other start does.
    fn announce_failure(&self, error: Option<&LogError>) {
        let lasts = match error {
            Some(LogError::Full) => false,
            Some(LogError::DamagedIndex) => true,
            Some(_) | None => self.appender.has_failed(),
        };
        let failure = self.announcements.failure.borrow().clone();
        match (lasts, failure) {
            (true, None) => drop(self.announcements.failure.send_replace(error.cloned())),
            (false, Some(_)) => drop(self.announcements.failure.send_replace(None)),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// All writes or none, durable on return.
    fn commit(&mut self, writes: &[&Write]) -> Result<Vec<Outcome>, LogError> {
        let committed = self.try_commit(writes);
        if committed.is_err() {
            self.memory.clear();
        }
        committed
    }

    fn try_commit(&mut self, writes: &[&Write]) -> Result<Vec<Outcome>, LogError> {
        self.pending.make_room()?;
        let log = self.appender.log();
        let mut session = Session {
            view: View { index: &self.index, pending: &self.pending, log, staged: None },
            memory: &mut self.memory,
            clock: &self.clock,
            batch: Batch::behind(self.pending.progress()),
        };
        let outcomes: Vec<_> =
            writes.iter().map(|write| session.apply(write)).collect::<Result<_, _>>()?;
        let Batch { entries, table, events, .. } = session.batch;
        if !entries.bytes().is_empty() {
            self.appender.append(entries.bytes())?;
            self.pending.absorb(table);
        }
        tracing::trace!(writes = writes.len(), events = events.len(), "committed");
        if let Some(newest) = events.last().map(|event| event.position) {
            // First the window, then the head: whoever sees the head finds the events.
            self.announcements.recent.extend(events);
            self.announcements.head.send_replace(newest);
        }
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::log::{
        chunk::FIRST_CHUNK,
        disk::{
            Folder,
            simulated::{Fault, Power, SimulatedDisk, SimulatedFolder},
        },
        pending::BOUNDS,
        recover::{Recovered, open_or_create, recover_log},
        write::{GroupKey, GroupWrite},
    };

    /// A writer over a disk that can fail, and what it announces.
    fn writer() -> (Arc<SimulatedDisk>, Writer) {
        let clock = Clock::new(|| Timestamp::UNIX_EPOCH, || Uuid::from_u128(7));
        let files = SimulatedFolder::powered(Power::default());
        let folder: Arc<dyn Folder> = Arc::new(files.clone());
        let log = open_or_create(Arc::clone(&folder), &clock, false).unwrap();
        let Recovered { log, index, behind } = recover_log(&folder, log, BOUNDS).unwrap();
        let (index, pending) = (Arc::new(index), Arc::new(Pending::new(behind, BOUNDS)));
        let writer = Writer {
            appender: log.appender(u64::MAX),
            index: Arc::clone(&index),
            pending: Arc::clone(&pending),
            indexer: Indexer::start(index, pending).unwrap(),
            memory: Memory::default(),
            clock,
            announcements: Announcements {
                recent: Arc::default(),
                head: watch::Sender::new(0),
                failure: watch::Sender::new(None),
            },
        };
        (files.disk(FIRST_CHUNK).unwrap(), writer)
    }

    /// Whether later appends will fail too, after a write.
    fn has_failed_after_write(writer: &mut Writer, checkpoint: u64) -> bool {
        let key = GroupKey { stream: "$all".to_owned(), name: "group".to_owned() };
        let write = Write::Group(GroupWrite::Checkpoint { key, checkpoint });
        let (reply, _answer) = oneshot::channel();
        writer.answer(vec![Request { write, reply }]);
        writer.announcements.failure.borrow().is_some()
    }

    #[test]
    fn failure_is_announced_until_the_log_is_cut_back() {
        let (disk, mut writer) = writer();
        assert!(!has_failed_after_write(&mut writer, 1));
        disk.fail_next_write(Fault::Failed);
        disk.fail_next_sync(Fault::Failed);
        assert!(has_failed_after_write(&mut writer, 2), "the log is not cut back");
        assert!(!has_failed_after_write(&mut writer, 3), "it is, with the next write");
    }

    #[test]
    fn full_disk_is_no_failure_that_a_start_would_mend() {
        let (disk, mut writer) = writer();
        disk.fail_next_write(Fault::Full);
        assert!(!has_failed_after_write(&mut writer, 1));
    }
}
