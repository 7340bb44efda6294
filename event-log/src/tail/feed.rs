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
        Ok(OrderFeed { log: self.clone(), source, _listening: listening })
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
            match &mut self.source {
                Source::Past(past) => match past.next().await {
                    Feed::Event(event) => return Some(Fed::Event(Arc::new(event))),
                    Feed::Checkpoint(_) => {}
                    Feed::CaughtUp => self.meet(),
                },
                Source::Meeting { past, until, .. } => {
                    let (event, position) = match past.next().await {
                        Feed::Event(event) => (Some(event.clone()), event.position),
                        Feed::Checkpoint(position) => (None, position),
                        Feed::CaughtUp => continue,
                    };
                    let is_beyond = position > *until;
                    if position >= *until {
                        self.switch();
                    }
                    // What is beyond comes from the tail.
                    if let Some(event) = event.filter(|_| !is_beyond) {
                        return Some(Fed::Event(Arc::new(event)));
                    }
                }
                Source::Now(live) => {
                    return match live.recv().await {
                        Ok(event) => Some(Fed::Event(event)),
                        Err(RecvError::Lagged(_)) => {
                            self.source = Source::Ended(None);
                            Some(Fed::Reset(ResetReason::TooSlow))
                        }
                        Err(RecvError::Closed) => None,
                    };
                }
                Source::Ended(reason) => return reason.take().map(Fed::Reset),
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
