//! The connection behind a membership: deliveries one way, answers the other, and a look now and
//! then whether it still lives.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use eventstore::{
    Client, NakAction, PersistentSubscription, PersistentSubscriptionEvent,
    PersistentSubscriptionToAllOptions, StreamPosition, SubscribeToPersistentSubscriptionOptions,
};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::{Answer, Delivery, GroupSettings, watchdog};
use crate::client::{EventLog, Position, backoff};
use crate::error::{LogError, is_connection_lost};
use crate::session::Session;
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
    /// Whether something was delivered over this connection.
    has_received: bool,
    /// Events up to here may have been delivered before, by an earlier group of that name too.
    horizon: Option<Position>,
    /// When the last connection was lost.
    lost: Option<Instant>,
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the store ended it, or cannot be reached")]
    Client(#[from] eventstore::Error),
    #[error("work waits for this worker, and the store delivers nothing")]
    Silent,
}

impl Lost {
    fn log(&self) {
        let error = self as &dyn std::error::Error;
        let is_outage = match self {
            Self::Log(error) => error.is_unavailable(),
            Self::Client(error) => is_connection_lost(error),
            Self::Silent => false,
        };
        // An outage is told once, whoever notices it.
        if is_outage {
            tracing::debug!(error, "Persistent subscription lost");
        } else {
            tracing::warn!(error, "Persistent subscription lost");
        }
    }
}

impl Worker {
    pub(super) fn new(
        deliver: mpsc::Sender<Delivery>,
        answers: mpsc::UnboundedReceiver<Answer>,
        n_held: Arc<AtomicUsize>,
    ) -> Self {
        let held = HashSet::new();
        Self { deliver, answers, held, n_held, has_received: false, horizon: None, lost: None }
    }

    /// `false` if it is held already.
    fn hold(&mut self, id: Uuid) -> bool {
        self.has_received = true;
        let is_new = self.held.insert(id);
        self.n_held.store(self.held.len(), Ordering::Release);
        is_new
    }

    /// Whether the event at that position cannot have been delivered before. A group delivers events
    /// for the first time in their order.
    fn is_first(&mut self, position: Position, retry_count: u32) -> bool {
        let is_behind = self.horizon.is_some_and(|horizon| position > horizon);
        self.horizon = self.horizon.map(|horizon| horizon.max(position));
        is_behind && retry_count == 0
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
    let _membership = Membership::begin(&log);
    loop {
        let joined = Instant::now();
        let mut connection = JoinSet::new();
        let (log, settings, shared) = (log.clone(), settings.clone(), Arc::clone(&worker));
        connection.spawn(async move { pump(&log, &settings, &mut *shared.lock().await).await });
        match connection.join_next().await {
            Some(Ok(Ok(()))) | None => return,
            Some(Ok(Err(lost))) => lost.log(),
            Some(Err(panic)) => {
                let error = &panic as &dyn std::error::Error;
                tracing::warn!(error, "Persistent subscription ended without a reason");
            }
        }
        {
            let mut worker = worker.lock().await;
            worker.lost = Some(Instant::now());
            worker.horizon = None;
            if std::mem::take(&mut worker.has_received) {
                delays = backoff();
            }
        }
        let delay = delays.next().unwrap_or_default();
        if joined.elapsed() > delay {
            delays = backoff();
        }
        sleep(delay).await;
    }
}

/// Notes for as long as it lives whether a membership has a connection.
struct Membership(EventLog);

impl Membership {
    fn begin(log: &EventLog) -> Self {
        note_away(log, Some(Instant::now()));
        Self(log.clone())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        note_away(&self.0, None);
    }
}

fn note_away(log: &EventLog, since: Option<Instant>) {
    *log.away.lock().unwrap_or_else(PoisonError::into_inner) = since;
}

/// Serves one connection. `Ok`: the worker has left.
async fn pump(log: &EventLog, settings: &GroupSettings, worker: &mut Worker) -> Result<(), Lost> {
    let place = log.place_for_subscription()?;
    let session = place.session();
    let served = serve_session(log, settings, session, worker).await;
    match &served {
        Ok(()) => {}
        Err(Lost::Client(error)) => {
            log.note_failure(session, error);
            log.note_unreachable(error);
        }
        // The connection looks well and brings nothing: another one may.
        Err(Lost::Silent) => session.sockets.shut_down(),
        Err(Lost::Log(_)) => {}
    }
    served
}

async fn serve_session(
    log: &EventLog,
    settings: &GroupSettings,
    session: &Session,
    worker: &mut Worker,
) -> Result<(), Lost> {
    let client = session.client();
    ensure(&client, settings).await?;
    session.sockets.note_answer(Instant::now());
    log.note_reachable();
    let options =
        SubscribeToPersistentSubscriptionOptions::default().buffer_size(settings.buffer_size);
    let subscription = client
        .subscribe_to_persistent_subscription_to_all(settings.name.as_str(), &options)
        .await?;
    note_away(log, None);
    let served = serve(log, settings, session, subscription, worker).await;
    note_away(log, Some(Instant::now()));
    served
}

async fn ensure(client: &Client, settings: &GroupSettings) -> eventstore::Result<()> {
    let options = PersistentSubscriptionToAllOptions::default()
        .filter(watchdog::only_type(&settings.event_type))
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
    session: &Session,
    mut subscription: PersistentSubscription,
    worker: &mut Worker,
) -> Result<(), Lost> {
    let mut batch = Vec::with_capacity(ANSWER_BATCH);
    let mut looks = interval(settings.silence_limit);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    let mut suspicion = None;
    let mut was_busy = false;
    loop {
        tokio::select! {
            n_answers = worker.answers.recv_many(&mut batch, ANSWER_BATCH) => {
                if n_answers == 0 {
                    return Ok(());
                }
                send(&mut subscription, worker, batch.drain(..)).await?;
            }
            next = subscription.next_subscription_event() => {
                let next = next?;
                (suspicion, was_busy) = (None, true);
                session.sockets.note_life();
                take(log, &mut subscription, worker, next).await?;
            }
            _ = looks.tick() => {
                // The store is asked only when nothing came for a while and nothing is held.
                if std::mem::take(&mut was_busy) || !worker.held.is_empty() {
                    suspicion = None;
                    continue;
                }
                // A store that does not answer is another matter: its connection breaks.
                let found = watchdog::look(log, settings).await.unwrap_or_else(|error| {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "Idle group could not be looked at");
                    None
                });
                if found.is_some() && found == suspicion {
                    tracing::debug!(?found, "Work waits and nothing is delivered");
                    settings.n_silences.send_modify(|it| *it += 1);
                    return Err(Lost::Silent);
                }
                suspicion = found;
            }
        }
    }
}

async fn take(
    log: &EventLog,
    subscription: &mut PersistentSubscription,
    worker: &mut Worker,
    next: PersistentSubscriptionEvent,
) -> Result<(), Lost> {
    let PersistentSubscriptionEvent::EventAppeared { retry_count, event } = next else {
        // Read after the group has confirmed this worker: whatever was delivered by an earlier group
        // of that name, or from an earlier checkpoint, lies before this end.
        worker.horizon = log.head().await?;
        tracing::debug!("Joined the group");
        return Ok(());
    };
    let id = event.get_original_event().id;
    let is_replayed = event.link.is_some();
    if is_replayed && event.event.is_none() {
        tracing::warn!(event.id = %id, "Parked message whose event is gone, let go for good");
        return Ok(subscription.ack_ids([id]).await?);
    }
    let Some(logged) = event.event.as_ref().and_then(LoggedEvent::new) else {
        let reason = "the event is not in an order's stream";
        return Ok(subscription.nack_ids([id], NakAction::Park, reason).await?);
    };
    if !worker.hold(id) {
        // The store lost patience, or the connection was lost: the answer to come is for this one.
        tracing::debug!(event.id = %id, "Delivered again while it is handled");
        return Ok(());
    }
    let retry_count = u32::try_from(retry_count).unwrap_or(u32::MAX);
    // A parked message that is replayed is older than what was delivered since.
    let is_first = !is_replayed && worker.is_first(logged.position, retry_count);
    let (lost_connection, received) = (worker.lost, Instant::now());
    let delivery = Delivery {
        id,
        event: logged,
        is_replayed,
        retry_count,
        is_first,
        lost_connection,
        received,
    };
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
