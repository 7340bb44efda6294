//! Orders' events one by one for one reader, from where it stopped or from now on.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::client::{EventLog, Position};
use crate::error::LogError;
use crate::stream::LoggedEvent;
use crate::subscribe::{Feed, Subscription};
use crate::tail::Tail;

/// What a feed brings.
#[derive(Debug)]
pub enum Fed {
    Event(Arc<LoggedEvent>),
    /// There is no going on; nothing follows.
    Reset(ResetReason),
}

/// Why a feed cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The reader took longer than the events are kept. It may begin again where it stopped.
    TooSlow,
    /// The log does not reach the place where the reader stopped: it is another log, or was
    /// restored from a copy.
    UnknownPosition,
}

/// The events of all orders, each once and in the log's order.
pub struct OrderFeed {
    log: EventLog,
    source: Source,
    /// What the reader has had: the tail may be behind, and bring it again.
    last: Option<Position>,
    _listening: Listening,
}

/// Somebody who reads a feed.
struct Listening(Arc<Tail>);

impl Listening {
    fn new(tail: Arc<Tail>) -> Self {
        tail.state().n_feeds += 1;
        tail.wanted.notify_one();
        Self(tail)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.state().n_feeds -= 1;
    }
}

enum Source {
    /// From the store, while the reader has something to catch up on.
    Past(Subscription),
    /// From the store up to a position, and what comes behind it from the tail.
    Meeting {
        past: Subscription,
        until: Position,
        live: Live,
    },
    /// From the tail.
    Now(Live),
    Ended(Option<ResetReason>),
}

type Live = broadcast::Receiver<Arc<LoggedEvent>>;

impl EventLog {
    /// The events behind a position, or from now on. Waits until this process follows the log.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be asked for its end.
    pub async fn feed(&self, after: Option<Position>) -> Result<OrderFeed, LogError> {
        let listening = Listening::new(Arc::clone(&self.tail));
        let source = match after {
            None => {
                let mut following = self.tail.is_following.subscribe();
                // The sender is ours: it cannot be gone.
                drop(following.wait_for(|it| *it).await);
                Source::Now(self.tail.events.subscribe())
            }
            Some(after) if self.head().await?.is_none_or(|head| head < after) => {
                Source::Ended(Some(ResetReason::UnknownPosition))
            }
            Some(after) => Source::Past(self.subscribe(Some(after))),
        };
        Ok(OrderFeed { log: self.clone(), source, last: after, _listening: listening })
    }
}

impl OrderFeed {
    /// The next of the feed; `None` after its end, which comes when the process stops.
    pub async fn next(&mut self) -> Option<Fed> {
        let stopped = self.log.tail.stopped.clone();
        let next = stopped.run_until_cancelled(self.advance()).await;
        next.unwrap_or_else(|| {
            self.source = Source::Ended(None);
            None
        })
    }

    async fn advance(&mut self) -> Option<Fed> {
        loop {
            let event = match &mut self.source {
                Source::Past(past) => match past.next().await {
                    Feed::Event(event) => Arc::new(event),
                    Feed::Checkpoint(_) | Feed::Deleted { .. } => continue,
                    Feed::CaughtUp => {
                        self.meet();
                        continue;
                    }
                },
                Source::Meeting { past, until, .. } => {
                    let (event, position) = match past.next().await {
                        Feed::Event(event) => (Some(event.clone()), event.position),
                        Feed::Checkpoint(position) | Feed::Deleted { position, .. } => {
                            (None, position)
                        }
                        Feed::CaughtUp => continue,
                    };
                    if position >= *until {
                        self.switch();
                    }
                    let Some(event) = event else { continue };
                    Arc::new(event)
                }
                Source::Now(live) => match live.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => {
                        self.source = Source::Ended(None);
                        return Some(Fed::Reset(ResetReason::TooSlow));
                    }
                    Err(RecvError::Closed) => return None,
                },
                Source::Ended(reason) => return reason.take().map(Fed::Reset),
            };
            if Some(event.position) > self.last {
                self.last = Some(event.position);
                return Some(Fed::Event(event));
            }
        }
    }

    /// Begins to listen to the tail, if there is one, while the store is read up to where the tail
    /// is.
    fn meet(&mut self) {
        let state = self.log.tail.state();
        let Some(until) = state.position else { return };
        let live = self.log.tail.events.subscribe();
        drop(state);
        if let Source::Past(past) = std::mem::replace(&mut self.source, Source::Ended(None)) {
            self.source = Source::Meeting { past, until, live };
        }
    }

    /// Leaves the store's past behind.
    fn switch(&mut self) {
        if let Source::Meeting { live, .. } =
            std::mem::replace(&mut self.source, Source::Ended(None))
        {
            self.source = Source::Now(live);
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
    use crate::client::EventStoreConfig;
    use crate::metadata::Producer;

    /// How long anything may take. Reached only when something is broken.
    const LONG: Duration = Duration::from_secs(30);

    /// The next event; fails if the feed cannot go on.
    async fn next(feed: &mut OrderFeed) -> Arc<LoggedEvent> {
        match timeout(LONG, feed.next()).await.unwrap() {
            Some(Fed::Event(event)) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    #[tokio::test]
    async fn tail_that_is_behind_brings_nothing_again() {
        let store = Store::start().await;
        let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
        let config = EventStoreConfig { url: store.url().parse().unwrap() };
        let log = EventLog::connect(&config, producer, "test").unwrap();
        store.place(1).await;
        let history = log.history(OrderId(Uuid::from_u128(1))).await.unwrap();
        let first = history[0].position;

        // The tail has had the first event only, while the feed reads all four of the order.
        log.tail.begin(Some(first));
        let mut feed = log.feed(Some(first)).await.unwrap();
        for event in &history[1..] {
            assert_eq!(next(&mut feed).await.event_id, event.event_id);
        }
        while !matches!(feed.source, Source::Meeting { .. }) {
            // Nothing comes but the end of the past.
            let waiting = timeout(Duration::from_millis(10), feed.next()).await;
            assert!(waiting.is_err(), "{waiting:?}");
        }
        for event in &history[1..] {
            log.tail.take(Feed::Event(event.clone()));
        }
        store.place(2).await;
        let second = log.history(OrderId(Uuid::from_u128(2))).await.unwrap();
        for event in &second {
            log.tail.take(Feed::Event(event.clone()));
        }
        for event in &second {
            assert_eq!(next(&mut feed).await.event_id, event.event_id);
        }
    }
}
