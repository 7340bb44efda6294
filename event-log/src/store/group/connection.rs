//! The connection of a membership: receives deliveries, sends answers, and checks whether the
//! connection is alive.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventstore::{
    Client, GetPersistentSubscriptionInfoOptions, NakAction, PersistentSubscription,
    PersistentSubscriptionEvent, PersistentSubscriptionSettings,
    PersistentSubscriptionToAllOptions, StreamPosition, SubscribeToPersistentSubscriptionOptions,
};
use service_kit::mutex::lock;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::delivery::{Answer, Delivery, GroupSettings};
use super::watchdog::{PendingWork, find_missed_work, only_type};
use crate::metrics::{count_stall, note_joined};
use crate::store::client::{Position, StoreClient, backoff};
use crate::store::error::{LogError, is_connection_lost};
use crate::store::logged_event::LoggedEvent;
use crate::store::session::Session;

/// Maximum number of answers in one message.
const ANSWER_BATCH: usize = 512;
/// The store writes its checkpoint after at most this many answered messages...
const CHECKPOINT_UPPER_BOUND: i32 = 500;
/// ...and after at least one, at this interval.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// The worker's side of the membership, which outlives connections.
pub(super) struct WorkerState {
    deliver: mpsc::Sender<Delivery>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// Deliveries that are received and not answered.
    held: HashSet<Uuid>,
    n_held: Arc<AtomicUsize>,
    /// Whether this connection has delivered anything.
    has_received: bool,
    /// Events up to here may have been delivered before, also by an earlier group of that name.
    horizon: Option<Position>,
    /// When the last connection was lost.
    lost_connection: Option<Instant>,
}

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
enum ConnectionLoss {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the store ended it, or is unreachable")]
    Client(#[from] eventstore::Error),
    #[error("work waits for this worker, and the store delivers nothing")]
    Silent,
}

impl ConnectionLoss {
    fn log(&self) {
        let error = self as &dyn std::error::Error;
        let is_outage = match self {
            Self::Log(error) => error.is_unavailable(),
            Self::Client(error) => is_connection_lost(error),
            Self::Silent => false,
        };
        // The client logs an outage once for all of its users.
        if is_outage {
            tracing::debug!(error, "Persistent subscription lost");
        } else {
            tracing::warn!(error, "Persistent subscription lost");
        }
    }
}

impl WorkerState {
    pub(super) fn new(
        deliver: mpsc::Sender<Delivery>,
        answers: mpsc::UnboundedReceiver<Answer>,
        n_held: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            deliver,
            answers,
            held: HashSet::new(),
            n_held,
            has_received: false,
            horizon: None,
            lost_connection: None,
        }
    }

    /// Holds a delivery. Returns `false` if it is already held.
    fn hold(&mut self, id: Uuid) -> bool {
        self.has_received = true;
        let is_new = self.held.insert(id);
        self.n_held.store(self.held.len(), Ordering::Release);
        is_new
    }

    fn release(&mut self, id: Uuid) {
        self.held.remove(&id);
        self.n_held.store(self.held.len(), Ordering::Release);
    }

    /// Returns whether the event at that position cannot have been delivered before. A group makes
    /// first deliveries in the order of the events.
    fn is_first(&mut self, position: Position, retry_count: u32) -> bool {
        let is_behind = self.horizon.is_some_and(|horizon| position > horizon);
        self.horizon = self.horizon.map(|horizon| horizon.max(position));
        is_behind && retry_count == 0
    }
}

/// Keeps the membership through any number of connections, until the worker has left. Each
/// connection has a task of its own: the client panics when the store ends a subscription with
/// status OK, and that is a lost connection like any other.
pub(super) async fn keep_connected(
    client: StoreClient,
    settings: GroupSettings,
    pending_work: impl PendingWork,
    worker: WorkerState,
) {
    note_joined(&settings.name);
    let mut delays = backoff();
    // The lock survives the panic of a connection's task, so the next task goes on with the state.
    let worker = Arc::new(Mutex::new(worker));
    let _mark = DisconnectionMark::set(&client);
    loop {
        let joined = Instant::now();
        let (connection, pending_work) = (
            Connection { client: client.clone(), settings: settings.clone() },
            pending_work.clone(),
        );
        let shared = Arc::clone(&worker);
        let mut task = JoinSet::new();
        task.spawn(async move { connection.serve(&pending_work, &mut *shared.lock().await).await });
        match task.join_next().await {
            Some(Ok(Ok(()))) | None => return,
            Some(Ok(Err(loss))) => loss.log(),
            Some(Err(panic)) => {
                let error = &panic as &dyn std::error::Error;
                tracing::warn!(error, "Persistent subscription ended without a reason");
            }
        }
        {
            let mut worker = worker.lock().await;
            worker.lost_connection = Some(Instant::now());
            // Until the end of the log is read again, no delivery counts as a first one.
            worker.horizon = None;
            if std::mem::take(&mut worker.has_received) {
                delays = backoff();
            }
        }
        let delay = delays.next().unwrap_or_default();
        // The connection was of use: its loss does not count as a failed attempt.
        if joined.elapsed() > delay {
            delays = backoff();
        }
        sleep(delay).await;
    }
}

/// Marks a membership as disconnected from now on. Dropping it removes the mark: a worker that has
/// left is not disconnected.
struct DisconnectionMark(StoreClient);

impl DisconnectionMark {
    fn set(client: &StoreClient) -> Self {
        note_disconnected(client, Some(Instant::now()));
        Self(client.clone())
    }
}

impl Drop for DisconnectionMark {
    fn drop(&mut self) {
        note_disconnected(&self.0, None);
    }
}

fn note_disconnected(client: &StoreClient, since: Option<Instant>) {
    *lock(&client.connection.disconnected_since) = since;
}

/// One connection of a membership.
struct Connection {
    client: StoreClient,
    settings: GroupSettings,
}

impl Connection {
    /// Serves the connection until it is lost. Returns `Ok` when the worker has left.
    async fn serve(
        &self,
        pending_work: &impl PendingWork,
        worker: &mut WorkerState,
    ) -> Result<(), ConnectionLoss> {
        let place = self.client.take_subscription_place()?;
        let session = place.session();
        let served = self.serve_session(session, pending_work, worker).await;
        match &served {
            Ok(()) => {}
            Err(ConnectionLoss::Client(error)) => {
                self.client.note_failure(session, error);
                self.client.note_unreachable(error);
            }
            // The connection looks sound and delivers nothing: force the client to reconnect.
            Err(ConnectionLoss::Silent) => session.sockets.shut_down(),
            Err(ConnectionLoss::Log(_)) => {}
        }
        served
    }

    async fn serve_session(
        &self,
        session: &Session,
        pending_work: &impl PendingWork,
        worker: &mut WorkerState,
    ) -> Result<(), ConnectionLoss> {
        let settings = &self.settings;
        let client = session.client();
        ensure_group(&client, settings).await?;
        session.sockets.note_response(Instant::now());
        self.client.note_reachable();
        let options =
            SubscribeToPersistentSubscriptionOptions::default().buffer_size(settings.buffer_size);
        let subscription = client
            .subscribe_to_persistent_subscription_to_all(settings.name.as_str(), &options)
            .await?;
        note_disconnected(&self.client, None);
        let served = self.serve_subscription(session, subscription, pending_work, worker).await;
        note_disconnected(&self.client, Some(Instant::now()));
        served
    }

    /// Passes deliveries to the worker and its answers to the store.
    async fn serve_subscription(
        &self,
        session: &Session,
        mut subscription: PersistentSubscription,
        pending_work: &impl PendingWork,
        worker: &mut WorkerState,
    ) -> Result<(), ConnectionLoss> {
        let mut batch = Vec::with_capacity(ANSWER_BATCH);
        let mut checks = interval(self.settings.silence_limit);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate.
        checks.tick().await;
        let mut suspicion = None;
        let mut was_busy = false;
        loop {
            tokio::select! {
                n_answers = worker.answers.recv_many(&mut batch, ANSWER_BATCH) => {
                    // The worker, which owns the sender, has left.
                    if n_answers == 0 {
                        return Ok(());
                    }
                    send_answers(&mut subscription, worker, batch.drain(..)).await?;
                }
                next = subscription.next_subscription_event() => {
                    let next = next?;
                    (suspicion, was_busy) = (None, true);
                    session.sockets.note_life();
                    self.handle_event(&mut subscription, worker, next).await?;
                }
                _ = checks.tick() => {
                    // Ask the store only if nothing has arrived for a while and nothing is held.
                    if std::mem::take(&mut was_busy) || !worker.held.is_empty() {
                        suspicion = None;
                        continue;
                    }
                    let check = find_missed_work(&self.client, &self.settings, pending_work);
                    // An error is no evidence: if the store does not answer, the connection breaks.
                    let found = check.await.unwrap_or_else(|error| {
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(error, "Idle group could not be checked");
                        None
                    });
                    if found.is_some() && found == suspicion {
                        tracing::debug!(?found, "Work waits and nothing is delivered");
                        self.settings.n_silences.send_modify(|count| *count += 1);
                        count_stall(&self.settings.name);
                        return Err(ConnectionLoss::Silent);
                    }
                    suspicion = found;
                }
            }
        }
    }

    async fn handle_event(
        &self,
        subscription: &mut PersistentSubscription,
        worker: &mut WorkerState,
        next: PersistentSubscriptionEvent,
    ) -> Result<(), ConnectionLoss> {
        let PersistentSubscriptionEvent::EventAppeared { retry_count, event } = next else {
            // Read after the group has confirmed this worker: everything that an earlier group of
            // that name, or a group before its last checkpoint, has delivered lies before this end.
            worker.horizon = self.client.head().await?;
            tracing::debug!("Joined the group");
            return Ok(());
        };
        let id = event.get_original_event().id;
        let is_replayed = event.link.is_some();
        if is_replayed && event.event.is_none() {
            tracing::warn!(event.id = %id, "Parked message without its event acknowledged");
            return Ok(subscription.ack_ids([id]).await?);
        }
        let Some(logged) = event.event.as_ref().and_then(LoggedEvent::from_recorded) else {
            let reason = "the event is not in an order's stream";
            return Ok(subscription.nack_ids([id], NakAction::Park, reason).await?);
        };
        if !worker.hold(id) {
            // The message time-out passed or the connection was lost: the pending answer will be
            // the answer to this delivery.
            tracing::debug!(event.id = %id, "Delivered again while in progress");
            return Ok(());
        }
        let retry_count = u32::try_from(retry_count).unwrap_or(u32::MAX);
        // A replayed parked message is older than the first deliveries since.
        let is_first = !is_replayed && worker.is_first(logged.position, retry_count);
        let delivery = Delivery {
            id,
            event: logged,
            is_replayed,
            retry_count,
            is_first,
            lost_connection: worker.lost_connection,
            received: Instant::now(),
        };
        // Fails if the worker is leaving: the delivery goes back when the connection ends.
        drop(worker.deliver.send(delivery).await);
        Ok(())
    }
}

impl StoreClient {
    /// Creates the group unless it exists.
    pub(crate) async fn create_group(&self, settings: &GroupSettings) -> Result<(), LogError> {
        self.call(async |client| ensure_group(&client, settings).await).await
    }
}

/// Creates the group unless it exists.
async fn ensure_group(client: &Client, settings: &GroupSettings) -> eventstore::Result<()> {
    let options = PersistentSubscriptionToAllOptions::default()
        .filter(only_type(&settings.event_type))
        .settings(stored_settings(settings.message_timeout, settings.max_retry_count));
    match client.create_persistent_subscription_to_all(settings.name.as_str(), &options).await {
        // An existing group keeps its settings: a store ends all connections of a changed group.
        Ok(()) | Err(eventstore::Error::ResourceAlreadyExists) => Ok(()),
        // Only operators of the store may create groups. Other users may consume one that exists.
        Err(eventstore::Error::AccessDenied) if has_group(client, &settings.name).await? => Ok(()),
        Err(error) => Err(error),
    }
}

async fn has_group(client: &Client, name: &str) -> eventstore::Result<bool> {
    let options = GetPersistentSubscriptionInfoOptions::default();
    match client.get_persistent_subscription_info_to_all(name, &options).await {
        Ok(_) => Ok(true),
        Err(eventstore::Error::ResourceNotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the settings that the store keeps of a new group: it delivers from the first event on.
pub(super) fn stored_settings(
    message_timeout: Duration,
    max_retry_count: i32,
) -> PersistentSubscriptionSettings<eventstore::Position> {
    PersistentSubscriptionSettings {
        // The default is the end: orders that were queued before would get no delivery.
        start_from: StreamPosition::Start,
        message_timeout,
        max_retry_count,
        checkpoint_after: CHECKPOINT_AFTER,
        checkpoint_lower_bound: 1,
        checkpoint_upper_bound: CHECKPOINT_UPPER_BOUND,
        ..PersistentSubscriptionSettings::default()
    }
}

/// Sends answers; all acks in one message.
async fn send_answers(
    subscription: &mut PersistentSubscription,
    worker: &mut WorkerState,
    answers: impl Iterator<Item = Answer>,
) -> eventstore::Result<()> {
    let mut acks = Vec::new();
    let mut flush = None;
    // Released before the answer is sent: if the connection breaks in between, the store's next
    // delivery of the event is handled, and its recorded outcome answers it.
    for answer in answers {
        match answer {
            Answer::Ack(id) => {
                worker.release(id);
                acks.push(id);
            }
            Answer::Retry(id, reason) => {
                worker.release(id);
                subscription.nack_ids([id], NakAction::Retry, reason).await?;
            }
            Answer::Park(id, reason) => {
                worker.release(id);
                subscription.nack_ids([id], NakAction::Park, reason).await?;
            }
            Answer::Release(id) => worker.release(id),
            Answer::Flush(sender) => flush = Some(sender),
        }
    }
    if !acks.is_empty() {
        subscription.ack_ids(acks).await?;
    }
    // Fails if the worker no longer waits for the flush.
    if let Some(sender) = flush
        && sender.send(()).is_err()
    {
        tracing::debug!("Answers flushed after the worker had left");
    }
    Ok(())
}
