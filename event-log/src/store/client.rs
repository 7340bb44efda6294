//! The connection to the event store: one client for the life of the process, replaced only if it
//! has ended or its node is lost.
//!
//! The client crate stops for good when its first connection fails, and stays with the node that it
//! has chosen. So the next call makes another client when the client has ended, or when the node of
//! a cluster is lost. In all other cases (the store restarts, is busy, or ends a subscription) the
//! client reconnects by itself.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use eventstore::{Client, ClientSettings, StreamPosition};
use serde::Deserialize;
use service_kit::mutex::lock;
use service_kit::outage::Outage;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::address::EventStoreUrl;
use super::append_health::AppendHealth;
use super::diagnosis::{UnreachableCause, find_cause};
use super::error::{LogError, breaks_connection, ends_client, is_connection_lost, may_be_repeated};
use super::file_descriptors::FileDescriptors;
use super::metadata::Producer;
use super::session::{Session, SubscriptionPlace};
use crate::metrics::count_reconnect;

/// Maximum duration of one call, retries included: long enough for a store that restarts, short
/// enough for a client that waits for the response.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum duration of one call that fails fast while the store is known to have failed.
const FAILED_CALL_TIMEOUT: Duration = Duration::from_millis(800);
/// How long the store may be unreachable before this counts as an outage. A broken connection is
/// replaced in less time.
const OUTAGE_GRACE: Duration = Duration::from_millis(250);
/// Delay between two attempts: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Delay before each attempt of the client to find a node, in milliseconds. The client's default is
/// half a second, also before the first attempt.
const DISCOVERY_INTERVAL_MS: &str = "10";

/// Address of the event store (`[event_store]` in the configuration).
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

impl Position {
    /// Returns where a read begins that follows `after`. The read includes the event at `after`.
    pub(crate) fn to_start(after: Option<Self>) -> StreamPosition<eventstore::Position> {
        after.map_or(StreamPosition::Start, |after| StreamPosition::Position(after.into()))
    }
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

/// A client of one event store. Cheap to clone; the clones share a connection.
#[derive(Clone)]
pub struct StoreClient {
    pub(super) connection: Arc<Connection>,
    producer: Producer,
    /// Whether calls fail fast while the store is known to take no appends.
    fails_fast: bool,
}

/// State that the clones of a [`StoreClient`] share.
pub(super) struct Connection {
    /// Shown in messages; without credentials.
    address: String,
    settings: ClientSettings,
    /// The connection's name at the store, unless the address sets one that others may share.
    own_name: Option<String>,
    /// The session in use.
    current: Mutex<Option<Arc<Session>>>,
    /// Further sessions, for subscriptions that exceed the capacity of `current`. They are kept: a
    /// client cannot be ended.
    others: Mutex<Vec<Arc<Session>>>,
    descriptors: FileDescriptors,
    outage: Arc<Outage>,
    diagnosis: Mutex<Diagnosis>,
    diagnoses: Mutex<JoinSet<()>>,
    /// Calls that the store has answered, and subscriptions that it has confirmed.
    n_answers: AtomicU64,
    pub(super) append_health: AppendHealth,
    /// Catch-up subscriptions that resumed because the reader was slower than the store.
    pub(super) n_resumes: AtomicU64,
    /// Since when a group membership has no connection; `None` if it has one, or if there is no
    /// membership.
    pub(super) disconnected_since: Mutex<Option<Instant>>,
}

/// State of the search for the reason why the store is unreachable.
#[derive(Default)]
struct Diagnosis {
    is_running: bool,
    /// Why the store is unreachable; `None` while it is reachable.
    cause: Option<UnreachableCause>,
}

impl Connection {
    /// Notes that the store has answered.
    fn note_success(&self) {
        self.n_answers.fetch_add(1, Ordering::Relaxed);
        self.descriptors.note_success();
        if self.outage.is_ongoing() {
            // Under the lock, so that a diagnosis that ends now does not begin the outage again.
            let mut diagnosis = lock(&self.diagnosis);
            diagnosis.cause = None;
            self.outage.note_success();
            count_reconnect();
        }
    }

    /// Finds out and logs why the store is unreachable. Does nothing while a diagnosis is running.
    async fn diagnose(&self, failure: String) {
        if std::mem::replace(&mut lock(&self.diagnosis).is_running, true) {
            return;
        }
        let n_answers = self.n_answers.load(Ordering::Relaxed);
        sleep(OUTAGE_GRACE).await;
        let has_answered = || self.n_answers.load(Ordering::Relaxed) != n_answers;
        let found = if has_answered() { None } else { find_cause(&self.settings).await };
        if found.is_none() && !has_answered() {
            // The network works: the store may be restarting, and the next attempt may succeed.
            sleep(BACKOFF.1).await;
        }
        let mut diagnosis = lock(&self.diagnosis);
        diagnosis.is_running = false;
        // An outage that has ended during the diagnosis must not begin again.
        if !has_answered() {
            let cause = found.unwrap_or(UnreachableCause::Call(failure));
            self.outage.note_failure(&cause.to_string(), cause.hint());
            diagnosis.cause = Some(cause);
        }
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

impl StoreClient {
    /// Makes a client of the store at the configured address. Opens no connection: the first call
    /// connects. `name` is the connection's name at the store, unless the address sets one.
    ///
    /// # Errors
    /// [`LogError::Address`] if no address is configured.
    pub(crate) fn connect(
        config: &EventStoreConfig,
        producer: Producer,
        name: &str,
    ) -> Result<Self, LogError> {
        // The name comes last: `settings_with` reports whether the last parameter was added.
        let parameters = [("discoveryInterval", DISCOVERY_INTERVAL_MS), ("connectionName", name)];
        let (settings, is_own_name) = config.url.settings_with(&parameters)?;
        let outage = Arc::new(Outage::new("Event store", config.url.to_string()));
        let connection = Connection {
            address: config.url.to_string(),
            settings,
            own_name: is_own_name.then(|| name.to_owned()),
            current: Mutex::default(),
            others: Mutex::default(),
            descriptors: FileDescriptors::default(),
            append_health: AppendHealth::new(Arc::clone(&outage)),
            outage,
            diagnosis: Mutex::default(),
            diagnoses: Mutex::default(),
            n_answers: AtomicU64::new(0),
            n_resumes: AtomicU64::new(0),
            disconnected_since: Mutex::default(),
        };
        Ok(Self { connection: Arc::new(connection), producer, fails_fast: false })
    }

    /// Returns the same client with another producer in the metadata of its events.
    pub(crate) fn with_service(&self, service: &str) -> Self {
        let producer = Producer { service: service.to_owned(), ..self.producer.clone() };
        Self { producer, ..self.clone() }
    }

    /// Returns the same client, failing fast or not.
    pub(crate) fn with_fail_fast(&self, fails_fast: bool) -> Self {
        Self { fails_fast, ..self.clone() }
    }

    /// Returns the program that the metadata of appended events names.
    pub(crate) fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Returns the store's address without credentials.
    pub(crate) fn address(&self) -> &str {
        &self.connection.address
    }

    pub(crate) fn settings(&self) -> ClientSettings {
        self.connection.settings.clone()
    }

    /// Returns the connection's name at the store; `None` if the address sets the name, which other
    /// connections may share.
    pub fn connection_name(&self) -> Option<&str> {
        self.connection.own_name.as_deref()
    }

    /// Makes a call, and repeats it until [`CALL_TIMEOUT`] while the store is unreachable or the
    /// outcome is unknown. Every call may be repeated: the store recognises appended events by
    /// their ids. Drops a call that is late, so use it for reads only.
    pub(crate) async fn call<T, F>(&self, operation: impl Fn(Client) -> F) -> Result<T, LogError>
    where
        F: Future<Output = eventstore::Result<T>>,
    {
        self.retry(|session| operation(session.client())).await
    }

    /// [`call`](Self::call) for changes to the store: a call that is late runs to its end.
    pub(crate) async fn call_to_end<T, F>(
        &self,
        operation: impl Fn(Client) -> F,
    ) -> Result<T, LogError>
    where
        T: Send + 'static,
        F: Future<Output = eventstore::Result<T>> + Send + 'static,
    {
        self.retry(|session| {
            let call = operation(session.client());
            async move { session.run_to_end(call).await }
        })
        .await
    }

    async fn retry<T, F>(&self, operation: impl Fn(Arc<Session>) -> F) -> Result<T, LogError>
    where
        F: Future<Output = eventstore::Result<T>>,
    {
        let is_failing_fast = self.fails_fast && self.connection.append_health.has_failed();
        let limit = if is_failing_fast { FAILED_CALL_TIMEOUT } else { CALL_TIMEOUT };
        let deadline = Instant::now() + limit;
        let mut delays = backoff();
        loop {
            // Anew for each attempt: the failure may have ended the session.
            let session = self.session()?;
            let began = Instant::now();
            let outcome = timeout_at(deadline, operation(Arc::clone(&session))).await;
            let error = match outcome {
                Ok(Ok(response)) => {
                    // A new connection may lack `TCP_NODELAY`.
                    session.sockets.note_response(began);
                    self.connection.note_success();
                    return Ok(response);
                }
                Ok(Err(error)) => {
                    self.note_failure(&session, &error);
                    error
                }
                Err(_) => {
                    // A wait as short as that of a fast failure says nothing about the connection.
                    if !is_failing_fast {
                        session.sockets.note_silence(began);
                    }
                    eventstore::Error::DeadlineExceeded
                }
            };
            let delay = delays.next().unwrap_or(BACKOFF.1);
            self.note_unreachable(&error);
            if !may_be_repeated(&error) || Instant::now() + delay >= deadline {
                return Err(self.to_log_error(error));
            }
            tracing::debug!(%error, "Event store call failed: retrying");
            sleep(delay).await;
        }
    }

    /// Refuses an append at once if this client fails fast and the store is known to have failed.
    pub(crate) fn check_append_health(&self) -> Result<(), LogError> {
        match self.connection.append_health.refusal() {
            Some(refusal) if self.fails_fast => Err(refusal),
            Some(_) | None => Ok(()),
        }
    }

    /// Starts a diagnosis if the error says that the store is unreachable.
    pub(crate) fn note_unreachable(&self, error: &eventstore::Error) {
        if !is_connection_lost(error) {
            return;
        }
        let (connection, failure) = (Arc::clone(&self.connection), error.to_string());
        let mut diagnoses = lock(&self.connection.diagnoses);
        // Removes those that have ended: the set would grow with every outage.
        while diagnoses.try_join_next().is_some() {}
        // Not spawned on the session: the same error may end the session and all of its tasks.
        diagnoses.spawn(async move { connection.diagnose(failure).await });
    }

    /// Notes that the store has answered.
    pub(crate) fn note_reachable(&self) {
        self.connection.note_success();
    }

    /// Converts the error of a failed call; adds why the store is unreachable, if that is known.
    fn to_log_error(&self, error: eventstore::Error) -> LogError {
        let cause = lock(&self.connection.diagnosis).cause.clone();
        match cause.filter(|_| is_connection_lost(&error)) {
            Some(cause) => {
                LogError::Unreachable { address: self.connection.address.clone(), cause }
            }
            None => LogError::from_client(error),
        }
    }

    /// Returns the session in use. Opens one if there is none.
    pub(crate) fn session(&self) -> Result<Arc<Session>, LogError> {
        // Opened under the lock, so that concurrent first calls share one session.
        let mut current = lock(&self.connection.current);
        if let Some(session) = &*current {
            return Ok(Arc::clone(session));
        }
        Ok(Arc::clone(current.insert(self.connection.open_session()?)))
    }

    /// Takes a place for a subscription: on the session in use, or on another one if that is full.
    pub(crate) fn take_subscription_place(&self) -> Result<SubscriptionPlace, LogError> {
        if let Some(place) = self.session()?.take_place() {
            return Ok(place);
        }
        // Under one lock, so that concurrent callers do not each open a session.
        let mut others = lock(&self.connection.others);
        loop {
            if let Some(place) = others.iter().find_map(Session::take_place) {
                return Ok(place);
            }
            others.push(self.connection.open_session()?);
        }
    }

    /// Gives the session up if its client has ended, or stays with a node that is lost.
    pub(crate) fn note_failure(&self, session: &Arc<Session>, error: &eventstore::Error) {
        if let eventstore::Error::NotLeaderException(leader) = error {
            session.note_leader(leader.port);
        }
        if breaks_connection(error) {
            self.connection.descriptors.note_failure();
            // Otherwise the client reconnects to the node by itself.
            if session.keeps_to_lost_node() {
                session.sockets.shut_down();
                self.give_up_session(session);
            }
        }
        if ends_client(error) {
            self.connection.descriptors.note_failure();
            self.give_up_session(session);
        }
    }

    /// Removes the session: the next call opens another one. Compares by pointer, because another
    /// caller may have replaced the session meanwhile.
    fn give_up_session(&self, session: &Arc<Session>) {
        let replaced =
            lock(&self.connection.current).take_if(|current| Arc::ptr_eq(current, session));
        if replaced.is_some() {
            count_reconnect();
        }
        lock(&self.connection.others).retain(|other| !Arc::ptr_eq(other, session));
    }

    /// Returns whether no outage of the store is known.
    pub fn is_reachable(&self) -> bool {
        !self.connection.outage.is_ongoing()
    }

    /// Waits until this process has had no file descriptor for its connection for several seconds.
    /// The process cannot recover by itself and should exit with a message.
    pub async fn out_of_descriptors(&self) {
        self.connection.descriptors.wait_until_exhausted().await;
    }
}

/// Returns the delays between attempts to reach the store; endless.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .without_max_times()
        .build()
}
