//! The durable log: one writer, many readers, positions in the order of commits.
//!
//! All that is stored is in the chunks of the log (`file`, `chunk`, `entry`). An index says where what
//! stands in it (`index`, and in memory what that does not know yet: `pending`); `view` looks at
//! all of them as one.
//!
//! **Invariant:** positions in `$all` start at 1 and follow one another in the order of commits. Only a
//! scavenge or a salvage leaves gaps, and never at the end: no position is used twice.
//!
//! **Invariant:** the index derives from the log. Nothing is answered because of the index alone,
//! and nothing is lost with it.

mod appender;
mod cache;
mod chunk;
mod chunk_writer;
mod codec;
mod compact;
mod copies;
#[cfg(test)]
mod crash_states;
mod disk;
mod entry;
mod error;
mod event;
mod file;
mod filter;
mod folder_lock;
mod follow;
mod index;
mod indexer;
mod json_file;
mod memory;
mod memtable;
mod merger;
mod metadata;
mod pending;
mod read;
mod readers;
mod recent;
mod recover;
mod scanner;
mod session;
#[cfg(test)]
mod session_properties;
mod sorted_table;
mod verify;
mod view;
mod write;
mod writer;

use std::{
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use service_kit::clock::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::log::{
    chunk::CHUNK_BYTES,
    compact::{Liveness, compact},
    file::LogFile,
    folder_lock::FolderLock,
    indexer::Indexer,
    json_file::{read_json, replace_json},
    memory::Memory,
    pending::{BOUNDS, Bounds, Pending},
    read::{is_link, is_shown, read_all, read_stream, resolve},
    readers::Readers,
    recent::Recent,
    recover::{Recovered, recover},
    view::View,
    writer::{Announcements, MAX_WAITING_WRITES, Message, Request, Writer},
};
pub(crate) use crate::log::{
    compact::Compacted,
    error::{LogError, OpenError},
    event::{Event, NewEvent, Resolved, metastream_of},
    filter::{Filter, FilterError, FilterField, FilterSpec},
    follow::{Followed, FollowedPage, Follower, Source},
    index::StoredGroup,
    read::{AllPage, AllQuery, Direction, MAX_PAGE_EVENTS, StreamPage, StreamQuery, StreamRead},
    write::{Append, Expected, GroupKey, GroupWrite, Outcome, Removal, Write},
};
pub use crate::log::{
    copies::{
        BackedUp, CopiedBytes, CopyError, LostRange, LostRevisions, Restored, Salvaged, backup,
        backup_to_stream, restore, restore_from_stream, salvage,
    },
    verify::{Verified, VerifyError, verify},
};
use crate::scavenge::{Pace, ScavengePlace};

/// Events of the recent window that one look at it takes.
const MAX_RECENT_LOOKS: usize = 1_024;

/// The open log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    requests: mpsc::Sender<Message>,
    readers: Readers,
    log: LogFile,
    pending: Arc<Pending>,
    recent: Arc<Recent>,
    head: watch::Receiver<u64>,
    failure: watch::Receiver<Option<LogError>>,
    clock: Clock,
    /// What [`Log::close`] has to wait for and to release.
    open: Mutex<Option<(JoinHandle<()>, FolderLock)>>,
}

/// File that remembers the scavenge that is under way.
const SCAVENGE_FILE: &str = "scavenge.json";

/// How far beyond the end of `$all` a reader may start without a warning. A reader of a store that was
/// restored may be a little ahead of it; positions of an EventStoreDB, which count bytes, are far ahead.
const MAX_START_BEYOND_END: u64 = 100_000;

impl Log {
    /// Opens the store in `folder`, creating it if need be, and keeps other processes out of it.
    /// A folder that holds files of a store and no log is refused, unless `allow_empty`.
    pub(crate) fn open(folder: &Path, clock: Clock, allow_empty: bool) -> Result<Self, OpenError> {
        Self::open_within(folder, clock, BOUNDS, allow_empty)
    }

    fn open_within(
        folder: &Path,
        clock: Clock,
        bounds: Bounds,
        allow_empty: bool,
    ) -> Result<Self, OpenError> {
        let lock = FolderLock::take(folder)?;
        let Recovered { log, index, behind } = recover(folder, &clock, bounds, allow_empty)?;
        let index = Arc::new(index);
        let pending = Arc::new(Pending::new(behind, bounds));
        let readers = Readers::new(Arc::clone(&index), log.clone(), Arc::clone(&pending));
        let recent = Arc::new(Recent::default());
        let (announced, head) = watch::channel(0);
        let (failed, failure) = watch::channel(None);
        let writer = Writer {
            appender: log.appender(CHUNK_BYTES),
            index: Arc::clone(&index),
            pending: Arc::clone(&pending),
            indexer: Indexer::start(index, Arc::clone(&pending))?,
            memory: Memory::default(),
            clock: clock.clone(),
            announcements: Announcements {
                recent: Arc::clone(&recent),
                head: announced,
                failure: failed,
            },
        };
        let (requests, inbox) = mpsc::channel(MAX_WAITING_WRITES);
        let thread = writer
            .start(inbox)
            .map_err(|source| OpenError::Log { folder: folder.to_owned(), source })?;
        let open = Mutex::new(Some((thread, lock)));
        let shared = Shared { requests, readers, log, pending, recent, head, failure, clock, open };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Performs the write. The answer comes once it is durable.
    pub(crate) async fn write(&self, write: Write) -> Result<Outcome, LogError> {
        let (reply, answer) = oneshot::channel();
        let request = Message::Write(Request { write, reply });
        self.shared.requests.send(request).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Lets the chunk that is appended to end here. Returns where the next one begins: the chunks
    /// before it do not change any more.
    pub(crate) async fn begin_chunk(&self) -> Result<u64, LogError> {
        let (reply, answer) = oneshot::channel();
        let request = Message::BeginChunk(reply);
        self.shared.requests.send(request).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Where the chunks begin that begin within `range`.
    pub(crate) fn chunk_starts(&self, range: Range<u64>) -> Vec<u64> {
        let chunks = self.shared.log.chunks();
        chunks.iter().map(|chunk| chunk.start()).filter(|start| range.contains(start)).collect()
    }

    /// Removes from the chunk that begins at `start` what no reader can reach.
    pub(crate) async fn compact(&self, start: u64, mut pace: Pace) -> Result<Compacted, LogError> {
        let now_ticks = self.now_ticks();
        let compact = move |view: &View<'_>| {
            // Only the index knows which record about a group is its newest.
            view.pending.flush()?;
            let liveness = Liveness { view: *view, groups: view.index.groups(), now_ticks };
            compact(&liveness, start, |n_bytes| pace.take(n_bytes))
        };
        self.shared.readers.read(compact).await
    }

    /// Makes the index anew, without what a scavenge has removed from the log.
    pub(crate) async fn renew_index(&self) -> Result<(), LogError> {
        self.shared.readers.read(|view| view.index.renew()).await
    }

    /// The scavenge that the last run did not finish.
    pub(crate) async fn scavenge_place(&self) -> Result<Option<ScavengePlace>, LogError> {
        let read = |view: &View<'_>| {
            read_json(view.log.folder().as_ref(), SCAVENGE_FILE).map_err(LogError::disk)
        };
        self.shared.readers.read(read).await
    }

    /// Remembers the scavenge that is under way for the next start.
    pub(crate) async fn keep_scavenge_place(
        &self,
        place: Option<ScavengePlace>,
    ) -> Result<(), LogError> {
        let keep = move |view: &View<'_>| {
            let folder = view.log.folder().as_ref();
            match place {
                Some(place) => replace_json(folder, SCAVENGE_FILE, &place),
                None => folder.remove(SCAVENGE_FILE).and_then(|()| folder.sync()),
            }
            .map_err(LogError::disk)
        };
        self.shared.readers.read(keep).await
    }

    /// Finishes the writes that were asked for and closes the store. Asking again does nothing.
    pub(crate) async fn close(&self) {
        // The writer may be gone already.
        drop(self.shared.requests.send(Message::Close).await);
        self.shared.readers.close().await;
        let open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, lock)) = open else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the writer thread had panicked");
        }
        drop(lock);
    }

    /// Resolves when the writer has ended.
    pub(crate) async fn closed(&self) {
        self.shared.requests.closed().await;
    }

    /// Position of the last committed event.
    pub(crate) fn head(&self) -> u64 {
        *self.shared.head.borrow()
    }

    /// Warns of a reader of `$all` that starts far beyond the end, and so reads nothing for long.
    pub(crate) fn warn_of_far_start(&self, position: u64, reader: &str) {
        let end = self.head();
        if is_far_beyond(position, end) {
            tracing::warn!(
                position,
                end,
                reader,
                "Reader of $all starts far beyond the end and gets nothing until the store has grown \
                 past its position: check whether that is a position of another store"
            );
        }
    }

    /// Follows [`Log::head`].
    pub(crate) fn watch_head(&self) -> watch::Receiver<u64> {
        self.shared.head.clone()
    }

    /// Follows why nothing can be appended until the disk recovers or the store is opened again;
    /// `None` while appends are taken.
    pub(crate) fn watch_failure(&self) -> watch::Receiver<Option<LogError>> {
        self.shared.failure.clone()
    }

    /// The time in 100 ns ticks since the Unix epoch.
    pub(crate) fn now_ticks(&self) -> i64 {
        self.shared.clock.now().as_microsecond().saturating_mul(10)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) async fn read_stream(&self, query: StreamQuery) -> Result<StreamRead, LogError> {
        self.shared.readers.read(move |view| read_stream(view, &query)).await
    }

    pub(crate) async fn read_all(&self, query: AllQuery) -> Result<AllPage, LogError> {
        self.shared.readers.read(move |view| read_all(view, &query)).await
    }

    pub(crate) async fn read_groups(&self) -> Result<Vec<StoredGroup>, LogError> {
        let pending = Arc::clone(&self.shared.pending);
        let read = move |view: &View<'_>| {
            // Only the index knows what became of the writes about groups.
            pending.flush()?;
            Ok(view.index.groups())
        };
        self.shared.readers.read(read).await
    }

    /// Looks up what links among the events point to.
    pub(crate) async fn resolve(&self, events: Vec<Arc<Event>>) -> Result<Vec<Resolved>, LogError> {
        if !events.iter().any(|event| is_link(event)) {
            return Ok(events.into_iter().map(Resolved::plain).collect());
        }
        let now_ticks = self.now_ticks();
        let resolve_all = move |view: &View<'_>| {
            events.into_iter().map(|event| resolve(view, event, now_ticks)).collect()
        };
        self.shared.readers.read(resolve_all).await
    }

    /// A page of `$all` from memory, if the events behind `from` are there.
    fn recent_after(&self, from: u64, limit: usize, filter: Option<&Filter>) -> Option<AllPage> {
        let committed = self.shared.recent.after(from, MAX_RECENT_LOOKS)?;
        let mut page = AllPage { events: Vec::new(), looked_to: from, at_end: true };
        for event in committed {
            if page.events.len() == limit {
                page.at_end = false;
                break;
            }
            page.looked_to = event.position;
            if is_shown(&event.stream, &event.event_type, filter) {
                page.events.push(event);
            }
        }
        Some(page)
    }

    /// Events behind `position` from memory, if they are there.
    fn recent_events_after(&self, position: u64) -> Option<Vec<Arc<Event>>> {
        self.shared.recent.after(position, MAX_RECENT_LOOKS)
    }
}

fn is_far_beyond(position: u64, end: u64) -> bool {
    position.saturating_sub(end) > MAX_START_BEYOND_END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positions_far_beyond_the_end_are_warned_of() {
        let far = 7 + MAX_START_BEYOND_END;
        assert_eq!(
            [3, 7, far, far + 1].map(|at| is_far_beyond(at, 7)),
            [false, false, false, true]
        );
    }
}
