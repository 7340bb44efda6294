//! One client of the event store and the connections that it has opened.
//!
//! The client crate cannot end a client: its connection task holds a sender of its own channel, so
//! the task and the connection outlive every handle. A client therefore lives as long as the
//! process, and reconnects by itself when its connection closes. A connection that looks sound and
//! delivers nothing is closed from outside, by its socket (docs/decisions/0014).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use eventstore::{Client, ClientSettings};
use service_kit::mutex::lock;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::batch_appender::BatchAppender;
use super::client_sockets::ClientSockets;

/// Maximum number of subscriptions on one session. EventStoreDB accepts 100 calls on a connection and
/// queues further ones without limit: half of the places stay free for short calls.
const MAX_SUBSCRIPTIONS: usize = 50;

/// A client, and what belongs to it.
pub(crate) struct Session {
    client: Client,
    pub(crate) batch_appender: BatchAppender,
    pub(crate) sockets: ClientSockets,
    /// Subscriptions that are open on this session's connection.
    n_subscriptions: AtomicUsize,
    /// Whether the client may use another node than the one that the address names.
    is_elsewhere: AtomicBool,
    /// Calls that run to their end even if their callers stop waiting.
    finishing: Mutex<JoinSet<()>>,
}

/// A subscription's place on a session, held while the subscription is open.
pub(crate) struct SubscriptionPlace(Arc<Session>);

impl SubscriptionPlace {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0
    }
}

impl Drop for SubscriptionPlace {
    fn drop(&mut self) {
        self.0.n_subscriptions.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The client cannot be made. The reason is left out: it quotes the whole address with its password.
pub(crate) struct ClientError;

impl Session {
    /// Makes a session with a client of its own. The first call connects.
    pub(crate) fn open(settings: &ClientSettings) -> Result<Self, ClientError> {
        let is_cluster = settings.is_dns_discovery_enabled() || settings.hosts().len() > 1;
        Ok(Self {
            client: Client::new(settings.clone()).map_err(|_| ClientError)?,
            batch_appender: BatchAppender::default(),
            sockets: ClientSockets::new(settings),
            n_subscriptions: AtomicUsize::new(0),
            is_elsewhere: AtomicBool::new(is_cluster),
            finishing: Mutex::default(),
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Notes that the client follows a leader that the store has named, at this port.
    pub(crate) fn note_leader(&self, port: u32) {
        self.sockets.note_node(port);
        self.is_elsewhere.store(true, Ordering::Release);
    }

    /// Returns whether a broken connection needs another client: this one stays with the node that
    /// it has chosen, even if the node is lost.
    pub(crate) fn keeps_to_lost_node(&self) -> bool {
        self.is_elsewhere.load(Ordering::Acquire)
    }

    /// Takes one of the places for subscriptions; `None` if all are taken.
    pub(crate) fn take_place(self: &Arc<Self>) -> Option<SubscriptionPlace> {
        // Check and increment are one atomic step: otherwise concurrent callers could exceed the limit.
        let taken = self.n_subscriptions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n < MAX_SUBSCRIPTIONS).then_some(n + 1)
        });
        taken.is_ok().then(|| SubscriptionPlace(Arc::clone(self)))
    }

    /// Makes a call that runs to its end even if its caller stops waiting. Dropping a call resets its
    /// stream, and a store may take the part that it has received for the whole call.
    pub(crate) async fn run_to_end<T: Send + 'static>(
        &self,
        call: impl Future<Output = eventstore::Result<T>> + Send + 'static,
    ) -> eventstore::Result<T> {
        let (sender, outcome) = oneshot::channel();
        let task = async move {
            // Fails if the caller has stopped waiting: then the outcome is not needed.
            drop(sender.send(call.await));
        };
        {
            // In a block: the lock must not be held during the wait below.
            let mut finishing = lock(&self.finishing);
            while finishing.try_join_next().is_some() {}
            finishing.spawn(task);
        }
        // The sender is gone without an outcome if the client panicked: it panics on responses that
        // it does not know.
        outcome.await.unwrap_or(Err(eventstore::Error::InternalClientError))
    }
}
