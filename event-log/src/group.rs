//! A persistent subscription group: the store hands out events, one worker answers for each.

mod info;
mod pump;
mod watchdog;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;
use uuid::Uuid;

use crate::client::EventLog;
use crate::error::LogError;
use crate::stream::LoggedEvent;
use crate::supervise::share_fate;
pub use info::{GroupInfo, GroupStats, Member};

/// Between two looks at the store while waiting for it to take the last answers: at first, and
/// twice as long each time.
const DRAIN_POLL: Duration = Duration::from_millis(5);

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
    /// How long the store may deliver nothing while work waits for this worker, before the
    /// connection counts as dead; noticed after at most three times as long.
    pub silence_limit: Duration,
    /// Counts the connections that were given up for silence.
    pub n_silences: watch::Sender<u64>,
}

/// One event handed to this worker.
#[derive(Debug)]
pub struct Delivery {
    /// By what it is answered.
    pub id: Uuid,
    pub event: LoggedEvent,
    /// Whether it was parked, and somebody asked the store to deliver parked messages again.
    pub is_replayed: bool,
    /// The store's count of earlier deliveries of it. A group that was deleted, updated, or loaded
    /// after a crash of the store counts from 0 again.
    pub retry_count: u32,
    /// Whether no worker can have been given the event before: it was appended after this worker had
    /// joined the group as it is now, and the group counts no earlier delivery.
    pub is_first: bool,
    /// When this worker last lost its connection to the group, if it did. Other workers may have been
    /// busy with the event then, and still be.
    pub lost_connection: Option<Instant>,
    /// When it arrived: the store's patience runs from then on.
    pub received: Instant,
}

/// This worker's membership in a group. It outlives the connection.
pub struct Group {
    deliveries: mpsc::Receiver<Delivery>,
    // Never more than one answer for each delivery that is held.
    answers: mpsc::UnboundedSender<Answer>,
    /// How many deliveries are held: received and not answered.
    held: Arc<AtomicUsize>,
    pump: JoinSet<()>,
    log: EventLog,
    name: String,
}

enum Answer {
    Ack(Uuid),
    Retry(Uuid, String),
    Park(Uuid, String),
    LetGo(Uuid),
    /// Everything before it has been handed to the connection.
    Flushed(oneshot::Sender<()>),
}

impl Group {
    /// The next delivery; waits for it.
    ///
    /// # Panics
    /// If the task that holds the connection has panicked.
    pub async fn next(&mut self) -> Delivery {
        match self.deliveries.recv().await {
            Some(delivery) => delivery,
            None => share_fate(&mut self.pump).await,
        }
    }

    /// The next delivery, if it is there.
    pub fn ready(&mut self) -> Option<Delivery> {
        self.deliveries.try_recv().ok()
    }

    /// What the group is doing.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn stats(&self) -> Result<GroupStats, LogError> {
        self.log.group_stats(&self.name).await
    }

    /// The delivery is done with.
    pub fn ack(&self, delivery_id: Uuid) {
        self.answer(Answer::Ack(delivery_id));
    }

    /// The delivery is to be made again, at once.
    pub fn retry(&self, delivery_id: Uuid, reason: String) {
        self.answer(Answer::Retry(delivery_id, reason));
    }

    /// The message is to be set aside for a person.
    pub fn park(&self, delivery_id: Uuid, reason: String) {
        self.answer(Answer::Park(delivery_id, reason));
    }

    /// Nothing is answered: the store has lost patience and delivers it again, or will.
    pub fn let_go(&self, delivery_id: Uuid) {
        self.answer(Answer::LetGo(delivery_id));
    }

    /// Leaves the group once the store has taken the answers given, or after `patience`: then
    /// some deliveries will be made again. What was delivered and not answered goes back.
    pub async fn leave(mut self, patience: Duration) {
        self.deliveries.close();
        let taken = timeout(patience, self.answers_taken()).await;
        tracing::debug!(in_time = taken.is_ok(), "Leaving the group");
        self.pump.shutdown().await;
    }

    /// Waits until the store has taken the answers given.
    async fn answers_taken(&self) {
        let (flushed, is_flushed) = oneshot::channel();
        self.answer(Answer::Flushed(flushed));
        if is_flushed.await.is_ok() {
            let mut delay = DRAIN_POLL;
            while self.store_waits_for_answers().await {
                sleep(delay).await;
                delay *= 2;
            }
        }
    }

    /// Whether the store counts more deliveries as unanswered than we do.
    async fn store_waits_for_answers(&self) -> bool {
        let Ok(info) = self.log.group_info(&self.name).await else { return false };
        let ours = self.log.connection_name().and_then(|it| info.member(it));
        let in_flight = ours.map_or(info.stats.in_flight, |it| it.in_flight);
        in_flight > self.held.load(Ordering::Acquire)
    }

    fn answer(&self, answer: Answer) {
        // An answer that nobody takes is an answer not given: the store delivers again.
        if self.answers.send(answer).is_err() {
            tracing::debug!("Answer came after the group was left");
        }
    }
}

impl EventLog {
    /// How long a membership in a group has had no connection; `None` if it has one, or if there is
    /// no membership.
    pub fn subscription_away(&self) -> Option<Duration> {
        let since = *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|it| it.elapsed())
    }

    /// Joins a group, and makes it if it is not there: from the first event on, so that none is
    /// missed. Never fails: while the store cannot be reached it goes on trying.
    pub fn join_group(&self, settings: GroupSettings) -> Group {
        let (deliver, deliveries) = mpsc::channel(settings.buffer_size.max(1));
        let (sender, answers) = mpsc::unbounded_channel();
        let (log, name) = (self.clone(), settings.name.clone());
        let held = Arc::new(AtomicUsize::new(0));
        let worker = pump::Worker::new(deliver, answers, Arc::clone(&held));
        let mut pump = JoinSet::new();
        pump.spawn(pump::keep_pumping(self.clone(), settings, worker).in_current_span());
        Group { deliveries, answers: sender, held, pump, log, name }
    }
}
