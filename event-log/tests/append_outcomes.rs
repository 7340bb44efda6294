//! Outcome of an append for each status of the store, as a real store sends it.

use std::time::Duration;

use domain::ids::OrderId;
use event_log::{EventLog, Expected, LogError};
use testkit::grpc_proxy::{GrpcProxy, Refusal, When};
use testkit::store::{Store, cause, connect, placed};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// More calls than one append makes before its time-out.
const ALWAYS: usize = 1_000;

/// Outcome of an append after a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Unknown: the events may be stored. The API responds with 503 and `Retry-After`.
    Open,
    /// Refused: a retry does not help.
    Refused,
    /// The store's log is damaged.
    Damaged,
}

/// Statuses of EventStoreDB 23.10.6, of the gRPC stacks, and of broken connections.
const STATUSES: &[(u32, &str, Known)] = &[
    (1, "Call canceled by the client.", Known::Open),
    (1, "Timeout expired", Known::Open),
    (2, "h2 protocol error: error reading a body from connection", Known::Open),
    (2, "transport error", Known::Open),
    (2, "No leader info available in response", Known::Open),
    (2, "Exception was thrown by handler.", Known::Refused),
    (2, "Unexpected ReadStreamResult: Error", Known::Refused),
    (3, "Maximum Append Size of 1048576 Exceeded.", Known::Refused),
    (4, "Deadline Exceeded", Known::Open),
    (7, "Access Denied", Known::Refused),
    (8, "Too many requests", Known::Open),
    (9, "Event stream 'order-1' is deleted.", Known::Refused),
    (10, "Operation timed out: Commit phase timeout", Known::Open),
    (10, "Operation timed out: Prepare phase timeout", Known::Open),
    (11, "Out of range", Known::Refused),
    (12, "Unimplemented", Known::Refused),
    (13, "Received RST_STREAM with error code 2", Known::Open),
    (14, "Server Is Not Ready", Known::Open),
    (14, "Server Is Too Busy", Known::Open),
    (14, "Connection refused", Known::Open),
    (15, "record 7 cannot be read", Known::Damaged),
    (16, "Unauthenticated", Known::Refused),
];

fn known(appended: Result<u64, LogError>) -> Known {
    match appended {
        Err(error) if error.is_unavailable() => Known::Open,
        Err(LogError::Refused(_)) => Known::Refused,
        Err(LogError::Damaged { .. }) => Known::Damaged,
        other => panic!("{other:?}"),
    }
}

async fn append(log: &EventLog, number: u128) -> Result<u64, LogError> {
    let order_id = OrderId(Uuid::from_u128(number));
    log.append(order_id, Expected::NoStream, &placed(order_id), &cause(number)).await
}

#[tokio::test]
async fn every_status_gives_the_outcome_of_the_append() {
    let store = Store::start().await;
    let mut checks = JoinSet::new();
    for (index, (code, detail, expected)) in STATUSES.iter().enumerate() {
        let proxy = GrpcProxy::start(store.address()).await;
        proxy.refuse_next("Streams/Append", ALWAYS, When::Before, Refusal::new(*code, detail));
        checks.spawn(async move {
            // The first append uses a call of its own: no batch call is open yet.
            let log = connect(&proxy.url()).unwrap();
            let number = u128::try_from(index).unwrap() + 1;
            let appended = timeout(TEST_TIMEOUT, append(&log, number)).await.unwrap();
            assert_eq!(known(appended), *expected, "status {code}: {detail}");
        });
    }
    while let Some(checked) = checks.join_next().await {
        checked.unwrap();
    }
}

#[tokio::test]
async fn repeated_append_succeeds_after_a_recorded_time_out() {
    let store = Store::start().await;
    for (code, detail, known) in STATUSES {
        if *known != Known::Open {
            continue;
        }
        let proxy = GrpcProxy::start(store.address()).await;
        proxy.refuse_next("Streams/Append", 1, When::After, Refusal::new(*code, detail));
        let log = connect(&proxy.url()).unwrap();
        let number = u128::from(proxy.address().port());
        let appended = timeout(TEST_TIMEOUT, append(&log, number)).await.unwrap();
        assert_eq!(appended.unwrap(), 3, "status {code}: {detail}");
        let history = log.read_history(OrderId(Uuid::from_u128(number))).await.unwrap();
        assert_eq!(history.len(), 4, "status {code}: {detail}: recorded once");
    }
}

#[tokio::test]
async fn unreachable_leader_leaves_the_outcome_unknown() {
    let (store, gone) = (Store::start().await, {
        let mut gone = Store::start().await;
        gone.stop().await;
        gone
    });
    let proxy = GrpcProxy::start(store.address()).await;
    proxy.resign(gone.address());
    let log = connect(&proxy.url()).unwrap();
    let appended = timeout(TEST_TIMEOUT, append(&log, 1)).await.unwrap();
    assert_eq!(known(appended), Known::Open);
}
