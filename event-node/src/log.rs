//! The durable log: one writer thread, many readers, positions in commit order.
//!
//! All events are stored in the chunk files of the log (`chunked_log`, `chunk`, `entry`). The index
//! (`index`) maps streams and positions to log offsets. Memtables (`index_buffer`) hold what is
//! committed but not indexed yet. `read_view` combines all of them for readers.
//!
//! **Invariant:** positions in `$all` start at 1 and increase by 1 in commit order. Only a scavenge
//! or a salvage leaves gaps, and never at the end: no position is used twice.
//!
//! **Invariant:** the index is derived from the log. Every answer is checked against the log, so a
//! lost index loses no data.

mod access_lists;
mod appender;
mod catch_up_reader;
mod chunk;
mod chunk_writer;
mod chunked_log;
mod codec;
mod commit_session;
mod compaction;
#[cfg(test)]
mod crash_states;
mod direction;
mod disk;
mod entry;
mod entry_scanner;
mod error;
mod event;
mod filter;
mod folder_lock;
mod index;
mod index_buffer;
mod indexer;
mod json_file;
mod memtable;
mod merger;
mod pages;
mod read_pool;
mod read_view;
mod recovery;
mod requests;
mod sorted_table;
mod store_copy;
mod stream_acl;
mod stream_metadata;
mod tail_cache;
#[cfg(test)]
mod test_store;
mod verify;
mod writer;
mod writer_cache;

use std::{
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use prost::bytes::Bytes;
use service_kit::{clock::Clock, mutex::lock};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use crate::log::{
    access_lists::{DefaultAcls, SETTINGS_STREAM},
    catch_up_reader::{CatchUpPage, CatchUpRead, CatchUpReader, CatchUpSource},
    compaction::{CompactionSummary, ScavengeCheckpoint},
    direction::Direction,
    error::{LogError, OpenError},
    event::{
        Event, LINK_TYPE, METADATA_TYPE, NewEvent, ResolvedEvent, described_stream, metastream_of,
    },
    filter::{Filter, FilterError, FilterField, FilterSpec},
    index::StoredGroup,
    pages::{AllPage, AllQuery, MAX_PAGE_EVENTS, StreamPage, StreamQuery, StreamRead},
    requests::{
        Append, Deletion, ExpectedRevision, GroupKey, GroupWrite, WriteOutcome, WriteRequest,
    },
    stream_acl::{Right, StreamAcl},
};
use crate::log::{
    appender::Appender,
    chunk::CHUNK_BYTES,
    chunked_log::ChunkedLog,
    compaction::{Liveness, compact_chunk},
    folder_lock::FolderLock,
    index_buffer::{INDEX_BUFFER_LIMITS, IndexBuffer},
    indexer::Indexer,
    json_file::{read_json, replace_json},
    pages::{is_visible_to_reader, read_all, read_stream, resolve_link},
    read_pool::ReadPool,
    read_view::ReadView,
    recovery::{Recovered, recover_store},
    tail_cache::TailCache,
    writer::{Announcements, MAX_WAITING_WRITES, QueuedWrite, Writer, WriterMessage},
    writer_cache::WriterCache,
};
pub use crate::log::{
    store_copy::{
        BackupSummary, CopiedBytes, CopyError, LostRange, LostRevisions, RestoreSummary,
        SalvageSummary, backup_store, backup_to_stream, restore_from_stream, restore_store,
        salvage_store,
    },
    verify::{VerifyError, VerifySummary, verify_store},
};

/// Maximum number of events taken from the tail cache at once.
const MAX_RECENT_EVENTS: usize = 1_024;

/// The open log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    requests: mpsc::Sender<WriterMessage>,
    read_pool: ReadPool,
    log: ChunkedLog,
    index_buffer: Arc<IndexBuffer>,
    tail_cache: Arc<TailCache>,
    head: watch::Receiver<u64>,
    failure: watch::Receiver<Option<LogError>>,
    clock: Clock,
    /// Writer thread and folder lock, taken by [`Log::close`].
    running: Mutex<Option<(JoinHandle<()>, FolderLock)>>,
}

/// File that stores the checkpoint of the running scavenge.
const SCAVENGE_FILE: &str = "scavenge.json";

/// Distance beyond the end of `$all` at which a reader's start is logged as suspicious. After a
/// restore, readers may be slightly ahead of the store. Positions of an EventStoreDB count bytes
/// and are far ahead.
const MAX_START_BEYOND_END: u64 = 100_000;

impl Log {
    /// Opens the store in `folder` and locks the folder against other processes. Creates the store
    /// if the folder is empty. A folder with store files but no log is refused unless `allow_empty`
    /// is set.
    pub(crate) fn open(folder: &Path, clock: Clock, allow_empty: bool) -> Result<Self, OpenError> {
        let limits = INDEX_BUFFER_LIMITS;
        // Lock before recovery: recovery truncates the log, which must not happen under another
        // process.
        let folder_lock = FolderLock::acquire(folder)?;
        let Recovered { log, index, unindexed } =
            recover_store(folder, &clock, limits, allow_empty)?;
        let index = Arc::new(index);
        // The first reader finds the unindexed tail in the active memtable and need not wait for
        // the indexer.
        let index_buffer = Arc::new(IndexBuffer::new(unindexed, limits));
        let read_pool = ReadPool::new(Arc::clone(&index), log.clone(), Arc::clone(&index_buffer));
        let tail_cache = Arc::new(TailCache::default());
        // `Writer::start` sets the head before it returns, so no user of the open log sees 0.
        let (announced, head) = watch::channel(0);
        let (failed, failure) = watch::channel(None);
        let writer = Writer {
            appender: Appender::new(log.clone(), CHUNK_BYTES),
            index: Arc::clone(&index),
            index_buffer: Arc::clone(&index_buffer),
            indexer: Indexer::start(index, Arc::clone(&index_buffer))?,
            cache: WriterCache::default(),
            clock: clock.clone(),
            announcements: Announcements {
                tail_cache: Arc::clone(&tail_cache),
                head: announced,
                failure: failed,
            },
        };
        let (requests, inbox) = mpsc::channel(MAX_WAITING_WRITES);
        let thread = writer
            .start(inbox)
            .map_err(|source| OpenError::Log { folder: folder.to_owned(), source })?;
        let running = Mutex::new(Some((thread, folder_lock)));
        let shared = Shared {
            requests,
            read_pool,
            log,
            index_buffer,
            tail_cache,
            head,
            failure,
            clock,
            running,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Queues the write and returns its outcome once it is durable.
    pub(crate) async fn write(&self, write: WriteRequest) -> Result<WriteOutcome, LogError> {
        let (reply, answer) = oneshot::channel();
        let request = WriterMessage::Write(QueuedWrite { write, reply });
        self.shared.requests.send(request).await.map_err(|_| LogError::Closed)?;
        // The write may be committed even if the caller stops waiting here.
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Appends a JSON event at any revision.
    pub(crate) async fn append_json_event(
        &self,
        stream: String,
        event_type: &str,
        data: impl Into<Bytes>,
    ) -> Result<WriteOutcome, LogError> {
        let events = vec![NewEvent::new(self.clock().new_id(), event_type, true, data)];
        let append = Append { stream, expected: ExpectedRevision::Any, events };
        self.write(WriteRequest::Append(append)).await
    }

    /// Closes the current chunk and returns the start offset of the next one. Earlier chunks
    /// receive no further appends.
    pub(crate) async fn begin_chunk(&self) -> Result<u64, LogError> {
        let (reply, answer) = oneshot::channel();
        let request = WriterMessage::BeginChunk(reply);
        self.shared.requests.send(request).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Returns the start offsets of the chunks that start within `range`.
    pub(crate) fn chunk_starts(&self, range: Range<u64>) -> Vec<u64> {
        let chunks = self.shared.log.chunks();
        chunks
            .iter()
            .map(|chunk| chunk.start_offset())
            .filter(|start| range.contains(start))
            .collect()
    }

    /// Removes unreachable entries from the chunk that starts at `start`. `throttle` receives the
    /// number of bytes read and stops the compaction by returning an error.
    pub(crate) async fn compact_chunk(
        &self,
        start: u64,
        throttle: impl FnMut(u64) -> Result<(), LogError> + Send + 'static,
    ) -> Result<CompactionSummary, LogError> {
        let now_ticks = self.now_ticks();
        let compact = move |view: &ReadView<'_>| {
            // Groups in the memtables are not visible to `index.groups()`. A stale list would let
            // the scavenge drop a group's newest record.
            view.index_buffer.flush_and_wait()?;
            let liveness = Liveness { view: *view, groups: view.index.groups(), now_ticks };
            compact_chunk(&liveness, start, throttle)
        };
        self.shared.read_pool.read(compact).await
    }

    /// Rebuilds the index from the log, without the entries that a scavenge removed.
    pub(crate) async fn rebuild_index(&self) -> Result<(), LogError> {
        self.shared.read_pool.read(|view| view.index.rebuild_after_scavenge()).await
    }

    /// Reads the checkpoint of a scavenge that the last run did not finish.
    pub(crate) async fn read_scavenge_checkpoint(
        &self,
    ) -> Result<Option<ScavengeCheckpoint>, LogError> {
        let read = |view: &ReadView<'_>| {
            read_json(view.log.folder().as_ref(), SCAVENGE_FILE).map_err(LogError::from_io)
        };
        self.shared.read_pool.read(read).await
    }

    /// Stores the checkpoint of the running scavenge durably; `None` removes it.
    pub(crate) async fn save_scavenge_checkpoint(
        &self,
        checkpoint: Option<ScavengeCheckpoint>,
    ) -> Result<(), LogError> {
        let save = move |view: &ReadView<'_>| {
            let folder = view.log.folder().as_ref();
            match checkpoint {
                Some(checkpoint) => replace_json(folder, SCAVENGE_FILE, &checkpoint),
                // Without the fsync, a power loss brings the file back, and the next start resumes
                // a scavenge that has ended.
                None => folder.remove_file(SCAVENGE_FILE).and_then(|()| folder.sync_names()),
            }
            .map_err(LogError::from_io)
        };
        self.shared.read_pool.read(save).await
    }

    /// Commits all queued writes and closes the store. Further calls do nothing.
    pub(crate) async fn close(&self) {
        // The message queues behind all earlier writes, so they are committed first. Sending fails
        // if the writer thread has ended already.
        drop(self.shared.requests.send(WriterMessage::Close).await);
        // Wait for reads before the lock is released: a compaction on a blocking thread still
        // writes files in the folder.
        self.shared.read_pool.close().await;
        let running = lock(&self.shared.running).take();
        let Some((thread, folder_lock)) = running else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("Writer thread panicked");
        }
        // Release the folder last. A process that opens the store now finds no writer thread.
        drop(folder_lock);
    }

    /// Resolves when the writer thread has ended.
    pub(crate) async fn wait_closed(&self) {
        // The receiver closes when the writer thread takes no more messages. A panic of the thread
        // drops it, with the same effect.
        self.shared.requests.closed().await;
    }

    /// Returns the position of the last committed event.
    pub(crate) fn head(&self) -> u64 {
        *self.shared.head.borrow()
    }

    /// Logs a warning if a reader of `$all` starts far beyond the end and will receive nothing for
    /// long.
    pub(crate) fn warn_if_far_beyond_end(&self, position: u64, reader: &str) {
        let end = self.head();
        if is_far_beyond(position, end) {
            tracing::warn!(
                position,
                end,
                reader,
                "Reader of $all starts far beyond the end and receives nothing until the store has \
                 grown past its position: check whether the position is from another store"
            );
        }
    }

    /// Returns a receiver that follows [`Log::head`].
    pub(crate) fn watch_head(&self) -> watch::Receiver<u64> {
        self.shared.head.clone()
    }

    /// Returns a receiver with the error that blocks all appends until the disk recovers or the
    /// store is reopened. `None` while appends are accepted.
    pub(crate) fn watch_failure(&self) -> watch::Receiver<Option<LogError>> {
        self.shared.failure.clone()
    }

    /// Returns the current time in 100 ns ticks since the Unix epoch.
    pub(crate) fn now_ticks(&self) -> i64 {
        // A tick is 100 ns, so a microsecond has 10.
        self.shared.clock.now().as_microsecond().saturating_mul(10)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) async fn read_stream(&self, query: StreamQuery) -> Result<StreamRead, LogError> {
        self.shared.read_pool.read(move |view| read_stream(view, &query)).await
    }

    /// Reads the page with the newest event of a stream.
    pub(crate) async fn read_newest_event(&self, stream: &str) -> Result<StreamRead, LogError> {
        let query = StreamQuery {
            stream: stream.to_owned(),
            direction: Direction::Backwards,
            from: u64::MAX,
            limit: 1,
            now_ticks: self.now_ticks(),
        };
        self.read_stream(query).await
    }

    pub(crate) async fn read_all(&self, query: AllQuery) -> Result<AllPage, LogError> {
        self.shared.read_pool.read(move |view| read_all(view, &query)).await
    }

    pub(crate) async fn read_groups(&self) -> Result<Vec<StoredGroup>, LogError> {
        let index_buffer = Arc::clone(&self.shared.index_buffer);
        let read = move |view: &ReadView<'_>| {
            // Without this flush, groups saved since the last one would be missing from the answer.
            index_buffer.flush_and_wait()?;
            Ok(view.index.groups())
        };
        self.shared.read_pool.read(read).await
    }

    /// Resolves the links among `events` to their target events, if `resolve_links` is set.
    pub(crate) async fn resolve_events(
        &self,
        events: Vec<Arc<Event>>,
        resolve_links: bool,
    ) -> Result<Vec<ResolvedEvent>, LogError> {
        // Most events are not links. They need no turn in the read pool.
        if !resolve_links || events.iter().all(|event| event.link_target().is_none()) {
            return Ok(events.into_iter().map(ResolvedEvent::without_link).collect());
        }
        let now_ticks = self.now_ticks();
        let resolve_all = move |view: &ReadView<'_>| {
            events.into_iter().map(|event| resolve_link(view, event, now_ticks)).collect()
        };
        self.shared.read_pool.read(resolve_all).await
    }

    /// Returns a page of `$all` from the tail cache; `None` if the cache does not reach back to
    /// `from`.
    fn read_recent_page(
        &self,
        from: u64,
        limit: usize,
        filter: Option<&Filter>,
    ) -> Option<AllPage> {
        let committed = self.shared.tail_cache.events_after(from, MAX_RECENT_EVENTS)?;
        let mut page = AllPage { events: Vec::new(), scanned_to: from, at_end: true };
        for event in committed {
            // Check before the event counts as scanned: the next page must start with it.
            if page.events.len() == limit {
                page.at_end = false;
                break;
            }
            page.scanned_to = event.position;
            if is_visible_to_reader(&event.stream, &event.event_type, filter) {
                page.events.push(event);
            }
        }
        Some(page)
    }
}

fn is_far_beyond(position: u64, end: u64) -> bool {
    position.saturating_sub(end) > MAX_START_BEYOND_END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positions_far_beyond_the_end_warn() {
        let far = 7 + MAX_START_BEYOND_END;
        assert_eq!(
            [3, 7, far, far + 1].map(|at| is_far_beyond(at, 7)),
            [false, false, false, true]
        );
    }
}
