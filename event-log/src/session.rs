//! One client of the event store and the connections that it has opened.
//!
//! The client crate has no way to end a client: its connection task holds a sender of its own
//! channel, so it outlives every handle to it, and with it the connection. So a client lives as long
//! as the process, and connects again by itself after its connection has closed. A connection that
//! looks well and brings nothing is closed from outside, by its socket (docs/decisions/0014).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use eventstore::{Client, ClientSettings};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::sockets::Sockets;
use crate::together::Together;

/// Subscriptions on one session. EventStoreDB takes 100 calls on a connection, and calls that come
/// on top wait without an end: half of the places stay free for short calls.
const MAX_SUBSCRIPTIONS: usize = 50;

/// A client, and what belongs to it.
pub(crate) struct Session {
    client: Client,
    /// Appends of many callers over one call of this client.
    pub(crate) together: Together,
    pub(crate) sockets: Sockets,
    /// Subscriptions that are open on this session's connection.
    n_subscriptions: AtomicUsize,
    /// Whether the node that the client uses may be another than the one that the address names.
    is_elsewhere: AtomicBool,
    /// Calls that run to their end, whether or not their callers still wait.
    finishing: Mutex<JoinSet<()>>,
}

/// A subscription's place on a session, held as long as the subscription is open.
pub(crate) struct Place(Arc<Session>);

impl Place {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.n_subscriptions.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The client cannot be made. Its reason is left out: it quotes the whole address, password
/// included.
pub(crate) struct NoClient;

impl Session {
    /// A session with a client of its own. Connects with the first call.
    pub(crate) fn open(settings: &ClientSettings) -> Result<Self, NoClient> {
        let is_cluster = settings.is_dns_discovery_enabled() || settings.hosts().len() > 1;
        Ok(Self {
            client: Client::new(settings.clone()).map_err(|_| NoClient)?,
            together: Together::default(),
            sockets: Sockets::of(settings),
            n_subscriptions: AtomicUsize::new(0),
            is_elsewhere: AtomicBool::new(is_cluster),
            finishing: Mutex::default(),
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The client follows a leader that the store has named, and that listens there.
    pub(crate) fn note_leader(&self, port: u32) {
        self.sockets.note_node(port);
        self.is_elsewhere.store(true, Ordering::Release);
    }

    /// Whether a broken connection needs another client: this one keeps to the node that it has
    /// chosen, also when the node is gone for good.
    pub(crate) fn keeps_to_lost_node(&self) -> bool {
        self.is_elsewhere.load(Ordering::Acquire)
    }

    /// Takes one of the places that this session has for subscriptions; `None` if all are taken.
    pub(crate) fn take_place(self: &Arc<Self>) -> Option<Place> {
        let taken = self.n_subscriptions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n < MAX_SUBSCRIPTIONS).then_some(n + 1)
        });
        taken.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// Makes a call that runs to its own end, also if its caller stops waiting. A call that is
    /// dropped halfway is reset, and a store may take what it has of it for the whole.
    pub(crate) async fn run_to_end<T: Send + 'static>(
        &self,
        call: impl Future<Output = eventstore::Result<T>> + Send + 'static,
    ) -> eventstore::Result<T> {
        let (sender, outcome) = oneshot::channel();
        self.spawn(async move {
            // A caller that does not wait any longer need not know.
            drop(sender.send(call.await));
        });
        // The client panics on answers that it does not know.
        outcome.await.unwrap_or(Err(eventstore::Error::InternalClientError))
    }

    /// Lets a task of this session run to its end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Poison says that a holder panicked; what it guards is whole at every step.
        let mut finishing = self.finishing.lock().unwrap_or_else(PoisonError::into_inner);
        while finishing.try_join_next().is_some() {}
        finishing.spawn(task);
    }
}
