//! The connection: one client at a time, made anew after failures.
//!
//! The client crate gives up for good when its first connection fails, and in a cluster never
//! looks for another node. So a client that met a broken connection is thrown away, and the next
//! call makes a new one.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use eventstore::{Client, ClientSettings};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{LogError, is_connectivity};
use crate::metadata::Producer;
use crate::tail::Tail;
use crate::together::Together;

/// How long one call may take, its retries included: long enough for a store that restarts, short
/// enough for somebody who waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What an address begins with.
const SCHEMES: [&str; 2] = ["esdb://", "esdb+discover://"];

/// How long a client waits before each try to find a node, in milliseconds.
const DISCOVERY_INTERVAL_MS: u32 = 10;

/// Where the event store is (`[event_store]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventStoreConfig {
    /// `esdb://host:2113?tls=false`, or `esdb+discover://` for a cluster. Empty: not configured.
    pub url: String,
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
    pub(crate) together: Arc<Together>,
    pub(crate) producer: Producer,
}

struct Connection {
    /// For messages.
    address: String,
    settings: ClientSettings,
    /// The connection's name at the store, if no other connection has it.
    own_name: Option<String>,
    current: Mutex<Current>,
}

/// The client in use. The generation tells a client that failed from its successor.
#[derive(Default)]
struct Current {
    client: Option<Client>,
    generation: u64,
}

impl EventLog {
    /// A log at the given address. Opens nothing yet: the first call connects. The store knows the
    /// connection by `name`, which no other connection has, unless the address names it.
    ///
    /// # Errors
    /// [`LogError::Address`] if the address is malformed.
    pub fn connect(
        config: &EventStoreConfig,
        producer: Producer,
        name: &str,
    ) -> Result<Self, LogError> {
        let address = without_credentials(&config.url);
        let interval = DISCOVERY_INTERVAL_MS.to_string();
        let url = with_parameter(&config.url, "discoveryInterval", &interval);
        let named = with_parameter(&url, "connectionName", name);
        let own_name = (named != url).then(|| name.to_owned());
        let url = named;
        let settings = url.parse::<ClientSettings>();
        let settings = settings.map_err(|_| LogError::Address { url: address.clone() })?;
        let connection = Connection { address, settings, own_name, current: Mutex::default() };
        let tail = Arc::new(Tail::new());
        Ok(Self { connection: Arc::new(connection), tail, together: Arc::default(), producer })
    }

    /// The same log and connection for a part of this process that writes as another service.
    #[must_use]
    pub fn on_behalf_of(&self, service: &str) -> Self {
        let producer = Producer { service: service.to_owned(), ..self.producer.clone() };
        Self { producer, ..self.clone() }
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

    /// Makes a call, and makes it again with a new client while the store cannot be reached, until
    /// [`CALL_TIMEOUT`]. For calls that may be repeated, which all of ours may: appended events
    /// have ids that the store recognises.
    pub(crate) async fn call<T, F>(&self, operation: impl Fn(Client) -> F) -> Result<T, LogError>
    where
        F: Future<Output = eventstore::Result<T>>,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut delays = backoff();
        loop {
            let (client, generation) = self.client()?;
            let outcome = timeout_at(deadline, operation(client)).await;
            let error = match outcome {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_connectivity(&error) => error,
                Ok(Err(error)) => return Err(LogError::from_client(error)),
                Err(_) => eventstore::Error::DeadlineExceeded,
            };
            self.discard(generation);
            let delay = delays.next().unwrap_or(BACKOFF.1);
            if Instant::now() + delay >= deadline {
                return Err(LogError::Unavailable(Box::new(error)));
            }
            tracing::debug!(%error, "Event store cannot be reached, trying again");
            sleep(delay).await;
        }
    }

    /// The current client and its generation, made now if there is none.
    pub(crate) fn client(&self) -> Result<(Client, u64), LogError> {
        let mut current = self.current();
        if let Some(client) = &current.client {
            return Ok((client.clone(), current.generation));
        }
        let settings = self.connection.settings.clone();
        let client = Client::new(settings)
            .map_err(|_| LogError::Address { url: self.connection.address.clone() })?;
        current.generation += 1;
        current.client = Some(client.clone());
        Ok((client, current.generation))
    }

    /// Throws the client of that generation away, unless somebody did.
    pub(crate) fn discard(&self, generation: u64) {
        let mut current = self.current();
        if current.generation == generation {
            current.client = None;
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.connection.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address as it may be shown: without user and password, which a malformed one has as well.
fn without_credentials(url: &str) -> String {
    let Some((_, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = SCHEMES.into_iter().find(|it| url.starts_with(it)).unwrap_or_default();
    format!("{scheme}{host}")
}

/// The address with a parameter of the client's, unless it has one of that name. Two of ours: a
/// short wait before the first connection (by itself the client waits half a second before it tries
/// at all), and a name by which the store tells connections apart.
fn with_parameter(url: &str, name: &str, value: &str) -> String {
    if url.to_lowercase().contains(&format!("{}=", name.to_lowercase())) {
        return url.to_owned();
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{name}={value}")
}

/// The delays between tries to reach the store, without end.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let shown = without_credentials("esdb://admin:p@ss@host:2113?tls=false");
        assert_eq!(shown, "esdb://host:2113?tls=false");
        assert_eq!(without_credentials("esdb://host:2113"), "esdb://host:2113");
        assert_eq!(without_credentials("admin:p@ss@host"), "host");
        assert_eq!(without_credentials("admin:p@ss://@host"), "host");
    }

    #[test]
    fn address_that_cannot_be_used_is_refused_without_its_password() {
        for url in ["esdb://admin:s3cret@[bad", "admin:s3cret@h", "esdb://admin:s3:cret@x:y:z"] {
            let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
            let config = EventStoreConfig { url: url.to_owned() };
            let refused = EventLog::connect(&config, producer, "test").err().unwrap();
            let shown = format!("{refused} {refused:?}");
            assert!(shown.contains("esdb://HOST:2113") && !shown.contains("s3"), "{shown}");
        }
    }

    #[test]
    fn parameter_is_added_unless_the_address_has_it() {
        let with = |url| with_parameter(url, "discoveryInterval", "10");
        assert_eq!(with("esdb://host"), "esdb://host?discoveryInterval=10");
        let both = "esdb://host?tls=false&discoveryInterval=10";
        assert_eq!(with("esdb://host?tls=false"), both);
        let named = "esdb://host?discoveryinterval=700&tls=false";
        assert_eq!(with(named), named);
    }
}
