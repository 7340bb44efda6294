//! A feed of all orders' events for one reader, from the position where it stopped or from now on.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::event_log::EventLog;
use super::live_events::FeedRegistration;
use crate::store::client::Position;
use crate::store::error::LogError;
use crate::store::logged_event::LoggedEvent;
use crate::store::subscription::{Subscription, SubscriptionItem};

/// One item of a feed.
#[derive(Debug)]
pub enum FeedItem {
    Event(Arc<LoggedEvent>),
    /// The feed has failed; no more events will be sent.
    Reset(ResetReason),
}

/// Why a feed has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The reader was slower than the events are kept. It may resume where it stopped.
    TooSlow,
    /// The log ends before the reader's position: it is another log, or was restored from a backup.
    UnknownPosition,
}

/// The events of all orders, each once and in the log's order.
pub struct OrderFeed {
    log: EventLog,
    source: Source,
    /// Position of the last event that the reader has received: live events may be behind it, and
    /// repeat events.
    last: Option<Position>,
    _registration: FeedRegistration,
}

/// Where the feed reads from: first the store, then the live events.
enum Source {
    /// The store, while the reader catches up.
    Past(Subscription),
    /// The store up to a position; the live events behind it are already being received.
    Overlap {
        past: Subscription,
        until: Position,
        live: LiveReceiver,
    },
    Live(LiveReceiver),
    Ended(Option<ResetReason>),
}

type LiveReceiver = broadcast::Receiver<Arc<LoggedEvent>>;

impl EventLog {
    /// Opens a feed of the events behind a position, or from now on. Waits until this process follows
    /// the log.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the end of the log cannot be read.
    pub async fn open_feed(&self, after: Option<Position>) -> Result<OrderFeed, LogError> {
        // First: while it exists, this process does not stop to follow the log.
        let registration = FeedRegistration::new(Arc::clone(&self.live_events));
        let source = match after {
            None => {
                self.live_events.wait_until_following().await;
                Source::Live(self.live_events.receive())
            }
            Some(after) if self.store.head().await?.is_none_or(|head| head < after) => {
                Source::Ended(Some(ResetReason::UnknownPosition))
            }
            Some(after) => Source::Past(self.store.subscribe(Some(after))),
        };
        Ok(OrderFeed { log: self.clone(), source, last: after, _registration: registration })
    }
}

impl OrderFeed {
    /// Returns the next item. Waits for it. `None` after the end, also when the process stops.
    pub async fn next(&mut self) -> Option<FeedItem> {
        let stopped = self.log.live_events.stopped().clone();
        let next = stopped.run_until_cancelled(self.read_next()).await;
        next.unwrap_or_else(|| {
            self.source = Source::Ended(None);
            None
        })
    }

    async fn read_next(&mut self) -> Option<FeedItem> {
        loop {
            let event = match &mut self.source {
                Source::Past(past) => match past.next().await {
                    SubscriptionItem::Event(event) => Arc::new(event),
                    SubscriptionItem::Checkpoint(_) | SubscriptionItem::Deleted { .. } => continue,
                    SubscriptionItem::CaughtUp => {
                        self.begin_overlap();
                        continue;
                    }
                },
                Source::Overlap { past, until, .. } => {
                    let (event, position) = match past.next().await {
                        SubscriptionItem::Event(event) => (Some(event.clone()), event.position),
                        SubscriptionItem::Checkpoint(position)
                        | SubscriptionItem::Deleted { position, .. } => (None, position),
                        SubscriptionItem::CaughtUp => continue,
                    };
                    // The store was read up to where the live events begin.
                    if position >= *until {
                        self.switch_to_live();
                    }
                    let Some(event) = event else { continue };
                    Arc::new(event)
                }
                Source::Live(live) => match live.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => {
                        self.source = Source::Ended(None);
                        return Some(FeedItem::Reset(ResetReason::TooSlow));
                    }
                    // Cannot happen: the feed's log owns the sender.
                    Err(RecvError::Closed) => return None,
                },
                Source::Ended(reason) => return reason.take().map(FeedItem::Reset),
            };
            // During the overlap both sources return the same events.
            if Some(event.position) > self.last {
                self.last = Some(event.position);
                return Some(FeedItem::Event(event));
            }
        }
    }

    /// Begins to receive live events, if they are being delivered. The store is still read up to
    /// where the live events begin: without the overlap, events in between would be lost.
    fn begin_overlap(&mut self) {
        let Some((until, live)) = self.log.live_events.receive_from_position() else { return };
        if let Source::Past(past) = std::mem::replace(&mut self.source, Source::Ended(None)) {
            self.source = Source::Overlap { past, until, live };
        }
    }

    fn switch_to_live(&mut self) {
        if let Source::Overlap { live, .. } =
            std::mem::replace(&mut self.source, Source::Ended(None))
        {
            self.source = Source::Live(live);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::ids::OrderId;
    use testkit::store::Store;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::store::client::EventStoreConfig;
    use crate::store::metadata::Producer;

    /// Maximum duration of any wait. Reached only when something is broken.
    const TEST_TIMEOUT: Duration = Duration::from_secs(30);

    /// Returns the next event; fails if the feed has ended.
    async fn next_event(feed: &mut OrderFeed) -> Arc<LoggedEvent> {
        match timeout(TEST_TIMEOUT, feed.next()).await.unwrap() {
            Some(FeedItem::Event(event)) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    #[tokio::test]
    async fn live_events_that_are_behind_repeat_no_event() {
        let store = Store::start().await;
        let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
        let config = EventStoreConfig { url: store.url().parse().unwrap() };
        let log = EventLog::connect(&config, producer, "test").unwrap();
        store.place(1).await;
        let history = log.read_history(OrderId(Uuid::from_u128(1))).await.unwrap();
        let first = history[0].position;

        // The live events are at the first event, while the feed reads all four of the order.
        log.live_events.begin(Some(first));
        let mut feed = log.open_feed(Some(first)).await.unwrap();
        for event in &history[1..] {
            assert_eq!(next_event(&mut feed).await.event_id, event.event_id);
        }
        while !matches!(feed.source, Source::Overlap { .. }) {
            // Only `CaughtUp` arrives, which is not returned.
            let waiting = timeout(Duration::from_millis(10), feed.next()).await;
            assert!(waiting.is_err(), "{waiting:?}");
        }
        for event in &history[1..] {
            log.live_events.deliver(SubscriptionItem::Event(event.clone()));
        }
        store.place(2).await;
        let second = log.read_history(OrderId(Uuid::from_u128(2))).await.unwrap();
        for event in &second {
            log.live_events.deliver(SubscriptionItem::Event(event.clone()));
        }
        for event in &second {
            assert_eq!(next_event(&mut feed).await.event_id, event.event_id);
        }
    }
}
