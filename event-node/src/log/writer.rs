//! The writer thread: group commit of all queued writes with one fsync.

use std::{sync::Arc, thread::JoinHandle};

use service_kit::clock::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    log::{
        appender::Appender,
        commit_session::{CommitBatch, CommitSession},
        error::LogError,
        event::{METADATA_TYPE, NewEvent},
        index::Index,
        index_buffer::IndexBuffer,
        indexer::Indexer,
        read_view::ReadView,
        requests::{Append, ExpectedRevision, WriteOutcome, WriteRequest},
        tail_cache::TailCache,
        writer_cache::WriterCache,
    },
    metrics::count_written,
};

/// Maximum number of queued writes; further callers wait (backpressure).
pub(super) const MAX_WAITING_WRITES: usize = 2_048;

/// Maximum number of writes in one commit.
const MAX_BATCH_WRITES: usize = 1_024;

/// Size of event bodies in bytes after which a commit takes no further writes.
const MAX_BATCH_BYTES: usize = 8 * 1_024 * 1_024;

/// Stream of the first event of every store. Clients may rely on a system event in `$all`.
const SEED_STREAM: &str = "$$$scavenges";

/// A write and the channel for its outcome.
pub(super) struct QueuedWrite {
    pub write: WriteRequest,
    pub reply: oneshot::Sender<Result<WriteOutcome, LogError>>,
}

pub(super) enum WriterMessage {
    Write(QueuedWrite),
    /// Close the current chunk and reply with the start offset of the next one.
    BeginChunk(oneshot::Sender<Result<u64, LogError>>),
    /// Commit all earlier writes, then close the store.
    Close,
}

/// Channels on which the writer announces commits and failures.
pub(super) struct Announcements {
    pub tail_cache: Arc<TailCache>,
    /// Position of the last committed event.
    pub head: watch::Sender<u64>,
    /// Error that blocks all appends until the disk recovers or the store is reopened.
    pub failure: watch::Sender<Option<LogError>>,
}

/// State of the writer, moved into its thread.
pub(super) struct Writer {
    pub appender: Appender,
    /// For lookups only; the indexer writes to it.
    pub index: Arc<Index>,
    pub index_buffer: Arc<IndexBuffer>,
    pub indexer: Indexer,
    pub cache: WriterCache,
    pub clock: Clock,
    pub announcements: Announcements,
}

impl Writer {
    /// Appends the first event of a new store and starts the thread. The thread ends after
    /// [`WriterMessage::Close`] or when all senders are dropped.
    pub(super) fn start(
        mut self,
        inbox: mpsc::Receiver<WriterMessage>,
    ) -> Result<JoinHandle<()>, LogError> {
        let position = self.index_buffer.progress().position;
        self.announcements.head.send_replace(position);
        if position == 0 {
            self.append_seed_event()?;
        }
        std::thread::Builder::new()
            .name("event-log-writer".to_owned())
            .spawn(move || self.run_commit_loop(inbox))
            .map_err(LogError::from_io)
    }

    fn append_seed_event(&mut self) -> Result<(), LogError> {
        let seed = WriteRequest::Append(Append {
            stream: SEED_STREAM.to_owned(),
            expected: ExpectedRevision::NoStream,
            events: vec![NewEvent::new(
                self.clock.new_id(),
                METADATA_TYPE,
                true,
                &br#"{"$maxAge":2592000}"#[..],
            )],
        });
        self.commit_all(&[&seed]).map(drop)
    }

    fn run_commit_loop(mut self, mut inbox: mpsc::Receiver<WriterMessage>) {
        let mut open = true;
        while open && let Some(first) = inbox.blocking_recv() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut chunk_wanted = None;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    WriterMessage::Write(request) => {
                        bytes += request.write.body_bytes();
                        batch.push(request);
                    }
                    WriterMessage::BeginChunk(reply) => {
                        chunk_wanted = Some(reply);
                        break;
                    }
                    WriterMessage::Close => {
                        open = false;
                        break;
                    }
                }
                let full = batch.len() >= MAX_BATCH_WRITES || bytes >= MAX_BATCH_BYTES;
                // Group commit: take what was queued during the last fsync, but never wait for
                // more.
                next = if full { None } else { inbox.try_recv().ok() };
            }
            // Commit first: the writes queued before the request belong to the chunk that ends.
            self.commit_and_reply(batch);
            if let Some(reply) = chunk_wanted {
                let begun = self.appender.begin_chunk().map(|()| self.appender.end_offset());
                // Sending fails if the caller has stopped waiting.
                drop(reply.send(begun));
            }
        }
        // Callers that still wait for a slot in the queue get an error from here on.
        inbox.close();
        self.indexer.finish();
    }

    /// Commits the batch and replies to every request.
    fn commit_and_reply(&mut self, batch: Vec<QueuedWrite>) {
        let writes: Vec<&WriteRequest> = batch.iter().map(|request| &request.write).collect();
        let result = self.commit_all(&writes);
        if let Err(error) = &result {
            tracing::error!(error = error as &dyn std::error::Error, "Commit failed");
        }
        self.announce_failure(result.as_ref().err());
        for (index, request) in batch.into_iter().enumerate() {
            let answer = match &result {
                Ok(outcomes) => outcomes.get(index).copied().ok_or(LogError::Closed),
                Err(error) => Err(error.clone()),
            };
            // Sending fails if the caller has stopped waiting.
            drop(request.reply.send(answer));
        }
    }

    /// Announces whether later appends will fail too. A full disk is not announced: it needs free
    /// space, and a restart does not help.
    fn announce_failure(&self, error: Option<&LogError>) {
        let lasts = match error {
            Some(LogError::Full) => false,
            // Appends look up their stream, so a damaged index blocks them.
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

    /// Commits all writes or none. On success they are durable.
    fn commit_all(&mut self, writes: &[&WriteRequest]) -> Result<Vec<WriteOutcome>, LogError> {
        let committed = self.try_commit(writes);
        if committed.is_err() {
            // The cache holds revisions and ids of the writes that failed. The next append would
            // continue after events that do not exist.
            self.cache.clear();
        }
        committed
    }

    fn try_commit(&mut self, writes: &[&WriteRequest]) -> Result<Vec<WriteOutcome>, LogError> {
        // Before the append: a commit that is durable must not fail because the index cannot be
        // written.
        self.index_buffer.wait_for_room()?;
        let log = self.appender.log();
        let mut session = CommitSession {
            view: ReadView {
                index: &self.index,
                index_buffer: &self.index_buffer,
                log,
                staged: None,
            },
            cache: &mut self.cache,
            clock: &self.clock,
            // Only this thread commits, so the buffer has everything up to the end of the log.
            batch: CommitBatch::starting_at(self.index_buffer.progress()),
        };
        let outcomes: Vec<_> =
            writes.iter().map(|write| session.apply_write(write)).collect::<Result<_, _>>()?;
        let CommitBatch { entries, table, events, .. } = session.batch;
        if !entries.bytes().is_empty() {
            // Durable in the log first. A memtable entry without its log entry would send readers
            // to bytes that do not exist.
            self.appender.append(entries.bytes())?;
            count_written(events.len(), entries.bytes().len());
            self.index_buffer.add_committed(table);
        }
        tracing::trace!(writes = writes.len(), events = events.len(), "Commit durable");
        if let Some(newest) = events.last().map(|event| event.position) {
            // Publish the events before the head. A reader that sees the new head must find its
            // events in the cache; the other order would send it to the disk.
            self.announcements.tail_cache.push_committed(events);
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
        index_buffer::INDEX_BUFFER_LIMITS,
        recovery::{Recovered, open_or_create, recover_log},
        requests::{GroupKey, GroupWrite},
    };

    /// Creates a writer on a disk with fault injection.
    fn writer() -> (Arc<SimulatedDisk>, Writer) {
        let clock = Clock::new(|| Timestamp::UNIX_EPOCH, || Uuid::from_u128(7));
        let files = SimulatedFolder::with_power(Power::default());
        let folder: Arc<dyn Folder> = Arc::new(files.clone());
        let log = open_or_create(Arc::clone(&folder), &clock, false).unwrap();
        let Recovered { log, index, unindexed } =
            recover_log(&folder, log, INDEX_BUFFER_LIMITS).unwrap();
        let (index, index_buffer) =
            (Arc::new(index), Arc::new(IndexBuffer::new(unindexed, INDEX_BUFFER_LIMITS)));
        let writer = Writer {
            appender: Appender::new(log.clone(), u64::MAX),
            index: Arc::clone(&index),
            index_buffer: Arc::clone(&index_buffer),
            indexer: Indexer::start(index, index_buffer).unwrap(),
            cache: WriterCache::default(),
            clock,
            announcements: Announcements {
                tail_cache: Arc::default(),
                head: watch::Sender::new(0),
                failure: watch::Sender::new(None),
            },
        };
        (files.simulated_disk(FIRST_CHUNK).unwrap(), writer)
    }

    /// Commits a write and returns whether later appends are announced to fail.
    fn has_failed_after_write(writer: &mut Writer, checkpoint: u64) -> bool {
        let key = GroupKey { stream: "$all".to_owned(), name: "group".to_owned() };
        let write = WriteRequest::Group(GroupWrite::Checkpoint { key, checkpoint });
        let (reply, _answer) = oneshot::channel();
        writer.commit_and_reply(vec![QueuedWrite { write, reply }]);
        writer.announcements.failure.borrow().is_some()
    }

    #[test]
    fn failure_is_announced_until_torn_write_is_truncated() {
        let (disk, mut writer) = writer();
        assert!(!has_failed_after_write(&mut writer, 1));
        disk.fail_next_write(Fault::Failed);
        disk.fail_next_sync(Fault::Failed);
        assert!(has_failed_after_write(&mut writer, 2), "the log is not cut back");
        assert!(!has_failed_after_write(&mut writer, 3), "it is, with the next write");
    }

    #[test]
    fn full_disk_is_not_announced_as_failure() {
        let (disk, mut writer) = writer();
        disk.fail_next_write(Fault::Full);
        assert!(!has_failed_after_write(&mut writer, 1));
    }
}
