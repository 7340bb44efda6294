//! Histories of orders, read portion by portion with limits, and from a kept state if possible.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec::IntoIter;

use domain::ids::OrderId;
use domain::order::{Order, evolve};
use event_log::{
    ChainCheck, ChainLink, EventLog, HistoryReader as StreamReader, LogError, LoggedEvent,
};
use service_kit::mutex::lock;
use service_kit::problem::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use super::log_failed;

/// Maximum number of portions that are read and folded concurrently: the processor and the event store also
/// have to take new orders.
const MAX_READS: usize = 2;
/// Maximum number of concurrent requests, including those whose responses are being sent. Each holds a
/// portion or a page in memory.
const MAX_REQUESTS: usize = 16;
/// Maximum time that a request waits for a permit.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Number of events between two kept states.
const CHECKPOINT_EVENTS: u64 = 1_000;
/// Approximate maximum size of all kept states, in bytes. Beyond it, all are dropped.
const CHECKPOINTS_BYTES: usize = 16 * 1024 * 1024;
/// Approximate size of a state without the texts of its items, in bytes.
const STATE_BYTES: usize = 1_024;
/// Number of events that are folded before the task yields to other requests of the thread.
const EVENTS_WITHOUT_BREAK: u64 = 32;

/// Makes readers of one event store. Clones share limits and kept states.
#[derive(Clone)]
pub(super) struct HistoryReaders {
    log: EventLog,
    requests: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    checkpoints: Arc<Mutex<Checkpoints>>,
}

/// States of orders by revision, so that a page of a long history does not start at its first event.
#[derive(Default)]
struct Checkpoints {
    states: BTreeMap<(OrderId, u64), Checkpoint>,
    n_bytes: usize,
}

/// A kept state of an order. If the stream has another event at that revision, the state is invalid.
#[derive(Clone)]
struct Checkpoint {
    event_id: Uuid,
    state: Arc<Order>,
    /// Whether the hash chain has begun at that revision or before.
    is_chained: bool,
}

impl HistoryReaders {
    pub(super) fn new(log: EventLog) -> Self {
        Self {
            log,
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            checkpoints: Arc::default(),
        }
    }

    /// Waits for the permit to read a history. Requests hold it until the response is sent.
    pub(super) async fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        acquire(&self.requests).await
    }

    /// Reads the revision of an order's newest event.
    pub(super) async fn newest_revision(&self, order_id: OrderId) -> Result<u64, Problem> {
        let newest = self.log.newest_revision(order_id).await.map_err(log_failed)?;
        newest.ok_or_else(|| Problem::order_not_found(order_id))
    }

    /// Returns a reader of an order's events from `revision` on, with the state before it.
    pub(super) async fn begin(
        &self,
        order_id: OrderId,
        revision: u64,
    ) -> Result<HistoryReader, Problem> {
        let mut reader = self.begin_first(order_id);
        reader.skip_to(revision).await?;
        Ok(reader)
    }

    /// Returns a reader that starts at the first event that the store has.
    pub(super) fn begin_first(&self, order_id: OrderId) -> HistoryReader {
        HistoryReader {
            readers: self.clone(),
            order_id,
            reader: self.log.read_history_from(order_id, 0),
            portion: Vec::new().into_iter().peekable(),
            reading: None,
            state: None,
            chain: ChainCheck::begin(),
            last: None,
            unreadable: None,
            n_taken: 0,
        }
    }

    /// Returns the newest kept state up to a revision.
    fn nearest(&self, order_id: OrderId, revision: u64) -> Option<(u64, Checkpoint)> {
        let kept = lock(&self.checkpoints);
        let mut states = kept.states.range((order_id, 0)..=(order_id, revision));
        states.next_back().map(|((_, revision), checkpoint)| (*revision, checkpoint.clone()))
    }

    fn keep(&self, order_id: OrderId, revision: u64, checkpoint: Checkpoint) {
        let mut kept = lock(&self.checkpoints);
        let key = (order_id, revision);
        if kept.states.contains_key(&key) {
            return;
        }
        let item_bytes = checkpoint.state.items.iter().map(|item| 32 + item.product_id.len());
        let n_bytes = STATE_BYTES + item_bytes.sum::<usize>();
        if kept.n_bytes + n_bytes > CHECKPOINTS_BYTES {
            *kept = Checkpoints::default();
        }
        kept.n_bytes += n_bytes;
        kept.states.insert(key, checkpoint);
    }

    fn forget(&self, order_id: OrderId, revision: u64) {
        // `n_bytes` stays: it is an upper bound.
        lock(&self.checkpoints).states.remove(&(order_id, revision));
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    match timeout(MAX_WAIT, Arc::clone(semaphore).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        // The semaphore is never closed.
        Ok(Err(_)) | Err(_) => Err(Problem::overloaded("Too many histories are read: try again")),
    }
}

/// Reads an order's events one by one, with the state after each.
pub(super) struct HistoryReader {
    readers: HistoryReaders,
    order_id: OrderId,
    reader: StreamReader,
    portion: Peekable<IntoIter<LoggedEvent>>,
    /// Permit under which the portion was read and is folded.
    reading: Option<OwnedSemaphorePermit>,
    state: Option<Order>,
    /// Check of the hash chain up to the last applied event.
    chain: ChainCheck,
    /// Revision of the last applied event.
    last: Option<u64>,
    /// Error of the last event that could not be decoded.
    unreadable: Option<LogError>,
    n_taken: u64,
}

/// An event that was applied.
pub(super) struct Applied {
    pub(super) event: LoggedEvent,
    /// How the event is linked to the event before it.
    pub(super) link: ChainLink,
}

impl HistoryReader {
    /// Returns the state after the last applied event that could be decoded.
    pub(super) fn state(&self) -> Option<&Order> {
        self.state.as_ref()
    }

    /// Returns the revision of the last applied event.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Returns the next event without applying it; `None` at the end.
    pub(super) async fn peek(&mut self) -> Result<Option<&LoggedEvent>, Problem> {
        while self.portion.peek().is_none() {
            // The permit is released between portions: a long history does not block short ones.
            self.reading = None;
            self.reading = Some(acquire(&self.readers.reads).await?);
            let Some(events) = self.reader.next().await.map_err(log_failed)? else {
                self.reading = None;
                return Ok(None);
            };
            self.portion = events.into_iter().peekable();
        }
        Ok(self.portion.peek())
    }

    /// Applies the next event, and returns it. An event that cannot be decoded changes nothing.
    pub(super) async fn apply(&mut self) -> Result<Option<Applied>, Problem> {
        let Some(event) = self.take().await? else { return Ok(None) };
        let link = self.chain.check_event(&event);
        self.fold(&event);
        Ok(Some(Applied { event, link }))
    }

    /// Applies the next event without a check of its link to the event before it.
    pub(super) async fn skip(&mut self) -> Result<(), Problem> {
        if let Some(event) = self.take().await? {
            self.chain.skip_event(&event);
            self.fold(&event);
        }
        Ok(())
    }

    fn fold(&mut self, event: &LoggedEvent) {
        match event.decode() {
            Ok(recorded) => self.state = Some(evolve(self.state.take(), &recorded)),
            Err(error) => self.unreadable = Some(error),
        }
        self.last = Some(event.revision);
        if event.revision % CHECKPOINT_EVENTS == CHECKPOINT_EVENTS - 1
            && let Some(state) = &self.state
        {
            let (event_id, state) = (event.event_id, Arc::new(state.clone()));
            let checkpoint = Checkpoint { event_id, state, is_chained: self.chain.has_begun() };
            self.readers.keep(self.order_id, event.revision, checkpoint);
        }
    }

    /// Returns the state after the applied events.
    pub(super) async fn into_state(mut self) -> Result<Order, Problem> {
        match (self.state.take(), self.unreadable.take()) {
            (Some(order), _) => Ok(order),
            (None, Some(error)) => Err(log_failed(error)),
            (None, None) => Err(self.to_problem().await),
        }
    }

    /// Returns the error for an order without events: it never existed, or was deleted.
    pub(super) async fn to_problem(&self) -> Problem {
        match self.readers.log.refuse_deleted(self.order_id).await {
            Ok(()) => Problem::order_not_found(self.order_id),
            Err(error) => log_failed(error),
        }
    }

    async fn take(&mut self) -> Result<Option<LoggedEvent>, Problem> {
        self.n_taken += 1;
        if self.n_taken.is_multiple_of(EVENTS_WITHOUT_BREAK) {
            tokio::task::yield_now().await;
        }
        self.peek().await?;
        Ok(self.portion.next())
    }

    /// Applies all events before `revision`, starting from the newest kept state. Another request that folds
    /// the same history may keep a state meanwhile.
    async fn skip_to(&mut self, revision: u64) -> Result<(), Problem> {
        loop {
            if self.portion.peek().is_none()
                && let Some(before) = revision.checked_sub(1)
                && let Some((at, checkpoint)) = self.readers.nearest(self.order_id, before)
                && self.last < Some(at)
            {
                self.jump(at, checkpoint).await?;
            }
            if self.peek().await?.is_none_or(|event| event.revision >= revision) {
                return Ok(());
            }
            self.skip().await?;
        }
    }

    /// Continues from a kept state, if its event is still in the stream.
    async fn jump(&mut self, revision: u64, checkpoint: Checkpoint) -> Result<(), Problem> {
        self.reader = self.readers.log.read_history_from(self.order_id, revision);
        let event = self.take().await?;
        // The stream may have been truncated, or deleted and written again, since the state was kept.
        let is_kept_event = |event: &LoggedEvent| {
            event.revision == revision && event.event_id == checkpoint.event_id
        };
        if let Some(event) = event.filter(is_kept_event) {
            self.chain = ChainCheck::resume(&event, checkpoint.is_chained);
            self.state = Some(Arc::unwrap_or_clone(checkpoint.state));
            self.last = Some(revision);
        } else {
            self.readers.forget(self.order_id, revision);
            let next = self.last.map_or(0, |revision| revision + 1);
            self.reader = self.readers.log.read_history_from(self.order_id, next);
            self.portion = Vec::new().into_iter().peekable();
        }
        Ok(())
    }
}
