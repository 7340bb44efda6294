//! Connections to the store: their number, and that none is leaked.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed precondition fails the test"
)]

use std::time::Duration;

use domain::ids::OrderId;
use event_log::{
    Delivery, EventLog, Expected, GroupMembership, GroupSettings, Subscription, SubscriptionItem,
};
use testkit::grpc_proxy::{GrpcProxy, Refusal, When};
use testkit::store::{Store, cause, connect, placed};
use testkit::wait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of forced reconnections per kind of use.
const N_RECONNECTS: u128 = 50;
/// Maximum number of connections: the one in use, and one whose last call is ending.
const MAX_CONNECTIONS: usize = 2;
/// Least delay of a delayed acknowledgement on Linux.
const DELAYED_ACKNOWLEDGEMENT: Duration = Duration::from_millis(40);

/// A store, a proxy in front of it, and a log through the proxy.
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

    /// Waits until only connections in use are left.
    async fn wait_for_few_connections(&self) {
        let few = async || (self.proxy.n_connections() <= MAX_CONNECTIONS).then_some(());
        wait::until_async("given-up connections are closed", few).await;
        assert!(self.log.store().ping().await.is_ok());
    }
}

async fn place(log: &EventLog, number: u128) -> OrderId {
    let order_id = OrderId(Uuid::from_u128(number));
    let events = placed(order_id);
    log.append(order_id, Expected::NoStream, &events, &cause(number)).await.unwrap();
    order_id
}

/// Returns the status of a store that shuts down. The connection of the call stays open.
fn shutting_down() -> Refusal {
    Refusal::new(14, "Server is shutting down")
}

fn settings() -> GroupSettings {
    GroupSettings {
        name: "fulfillment".to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout: TEST_TIMEOUT,
        max_retry_count: 1_000,
        buffer_size: 4,
        silence_limit: TEST_TIMEOUT,
        n_silences: watch::Sender::default(),
    }
}

async fn next_delivery(group: &mut GroupMembership) -> Delivery {
    timeout(TEST_TIMEOUT, group.next()).await.expect("a delivery arrives in time")
}

/// Reads until the order's last event.
async fn wait_for_last_event(subscription: &mut Subscription, order_id: OrderId) {
    let reading = async {
        loop {
            if let SubscriptionItem::Event(event) = subscription.next().await
                && (event.order_id, event.revision) == (order_id, 3)
            {
                return;
            }
        }
    };
    timeout(TEST_TIMEOUT, reading).await.expect("an event arrives in time");
}

#[tokio::test]
async fn reconnecting_reads_leak_no_connection() {
    let fixture = Fixture::start().await;
    for _ in 0..N_RECONNECTS {
        fixture.proxy.refuse_next("Streams/Read", 1, When::Before, shutting_down());
        fixture.log.store().ping().await.unwrap();
    }
    fixture.wait_for_few_connections().await;
}

#[tokio::test]
async fn reconnecting_group_info_leaks_no_connection() {
    let fixture = Fixture::start().await;
    for _ in 0..N_RECONNECTS {
        fixture.proxy.refuse_next(
            "PersistentSubscriptions/GetInfo",
            1,
            When::Before,
            shutting_down(),
        );
        fixture.log.store().group_info("fulfillment").await.unwrap();
    }
    fixture.wait_for_few_connections().await;
}

#[tokio::test]
async fn reconnecting_appends_leak_no_connection() {
    let fixture = Fixture::start().await;
    for number in 1..=N_RECONNECTS {
        fixture.proxy.refuse_next("Streams/Append", 1, When::After, shutting_down());
        fixture.proxy.end_open("Streams/BatchAppend", shutting_down());
        fixture.place(number).await;
    }
    fixture.wait_for_few_connections().await;
    for number in 1..=N_RECONNECTS {
        let history = fixture.log.read_history(OrderId(Uuid::from_u128(number))).await.unwrap();
        assert_eq!(history.len(), 4, "order {number} is recorded once");
    }
}

#[tokio::test]
async fn reconnecting_journals_leak_no_connection() {
    let fixture = Fixture::start().await;
    let journal = fixture.log.store().open_journal("test-journal");
    for number in 1..=N_RECONNECTS {
        fixture.proxy.refuse_next("Streams/Append", 1, When::Before, shutting_down());
        journal
            .append(event_log::ExpectedLast::Any, "Noted", &number, &cause(number))
            .await
            .unwrap();
    }
    fixture.wait_for_few_connections().await;
}

#[tokio::test]
async fn reconnecting_subscription_leaks_no_connection() {
    let fixture = Fixture::start().await;
    let mut subscription = fixture.log.store().subscribe(None);
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.store.place(number).await;
        wait_for_last_event(&mut subscription, order_id).await;
        fixture.proxy.end_open("Streams/Read", shutting_down());
    }
    fixture.wait_for_few_connections().await;
}

#[tokio::test]
async fn reconnecting_live_events_leak_no_connection() {
    let fixture = Fixture::start().await;
    let stop = CancellationToken::new();
    let mut following = tokio::task::JoinSet::new();
    let (log, stopped) = (fixture.log.clone(), stop.clone());
    following.spawn(async move { log.follow_live_events(TEST_TIMEOUT, stopped).await });
    let mut feed = timeout(TEST_TIMEOUT, fixture.log.open_feed(None)).await.unwrap().unwrap();
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.store.place(number).await;
        for revision in 0..4 {
            let next = timeout(TEST_TIMEOUT, feed.next()).await.expect("an event arrives in time");
            let Some(event_log::FeedItem::Event(event)) = next else {
                panic!("no event: {next:?}")
            };
            assert_eq!((event.order_id, event.revision), (order_id, revision));
        }
        fixture.proxy.end_open("Streams/Read", shutting_down());
    }
    fixture.wait_for_few_connections().await;
    stop.cancel();
}

#[tokio::test]
async fn reconnecting_membership_leaks_no_connection() {
    let fixture = Fixture::start().await;
    let mut group = fixture.log.join_group(settings());
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.store.place(number).await;
        let delivery = next_delivery(&mut group).await;
        assert_eq!(delivery.event.order_id, order_id);
        group.ack(delivery.id);
        let is_acked = async || {
            let stats = fixture.store.log.store().group_stats("fulfillment").await.unwrap();
            (stats.in_flight == 0).then_some(())
        };
        wait::until_async("the delivery is acknowledged", is_acked).await;
        fixture.proxy.end_open("PersistentSubscriptions/Read", shutting_down());
    }
    fixture.wait_for_few_connections().await;
}

#[tokio::test]
async fn all_uses_recover_over_few_connections() {
    let fixture = Fixture::start().await;
    let mut group = fixture.log.join_group(settings());
    let mut subscription = fixture.log.store().subscribe(None);
    for number in 1..=N_RECONNECTS {
        let order_id = fixture.place(number).await;
        wait_for_last_event(&mut subscription, order_id).await;
        let mut delivery = next_delivery(&mut group).await;
        while delivery.event.order_id != order_id {
            // The previous acknowledgement was lost with its connection.
            group.ack(delivery.id);
            delivery = next_delivery(&mut group).await;
        }
        group.ack(delivery.id);
        fixture.log.store().group_info("fulfillment").await.unwrap();
        fixture.proxy.close_connections();
    }
    fixture.wait_for_few_connections().await;
}

/// Returns the median duration of sequential reads.
async fn median_read(log: &EventLog) -> Duration {
    let mut times = Vec::new();
    for _ in 0..41 {
        let began = Instant::now();
        log.store().ping().await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

/// A server in another process delays its acknowledgements by 40 ms, and so does this proxy: without
/// `TCP_NODELAY` each read takes that long.
#[tokio::test]
async fn reads_do_not_wait_for_delayed_acknowledgements() {
    let fixture = Fixture::start().await;
    fixture.log.store().ping().await.unwrap();
    let median = median_read(&fixture.log).await;
    assert!(median < DELAYED_ACKNOWLEDGEMENT, "a read takes {median:?}");

    // The client reconnects by itself, without an event that the log sees.
    fixture.proxy.close_connections();
    wait::until_async("reads are fast again", async || {
        (median_read(&fixture.log).await < DELAYED_ACKNOWLEDGEMENT).then_some(())
    })
    .await;
}
