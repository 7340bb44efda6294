//! What happens to orders, told to whoever waits for it in this process: one subscription, however
//! many wait, and none while nobody does.

mod feed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::Order;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::client::{EventLog, Position, backoff};
use crate::error::LogError;
use crate::stream::LoggedEvent;
use crate::subscribe::Feed;

pub use feed::{Fed, OrderFeed, ResetReason};

/// The most that may wait for an order at a time. Each costs memory only.
const MAX_WAITING: usize = 10_000;
/// How long the look at an order that a wait ends with may take.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// The newest events, kept for feeds that are behind.
const RECENT_EVENTS: usize = 2_048;

/// How a wait for an order ended.
#[derive(Debug, Clone)]
pub enum Waited {
    /// The order is as it was wanted.
    Met(Arc<Order>),
    /// It is not. The order as its stream said when the wait ended; `None` if the stream could not
    /// be read then.
    InVain(Option<Arc<Order>>),
}

/// The end of the log, as far as it was read, and who wants to know. Shared by the clones of a log.
pub(crate) struct Tail {
    state: Mutex<State>,
    events: broadcast::Sender<Arc<LoggedEvent>>,
    is_following: watch::Sender<bool>,
    /// Somebody wants to know from now on.
    wanted: Notify,
    stopped: CancellationToken,
}

#[derive(Default)]
struct State {
    /// How far the log is read, while it is. Moved together with the events that are told.
    position: Option<Position>,
    waiting: HashMap<OrderId, watch::Sender<()>>,
    n_waiting: usize,
    n_feeds: usize,
}

impl State {
    /// Whether somebody wants to know.
    fn is_wanted(&self) -> bool {
        self.n_waiting > 0 || self.n_feeds > 0
    }

    /// Wakes those who wait for an order.
    fn wake(&self, order_id: OrderId) {
        if let Some(waiting) = self.waiting.get(&order_id) {
            waiting.send_replace(());
        }
    }
}

impl Tail {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            events: broadcast::Sender::new(RECENT_EVENTS),
            is_following: watch::Sender::new(false),
            wanted: Notify::new(),
            stopped: CancellationToken::new(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing is missed. Those who came before may have missed something.
    fn begin(&self, position: Option<Position>) {
        let mut state = self.state();
        state.position = position;
        for waiting in state.waiting.values() {
            waiting.send_replace(());
        }
        self.is_following.send_replace(true);
    }

    /// Whether nobody wants to know any more. Then nothing is told from now on.
    fn ends_unwanted(&self) -> bool {
        let mut state = self.state();
        let is_unwanted = !state.is_wanted();
        if is_unwanted {
            state.position = None;
            self.is_following.send_replace(false);
        }
        is_unwanted
    }

    fn take(&self, feed: Feed) {
        let mut state = self.state();
        match feed {
            Feed::Event(event) => {
                state.position = Some(event.position);
                state.wake(event.order_id);
                if self.events.receiver_count() > 0 {
                    // Nobody listens any more: nothing to tell.
                    drop(self.events.send(Arc::new(event)));
                }
            }
            Feed::Deleted { order_id, position } => {
                state.position = Some(position);
                state.wake(order_id);
            }
            Feed::Checkpoint(position) => state.position = Some(position),
            Feed::CaughtUp => {}
        }
    }
}

/// Somebody who waits for events of one order.
struct Waiting<'a> {
    tail: &'a Tail,
    order_id: OrderId,
    changed: watch::Receiver<()>,
}

impl<'a> Waiting<'a> {
    /// `None` if too many wait already.
    fn new(tail: &'a Tail, order_id: OrderId) -> Option<Self> {
        let mut state = tail.state();
        if state.n_waiting >= MAX_WAITING {
            return None;
        }
        state.n_waiting += 1;
        let changed = state.waiting.entry(order_id).or_default().subscribe();
        tail.wanted.notify_one();
        Some(Self { tail, order_id, changed })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.tail.state();
        state.n_waiting -= 1;
        let is_last = state.waiting.get(&self.order_id).is_some_and(|it| it.receiver_count() <= 1);
        if is_last {
            state.waiting.remove(&self.order_id);
        }
    }
}

impl EventLog {
    /// Tells those who wait in this process what happens to orders, until `stop`. Until this runs,
    /// waits end by their time, and feeds do not begin. The store is read while somebody waits or
    /// reads a feed, and for `linger` after that, at least: for nobody, each event would be decoded
    /// in vain.
    pub async fn follow(&self, linger: Duration, stop: CancellationToken) {
        let ended = self.tail.stopped.clone().drop_guard();
        let following = async {
            loop {
                self.tail.wanted.notified().await;
                // It may be what somebody said who has been served since.
                if self.tail.state().is_wanted() {
                    self.follow_while_wanted(linger).await;
                }
            }
        };
        // It does not end by itself.
        let _: Option<()> = stop.run_until_cancelled(following).await;
        drop(ended);
    }

    async fn follow_while_wanted(&self, linger: Duration) {
        let head = self.head_at_last().await;
        let mut subscription = self.subscribe(head);
        self.tail.begin(head);
        let mut looks = interval(linger);
        looks.tick().await;
        loop {
            tokio::select! {
                next = subscription.next() => self.tail.take(next),
                _ = looks.tick() => if self.tail.ends_unwanted() { return },
            }
        }
    }

    /// Whether the store is read at present for those who wait and for feeds.
    pub fn is_followed(&self) -> bool {
        *self.tail.is_following.borrow()
    }

    /// The end of the log, asked for until the store answers.
    async fn head_at_last(&self) -> Option<Position> {
        let mut delays = backoff();
        loop {
            match self.head().await {
                Ok(head) => return head,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "Events cannot be followed yet"
                    );
                }
            }
            sleep(delays.next().unwrap_or_default()).await;
        }
    }

    /// Waits until an order is as it is wanted, or until `deadline`. It also ends if this process
    /// stops, too many wait, or the order was deleted.
    pub async fn wait_for(
        &self,
        order_id: OrderId,
        deadline: Instant,
        is_wanted: impl Fn(&Order) -> bool,
    ) -> Waited {
        let Some(mut waiting) = Waiting::new(&self.tail, order_id) else {
            return Waited::InVain(None);
        };
        let last_look = deadline + LAST_LOOK;
        loop {
            // Events that come from here on wake it again.
            waiting.changed.mark_unchanged();
            let look = timeout_at(last_look, self.latest(order_id));
            // A process that stops does not wait for a store that does not answer.
            let Some(looked) = self.tail.stopped.run_until_cancelled(look).await else {
                return Waited::InVain(None);
            };
            let seen = match looked {
                Ok(Ok(order)) => order.map(Arc::new),
                Ok(Err(LogError::Deleted)) => return Waited::InVain(None),
                Ok(Err(_)) | Err(_) => None,
            };
            if let Some(order) = seen.as_ref().filter(|it| is_wanted(it)) {
                return Waited::Met(Arc::clone(order));
            }
            if Instant::now() >= deadline {
                return Waited::InVain(seen);
            }
            tokio::select! {
                // The sender is removed with its last receiver only.
                _ = waiting.changed.changed() => {}
                () = sleep_until(deadline) => {}
                () = self.tail.stopped.cancelled() => return Waited::InVain(seen),
            }
        }
    }
}
