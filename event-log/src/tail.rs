//! What happens to orders, told to whoever waits for it in this process: one subscription, however
//! many wait.

mod feed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::Order;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::client::{EventLog, Position, backoff};
use crate::stream::LoggedEvent;
use crate::subscribe::Feed;

pub use feed::{Fed, OrderFeed, ResetReason};

/// The most that may wait for an order at a time. Each costs memory only.
const MAX_WAITING: usize = 10_000;
/// How long the look at an order that a wait ends with may take.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// The newest events, kept for feeds that are behind.
const RECENT_EVENTS: usize = 2_048;

/// The end of the log, as far as it was read, and who wants to know. Shared by the clones of a log.
pub(crate) struct Tail {
    state: Mutex<State>,
    events: broadcast::Sender<Arc<LoggedEvent>>,
    is_following: watch::Sender<bool>,
    stopped: CancellationToken,
}

#[derive(Default)]
struct State {
    /// How far the log is read. Moved together with the events that are told.
    position: Option<Position>,
    waiting: HashMap<OrderId, watch::Sender<()>>,
    n_waiting: usize,
}

impl Tail {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            events: broadcast::Sender::new(RECENT_EVENTS),
            is_following: watch::Sender::new(false),
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

    fn take(&self, feed: Feed) {
        let mut state = self.state();
        match feed {
            Feed::Event(event) => {
                state.position = Some(event.position);
                if let Some(waiting) = state.waiting.get(&event.order_id) {
                    waiting.send_replace(());
                }
                if self.events.receiver_count() > 0 {
                    // Nobody listens any more: nothing to tell.
                    drop(self.events.send(Arc::new(event)));
                }
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
    /// waits end by their time, and feeds do not begin.
    pub async fn follow(&self, stop: CancellationToken) {
        let ended = self.tail.stopped.clone().drop_guard();
        if let Some(head) = stop.run_until_cancelled(self.head_at_last()).await {
            let mut subscription = self.subscribe(head);
            self.tail.begin(head);
            while let Some(next) = stop.run_until_cancelled(subscription.next()).await {
                self.tail.take(next);
            }
        }
        drop(ended);
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

    /// Waits until an order is as it is wanted, and returns it then. `None`: it was not so by
    /// `deadline`, this process stops, too many wait, or the store does not answer.
    pub async fn wait_for(
        &self,
        order_id: OrderId,
        deadline: Instant,
        is_wanted: impl Fn(&Order) -> bool,
    ) -> Option<Order> {
        let mut waiting = Waiting::new(&self.tail, order_id)?;
        let last_look = deadline + LAST_LOOK;
        loop {
            // Events that come from here on wake it again.
            waiting.changed.mark_unchanged();
            if let Ok(Ok(Some(order))) = timeout_at(last_look, self.latest(order_id)).await
                && is_wanted(&order)
            {
                return Some(order);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::select! {
                // The sender is removed with its last receiver only.
                _ = waiting.changed.changed() => {}
                () = sleep_until(deadline) => {}
                () = self.tail.stopped.cancelled() => return None,
            }
        }
    }
}
