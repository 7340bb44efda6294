//! A persistent subscription group: the store hands out events, one worker answers for each.

use std::time::Duration;

use eventstore::{
    Client, NakAction, PersistentSubscription, PersistentSubscriptionEvent,
    PersistentSubscriptionToAllOptions, StreamPosition, SubscribeToPersistentSubscriptionOptions,
    SubscriptionFilter,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::client::{EventLog, backoff};
use crate::error::LogError;
use crate::stream::LoggedEvent;

/// How many answers may wait to be sent; also the most that go out in one message.
const ANSWER_BUFFER: usize = 512;
/// The store keeps its place in the log after this many answered messages at most...
const CHECKPOINT_UPPER_BOUND: i32 = 500;
/// ...and after at least one, each time this long has passed.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);
/// Between two looks at the store while waiting for it to take the last answers.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// How a group is made and joined.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    pub name: String,
    /// The type of the events that it hands out.
    pub event_type: String,
    /// How long a worker may take for one delivery before the store gives it to another.
    pub message_timeout: Duration,
    /// After how many failed deliveries the store parks a message by itself.
    pub max_retry_count: i32,
    /// How many deliveries this worker holds at once.
    pub buffer_size: usize,
}

/// One event handed to this worker.
#[derive(Debug)]
pub struct Delivery {
    pub event: LoggedEvent,
    /// The store's count of earlier deliveries of it.
    pub retry_count: u32,
}

/// What the group is doing, as the store says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStats {
    pub in_flight: usize,
    pub retrying: usize,
    pub parked: usize,
}

/// This worker's membership in a group. It outlives the connection.
pub struct Group {
    deliveries: mpsc::Receiver<Delivery>,
    answers: Answers,
    pump: JoinSet<()>,
    log: EventLog,
    name: String,
}

/// Where verdicts go. Cheap to clone.
#[derive(Clone)]
pub struct Answers {
    sender: mpsc::Sender<Answer>,
}

struct Answer {
    event_id: Uuid,
    kind: AnswerKind,
}

enum AnswerKind {
    Ack,
    Retry(String),
    Park(String),
}

impl Answers {
    /// The delivery is done with.
    pub async fn ack(&self, event_id: Uuid) {
        self.send(event_id, AnswerKind::Ack).await;
    }

    /// The delivery is to be made again, at once.
    pub async fn retry(&self, event_id: Uuid, reason: String) {
        self.send(event_id, AnswerKind::Retry(reason)).await;
    }

    /// The message is to be set aside for a person.
    pub async fn park(&self, event_id: Uuid, reason: String) {
        self.send(event_id, AnswerKind::Park(reason)).await;
    }

    async fn send(&self, event_id: Uuid, kind: AnswerKind) {
        // An answer that nobody takes is an answer not given: the store delivers again.
        if self.sender.send(Answer { event_id, kind }).await.is_err() {
            tracing::debug!(event.id = %event_id, "Answer came after the group was left");
        }
    }
}

impl Group {
    /// The next delivery; waits for it.
    pub async fn next(&mut self) -> Delivery {
        match self.deliveries.recv().await {
            Some(delivery) => delivery,
            // The pump never ends by itself. Should it panic, there is nothing more to come.
            None => std::future::pending().await,
        }
    }

    /// Where to send verdicts.
    pub fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// Leaves the group once the store has taken the answers given, or after `patience`: then
    /// some deliveries will be made again.
    pub async fn leave(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        // Hands what was delivered and not looked at back to the store at once.
        self.deliveries.close();
        while let Ok(unseen) = self.deliveries.try_recv() {
            self.answers.retry(unseen.event.event_id, "worker stopped".to_owned()).await;
        }
        while Instant::now() < deadline {
            match self.log.group_stats(&self.name).await {
                Ok(stats) if stats.in_flight > 0 => sleep(DRAIN_POLL).await,
                Ok(_) | Err(_) => break,
            }
        }
        self.pump.shutdown().await;
    }
}

impl EventLog {
    /// Joins a group, and makes it if it is not there: from the first event on, so that none is
    /// missed. Never fails: while the store cannot be reached it goes on trying.
    pub fn join_group(&self, settings: GroupSettings) -> Group {
        let (deliver, deliveries) = mpsc::channel(settings.buffer_size.max(1));
        let (sender, answers) = mpsc::channel(ANSWER_BUFFER);
        let (log, name) = (self.clone(), settings.name.clone());
        let mut pump = JoinSet::new();
        pump.spawn(keep_pumping(self.clone(), settings, deliver, answers));
        Group { deliveries, answers: Answers { sender }, pump, log, name }
    }

    /// What the group is doing. Zeros if there is no such group.
    pub async fn group_stats(&self, name: &str) -> Result<GroupStats, LogError> {
        let options = eventstore::GetPersistentSubscriptionInfoOptions::default();
        self.call(async |client| {
            match client.get_persistent_subscription_info_to_all(name, &options).await {
                Ok(info) => Ok(GroupStats {
                    in_flight: info.stats.total_in_flight_messages,
                    retrying: info.stats.retry_buffer_count,
                    parked: info.stats.parked_message_count,
                }),
                Err(eventstore::Error::ResourceNotFound) => Ok(GroupStats::default()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// Keeps the membership through any number of connections, until the worker has left. Each
/// connection has a task of its own: the client panics when the store ends a subscription
/// politely, and that is a lost connection like any other.
async fn keep_pumping(
    log: EventLog,
    settings: GroupSettings,
    deliver: mpsc::Sender<Delivery>,
    answers: mpsc::Receiver<Answer>,
) {
    let mut delays = backoff();
    let answers = std::sync::Arc::new(tokio::sync::Mutex::new(answers));
    loop {
        let joined = Instant::now();
        let mut connection = JoinSet::new();
        let answers = std::sync::Arc::clone(&answers);
        let (log, settings, deliver) = (log.clone(), settings.clone(), deliver.clone());
        connection.spawn(async move {
            pump(&log, &settings, &deliver, &mut *answers.lock().await).await
        });
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
async fn pump(
    log: &EventLog,
    settings: &GroupSettings,
    deliver: &mpsc::Sender<Delivery>,
    answers: &mut mpsc::Receiver<Answer>,
) -> Result<(), LogError> {
    let (client, generation) = log.client()?;
    let served = async {
        ensure(&client, settings).await?;
        let options =
            SubscribeToPersistentSubscriptionOptions::default().buffer_size(settings.buffer_size);
        let mut subscription = client
            .subscribe_to_persistent_subscription_to_all(settings.name.as_str(), &options)
            .await?;
        serve(&mut subscription, deliver, answers).await
    };
    served.await.map_err(|error| {
        log.discard(generation);
        LogError::from_client(error)
    })
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
    subscription: &mut PersistentSubscription,
    deliver: &mpsc::Sender<Delivery>,
    answers: &mut mpsc::Receiver<Answer>,
) -> eventstore::Result<()> {
    let mut batch = Vec::with_capacity(ANSWER_BUFFER);
    loop {
        tokio::select! {
            n_answers = answers.recv_many(&mut batch, ANSWER_BUFFER) => {
                if n_answers == 0 {
                    return Ok(());
                }
                send(subscription, batch.drain(..)).await?;
            }
            next = subscription.next_subscription_event() => match next? {
                PersistentSubscriptionEvent::EventAppeared { retry_count, event } => {
                    let event = event.get_original_event();
                    let Some(logged) = LoggedEvent::new(event) else {
                        let reason = "the event is not in an order's stream";
                        subscription.nack_ids([event.id], NakAction::Park, reason).await?;
                        continue;
                    };
                    let retry_count = u32::try_from(retry_count).unwrap_or(u32::MAX);
                    // There is room: the store sends no more than the buffer holds.
                    if deliver.send(Delivery { event: logged, retry_count }).await.is_err() {
                        let reason = "worker stopped";
                        subscription.nack_ids([event.id], NakAction::Retry, reason).await?;
                    }
                }
                PersistentSubscriptionEvent::Confirmed(_) => {
                    tracing::debug!("Joined the group");
                }
            },
        }
    }
}

/// Sends answers, all acks among them in one message.
async fn send(
    subscription: &mut PersistentSubscription,
    answers: impl Iterator<Item = Answer>,
) -> eventstore::Result<()> {
    let mut acks = Vec::new();
    for Answer { event_id, kind } in answers {
        match kind {
            AnswerKind::Ack => acks.push(event_id),
            AnswerKind::Retry(reason) => {
                subscription.nack_ids([event_id], NakAction::Retry, reason).await?;
            }
            AnswerKind::Park(reason) => {
                subscription.nack_ids([event_id], NakAction::Park, reason).await?;
            }
        }
    }
    if acks.is_empty() { Ok(()) } else { subscription.ack_ids(acks).await }
}
