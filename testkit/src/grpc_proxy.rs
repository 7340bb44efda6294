//! A gRPC proxy on loopback that behaves as a busy store or a cluster does: it refuses calls, ends
//! open ones, takes only so many at a time, and names another node as the leader.
//!
//! It works call by call, where [`Proxy`](crate::proxy::Proxy) works byte by byte: each call can
//! meet another fault while its connection stays open.

mod call;
mod changes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::strict_store::Strictness;

/// Calls that may be open on one connection, as EventStoreDB 23.10.6 announces it.
pub const MAX_OPEN_CALLS: u32 = 100;
/// Orders to end open calls that may wait for a call to take them.
const MAX_PENDING_ENDS: usize = 64;

/// How a call is refused: a gRPC status and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number of the gRPC status.
    pub code: u32,
    pub message: String,
    /// Trailers beside the status, e.g. `exception`.
    pub trailers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// A status without further trailers.
    pub fn new(code: u32, message: &str) -> Self {
        Self { code, message: message.to_owned(), trailers: Vec::new() }
    }

    /// The answer of a node that does not lead, as EventStoreDB gives it.
    pub fn not_leader(leader: SocketAddr) -> Self {
        let trailers = vec![
            ("exception", "not-leader".to_owned()),
            ("leader-endpoint-host", leader.ip().to_string()),
            ("leader-endpoint-port", leader.port().to_string()),
        ];
        Self { trailers, ..Self::new(5, "Leader info available") }
    }
}

/// How an open call is ended.
#[derive(Debug, Clone)]
enum End {
    Status(Refusal),
    /// By `RST_STREAM` with `INTERNAL_ERROR`.
    Reset,
}

/// When a refused call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the store has heard of it.
    Before,
    /// After the store has carried it out.
    After,
}

/// A running proxy. Gone when dropped, and its connections with it.
pub struct GrpcProxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    target: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    /// Calls so far, by service and method.
    n_calls: Mutex<BTreeMap<String, usize>>,
    n_connections: AtomicUsize,
    ends: broadcast::Sender<(String, End)>,
    silences: broadcast::Sender<String>,
    closes: broadcast::Sender<()>,
    max_open_calls: u32,
    /// What changes the messages that pass.
    strictness: Option<Arc<Strictness>>,
}

/// A fault that the next calls of a method meet.
struct Rule {
    /// `None`: every method that is bound to the leader.
    method: Option<String>,
    refusal: Refusal,
    when: When,
    /// How many calls still meet it; `None`: all.
    n_left: Option<usize>,
}

impl GrpcProxy {
    /// Starts one on a free port, with the limit of open calls that EventStoreDB has.
    pub async fn start(target: SocketAddr) -> Self {
        Self::start_with_limit(target, MAX_OPEN_CALLS).await
    }

    /// Starts one whose connections take so many calls at a time.
    pub async fn start_with_limit(target: SocketAddr, max_open_calls: u32) -> Self {
        Self::start_with(target, max_open_calls, None).await
    }

    /// Starts one that changes the messages that pass.
    pub(crate) async fn start_changing(target: SocketAddr, strictness: Arc<Strictness>) -> Self {
        Self::start_with(target, MAX_OPEN_CALLS, Some(strictness)).await
    }

    async fn start_with(
        target: SocketAddr,
        max_open_calls: u32,
        strictness: Option<Arc<Strictness>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State {
            target,
            rules: Mutex::default(),
            n_calls: Mutex::default(),
            n_connections: AtomicUsize::new(0),
            ends: broadcast::Sender::new(MAX_PENDING_ENDS),
            silences: broadcast::Sender::new(MAX_PENDING_ENDS),
            closes: broadcast::Sender::new(1),
            max_open_calls,
            strictness,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection string of the store behind it.
    pub fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.address)
    }

    /// Refuses the next calls of a method, e.g. `Streams/Append`.
    pub fn refuse(&self, method: &str, n_calls: usize, when: When, refusal: Refusal) {
        let method = Some(method.to_owned());
        lock(&self.state.rules).push(Rule { method, refusal, when, n_left: Some(n_calls) });
    }

    /// Ends all open calls of a method.
    pub fn end_open(&self, method: &str, refusal: Refusal) {
        // No call is open: nothing to end.
        drop(self.state.ends.send((method.to_owned(), End::Status(refusal))));
    }

    /// Resets all open calls of a method, as EventStoreDB does to those that are still open some
    /// seconds after it has begun to stop.
    pub fn reset_open(&self, method: &str) {
        // No call is open: nothing to reset.
        drop(self.state.ends.send((method.to_owned(), End::Reset)));
    }

    /// Lets all open calls of a method fall silent: they stay open, and nothing that the target
    /// says in them is passed on.
    pub fn silence_open(&self, method: &str) {
        // No call is open: nothing to silence.
        drop(self.state.silences.send(method.to_owned()));
    }

    /// Leads no longer: ends all open calls, and refuses every later one that asks for the leader.
    pub fn resign(&self, leader: SocketAddr) {
        let refusal = Refusal::not_leader(leader);
        let rule =
            Rule { method: None, refusal: refusal.clone(), when: When::Before, n_left: None };
        lock(&self.state.rules).push(rule);
        self.end_open("", refusal);
    }

    /// Leads again.
    pub fn lead(&self) {
        lock(&self.state.rules).retain(|rule| rule.method.is_some());
    }

    /// Closes all connections, without a word to the calls on them.
    pub fn close_connections(&self) {
        // No connection is open: nothing to close.
        drop(self.state.closes.send(()));
    }

    /// Calls of a method so far, e.g. `Streams/Read`. Subscriptions are reads too.
    pub fn n_calls(&self, method: &str) -> usize {
        lock(&self.state.n_calls).get(method).copied().unwrap_or_default()
    }

    /// Connections that are open now.
    pub fn n_connections(&self) -> usize {
        self.state.n_connections.load(Ordering::Acquire)
    }
}

impl State {
    /// The fault that a call meets, if any.
    fn fault_for(&self, method: &str, needs_leader: bool) -> Option<(Refusal, When)> {
        let mut rules = lock(&self.rules);
        let applies = |rule: &Rule| match &rule.method {
            Some(name) => name == method && rule.n_left != Some(0),
            None => needs_leader,
        };
        let rule = rules.iter_mut().find(|rule| applies(rule))?;
        rule.n_left = rule.n_left.map(|it| it - 1);
        Some((rule.refusal.clone(), rule.when))
    }

    fn count_call(&self, method: &str) {
        *lock(&self.n_calls).entry(method.to_owned()).or_default() += 1;
    }
}

fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((inbound, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            state.n_connections.fetch_add(1, Ordering::AcqRel);
            let mut closing = state.closes.subscribe();
            tokio::select! {
                // A connection that breaks is what tests are about.
                served = serve(inbound, &state) => drop(served),
                shut = closing.recv() => drop(shut),
            }
            state.n_connections.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Serves one connection with one connection to the target.
async fn serve(inbound: TcpStream, state: &Arc<State>) -> Result<(), h2::Error> {
    inbound.set_nodelay(true).map_err(|_| h2::Reason::INTERNAL_ERROR)?;
    let outbound = TcpStream::connect(state.target).await;
    let outbound = outbound.map_err(|_| h2::Reason::CONNECT_ERROR)?;
    outbound.set_nodelay(true).map_err(|_| h2::Reason::INTERNAL_ERROR)?;
    let (target, connection) = h2::client::handshake(outbound).await?;
    let mut tasks = JoinSet::new();
    let target_ended = async move { drop(connection.await) };
    tokio::pin!(target_ended);
    let mut server = h2::server::Builder::new();
    server.max_concurrent_streams(state.max_open_calls);
    let mut calls = server.handshake(inbound).await?;
    loop {
        let call = tokio::select! {
            call = calls.accept() => call,
            // The client is to notice, as it would without a proxy.
            () = &mut target_ended => return Ok(()),
        };
        let Some(call) = call else { return Ok(()) };
        let (request, respond) = call?;
        let (target, state) = (target.clone(), Arc::clone(state));
        tasks.spawn(async move { drop(call::serve(request, respond, target, &state).await) });
    }
}
