//! Fan-out of new events within this process: one subscription serves all waiting requests and
//! feeds, and there is none while no request or feed needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::ids::OrderId;
use service_kit::mutex::lock;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::client::Position;
use crate::store::logged_event::LoggedEvent;
use crate::store::subscription::SubscriptionItem;

/// Maximum number of concurrent waits for orders. Each costs memory only.
const MAX_WAITS: usize = 10_000;
/// Number of newest events that are kept for slow feeds.
const RECENT_EVENTS: usize = 2_048;

/// The end of the log as far as this process has read it, and the readers that it wakes. Shared by
/// the clones of a log.
pub(super) struct LiveEvents {
    state: Mutex<State>,
    events: broadcast::Sender<Arc<LoggedEvent>>,
    is_following: watch::Sender<bool>,
    /// Notified when a wait or a feed begins.
    demand: Notify,
    stopped: CancellationToken,
}

#[derive(Default)]
struct State {
    /// How far the log has been read; `None` while it is not followed. Changes under the same lock
    /// under which events are sent.
    position: Option<Position>,
    waits: HashMap<OrderId, watch::Sender<()>>,
    n_waits: usize,
    n_feeds: usize,
}

impl State {
    fn is_wanted(&self) -> bool {
        self.n_waits > 0 || self.n_feeds > 0
    }

    /// Wakes the waits for an order.
    fn wake(&self, order_id: OrderId) {
        if let Some(waits) = self.waits.get(&order_id) {
            waits.send_replace(());
        }
    }
}

impl LiveEvents {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            events: broadcast::Sender::new(RECENT_EVENTS),
            is_following: watch::Sender::new(false),
            demand: Notify::new(),
            stopped: CancellationToken::new(),
        }
    }

    /// Waits until a wait or a feed needs events.
    pub(super) async fn wait_for_demand(&self) {
        loop {
            self.demand.notified().await;
            // The notification may be of a wait that has ended since.
            if lock(&self.state).is_wanted() {
                return;
            }
        }
    }

    /// Begins to deliver events from a position on. Wakes all waits: a wait that began earlier may
    /// have missed an event.
    pub(super) fn begin(&self, position: Option<Position>) {
        let mut state = lock(&self.state);
        state.position = position;
        for waits in state.waits.values() {
            waits.send_replace(());
        }
        self.is_following.send_replace(true);
    }

    /// Ends the delivery if no wait and no feed needs it. Returns whether it has ended. Checked and
    /// ended under one lock, so a wait that begins meanwhile requests the next delivery.
    pub(super) fn end_if_unwanted(&self) -> bool {
        let mut state = lock(&self.state);
        let is_unwanted = !state.is_wanted();
        if is_unwanted {
            state.position = None;
            self.is_following.send_replace(false);
        }
        is_unwanted
    }

    /// Delivers an item to the waits and the feeds.
    pub(super) fn deliver(&self, item: SubscriptionItem) {
        let mut state = lock(&self.state);
        match item {
            SubscriptionItem::Event(event) => {
                state.position = Some(event.position);
                state.wake(event.order_id);
                if self.events.receiver_count() > 0 {
                    // Fails if the last feed has ended since.
                    drop(self.events.send(Arc::new(event)));
                }
            }
            SubscriptionItem::Deleted { order_id, position } => {
                state.position = Some(position);
                state.wake(order_id);
            }
            SubscriptionItem::Checkpoint(position) => state.position = Some(position),
            SubscriptionItem::CaughtUp => {}
        }
    }

    /// Returns whether events are being delivered.
    pub(super) fn is_following(&self) -> bool {
        *self.is_following.borrow()
    }

    /// Waits until events are being delivered.
    pub(super) async fn wait_until_following(&self) {
        let mut is_following = self.is_following.subscribe();
        // Cannot fail: this value owns the sender.
        drop(is_following.wait_for(|is_following| *is_following).await);
    }

    /// Receives the events that are delivered from now on.
    pub(super) fn receive(&self) -> broadcast::Receiver<Arc<LoggedEvent>> {
        self.events.subscribe()
    }

    /// Receives the events behind the returned position; `None` while events are not delivered. Both
    /// under one lock, so no event is missed in between.
    pub(super) fn receive_from_position(
        &self,
    ) -> Option<(Position, broadcast::Receiver<Arc<LoggedEvent>>)> {
        let state = lock(&self.state);
        state.position.map(|position| (position, self.events.subscribe()))
    }

    /// Returns the token that is cancelled when this process stops to follow the log for good.
    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.stopped
    }

    /// Returns a guard whose drop ends all waits and feeds.
    pub(super) fn stop_guard(&self) -> DropGuard {
        self.stopped.clone().drop_guard()
    }
}

/// Registration of a wait for events of one order.
pub(super) struct OrderWait<'a> {
    live_events: &'a LiveEvents,
    order_id: OrderId,
    changed: watch::Receiver<()>,
}

impl<'a> OrderWait<'a> {
    /// Registers a wait; `None` if there are too many.
    pub(super) fn register(live_events: &'a LiveEvents, order_id: OrderId) -> Option<Self> {
        let mut state = lock(&live_events.state);
        if state.n_waits >= MAX_WAITS {
            return None;
        }
        state.n_waits += 1;
        // Under the lock of `deliver`: each event either wakes this wait, or was stored before the wait
        // reads the order.
        let changed = state.waits.entry(order_id).or_default().subscribe();
        live_events.demand.notify_one();
        Some(Self { live_events, order_id, changed })
    }

    /// Ignores the events up to now.
    pub(super) fn mark_unchanged(&mut self) {
        self.changed.mark_unchanged();
    }

    /// Waits for the next event of the order.
    pub(super) async fn wait_for_change(&mut self) {
        // Cannot fail: the sender is removed with its last receiver.
        drop(self.changed.changed().await);
    }
}

impl Drop for OrderWait<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.live_events.state);
        state.n_waits -= 1;
        // This wait's own receiver still counts: it is dropped after this function.
        let changes = state.waits.get(&self.order_id);
        let is_last = changes.is_some_and(|changes| changes.receiver_count() <= 1);
        if is_last {
            state.waits.remove(&self.order_id);
        }
    }
}

/// Registration of a feed.
pub(super) struct FeedRegistration(Arc<LiveEvents>);

impl FeedRegistration {
    pub(super) fn new(live_events: Arc<LiveEvents>) -> Self {
        // Before the notification: the follower checks the count when it wakes.
        lock(&live_events.state).n_feeds += 1;
        live_events.demand.notify_one();
        Self(live_events)
    }
}

impl Drop for FeedRegistration {
    fn drop(&mut self) {
        lock(&self.0.state).n_feeds -= 1;
    }
}
