//! An event store that behaves as a real EventStoreDB does where the embedded node is kinder.
//!
//! It is the embedded node behind a [`GrpcProxy`] that changes what passes:
//!
//! - Positions are offsets with gaps. A position where no event begins is refused.
//! - Another program appends, and system events stand among its events, so `$all`, checkpoints and
//!   the last known event of a group name events that are not the order system's.
//! - The live buffer of a group counts events that were handed out long ago.
//! - Some appends are carried out and answered with a time-out.
//! - Live subscriptions are ended now and then because they were too slow.
//! - A connection has at most 100 open calls.
//! - A subscription to a stream is not told that it has caught up before the stream exists.
//! - Rights can be denied.

mod access;
mod frames;
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

use crate::grpc_proxy::{GrpcProxy, Refusal};
use crate::node::TestNode;
use access::Access;
pub(crate) use frames::{Frames, frame};
use neighbour::Neighbour;

/// Environment variable that selects the store of tests: `strict`, or unset for the embedded node.
const EVENT_STORE: &str = "DOFS_TEST_EVENT_STORE";
/// `ABORTED`, as gRPC numbers it.
const ABORTED: i32 = 10;
/// `INVALID_ARGUMENT`.
const INVALID_ARGUMENT: u32 = 3;
/// `PERMISSION_DENIED`.
const PERMISSION_DENIED: u32 = 7;
/// Of so many appends one is carried out and answered with a time-out.
const APPENDS_PER_TIMEOUT: u64 = 9;
/// Of so many events that subscriptions bring one comes too fast.
const EVENTS_PER_OVERRUN: u64 = 60;
/// Answer of a server whose commit was not replicated in time, though it was written.
const APPEND_TIMED_OUT: &str = "Operation timed out: Commit phase timeout";
/// Answer of a server that switches a live subscription back to catching up.
const TOO_SLOW: &str = "Operation timed out: Consumer too slow to handle event while live. Client \
                        resubscription required.";

/// A running strict store. Gone when dropped, and its data with it.
///
/// It has a runtime of its own, so that tests with and without one can start it.
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
        // The caller may be in a runtime, where nothing may block on another.
        let handle = runtime.handle().clone();
        let started = std::thread::spawn(move || handle.block_on(starting));
        let (node, proxy, access) = started.join().expect("the store starts");
        Self { proxy, access, runtime: Some(runtime), _node: node, _data: data }
    }

    /// Returns the connection string.
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// Returns the proxy, for further faults.
    pub fn proxy(&self) -> &GrpcProxy {
        &self.proxy
    }

    /// Denies reading a stream from now on, e.g. `$all`; with that, consuming groups on it.
    pub fn deny_reading(&self, stream: &str) {
        self.access.deny_reading(stream);
    }

    /// Denies creating groups from now on.
    pub fn deny_creating_groups(&self) {
        self.access.deny_creating_groups();
    }
}

/// Starts the proxy that makes a strict store of the node at `node`.
pub(crate) async fn start_proxy(node: SocketAddr) -> (GrpcProxy, Arc<Access>) {
    let access = Arc::new(Access::default());
    let strictness = Strictness::new(Neighbour::start(node).await, Arc::clone(&access));
    (GrpcProxy::start_changing(node, Arc::new(strictness)).await, access)
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

/// What the proxy does with each message.
pub(crate) struct Strictness {
    neighbour: Neighbour,
    access: Arc<Access>,
    n_appends: AtomicU64,
    n_subscribed: AtomicU64,
    /// Events that the groups have handed out.
    n_handed_out: AtomicU64,
}

impl Strictness {
    fn new(neighbour: Neighbour, access: Arc<Access>) -> Self {
        Self {
            neighbour,
            access,
            n_appends: AtomicU64::new(0),
            n_subscribed: AtomicU64::new(0),
            n_handed_out: AtomicU64::new(0),
        }
    }

    /// Returns a request as the node is to see it.
    ///
    /// # Errors
    /// The call is refused.
    pub(crate) fn change_request(&self, method: &str, message: &Bytes) -> Result<Bytes, Refusal> {
        if self.access.is_denied(method, message) {
            let denied = vec![("exception", "access-denied".to_owned())];
            let refusal = Refusal::new(PERMISSION_DENIED, "Access Denied");
            return Err(Refusal { trailers: denied, ..refusal });
        }
        let no_event = || Refusal::new(INVALID_ARGUMENT, "Invalid position: no event begins there");
        rewrite::rewrite_request(method, message).ok_or_else(no_event)
    }

    /// Returns a response as the client is to see it.
    ///
    /// # Errors
    /// The call ends with this status in its place.
    pub(crate) fn change_response(&self, method: &str, message: &Bytes) -> Result<Bytes, Refusal> {
        match method {
            "Streams/Append" if self.count_append() => {
                return Err(Refusal::new(ABORTED.unsigned_abs(), APPEND_TIMED_OUT));
            }
            "Streams/BatchAppend" if self.count_append() => {
                return Ok(time_out(message));
            }
            "PersistentSubscriptions/Read" => {
                self.n_handed_out.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        let n_handed_out = self.n_handed_out.load(Ordering::Relaxed);
        Ok(rewrite::rewrite_response(method, message, n_handed_out))
    }

    /// Returns the status that ends a subscription before its next event, if it is to end.
    pub(crate) fn overrun(&self, message: &Bytes) -> Option<Refusal> {
        let is_event = streams::ReadResp::decode(message.clone()).is_ok_and(|response| {
            matches!(response.content, Some(streams::read_resp::Content::Event(_)))
        });
        let n_before = is_event.then(|| self.n_subscribed.fetch_add(1, Ordering::Relaxed))?;
        (n_before % EVENTS_PER_OVERRUN == EVENTS_PER_OVERRUN - 1)
            .then(|| Refusal::new(ABORTED.unsigned_abs(), TOO_SLOW))
    }

    /// Counts an append and has the neighbour append too. Returns whether this one is to time out.
    fn count_append(&self) -> bool {
        self.neighbour.append();
        let n_before = self.n_appends.fetch_add(1, Ordering::Relaxed);
        n_before % APPENDS_PER_TIMEOUT == APPENDS_PER_TIMEOUT - 1
    }
}

/// Returns the response to one append of a batch, with a time-out in its place.
fn time_out(message: &Bytes) -> Bytes {
    let response = streams::BatchAppendResp::decode(message.clone());
    let mut response = response.expect("the node sends what the protocol has");
    response.result = Some(streams::batch_append_resp::Result::Error(Status {
        code: ABORTED,
        message: APPEND_TIMED_OUT.to_owned(),
        details: None,
    }));
    response.encode_to_vec().into()
}
