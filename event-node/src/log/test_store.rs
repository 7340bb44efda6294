//! A store without background threads, for tests that decide when the index is flushed.

use std::sync::Arc;

use service_kit::clock::Clock;
use uuid::Uuid;

use crate::log::{
    appender::Appender,
    chunked_log::ChunkedLog,
    commit_session::{CommitBatch, CommitSession},
    disk::Folder,
    error::LogError,
    index::Index,
    index_buffer::{INDEX_BUFFER_LIMITS, IndexBuffer, IndexBufferLimits},
    read_view::ReadView,
    recovery::{Recovered, open_or_create, recover_log},
    requests::{WriteOutcome, WriteRequest},
    writer_cache::WriterCache,
};

pub(super) struct TestStore {
    pub log: ChunkedLog,
    pub index: Index,
    index_buffer: IndexBuffer,
    pub cache: WriterCache,
    pub clock: Clock,
    pub appender: Appender,
}

impl TestStore {
    /// Opens the store in `folder`, or creates it. Returns `None` if that fails.
    pub(super) fn open(folder: &Arc<dyn Folder>, chunk_bytes: u64) -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "tests create their own clock")]
        let clock = Clock::new(jiff::Timestamp::now, Uuid::new_v4);
        let log = open_or_create(Arc::clone(folder), &clock, false).ok()?;
        let Recovered { log, index, unindexed } =
            recover_log(folder, log, INDEX_BUFFER_LIMITS).ok()?;
        let limits = IndexBufferLimits { freeze_at_rows: 1, ..INDEX_BUFFER_LIMITS };
        let index_buffer = IndexBuffer::new(unindexed, limits);
        // No indexer thread is running; waiting for one would block for ever.
        index_buffer.close();
        let appender = Appender::new(log.clone(), chunk_bytes);
        Some(Self { log, index, index_buffer, cache: WriterCache::default(), clock, appender })
    }

    pub(super) fn read_view(&self) -> ReadView<'_> {
        let (index, index_buffer, log) = (&self.index, &self.index_buffer, &self.log);
        ReadView { index, index_buffer, log, staged: None }
    }

    /// Commits the writes together, as the writer thread does.
    pub(super) fn commit(
        &mut self,
        writes: &[WriteRequest],
    ) -> Result<Vec<WriteOutcome>, LogError> {
        let committed = self.try_commit(writes);
        if committed.is_err() {
            self.cache.clear();
        }
        committed
    }

    fn try_commit(&mut self, writes: &[WriteRequest]) -> Result<Vec<WriteOutcome>, LogError> {
        let (index, index_buffer, log) = (&self.index, &self.index_buffer, &self.log);
        let mut session = CommitSession {
            view: ReadView { index, index_buffer, log, staged: None },
            cache: &mut self.cache,
            clock: &self.clock,
            batch: CommitBatch::starting_at(index_buffer.progress()),
        };
        let outcomes =
            writes.iter().map(|write| session.apply_write(write)).collect::<Result<_, _>>()?;
        let CommitBatch { entries, table, .. } = session.batch;
        self.appender.append(entries.bytes())?;
        self.index_buffer.add_committed(table);
        Ok(outcomes)
    }

    /// Writes the frozen memtable to the index and merges due tables.
    pub(super) fn flush_index(&mut self) -> Result<(), LogError> {
        // The buffer is closed, so this returns at once. A frozen memtable is still handed out: the
        // real indexer too writes the last one at a stop.
        if let Some(table) = self.index_buffer.wait_for_frozen() {
            self.index.flush_memtable(&table)?;
            self.index_buffer.finish_flush(Ok(()));
        }
        while self.index.merge_due_tables(&mut |_, _| {})? {}
        Ok(())
    }
}
