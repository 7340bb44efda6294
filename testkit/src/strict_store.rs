//! An event store that behaves like a real EventStoreDB in cases where the embedded node is more
//! lenient.
//!
//! It is the embedded node behind a [`GrpcProxy`] that changes messages:
//!
//! - Positions are byte offsets with gaps. A position at which no event begins is refused.
//! - Another program appends its own and system events. Positions in `$all`, checkpoints and the last
//!   known event of a group may therefore be those of foreign events.
//! - The live buffer of a group counts events that were delivered long ago.
//! - Some appends are executed, but the response is a timeout.
//! - Live subscriptions are ended at intervals, as if the consumer were too slow.
//! - A connection has at most 100 open calls.
//! - A subscription to a stream receives `CaughtUp` only once the stream exists.
//! - Rights can be denied.

mod access;
mod neighbour;
mod positions;
mod rewrite;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use conformance::protocol::event_store::client::{Status, streams};
use prost::Message;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::grpc_proxy::{GrpcProxy, MAX_OPEN_CALLS, MessageFilter, Refusal};
use crate::node::TestNode;
use access::Access;
use neighbour::Neighbour;

/// Environment variable that selects the store of tests: `strict`, or unset for the embedded node.
const EVENT_STORE: &str = "DOFS_TEST_EVENT_STORE";
/// gRPC status code `ABORTED`.
const ABORTED: i32 = 10;
/// gRPC status code `INVALID_ARGUMENT`.
const INVALID_ARGUMENT: u32 = 3;
/// gRPC status code `PERMISSION_DENIED`.
const PERMISSION_DENIED: u32 = 7;
/// One of this many appends is executed, but the response is a timeout.
const APPENDS_PER_TIMEOUT: u64 = 9;
/// One of this many subscription events ends its subscription instead.
const EVENTS_PER_OVERRUN: u64 = 60;
/// Status of a server that has written an append, but not replicated it in time.
const APPEND_TIMED_OUT: &str = "Operation timed out: Commit phase timeout";
/// Status of a server that ends a live subscription because the consumer is too slow.
const TOO_SLOW: &str = "Operation timed out: Consumer too slow to handle event while live. Client \
                        resubscription required.";

/// A running strict store. Stopped and deleted when dropped.
///
/// It has its own runtime, so that synchronous and asynchronous tests can start it.
pub struct StrictStore {
    proxy: GrpcProxy,
    access: Arc<Access>,
    runtime: Option<Runtime>,
    _node: TestNode,
    _data: TempDir,
}

impl StrictStore {
    /// Starts a store on a free port.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be started");
        let data = tempfile::tempdir().expect("there is room for a temporary folder");
        let folder = data.path().to_owned();
        let starting = async move {
            let node = TestNode::start(&folder, "127.0.0.1:0").await;
            let (proxy, access) = start_proxy(node.address()).await;
            (node, proxy, access)
        };
        // `block_on` panics if the caller is within a runtime, hence the thread.
        let handle = runtime.handle().clone();
        let started = std::thread::spawn(move || handle.block_on(starting));
        let (node, proxy, access) = started.join().expect("the store starts");
        Self { proxy, access, runtime: Some(runtime), _node: node, _data: data }
    }

    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// Returns the proxy, to inject further faults.
    pub fn proxy(&self) -> &GrpcProxy {
        &self.proxy
    }

    /// Denies reading a stream from now on, e.g. `$all`, and consuming groups on it.
    pub fn deny_reading(&self, stream: &str) {
        self.access.deny_reading(stream);
    }
}

/// Starts a proxy that makes the node at `node` a strict store.
pub(crate) async fn start_proxy(node: SocketAddr) -> (GrpcProxy, Arc<Access>) {
    let access = Arc::new(Access::default());
    let strictness = Strictness::new(Neighbour::start(node).await, Arc::clone(&access));
    let filter = Some(Arc::new(strictness) as Arc<dyn MessageFilter>);
    (GrpcProxy::start_with_filter(node, MAX_OPEN_CALLS, filter).await, access)
}

/// Returns whether tests run on strict stores instead of embedded nodes.
///
/// # Panics
/// If `DOFS_TEST_EVENT_STORE` has an unknown value.
pub(crate) fn is_selected() -> bool {
    match std::env::var_os(EVENT_STORE) {
        None => false,
        Some(name) if name == "strict" => true,
        Some(other) => panic!("{EVENT_STORE} is `{}`: expected `strict`", other.display()),
    }
}

impl Drop for StrictStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The changes that the proxy makes to messages.
struct Strictness {
    neighbour: Neighbour,
    access: Arc<Access>,
    n_appends: AtomicU64,
    n_subscribed: AtomicU64,
    /// Number of events that groups have delivered.
    n_delivered: AtomicU64,
}

impl Strictness {
    fn new(neighbour: Neighbour, access: Arc<Access>) -> Self {
        Self {
            neighbour,
            access,
            n_appends: AtomicU64::new(0),
            n_subscribed: AtomicU64::new(0),
            n_delivered: AtomicU64::new(0),
        }
    }

    /// Counts an append and makes the other program append too. Returns whether the append times out.
    fn count_append(&self) -> bool {
        self.neighbour.trigger_append();
        let n_before = self.n_appends.fetch_add(1, Ordering::Relaxed);
        // The last of each group, so that the first append of a short test succeeds.
        n_before % APPENDS_PER_TIMEOUT == APPENDS_PER_TIMEOUT - 1
    }
}

impl MessageFilter for Strictness {
    fn change_request(&self, method: &str, message: &Bytes) -> Result<Bytes, Refusal> {
        if self.access.is_denied(method, message) {
            let denied = vec![("exception", "access-denied".to_owned())];
            let refusal = Refusal::new(PERMISSION_DENIED, "Access Denied");
            return Err(Refusal { trailers: denied, ..refusal });
        }
        let no_event = || Refusal::new(INVALID_ARGUMENT, "Invalid position: no event begins there");
        rewrite::rewrite_request(method, message).ok_or_else(no_event)
    }

    fn change_response(&self, method: &str, message: &Bytes) -> Result<Bytes, Refusal> {
        match method {
            "Streams/Append" if self.count_append() => {
                return Err(Refusal::new(ABORTED.unsigned_abs(), APPEND_TIMED_OUT));
            }
            "Streams/BatchAppend" if self.count_append() => {
                return Ok(replace_with_timeout(message));
            }
            "PersistentSubscriptions/Read" => {
                self.n_delivered.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        let n_delivered = self.n_delivered.load(Ordering::Relaxed);
        Ok(rewrite::rewrite_response(method, message, n_delivered))
    }

    fn take_overrun(&self, message: &Bytes) -> Option<Refusal> {
        let is_event = streams::ReadResp::decode(message.clone()).is_ok_and(|response| {
            matches!(response.content, Some(streams::read_resp::Content::Event(_)))
        });
        let n_before = is_event.then(|| self.n_subscribed.fetch_add(1, Ordering::Relaxed))?;
        (n_before % EVENTS_PER_OVERRUN == EVENTS_PER_OVERRUN - 1)
            .then(|| Refusal::new(ABORTED.unsigned_abs(), TOO_SLOW))
    }
}

/// Replaces the response to one append of a batch with a timeout.
fn replace_with_timeout(message: &Bytes) -> Bytes {
    let response = streams::BatchAppendResp::decode(message.clone());
    let mut response = response.expect("the node sends valid messages");
    response.result = Some(streams::batch_append_resp::Result::Error(Status {
        code: ABORTED,
        message: APPEND_TIMED_OUT.to_owned(),
        details: None,
    }));
    response.encode_to_vec().into()
}
