//! The catch-up subscription: all orders' events in the log's order, from a position that the reader
//! keeps.

use std::sync::atomic::Ordering;

use domain::ids::{OrderId, STREAM_PREFIX};
use eventstore::{RecordedEvent, SubscribeToAllOptions, SubscriptionEvent, SubscriptionFilter};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Position, StoreClient, backoff};
use super::error::{LogError, is_consumer_too_slow};
use super::logged_event::LoggedEvent;
use super::read::read_all_after;
use super::stream_metadata::{METASTREAM_PREFIX, deleted_order};
use super::task_panic::propagate_panic;
use crate::metrics::count_resume;

/// Capacity of the subscription buffer. While it is full the store is not read, so a slow reader
/// costs no memory.
const BUFFER_EVENTS: usize = 256;
/// Maximum number of immediate resumes in a row without progress, after the store ended a
/// subscription for slowness.
const MAX_IDLE_RESUMES: u32 = 3;

/// One item of a catch-up subscription.
#[derive(Debug)]
pub enum SubscriptionItem {
    Event(LoggedEvent),
    /// The order's stream was deleted, tombstoned or not.
    Deleted {
        order_id: OrderId,
        position: Position,
    },
    /// Every event of orders up to this position has been delivered.
    Checkpoint(Position),
    /// The events that follow are new.
    CaughtUp,
}

impl SubscriptionItem {
    /// Converts an event of the store; `None` if it does not concern an order.
    fn from_recorded(event: &RecordedEvent) -> Option<Self> {
        let deleted = deleted_order(event)
            .map(|order_id| Self::Deleted { order_id, position: event.position.into() });
        deleted.or_else(|| LoggedEvent::from_recorded(event).map(Self::Event))
    }

    /// Returns when the event was recorded; `None` if the item is no event.
    fn recorded_at(&self) -> Option<Timestamp> {
        match self {
            Self::Event(event) => Some(event.recorded_at()),
            Self::Deleted { .. } | Self::Checkpoint(_) | Self::CaughtUp => None,
        }
    }
}

/// A catch-up subscription to all orders' events. It outlives the connection: after a failure it
/// resumes behind the last position that it delivered. Dropping it ends it.
pub struct Subscription {
    items: mpsc::Receiver<SubscriptionItem>,
    reader: JoinSet<()>,
}

impl Subscription {
    /// Returns the next item. Waits for it.
    ///
    /// # Panics
    /// If the task that reads the store has panicked.
    pub async fn next(&mut self) -> SubscriptionItem {
        match self.items.recv().await {
            Some(next) => next,
            None => propagate_panic(&mut self.reader).await,
        }
    }

    /// Returns the next item if it has already arrived.
    pub fn try_next(&mut self) -> Option<SubscriptionItem> {
        self.items.try_recv().ok()
    }
}

/// Why a subscription was lost.
#[derive(Debug, thiserror::Error)]
enum SubscriptionLoss {
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store expects a new subscription from the last position, on the same connection.
    #[error("reader was slower than the store")]
    TooSlow(#[source] eventstore::Error),
}

impl SubscriptionLoss {
    fn log(&self) {
        let error = self as &dyn std::error::Error;
        match self {
            // The connection logs an outage once for all of its users.
            Self::Log(outage) if outage.is_unavailable() => {
                tracing::debug!(error, "Catch-up subscription lost");
            }
            Self::Log(_) | Self::TooSlow(_) => {
                tracing::warn!(error, "Catch-up subscription lost");
            }
        }
    }
}

/// How far a reader is behind the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Events and deletions of orders behind the reader's position, counted up to a limit.
    pub n_events: u64,
    /// When the first of them was recorded.
    pub oldest: Option<Timestamp>,
}

impl StoreClient {
    /// Subscribes to the events of all orders behind a position, or from the beginning.
    pub fn subscribe(&self, after: Option<Position>) -> Subscription {
        let (sender, items) = mpsc::channel(BUFFER_EVENTS);
        let mut reader = JoinSet::new();
        reader.spawn(keep_reading(self.clone(), after, sender));
        Subscription { items, reader }
    }

    /// Returns how often the store ended a subscription of this process for slowness, and the
    /// subscription resumed from its last position.
    pub fn n_subscription_resumes(&self) -> u64 {
        self.connection.n_resumes.load(Ordering::Relaxed)
    }

    /// Returns the id of the first event of any order; `None` if there is none.
    pub async fn first_event_id(&self) -> Result<Option<Uuid>, LogError> {
        let options = read_all_after(None).filter(orders_only());
        self.call(async |client| {
            let mut events = client.read_all(&options).await?;
            while let Some(event) = events.next().await? {
                if let Some(event) = LoggedEvent::from_resolved(&event) {
                    return Ok(Some(event.event_id));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Counts the orders' events and deletions behind a position, up to `limit`.
    pub async fn count_backlog(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Backlog, LogError> {
        // The limit is not passed to the store: it would also count events that do not concern
        // orders, such as the event at the position, and metadata that does not delete its stream.
        let options = read_all_after(after).filter(orders_only());
        self.call(async |client| {
            let mut backlog = Backlog { n_events: 0, oldest: None };
            let mut events = client.read_all(&options).await?;
            while backlog.n_events < limit as u64
                && let Some(event) = events.next().await?
            {
                let event = event.get_original_event();
                if after.is_none_or(|after| Position::from(event.position) > after)
                    && let Some(item) = SubscriptionItem::from_recorded(event)
                {
                    backlog.n_events += 1;
                    backlog.oldest = backlog.oldest.or_else(|| item.recorded_at());
                }
            }
            Ok(backlog)
        })
        .await
    }
}

fn orders_only() -> SubscriptionFilter {
    // Deletions of streams are recorded in the metadata streams.
    SubscriptionFilter::on_stream_name()
        .add_prefix(STREAM_PREFIX)
        .add_prefix(format!("{METASTREAM_PREFIX}{STREAM_PREFIX}"))
}

/// Reads the store into the channel until the reader is gone, through any number of connections.
/// This needs a task of its own: the client's subscription loses its place if a wait for it is
/// cancelled.
async fn keep_reading(
    client: StoreClient,
    mut after: Option<Position>,
    items: mpsc::Sender<SubscriptionItem>,
) {
    let mut delays = backoff();
    let mut n_without_progress = 0;
    loop {
        let before = after;
        let Err(loss) = read_subscription(&client, &mut after, &items).await else { return };
        if after != before {
            delays = backoff();
            n_without_progress = 0;
        }
        if matches!(loss, SubscriptionLoss::TooSlow(_)) && n_without_progress < MAX_IDLE_RESUMES {
            // Normal operation: a store does this to every reader that is slower than its events for
            // a moment.
            tracing::debug!("Catch-up subscription resumes from its last position");
            n_without_progress += 1;
            client.connection.n_resumes.fetch_add(1, Ordering::Relaxed);
            count_resume();
            continue;
        }
        loss.log();
        tokio::select! {
            () = items.closed() => return,
            () = sleep(delays.next().unwrap_or_default()) => {}
        }
    }
}

/// Reads one subscription into the channel. Returns `Ok` when the reader is gone.
async fn read_subscription(
    client: &StoreClient,
    after: &mut Option<Position>,
    items: &mpsc::Sender<SubscriptionItem>,
) -> Result<(), SubscriptionLoss> {
    let place = client.take_subscription_place()?;
    let session = place.session();
    let options =
        SubscribeToAllOptions::default().position(Position::to_start(*after)).filter(orders_only());
    let mut subscription = session.client().subscribe_to_all(&options).await;
    loop {
        let next = tokio::select! {
            () = items.closed() => return Ok(()),
            next = subscription.next_subscription_event() => next,
        };
        if next.is_ok() {
            session.sockets.note_life();
        }
        let item = match next {
            Ok(SubscriptionEvent::EventAppeared(event)) => {
                let event = event.get_original_event();
                // Before it is sent: sending fails only if the reader is gone.
                *after = Some(event.position.into());
                // A stream of another tool may have the prefix and not be an order's.
                SubscriptionItem::from_recorded(event)
                    .unwrap_or_else(|| SubscriptionItem::Checkpoint(event.position.into()))
            }
            Ok(SubscriptionEvent::Checkpoint(position)) => {
                // A store without events sends the end or the beginning of the log.
                if position.commit == u64::MAX || position.commit == 0 {
                    continue;
                }
                *after = Some(position.into());
                SubscriptionItem::Checkpoint(position.into())
            }
            Ok(SubscriptionEvent::CaughtUp(_)) => SubscriptionItem::CaughtUp,
            // The store reads from disk again, and sends another `CaughtUp` when it is done.
            Ok(SubscriptionEvent::FellBehind(_)) => {
                tracing::debug!("Catch-up subscription fell behind");
                continue;
            }
            Ok(SubscriptionEvent::Confirmed(_)) => {
                // `now`: the time until the confirmation says nothing about delayed acknowledgements.
                session.sockets.note_response(Instant::now());
                client.note_reachable();
                continue;
            }
            Ok(
                SubscriptionEvent::FirstStreamPosition(_)
                | SubscriptionEvent::LastStreamPosition(_)
                | SubscriptionEvent::LastAllPosition(_),
            ) => continue,
            Err(error) if is_consumer_too_slow(&error) => {
                return Err(SubscriptionLoss::TooSlow(error));
            }
            Err(error) => {
                client.note_failure(session, &error);
                client.note_unreachable(&error);
                return Err(LogError::from_client(error).into());
            }
        };
        if items.send(item).await.is_err() {
            return Ok(());
        }
    }
}
