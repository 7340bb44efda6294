//! The connection behind a membership: deliveries one way, answers the other, and a look now and
//! then whether it still lives.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventstore::{
    Client, NakAction, PersistentSubscription, PersistentSubscriptionEvent,
    PersistentSubscriptionToAllOptions, StreamPosition, SubscribeToPersistentSubscriptionOptions,
    SubscriptionFilter,
};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::{Answer, Delivery, GroupSettings};
use crate::client::{EventLog, backoff};
use crate::error::LogError;
use crate::stream::LoggedEvent;

/// The most answers that go out in one message.
const ANSWER_BATCH: usize = 512;
/// The store keeps its place in the log after this many answered messages at most...
const CHECKPOINT_UPPER_BOUND: i32 = 500;
/// ...and after at least one, each time this long has passed.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// The worker's side of the membership, which outlives connections.
pub(super) struct Worker {
    deliver: mpsc::Sender<Delivery>,
    answers: mpsc::UnboundedReceiver<Answer>,
    /// What was delivered and is not answered.
    held: HashSet<Uuid>,
    n_held: Arc<AtomicUsize>,
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the store says that work waits for this worker and delivers nothing")]
    Silent,
}

impl Worker {
    pub(super) fn new(
        deliver: mpsc::Sender<Delivery>,
        answers: mpsc::UnboundedReceiver<Answer>,
        n_held: Arc<AtomicUsize>,
    ) -> Self {
        Self { deliver, answers, held: HashSet::new(), n_held }
    }

    /// `false` if it is held already.
    fn hold(&mut self, id: Uuid) -> bool {
        let is_new = self.held.insert(id);
        self.n_held.store(self.held.len(), Ordering::Release);
        is_new
    }

    fn release(&mut self, id: Uuid) {
        self.held.remove(&id);
        self.n_held.store(self.held.len(), Ordering::Release);
    }
}

/// Keeps the membership through any number of connections, until the worker has left. Each
/// connection has a task of its own: the client panics when the store ends a subscription
/// politely, and that is a lost connection like any other.
pub(super) async fn keep_pumping(log: EventLog, settings: GroupSettings, worker: Worker) {
    let mut delays = backoff();
    let worker = Arc::new(Mutex::new(worker));
    loop {
        let joined = Instant::now();
        let mut connection = JoinSet::new();
        let (log, settings, worker) = (log.clone(), settings.clone(), Arc::clone(&worker));
        connection.spawn(async move { pump(&log, &settings, &mut *worker.lock().await).await });
        match connection.join_next().await {
            Some(Ok(Ok(()))) | None => return,
            Some(Ok(Err(error))) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "Persistent subscription lost");
            }
            Some(Err(panic)) => {
                let error = &panic as &dyn std::error::Error;
                tracing::warn!(error, "Persistent subscription ended without a reason");
            }
        }
        let delay = delays.next().unwrap_or_default();
        if joined.elapsed() > delay {
            delays = backoff();
        }
        sleep(delay).await;
    }
}

/// Serves one connection. `Ok`: the worker has left.
async fn pump(log: &EventLog, settings: &GroupSettings, worker: &mut Worker) -> Result<(), Lost> {
    let (client, generation) = log.client()?;
    let served = async {
        ensure(&client, settings).await.map_err(LogError::from_client)?;
        let options =
            SubscribeToPersistentSubscriptionOptions::default().buffer_size(settings.buffer_size);
        let subscription = client
            .subscribe_to_persistent_subscription_to_all(settings.name.as_str(), &options)
            .await
            .map_err(LogError::from_client)?;
        serve(log, settings, subscription, worker).await
    };
    let served = served.await;
    if served.is_err() {
        log.discard(generation);
    }
    served
}

async fn ensure(client: &Client, settings: &GroupSettings) -> eventstore::Result<()> {
    let exactly = format!("^{}$", settings.event_type);
    let options = PersistentSubscriptionToAllOptions::default()
        .filter(SubscriptionFilter::on_event_type().regex(exactly))
        .start_from(StreamPosition::Start)
        .message_timeout(settings.message_timeout)
        .max_retry_count(settings.max_retry_count)
        .checkpoint_after(CHECKPOINT_AFTER)
        .checkpoint_lower_bound(1)
        .checkpoint_upper_bound(CHECKPOINT_UPPER_BOUND);
    match client.create_persistent_subscription_to_all(settings.name.as_str(), &options).await {
        Ok(()) | Err(eventstore::Error::ResourceAlreadyExists) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Hands deliveries to the worker and its answers to the store.
async fn serve(
    log: &EventLog,
    settings: &GroupSettings,
    mut subscription: PersistentSubscription,
    worker: &mut Worker,
) -> Result<(), Lost> {
    let mut batch = Vec::with_capacity(ANSWER_BATCH);
    let mut looks = interval(settings.silence_limit);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    // One look proves nothing: what waits may have come a moment ago.
    let mut is_suspect = false;
    loop {
        tokio::select! {
            n_answers = worker.answers.recv_many(&mut batch, ANSWER_BATCH) => {
                if n_answers == 0 {
                    return Ok(());
                }
                send(&mut subscription, worker, batch.drain(..))
                    .await
                    .map_err(LogError::from_client)?;
            }
            next = subscription.next_subscription_event() => {
                is_suspect = false;
                let next = next.map_err(LogError::from_client)?;
                take(&mut subscription, worker, next).await.map_err(LogError::from_client)?;
            }
            _ = looks.tick() => {
                let was_suspect = is_suspect;
                // A store that does not answer the question is suspect as well.
                is_suspect =
                    worker.held.is_empty() && work_waits(log, settings).await.unwrap_or(true);
                if was_suspect && is_suspect {
                    settings.n_silences.send_modify(|it| *it += 1);
                    return Err(Lost::Silent);
                }
            }
        }
    }
}

/// Whether the store says that it has given us what we do not have, or has something to give and
/// room at our side, or does not know us. An earlier connection of ours may still be a member too:
/// one that looks well is enough.
async fn work_waits(log: &EventLog, settings: &GroupSettings) -> Result<bool, LogError> {
    let info = log.group_info(&settings.name).await?;
    let work_waits = info.stats.waiting + info.stats.retrying > 0;
    Ok(match log.connection_name() {
        Some(name) => info
            .members
            .iter()
            .filter(|it| it.name == name)
            .all(|it| it.in_flight > 0 || (work_waits && it.free_slots > 0)),
        None => work_waits,
    })
}

async fn take(
    subscription: &mut PersistentSubscription,
    worker: &mut Worker,
    next: PersistentSubscriptionEvent,
) -> eventstore::Result<()> {
    let PersistentSubscriptionEvent::EventAppeared { retry_count, event } = next else {
        tracing::debug!("Joined the group");
        return Ok(());
    };
    let id = event.get_original_event().id;
    let is_replayed = event.link.is_some();
    if is_replayed && event.event.is_none() {
        tracing::warn!(event.id = %id, "Parked message whose event is gone, let go for good");
        return subscription.ack_ids([id]).await;
    }
    let Some(logged) = event.event.as_ref().and_then(LoggedEvent::new) else {
        let reason = "the event is not in an order's stream";
        return subscription.nack_ids([id], NakAction::Park, reason).await;
    };
    if !worker.hold(id) {
        // The store lost patience, or the connection was lost: the answer to come is for this one.
        tracing::debug!(event.id = %id, "Delivered again while it is handled");
        return Ok(());
    }
    let retry_count = u32::try_from(retry_count).unwrap_or(u32::MAX);
    let received = Instant::now();
    let delivery = Delivery { id, event: logged, is_replayed, retry_count, received };
    // A worker that has left takes nothing more: it goes back when the connection ends.
    drop(worker.deliver.send(delivery).await);
    Ok(())
}

/// Sends answers, all acks among them in one message.
async fn send(
    subscription: &mut PersistentSubscription,
    worker: &mut Worker,
    answers: impl Iterator<Item = Answer>,
) -> eventstore::Result<()> {
    let mut acks = Vec::new();
    let mut flushed = None;
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
            Answer::LetGo(id) => worker.release(id),
            Answer::Flushed(sender) => flushed = Some(sender),
        }
    }
    if !acks.is_empty() {
        subscription.ack_ids(acks).await?;
    }
    // A worker that does not wait any longer need not know.
    if let Some(flushed) = flushed
        && flushed.send(()).is_err()
    {
        tracing::debug!("Answers flushed after the worker had gone");
    }
    Ok(())
}
