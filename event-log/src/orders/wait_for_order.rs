//! Waits for the state of an order, woken by the events that this process follows.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::Order;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::event_log::EventLog;
use super::live_events::OrderWait;
use crate::store::client::{Position, backoff};
use crate::store::error::LogError;

/// Maximum duration of the final read of an order after the deadline of a wait.
const FINAL_READ_TIMEOUT: Duration = Duration::from_millis(500);

/// Result of a wait for an order.
#[derive(Debug, Clone)]
pub enum WaitOutcome {
    /// The order has reached the wanted state.
    Reached(Arc<Order>),
    /// The wait has ended without it. The order as its stream was at the end; `None` if the stream
    /// could not be read.
    NotReached(Option<Arc<Order>>),
}

impl EventLog {
    /// Delivers new events to the waits and feeds of this process until `stop`. Before this runs,
    /// waits end at their deadlines and feeds do not begin. The store is read while there is a wait
    /// or a feed, and at least for `linger` after that: decoding events without a reader wastes CPU.
    pub async fn follow_live_events(&self, linger: Duration, stop: CancellationToken) {
        let guard = self.live_events.stop_guard();
        let following = async {
            loop {
                self.live_events.wait_for_demand().await;
                self.follow_while_wanted(linger).await;
            }
        };
        // The loop has no end: this returns when `stop` is cancelled.
        let _: Option<()> = stop.run_until_cancelled(following).await;
        // Ends all waits and feeds: no event would wake them any more.
        drop(guard);
    }

    async fn follow_while_wanted(&self, linger: Duration) {
        let head = self.wait_for_head().await;
        let mut subscription = self.store.subscribe(head);
        self.live_events.begin(head);
        let mut checks = interval(linger);
        // The first tick is immediate.
        checks.tick().await;
        loop {
            tokio::select! {
                next = subscription.next() => self.live_events.deliver(next),
                _ = checks.tick() => if self.live_events.end_if_unwanted() { return },
            }
        }
    }

    /// Returns whether the store is being read for waits and feeds.
    pub fn is_following(&self) -> bool {
        self.live_events.is_following()
    }

    /// Returns the end of the log. Retries until the store answers.
    async fn wait_for_head(&self) -> Option<Position> {
        let mut delays = backoff();
        loop {
            match self.store.head().await {
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

    /// Waits until an order has a wanted state, or until `deadline`. Also ends if this process stops,
    /// there are too many waits, or the order was deleted.
    pub async fn wait_for_order(
        &self,
        order_id: OrderId,
        deadline: Instant,
        is_wanted: impl Fn(&Order) -> bool,
    ) -> WaitOutcome {
        let Some(mut wait) = OrderWait::register(&self.live_events, order_id) else {
            return WaitOutcome::NotReached(None);
        };
        let stopped = self.live_events.stopped();
        let read_deadline = deadline + FINAL_READ_TIMEOUT;
        loop {
            // Before the read: an event that arrives during the read must wake the wait again.
            wait.mark_unchanged();
            let read = timeout_at(read_deadline, self.load_readable(order_id));
            // A process that stops does not wait for a store that does not answer.
            let Some(read) = stopped.run_until_cancelled(read).await else {
                return WaitOutcome::NotReached(None);
            };
            let current = match read {
                Ok(Ok(order)) => order.map(Arc::new),
                Ok(Err(LogError::Deleted)) => return WaitOutcome::NotReached(None),
                // The next read may succeed: only the deadline ends the wait.
                Ok(Err(_)) | Err(_) => None,
            };
            if let Some(order) = current.as_ref().filter(|order| is_wanted(order)) {
                return WaitOutcome::Reached(Arc::clone(order));
            }
            if Instant::now() >= deadline {
                return WaitOutcome::NotReached(current);
            }
            tokio::select! {
                () = wait.wait_for_change() => {}
                () = sleep_until(deadline) => {}
                () = stopped.cancelled() => return WaitOutcome::NotReached(current),
            }
        }
    }
}
