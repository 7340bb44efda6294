//! Connections to the store: how many there are, and that none is left behind.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test cannot go on without ends it"
)]

use std::time::Duration;

use domain::ids::OrderId;
use event_log::{Delivery, EventLog, Expected, Feed, Group, GroupSettings, Subscription};
use testkit::grpc_proxy::{GrpcProxy, Refusal, When};
use testkit::store::{Store, cause, connect, placed};
use testkit::wait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long anything may take. Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often each kind of use is forced to connect anew.
const N_RECONNECTS: u128 = 50;
/// The connection in use, and one whose last call is ending.
const MAX_CONNECTIONS: usize = 2;
/// How long Linux may delay an acknowledgement, at least.
const DELAYED_ACKNOWLEDGEMENT: Duration = Duration::from_millis(40);

/// A store, a proxy before it and a log through the proxy.
struct Fixture {
    store: Store,
    proxy: GrpcProxy,
    log: EventLog,
}

impl Fixture {
    async fn start() -> Self {
        let store = Store::start().await;
        let proxy = GrpcProxy::start(store.address()).await;
        let log = connect(&proxy.url()).unwrap();
        Self { store, proxy, log }
    }

    async fn place(&self, number: u128) -> OrderId {
        place(&self.log, number).await
    }

    /// Waits until no connection is left but those in use.
    async fn until_few_connections(&self) {
        let few = async || (self.proxy.n_connections() <= MAX_CONNECTIONS).then_some(());
        wait::until_async("given-up connections are closed", few).await;
        assert!(self.log.ping().await.is_ok());
    }
}

async fn place(log: &EventLog, number: u128) -> OrderId {
    let order_id = OrderId(Uuid::from_u128(number));
    let events = placed(order_id);
    log.append(order_id, Expected::NoStream, &events, &cause(number)).await.unwrap();
    order_id
}

/// The status of a store that goes away. The connection of the call stays open.
fn gone() -> Refusal {
    Refusal::new(14, "Server is shutting down")
}

fn settings() -> GroupSettings {
    GroupSettings {
        name: "fulfillment".to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout: PATIENCE,
        max_retry_count: 1_000,
        buffer_size: 4,
        silence_limit: PATIENCE,
        n_silences: watch::Sender::default(),
    }
}

async fn next_delivery(group: &mut Group) -> Delivery {
    timeout(PATIENCE, group.next()).await.expect("a delivery in time")
}

/// Reads on until the order's last event.
async fn until_event(subscription: &mut Subscription, order_id: OrderId) {
    let reading = async {
        loop {
            if let Feed::Event(event) = subscription.next().await
                && (event.order_id, event.revision) == (order_id, 3)
            {
                return;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("an event in time");
}

#[tokio::test]
async fn reads_that_connect_anew_leave_no_connection() {
    let fixture = Fixture::start().await;
    for _ in 0..N_RECONNECTS {
        fixture.proxy.refuse("Streams/Read", 1, When::Before, gone());
        fixture.log.ping().await.unwrap();
    }
    fixture.until_few_connections().await;
}

#[tokio::test]
async fn group_info_that_connects_anew_leaves_no_connection() {
    let fixture = Fixture::start().await;
    for _ in 0..N_RECONNECTS {
        fixture.proxy.refuse("PersistentSubscriptions/GetInfo", 1, When::Before, gone());
        fixture.log.group_info("fulfillment").await.unwrap();
    }
    fixture.until_few_connections().await;
}

#[tokio::test]
async fn appends_that_connect_anew_leave_no_connection() {
    let fixture = Fixture::start().await;
    for number in 1..=N_RECONNECTS {
        fixture.proxy.refuse("Streams/Append", 1, When::After, gone());
        fixture.proxy.end_open("Streams/BatchAppend", gone());
        fixture.place(number).await;
    }
    fixture.until_few_connections().await;
    for number in 1..=N_RECONNECTS {
        let history = fixture.log.history(OrderId(Uuid::from_u128(number))).await.unwrap();
        assert_eq!(history.len(), 4, "order {number} is on record once");
    }
}

#[tokio::test]
async fn journals_that_connect_anew_leave_no_connection() {
    let fixture = Fixture::start().await;
    let journal = fixture.log.journal("test-journal");
    for number in 1..=N_RECONNECTS {
        fixture.proxy.refuse("Streams/Append", 1, When::Before, gone());
        journal.append(event_log::Last::Any, "Said", &number, &cause(number)).await.unwrap();
    }
    fixture.until_few_connections().await;
}

#[tokio::test]
async fn subscription_that_connects_anew_leaves_no_connection() {
    let fixture = Fixture::start().await;
    let mut subscription = fixture.log.subscribe(None);
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.store.place(number).await;
        until_event(&mut subscription, order_id).await;
        fixture.proxy.end_open("Streams/Read", gone());
    }
    fixture.until_few_connections().await;
}

#[tokio::test]
async fn tail_that_connects_anew_leaves_no_connection() {
    let fixture = Fixture::start().await;
    let stop = CancellationToken::new();
    let mut following = tokio::task::JoinSet::new();
    let (log, stopped) = (fixture.log.clone(), stop.clone());
    following.spawn(async move { log.follow(PATIENCE, stopped).await });
    let mut feed = timeout(PATIENCE, fixture.log.feed(None)).await.unwrap().unwrap();
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.store.place(number).await;
        for revision in 0..4 {
            let next = timeout(PATIENCE, feed.next()).await.expect("an event in time");
            let Some(event_log::Fed::Event(event)) = next else { panic!("no event: {next:?}") };
            assert_eq!((event.order_id, event.revision), (order_id, revision));
        }
        fixture.proxy.end_open("Streams/Read", gone());
    }
    fixture.until_few_connections().await;
    stop.cancel();
}

#[tokio::test]
async fn membership_that_connects_anew_leaves_no_connection() {
    let fixture = Fixture::start().await;
    let mut group = fixture.log.join_group(settings());
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.store.place(number).await;
        let delivery = next_delivery(&mut group).await;
        assert_eq!(delivery.event.order_id, order_id);
        group.ack(delivery.id);
        let is_acked = async || {
            let stats = fixture.store.log.group_stats("fulfillment").await.unwrap();
            (stats.in_flight == 0).then_some(())
        };
        wait::until_async("it is acked", is_acked).await;
        fixture.proxy.end_open("PersistentSubscriptions/Read", gone());
    }
    fixture.until_few_connections().await;
}

#[tokio::test]
async fn everything_that_loses_its_connection_goes_on_over_a_few() {
    let fixture = Fixture::start().await;
    let mut group = fixture.log.join_group(settings());
    let mut subscription = fixture.log.subscribe(None);
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.place(number).await;
        until_event(&mut subscription, order_id).await;
        let mut delivery = next_delivery(&mut group).await;
        while delivery.event.order_id != order_id {
            // The acknowledgement before was lost with its connection.
            group.ack(delivery.id);
            delivery = next_delivery(&mut group).await;
        }
        group.ack(delivery.id);
        fixture.log.group_info("fulfillment").await.unwrap();
        fixture.proxy.close_connections();
    }
    fixture.until_few_connections().await;
}

/// The middle of the times that so many reads take, one after the other.
async fn median_read(log: &EventLog) -> Duration {
    let mut times = Vec::new();
    for _ in 0..41 {
        let began = Instant::now();
        log.ping().await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

/// A server that is not of this process delays its acknowledgements by 40 ms, and so does this
/// proxy, which is no node of ours: without `TCP_NODELAY` each read takes that long.
#[tokio::test]
async fn reads_do_not_wait_for_delayed_acknowledgements() {
    let fixture = Fixture::start().await;
    fixture.log.ping().await.unwrap();
    let median = median_read(&fixture.log).await;
    assert!(median < DELAYED_ACKNOWLEDGEMENT, "a read takes {median:?}");

    // The client connects anew by itself, and nobody tells the log.
    fixture.proxy.close_connections();
    wait::until_async("reads are quick again", async || {
        (median_read(&fixture.log).await < DELAYED_ACKNOWLEDGEMENT).then_some(())
    })
    .await;
}
