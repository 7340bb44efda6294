//! The connection: one client for the life of the process, and another only for a reason.
//!
//! The client crate gives up for good when its first connection fails, and keeps to the node that it
//! has chosen. So the next call makes another client when the client has ended, or when the node of
//! a cluster is lost. In all other cases the client connects again by itself: a store that restarts,
//! is busy, or ends a subscription is no reason for another client.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use eventstore::{Client, ClientSettings};
use jiff::Timestamp;
use serde::Deserialize;
use service_kit::outage::Outage;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::address::EventStoreUrl;
use crate::appends::Appends;
use crate::descriptors::Descriptors;
use crate::diagnosis::{UnreachableCause, find_cause};
use crate::error::{LogError, breaks_connection, ends_client, is_connection_lost, may_be_repeated};
use crate::metadata::Producer;
use crate::newest::NewestStates;
use crate::session::{Place, Session};
use crate::tail::Tail;

/// How long one call may take, its retries included: long enough for a store that restarts, short
/// enough for somebody who waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for somebody who waits while the store is known to have failed.
const FAILED_CALL_TIMEOUT: Duration = Duration::from_millis(800);
/// How long the store may be out of reach before that is an outage: a connection that breaks is made
/// anew in less.
const OUTAGE_GRACE: Duration = Duration::from_millis(250);
/// Between two tries, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a client waits before each try to find a node, in milliseconds. By itself it waits half a
/// second before it tries at all.
const DISCOVERY_INTERVAL_MS: &str = "10";

/// Where the event store is (`[event_store]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventStoreConfig {
    pub url: EventStoreUrl,
}

/// An event's place among all events of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub commit: u64,
    pub prepare: u64,
}

impl From<eventstore::Position> for Position {
    fn from(position: eventstore::Position) -> Self {
        Self { commit: position.commit, prepare: position.prepare }
    }
}

impl From<Position> for eventstore::Position {
    fn from(position: Position) -> Self {
        Self { commit: position.commit, prepare: position.prepare }
    }
}

/// The order streams of one event store. Cheap to clone; the clones share a connection.
#[derive(Clone)]
pub struct EventLog {
    connection: Arc<Connection>,
    pub(crate) tail: Arc<Tail>,
    /// Subscriptions that resumed because the store was faster.
    pub(crate) resumes: Arc<AtomicU64>,
    pub(crate) producer: Producer,
    /// What is known of the store's appends.
    pub(crate) appends: Arc<Appends>,
    /// Whether callers are refused soon while the store is known to take no appends.
    pub(crate) fails_fast: bool,
    /// Since when a membership in a group has no connection; `None` if it has one, or if there is no
    /// membership.
    pub(crate) away: Arc<Mutex<Option<Instant>>>,
    pub(crate) newest: Arc<NewestStates>,
}

struct Connection {
    /// For messages.
    address: String,
    settings: ClientSettings,
    /// The connection's name at the store, if no other connection has it.
    own_name: Option<String>,
    /// The session in use.
    current: Mutex<Option<Arc<Session>>>,
    /// Sessions beside it, for subscriptions that it has no place for. They stay: a client cannot be
    /// ended.
    others: Mutex<Vec<Arc<Session>>>,
    descriptors: Descriptors,
    outage: Arc<Outage>,
    diagnosis: Mutex<Diagnosis>,
    diagnoses: Mutex<JoinSet<()>>,
    /// Calls that the store has answered, and subscriptions that it has taken.
    n_answers: AtomicU64,
}

/// What is known about a connection that cannot be made.
#[derive(Default)]
struct Diagnosis {
    /// Whether somebody is finding out.
    is_running: bool,
    /// Why the store cannot be reached; `None` while it can.
    cause: Option<UnreachableCause>,
}

impl Connection {
    /// Notes that the store has answered.
    fn note_success(&self) {
        self.n_answers.fetch_add(1, Ordering::Relaxed);
        self.descriptors.note_success();
        if self.outage.is_ongoing() {
            let mut diagnosis = self.diagnosis();
            diagnosis.cause = None;
            self.outage.note_success();
        }
    }

    /// Finds out why the store cannot be reached, and logs it; nothing while that is under way.
    async fn diagnose(&self, failure: String) {
        if std::mem::replace(&mut self.diagnosis().is_running, true) {
            return;
        }
        let n_answers = self.n_answers.load(Ordering::Relaxed);
        sleep(OUTAGE_GRACE).await;
        let has_answered = || self.n_answers.load(Ordering::Relaxed) != n_answers;
        let found = if has_answered() { None } else { find_cause(&self.settings).await };
        if found.is_none() && !has_answered() {
            // The network is well: the store may be coming back, and the next attempt succeed.
            sleep(BACKOFF.1).await;
        }
        let mut diagnosis = self.diagnosis();
        diagnosis.is_running = false;
        // An outage that is over must not begin anew.
        if !has_answered() {
            let cause = found.unwrap_or(UnreachableCause::Call(failure));
            self.outage.note_failure(&cause.to_string(), cause.hint());
            diagnosis.cause = Some(cause);
        }
    }

    fn diagnosis(&self) -> MutexGuard<'_, Diagnosis> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.diagnosis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_session(&self) -> Result<Arc<Session>, LogError> {
        let session = Session::open(&self.settings).map_err(|_| {
            self.descriptors.note_failure();
            if self.descriptors.are_missing() {
                LogError::NoDescriptors
            } else {
                LogError::Address { url: self.address.clone() }
            }
        })?;
        Ok(Arc::new(session))
    }
}

impl EventLog {
    /// A log at the given address. Opens nothing yet: the first call connects. The store knows the
    /// connection by `name`, which no other connection has, unless the address names it.
    ///
    /// # Errors
    /// [`LogError::Address`] if no address is configured.
    pub fn connect(
        config: &EventStoreConfig,
        producer: Producer,
        name: &str,
    ) -> Result<Self, LogError> {
        let parameters = [("discoveryInterval", DISCOVERY_INTERVAL_MS), ("connectionName", name)];
        let (settings, is_named_by_us) = config.url.settings_with(&parameters)?;
        let outage = Arc::new(Outage::new("Event store", config.url.to_string()));
        let connection = Connection {
            address: config.url.to_string(),
            settings,
            own_name: is_named_by_us.then(|| name.to_owned()),
            current: Mutex::default(),
            others: Mutex::default(),
            descriptors: Descriptors::default(),
            outage: Arc::clone(&outage),
            diagnosis: Mutex::default(),
            diagnoses: Mutex::default(),
            n_answers: AtomicU64::new(0),
        };
        Ok(Self {
            connection: Arc::new(connection),
            tail: Arc::new(Tail::new()),
            resumes: Arc::default(),
            newest: Arc::default(),
            producer,
            appends: Arc::new(Appends::new(outage)),
            fails_fast: false,
            away: Arc::default(),
        })
    }

    /// Where the store is, without credentials.
    pub(crate) fn address(&self) -> &str {
        &self.connection.address
    }

    pub(crate) fn settings(&self) -> ClientSettings {
        self.connection.settings.clone()
    }

    /// The same log and connection for a part of this process that writes as another service.
    #[must_use]
    pub fn on_behalf_of(&self, service: &str) -> Self {
        let producer = Producer { service: service.to_owned(), ..self.producer.clone() };
        Self { producer, ..self.clone() }
    }

    /// The same log for a part of this process whose callers wait for an answer: while the store is
    /// known to take no appends they are refused at once, and reads are given up soon. Needs
    /// [`watch_appends`](Self::watch_appends) to run, which finds out when the store is back.
    #[must_use]
    pub fn failing_fast(&self) -> Self {
        Self { fails_fast: true, ..self.clone() }
    }

    /// The same log for what has to reach a store that is known to have failed.
    pub(crate) fn waiting_long(&self) -> Self {
        Self { fails_fast: false, ..self.clone() }
    }

    /// The connection's name at the store; `None` if the address names it, and others may have the
    /// same.
    pub fn connection_name(&self) -> Option<&str> {
        self.connection.own_name.as_deref()
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), LogError> {
        self.head().await.map(drop)
    }

    /// The id of the store's first event, which tells one store from another; `None` if there is
    /// none.
    pub async fn store_id(&self) -> Result<Option<Uuid>, LogError> {
        Ok(self.oldest_event().await?.map(|(id, _)| id))
    }

    /// When the oldest event was written that the store still has; `None` if there is none.
    pub async fn oldest_event_at(&self) -> Result<Option<Timestamp>, LogError> {
        Ok(self.oldest_event().await?.and_then(|(_, written_at)| written_at))
    }

    async fn oldest_event(&self) -> Result<Option<(Uuid, Option<Timestamp>)>, LogError> {
        let options = eventstore::ReadAllOptions::default()
            .forwards()
            .position(eventstore::StreamPosition::Start)
            .max_count(1);
        self.call(async |client| {
            let mut oldest = client.read_all(&options).await?;
            Ok(oldest.next().await?.map(|event| {
                let event = event.get_original_event();
                (event.id, Timestamp::from_microsecond(event.created.timestamp_micros()).ok())
            }))
        })
        .await
    }

    /// The position of the newest event; `None` if there is none.
    pub async fn head(&self) -> Result<Option<Position>, LogError> {
        let options = eventstore::ReadAllOptions::default()
            .backwards()
            .position(eventstore::StreamPosition::End)
            .max_count(1);
        self.call(async |client| {
            let mut newest = client.read_all(&options).await?;
            let event = newest.next().await?;
            Ok(event.map(|it| it.get_original_event().position.into()))
        })
        .await
    }

    /// Makes a call, and makes it again while the store cannot be reached or its outcome is open,
    /// until [`CALL_TIMEOUT`]. For calls that may be repeated, which all of ours may: appended
    /// events have ids that the store recognises. A call that is late is dropped: for reads only.
    pub(crate) async fn call<T, F>(&self, operation: impl Fn(Client) -> F) -> Result<T, LogError>
    where
        F: Future<Output = eventstore::Result<T>>,
    {
        self.repeat(|session| operation(session.client())).await
    }

    /// [`call`](Self::call) for what changes the store: a call that is late runs on to its end.
    pub(crate) async fn call_to_end<T, F>(
        &self,
        operation: impl Fn(Client) -> F,
    ) -> Result<T, LogError>
    where
        T: Send + 'static,
        F: Future<Output = eventstore::Result<T>> + Send + 'static,
    {
        self.repeat(|session| {
            let call = operation(session.client());
            async move { session.run_to_end(call).await }
        })
        .await
    }

    /// Makes a call over the session in use, as [`call`](Self::call) does.
    pub(crate) async fn repeat<T, F>(
        &self,
        operation: impl Fn(Arc<Session>) -> F,
    ) -> Result<T, LogError>
    where
        F: Future<Output = eventstore::Result<T>>,
    {
        let is_failing_fast = self.is_failing_fast();
        let patience = if is_failing_fast { FAILED_CALL_TIMEOUT } else { CALL_TIMEOUT };
        let deadline = Instant::now() + patience;
        let mut delays = backoff();
        loop {
            let session = self.session()?;
            let began = Instant::now();
            let outcome = timeout_at(deadline, operation(Arc::clone(&session))).await;
            let error = match outcome {
                Ok(Ok(answer)) => {
                    session.sockets.note_answer(began);
                    self.connection.note_success();
                    return Ok(answer);
                }
                Ok(Err(error)) => {
                    self.note_failure(&session, &error);
                    error
                }
                Err(_) => {
                    // So short a wait says nothing of the connection.
                    if !is_failing_fast {
                        session.sockets.note_silence(began);
                    }
                    eventstore::Error::DeadlineExceeded
                }
            };
            let delay = delays.next().unwrap_or(BACKOFF.1);
            self.note_unreachable(&error);
            if !may_be_repeated(&error) || Instant::now() + delay >= deadline {
                return Err(self.as_unreachable(error));
            }
            tracing::debug!(%error, "Event store call failed: trying again");
            sleep(delay).await;
        }
    }

    /// Notes that an attempt has found the store out of reach, if that is what the error says.
    pub(crate) fn note_unreachable(&self, error: &eventstore::Error) {
        if !is_connection_lost(error) {
            return;
        }
        let (connection, failure) = (Arc::clone(&self.connection), error.to_string());
        let mut diagnoses =
            self.connection.diagnoses.lock().unwrap_or_else(PoisonError::into_inner);
        while diagnoses.try_join_next().is_some() {}
        // Not on the session: that may be given up for the same error, and what runs on it with it.
        diagnoses.spawn(async move { connection.diagnose(failure).await });
    }

    /// Notes that the store answers.
    pub(crate) fn note_reachable(&self) {
        self.connection.note_success();
    }

    /// Sorts a failed call to the client: with why the store cannot be reached, if that is known.
    fn as_unreachable(&self, error: eventstore::Error) -> LogError {
        let cause = self.connection.diagnosis().cause.clone();
        match cause.filter(|_| is_connection_lost(&error)) {
            Some(cause) => {
                LogError::Unreachable { address: self.connection.address.clone(), cause }
            }
            None => LogError::from_client(error),
        }
    }

    /// The session in use, opened now if there is none.
    pub(crate) fn session(&self) -> Result<Arc<Session>, LogError> {
        let mut current = self.current();
        if let Some(session) = &*current {
            return Ok(Arc::clone(session));
        }
        Ok(Arc::clone(current.insert(self.connection.open_session()?)))
    }

    /// A place for a subscription: on the session in use, or on another one if that has no place
    /// left.
    pub(crate) fn place_for_subscription(&self) -> Result<Place, LogError> {
        if let Some(place) = self.session()?.take_place() {
            return Ok(place);
        }
        let mut others = self.connection.others.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(place) = others.iter().find_map(Session::take_place) {
                return Ok(place);
            }
            others.push(self.connection.open_session()?);
        }
    }

    /// Gives a session up if its client has ended, or keeps to a node that is lost.
    pub(crate) fn note_failure(&self, session: &Arc<Session>, error: &eventstore::Error) {
        if let eventstore::Error::NotLeaderException(leader) = error {
            session.note_leader(leader.port);
        }
        if breaks_connection(error) {
            self.connection.descriptors.note_failure();
            if session.keeps_to_lost_node() {
                session.sockets.shut_down();
                self.give_up(session);
            }
        }
        if ends_client(error) {
            self.connection.descriptors.note_failure();
            self.give_up(session);
        }
    }

    /// Gives a session up: the next call makes another client.
    fn give_up(&self, session: &Arc<Session>) {
        self.current().take_if(|it| Arc::ptr_eq(it, session));
        let mut others = self.connection.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.retain(|it| !Arc::ptr_eq(it, session));
    }

    /// Waits until this process has had no file descriptor left for its connection for several
    /// seconds. It cannot go on by itself then, and should end with a message.
    pub async fn out_of_descriptors(&self) {
        self.connection.descriptors.exhausted().await;
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.connection.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delays between tries to reach the store, without end.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .without_max_times()
        .build()
}
