//! A gRPC proxy on loopback that behaves like a busy store or a cluster: it refuses calls, ends open
//! ones, limits their number, and names another node as the leader.
//!
//! It injects faults per call; [`Proxy`](crate::proxy::Proxy) injects them per connection.

mod call;
mod changes;
mod frames;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use service_kit::mutex::lock;

/// Maximum number of open calls per connection, as announced by EventStoreDB 23.10.6.
pub const MAX_OPEN_CALLS: u32 = 100;
/// Capacity of the channels that end or stall open calls.
const MAX_PENDING_FAULTS: usize = 64;

/// Refusal of a call: a gRPC status with trailers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Code of the gRPC status.
    pub code: u32,
    pub message: String,
    /// Additional trailers, e.g. `exception`.
    pub trailers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// Returns a status without additional trailers.
    pub fn new(code: u32, message: &str) -> Self {
        Self { code, message: message.to_owned(), trailers: Vec::new() }
    }

    /// Returns the response of an EventStoreDB node that is not the leader.
    pub fn not_leader(leader: SocketAddr) -> Self {
        let trailers = vec![
            ("exception", "not-leader".to_owned()),
            ("leader-endpoint-host", leader.ip().to_string()),
            ("leader-endpoint-port", leader.port().to_string()),
        ];
        Self { trailers, ..Self::new(5, "Leader info available") }
    }
}

/// Changes the messages of the calls through a proxy.
pub(crate) trait MessageFilter: Send + Sync {
    /// Changes a request for the target.
    ///
    /// # Errors
    /// If the call is refused.
    fn change_request(&self, method: &str, message: &Bytes) -> Result<Bytes, Refusal>;

    /// Changes a response for the client.
    ///
    /// # Errors
    /// If the call ends with a status in place of the response.
    fn change_response(&self, method: &str, message: &Bytes) -> Result<Bytes, Refusal>;

    /// Returns the status that ends a subscription in place of its next message, if it is due.
    fn take_overrun(&self, message: &Bytes) -> Option<Refusal>;
}

/// How an open call is ended.
#[derive(Debug, Clone)]
enum CallEnd {
    Status(Refusal),
    /// By `RST_STREAM` with `INTERNAL_ERROR`.
    Reset,
}

/// When a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it reaches the store.
    Before,
    /// After the store has executed it.
    After,
}

/// A running proxy. Stopped when dropped, with its connections.
pub struct GrpcProxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    target: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    /// Number of calls so far, by service and method.
    n_calls: Mutex<BTreeMap<String, usize>>,
    n_connections: AtomicUsize,
    ends: broadcast::Sender<(String, CallEnd)>,
    stalls: broadcast::Sender<(String, ())>,
    closes: broadcast::Sender<()>,
    max_open_calls: u32,
    /// Changes the messages of all calls.
    filter: Option<Arc<dyn MessageFilter>>,
}

/// A fault of the next calls of a method.
struct Rule {
    /// `None`: every call that requires the leader.
    method: Option<String>,
    refusal: Refusal,
    when: When,
    /// Number of calls left to refuse; `None`: all.
    n_left: Option<usize>,
}

impl GrpcProxy {
    /// Starts a proxy on a free port, with the limit of open calls that EventStoreDB has.
    pub async fn start(target: SocketAddr) -> Self {
        Self::start_with_limit(target, MAX_OPEN_CALLS).await
    }

    /// Starts a proxy with another limit of open calls per connection.
    pub async fn start_with_limit(target: SocketAddr, max_open_calls: u32) -> Self {
        Self::start_with_filter(target, max_open_calls, None).await
    }

    /// Starts a proxy that changes messages.
    pub(crate) async fn start_with_filter(
        target: SocketAddr,
        max_open_calls: u32,
        filter: Option<Arc<dyn MessageFilter>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State {
            target,
            rules: Mutex::default(),
            n_calls: Mutex::default(),
            n_connections: AtomicUsize::new(0),
            ends: broadcast::Sender::new(MAX_PENDING_FAULTS),
            stalls: broadcast::Sender::new(MAX_PENDING_FAULTS),
            closes: broadcast::Sender::new(1),
            max_open_calls,
            filter,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_connections(listener, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the connection string of the store behind the proxy.
    pub fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.address)
    }

    /// Refuses the next calls of a method, e.g. `Streams/Append`.
    pub fn refuse_next(&self, method: &str, n_calls: usize, when: When, refusal: Refusal) {
        let method = Some(method.to_owned());
        lock(&self.state.rules).push(Rule { method, refusal, when, n_left: Some(n_calls) });
    }

    /// Ends all open calls of a method.
    pub fn end_open(&self, method: &str, refusal: Refusal) {
        // `send` fails if no call is open.
        drop(self.state.ends.send((method.to_owned(), CallEnd::Status(refusal))));
    }

    /// Resets all open calls of a method, as EventStoreDB does with calls that are still open some
    /// seconds after it started to shut down.
    pub fn reset_open(&self, method: &str) {
        // `send` fails if no call is open.
        drop(self.state.ends.send((method.to_owned(), CallEnd::Reset)));
    }

    /// Stalls all open calls of a method: they stay open, and responses are not forwarded.
    pub fn stall_open(&self, method: &str) {
        // `send` fails if no call is open.
        drop(self.state.stalls.send((method.to_owned(), ())));
    }

    /// Makes the node a follower of `leader`: ends all open calls, and refuses later ones that require the
    /// leader.
    pub fn resign(&self, leader: SocketAddr) {
        let refusal = Refusal::not_leader(leader);
        let (refused, when) = (refusal.clone(), When::Before);
        lock(&self.state.rules).push(Rule { method: None, refusal: refused, when, n_left: None });
        self.end_open("", refusal);
    }

    /// Makes the node the leader again.
    pub fn become_leader(&self) {
        lock(&self.state.rules).retain(|rule| rule.method.is_some());
    }

    /// Closes all connections without ending the calls on them.
    pub fn close_connections(&self) {
        // `send` fails if no connection is open.
        drop(self.state.closes.send(()));
    }

    /// Returns the number of calls of a method so far, e.g. `Streams/Read`. Subscriptions are reads too.
    pub fn n_calls(&self, method: &str) -> usize {
        lock(&self.state.n_calls).get(method).copied().unwrap_or_default()
    }

    pub fn n_connections(&self) -> usize {
        self.state.n_connections.load(Ordering::Acquire)
    }
}

impl State {
    /// Returns the fault of a call, if it has one, and counts the call.
    fn take_fault(&self, method: &str, needs_leader: bool) -> Option<(Refusal, When)> {
        let mut rules = lock(&self.rules);
        let applies = |rule: &Rule| match &rule.method {
            Some(name) => name == method && rule.n_left != Some(0),
            None => needs_leader,
        };
        let rule = rules.iter_mut().find(|rule| applies(rule))?;
        rule.n_left = rule.n_left.map(|n_left| n_left - 1);
        Some((rule.refusal.clone(), rule.when))
    }

    fn count_call(&self, method: &str) {
        *lock(&self.n_calls).entry(method.to_owned()).or_default() += 1;
    }
}

async fn accept_connections(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((inbound, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            state.n_connections.fetch_add(1, Ordering::AcqRel);
            let mut closing = state.closes.subscribe();
            tokio::select! {
                // Broken connections are part of the tests.
                served = serve_connection(inbound, &state) => drop(served),
                closed = closing.recv() => drop(closed),
            }
            state.n_connections.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Serves one connection, over one connection to the target.
async fn serve_connection(inbound: TcpStream, state: &Arc<State>) -> Result<(), h2::Error> {
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
            // Closes the client's connection too, as without a proxy.
            () = &mut target_ended => return Ok(()),
        };
        let Some(call) = call else { return Ok(()) };
        let (request, respond) = call?;
        let (target, state) = (target.clone(), Arc::clone(state));
        tasks
            .spawn(async move { drop(call::forward_call(request, respond, target, &state).await) });
    }
}
