//! All orders' events, in the log's order, from a position that the reader keeps.

use std::sync::atomic::Ordering;

use domain::ids::{OrderId, STREAM_PREFIX};
use eventstore::{
    ReadAllOptions, RecordedEvent, StreamPosition, SubscribeToAllOptions, SubscriptionEvent,
    SubscriptionFilter,
};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::client::{EventLog, Position, backoff};
use crate::error::{LogError, is_consumer_too_slow};
use crate::history::{METASTREAM_PREFIX, deleted_order};
use crate::stream::LoggedEvent;
use crate::supervise::share_fate;

/// How many events may wait for the reader. Beyond it the store is not read, so a slow reader
/// costs no memory.
const FEED_BUFFER_EVENTS: usize = 256;
/// How often in a row a subscription that was too slow resumes at once though nothing came over it.
const MAX_QUIET_RESUMES: u32 = 3;

/// What a catch-up subscription brings.
#[derive(Debug)]
pub enum Feed {
    Event(LoggedEvent),
    /// The order's stream was deleted, tombstoned or not.
    Deleted {
        order_id: OrderId,
        position: Position,
    },
    /// Nothing that concerns orders up to here.
    Checkpoint(Position),
    /// What comes next is new.
    CaughtUp,
}

impl Feed {
    /// What an event of the store tells about an order, if it tells something.
    fn of(event: &RecordedEvent) -> Option<Self> {
        let deleted = deleted_order(event)
            .map(|order_id| Self::Deleted { order_id, position: event.position.into() });
        deleted.or_else(|| LoggedEvent::new(event).map(Self::Event))
    }

    /// When the event was recorded, if it is one.
    fn recorded_at(&self) -> Option<Timestamp> {
        match self {
            Self::Event(event) => Some(event.recorded_at()),
            Self::Deleted { .. } | Self::Checkpoint(_) | Self::CaughtUp => None,
        }
    }
}

/// A catch-up subscription to all orders' events. It outlives the connection: after a failure it
/// goes on behind the last position that it delivered. Dropping it ends it.
pub struct Subscription {
    feed: mpsc::Receiver<Feed>,
    pump: JoinSet<()>,
}

impl Subscription {
    /// The next of the feed; waits for it.
    ///
    /// # Panics
    /// If the task that reads the store has panicked.
    pub async fn next(&mut self) -> Feed {
        match self.feed.recv().await {
            Some(next) => next,
            None => share_fate(&mut self.pump).await,
        }
    }

    /// The next of the feed, if it is there.
    pub fn ready(&mut self) -> Option<Feed> {
        self.feed.try_recv().ok()
    }
}

/// Why a subscription ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store expects a new subscription from the last position, and no other connection.
    #[error("reader was slower than the store")]
    TooSlow(#[source] eventstore::Error),
}

impl Lost {
    fn log(&self) {
        let error = self as &dyn std::error::Error;
        match self {
            // An outage is told once, whoever notices it.
            Self::Log(outage) if outage.is_unavailable() => {
                tracing::debug!(error, "Catch-up subscription lost");
            }
            Self::Log(_) | Self::TooSlow(_) => {
                tracing::warn!(error, "Catch-up subscription lost");
            }
        }
    }
}

/// How far a reader is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Events and deletions of orders behind the reader's position, counted up to a limit.
    pub n_events: u64,
    /// When the first of them was recorded.
    pub oldest: Option<Timestamp>,
}

impl EventLog {
    /// Subscribes to the events of all orders behind a position, or from the beginning.
    pub fn subscribe(&self, after: Option<Position>) -> Subscription {
        let (sender, feed) = mpsc::channel(FEED_BUFFER_EVENTS);
        let mut pump = JoinSet::new();
        pump.spawn(keep_pumping(self.clone(), after, sender));
        Subscription { feed, pump }
    }

    /// How often the store switched a subscription of this process back to catching up, and the
    /// subscription resumed from its last position.
    pub fn n_subscription_resumes(&self) -> u64 {
        self.resumes.load(Ordering::Relaxed)
    }

    fn count_resume(&self) {
        self.resumes.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the id of the first event of any order; `None` if there is none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn first_event_id(&self) -> Result<Option<Uuid>, LogError> {
        let options = ReadAllOptions::default()
            .forwards()
            .position(StreamPosition::Start)
            .filter(orders_only())
            .max_count(usize::MAX);
        self.call(async |client| {
            let mut events = client.read_all(&options).await?;
            while let Some(event) = events.next().await? {
                if let Some(event) = LoggedEvent::of(&event) {
                    return Ok(Some(event.event_id));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Counts the orders' events and deletions behind a position, up to `limit`.
    pub async fn backlog(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Backlog, LogError> {
        let start = after.map_or(StreamPosition::Start, |it| StreamPosition::Position(it.into()));
        // Not limited by the store: it also counts what tells nothing about an order, such as the
        // event at the position, and metadata that does not delete its stream.
        let options = ReadAllOptions::default()
            .forwards()
            .position(start)
            .filter(orders_only())
            .max_count(usize::MAX);
        self.call(async |client| {
            let mut backlog = Backlog { n_events: 0, oldest: None };
            let mut events = client.read_all(&options).await?;
            while backlog.n_events < limit as u64
                && let Some(event) = events.next().await?
            {
                let event = event.get_original_event();
                if after.is_none_or(|it| Position::from(event.position) > it)
                    && let Some(feed) = Feed::of(event)
                {
                    backlog.n_events += 1;
                    backlog.oldest = backlog.oldest.or_else(|| feed.recorded_at());
                }
            }
            Ok(backlog)
        })
        .await
    }
}

fn orders_only() -> SubscriptionFilter {
    // The metadata of a stream says that it was deleted.
    SubscriptionFilter::on_stream_name()
        .add_prefix(STREAM_PREFIX)
        .add_prefix(format!("{METASTREAM_PREFIX}{STREAM_PREFIX}"))
}

/// Reads the store into the channel until the reader is gone, through any number of connections.
/// The client's subscription loses its place if a wait for it is abandoned, so it has a task of its
/// own.
async fn keep_pumping(log: EventLog, mut after: Option<Position>, feed: mpsc::Sender<Feed>) {
    let mut delays = backoff();
    let mut n_without_progress = 0;
    loop {
        let before = after;
        let Err(lost) = pump(&log, &mut after, &feed).await else { return };
        if after != before {
            delays = backoff();
            n_without_progress = 0;
        }
        if matches!(lost, Lost::TooSlow(_)) && n_without_progress < MAX_QUIET_RESUMES {
            // A store does this to every reader that is slower than its events for a moment.
            tracing::debug!("Catch-up subscription resumes from its last position");
            n_without_progress += 1;
            log.count_resume();
            continue;
        }
        lost.log();
        tokio::select! {
            () = feed.closed() => return,
            () = sleep(delays.next().unwrap_or_default()) => {}
        }
    }
}

/// Reads one subscription into the channel. `Ok`: the reader is gone.
async fn pump(
    log: &EventLog,
    after: &mut Option<Position>,
    feed: &mpsc::Sender<Feed>,
) -> Result<(), Lost> {
    let place = log.place_for_subscription()?;
    let session = place.session();
    let start = after.map_or(StreamPosition::Start, |it| StreamPosition::Position(it.into()));
    let options = SubscribeToAllOptions::default().position(start).filter(orders_only());
    let client = session.client();
    let mut subscription = client.subscribe_to_all(&options).await;
    loop {
        let next = tokio::select! {
            () = feed.closed() => return Ok(()),
            next = subscription.next_subscription_event() => next,
        };
        if next.is_ok() {
            session.sockets.note_life();
        }
        let next = match next {
            Ok(SubscriptionEvent::EventAppeared(event)) => {
                let event = event.get_original_event();
                *after = Some(event.position.into());
                // Another tool's stream may begin like an order's; it is none.
                Feed::of(event).unwrap_or_else(|| Feed::Checkpoint(event.position.into()))
            }
            Ok(SubscriptionEvent::Checkpoint(position)) => {
                // The end of the log, for a store that has nothing to report.
                if position.commit == u64::MAX || position.commit == 0 {
                    continue;
                }
                *after = Some(position.into());
                Feed::Checkpoint(position.into())
            }
            Ok(SubscriptionEvent::CaughtUp(_)) => Feed::CaughtUp,
            // The store reads again what it has written; it says so once more when it is done.
            Ok(SubscriptionEvent::FellBehind(_)) => {
                tracing::debug!("Catch-up subscription fell behind");
                continue;
            }
            Ok(SubscriptionEvent::Confirmed(_)) => {
                session.sockets.note_answer(Instant::now());
                log.note_reachable();
                continue;
            }
            Ok(
                SubscriptionEvent::FirstStreamPosition(_)
                | SubscriptionEvent::LastStreamPosition(_)
                | SubscriptionEvent::LastAllPosition(_),
            ) => continue,
            Err(error) if is_consumer_too_slow(&error) => return Err(Lost::TooSlow(error)),
            Err(error) => {
                log.note_failure(session, &error);
                log.note_unreachable(&error);
                return Err(LogError::from_client(error).into());
            }
        };
        if feed.send(next).await.is_err() {
            return Ok(());
        }
    }
}
