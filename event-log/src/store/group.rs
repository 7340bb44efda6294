//! A persistent subscription group: the store distributes events, and one worker answers each.

mod connection;
mod delivery;
mod info;
mod setting_drift;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use service_kit::mutex::lock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::Instrument;
use uuid::Uuid;

use super::client::StoreClient;
use super::error::LogError;
use super::task_panic::propagate_panic;
use connection::{WorkerState, keep_connected};
use delivery::Answer;

pub use delivery::{Delivery, GroupSettings};
pub use info::{GroupInfo, GroupMember, GroupStats};
pub use setting_drift::SettingDrift;
pub(crate) use watchdog::{PendingWork, only_type};

/// First delay between two checks whether the store has received the last answers; it doubles each
/// time.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// This worker's membership in a group. It outlives the connection.
pub struct GroupMembership {
    deliveries: mpsc::Receiver<Delivery>,
    // Unbounded, but never more than one answer per held delivery.
    answers: mpsc::UnboundedSender<Answer>,
    /// Number of held deliveries: received and not answered.
    n_held: Arc<AtomicUsize>,
    connection: JoinSet<()>,
    client: StoreClient,
    group: String,
}

impl GroupMembership {
    /// Joins a group, and creates it if it does not exist: from the first event on, so that none is
    /// missed. Never fails: retries while the store is unreachable.
    pub(crate) fn join(
        client: StoreClient,
        settings: GroupSettings,
        pending_work: impl PendingWork,
    ) -> Self {
        // A channel without capacity panics.
        let (deliver, deliveries) = mpsc::channel(settings.buffer_size.max(1));
        let (sender, answers) = mpsc::unbounded_channel();
        let group = settings.name.clone();
        let n_held = Arc::new(AtomicUsize::new(0));
        let worker = WorkerState::new(deliver, answers, Arc::clone(&n_held));
        let mut connection = JoinSet::new();
        let connected = keep_connected(client.clone(), settings, pending_work, worker);
        connection.spawn(connected.in_current_span());
        Self { deliveries, answers: sender, n_held, connection, client, group }
    }

    /// Returns the next delivery. Waits for it.
    ///
    /// # Panics
    /// If the task that holds the connection has panicked.
    pub async fn next(&mut self) -> Delivery {
        match self.deliveries.recv().await {
            Some(delivery) => delivery,
            None => propagate_panic(&mut self.connection).await,
        }
    }

    /// Returns the next delivery if it has already arrived.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.deliveries.try_recv().ok()
    }

    /// Reads the group's statistics.
    pub async fn read_stats(&self) -> Result<GroupStats, LogError> {
        self.client.group_stats(&self.group).await
    }

    /// Acknowledges the delivery.
    pub fn ack(&self, delivery_id: Uuid) {
        self.send_answer(Answer::Ack(delivery_id));
    }

    /// Asks the store to deliver the event again at once.
    pub fn retry(&self, delivery_id: Uuid, reason: String) {
        self.send_answer(Answer::Retry(delivery_id, reason));
    }

    /// Asks the store to park the message for an operator.
    pub fn park(&self, delivery_id: Uuid, reason: String) {
        self.send_answer(Answer::Park(delivery_id, reason));
    }

    /// Releases the delivery without an answer: its time-out at the store has passed, and the store
    /// delivers the event again.
    pub fn release(&self, delivery_id: Uuid) {
        self.send_answer(Answer::Release(delivery_id));
    }

    /// Leaves the group once the store has received all answers, or after `limit`: then the store
    /// delivers some events again. Deliveries without an answer go back to the group.
    pub async fn leave(mut self, limit: Duration) {
        // Deliveries that arrive from now on go back unhandled, instead of waiting in the channel.
        self.deliveries.close();
        let flushed = timeout(limit, self.flush_answers()).await;
        tracing::debug!(in_time = flushed.is_ok(), "Leaving the group");
        self.connection.shutdown().await;
    }

    /// Waits until the store has received all answers.
    async fn flush_answers(&self) {
        let (flushed, is_flushed) = oneshot::channel();
        self.send_answer(Answer::Flush(flushed));
        if is_flushed.await.is_ok() {
            let mut delay = DRAIN_POLL;
            while self.store_awaits_answers().await {
                sleep(delay).await;
                delay *= 2;
            }
        }
    }

    /// Returns whether the store counts more unanswered deliveries than this worker holds.
    async fn store_awaits_answers(&self) -> bool {
        // Without an answer from the store: leave now. It delivers what it has not received again.
        let Ok(info) = self.client.group_info(&self.group).await else { return false };
        let member = self.client.connection_name().and_then(|name| info.member(name));
        // The group's total may include other workers: then `leave` waits for its limit.
        let in_flight = member.map_or(info.stats.in_flight, |member| member.in_flight);
        in_flight > self.n_held.load(Ordering::Acquire)
    }

    fn send_answer(&self, answer: Answer) {
        // A lost answer is harmless: the store delivers the event again.
        if self.answers.send(answer).is_err() {
            tracing::debug!("Answer after the group was left");
        }
    }
}

impl StoreClient {
    /// Returns how long a group membership has had no connection; `None` if it has one, or if there
    /// is no membership.
    pub fn subscription_outage(&self) -> Option<Duration> {
        let since = *lock(&self.connection.disconnected_since);
        since.map(|since| since.elapsed())
    }
}
