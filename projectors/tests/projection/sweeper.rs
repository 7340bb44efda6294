//! Orders whose messages the store has lost.

use std::sync::Arc;
use std::time::Duration;

use domain::order::OrderEvent;
use event_log::{Delivery, GroupMembership, GroupSettings};
use projectors::Sweeper;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::contract::project;
use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{EventStore, PATIENCE, POLL, clock};

const GROUP: &str = "fulfillment";

/// An order in progress, the group that delivers it, and a sweeper.
struct Fixture {
    events: EventStore,
    group: GroupMembership,
    delivery: Delivery,
    sweeper: Sweeper,
    _database: Database,
}

impl Fixture {
    async fn start(history: History) -> Self {
        let (events, database) = (EventStore::start().await, Database::sqlite());
        let store = database.read_model().await;
        let history = history.events();
        events.append(&history).await;
        project(&store, &history).await;
        let mut group = events.log.join_group(GroupSettings {
            name: GROUP.to_owned(),
            event_type: "OrderQueued".to_owned(),
            message_timeout: Duration::from_secs(30),
            max_retry_count: 10,
            buffer_size: 1,
            silence_limit: Duration::from_secs(30),
            n_silences: watch::Sender::default(),
        });
        let delivery = timeout(PATIENCE, group.next()).await.unwrap();
        let sweeper = Sweeper {
            log: events.log.clone(),
            store: Arc::clone(&store),
            group: GROUP.to_owned(),
            stale_after: Duration::from_mins(1),
            clock: clock(),
        };
        Self { events, group, delivery, sweeper, _database: database }
    }

    /// Acknowledges the message without a recorded outcome, and waits for the store's checkpoint.
    async fn lose_message(&self) {
        self.group.ack(self.delivery.id);
        let position = Some(self.delivery.event.position);
        let checkpoint = async {
            while self.events.log.store().group_info(GROUP).await.unwrap().checkpoint < position {
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(PATIENCE, checkpoint).await.expect("the store writes its checkpoint");
    }

    async fn sweep(&self) -> Vec<(String, String)> {
        self.sweeper.sweep_once().await.unwrap();
        let history = self.events.log.read_history(id(1)).await.unwrap();
        let since = history.into_iter().skip(4);
        since.map(|event| (event.event_type.clone(), event.metadata().unwrap().actor)).collect()
    }
}

#[tokio::test]
async fn order_with_a_lost_message_is_queued_again_once() {
    let fixture = Fixture::start(History::of(1).placed()).await;
    fixture.lose_message().await;
    let requeued = [("OrderQueued".to_owned(), "sweeper".to_owned())];
    assert_eq!(fixture.sweep().await, requeued);
    let order = fixture.events.log.load(id(1)).await.unwrap().order.unwrap();
    assert_eq!(order.attempt, 1, "it is the same attempt");
    assert_eq!(fixture.sweep().await, requeued, "the second message is not answered");
}

#[tokio::test]
async fn order_with_a_message_in_flight_is_left_unchanged() {
    let fixture = Fixture::start(History::of(1).placed()).await;
    assert!(fixture.sweep().await.is_empty());
}

#[tokio::test]
async fn postponed_order_does_not_count_as_lost() {
    let fixture = Fixture::start(History::of(1).placed()).await;
    fixture.lose_message().await;
    let mut postponed = History::of(1).placed().delivery_failed().events();
    if let OrderEvent::DeliveryFailed(failed) = &mut postponed[4].event {
        failed.retry_in_ms = 3_600_000;
    }
    fixture.events.append(&postponed[4..]).await;
    let swept = fixture.sweep().await;
    assert_eq!(swept, [("FulfillmentDeliveryFailed".to_owned(), "customer".to_owned())]);
}

#[tokio::test]
async fn unreadable_and_deleted_orders_hold_back_no_other() {
    let fixture = Fixture::start(History::of(1).placed()).await;
    let (unreadable, deleted) = (id(2), id(3));
    for number in [2, 3] {
        let history = History::of(number).placed().events();
        fixture.events.append(&history).await;
        project(&fixture.sweeper.store, &history).await;
    }
    let tool = fixture.events.tool();
    tool.append(unreadable, "OrderFulfilled", "no json").await;
    tool.tombstone(deleted).await;
    fixture.lose_message().await;
    assert_eq!(fixture.sweep().await, [("OrderQueued".to_owned(), "sweeper".to_owned())]);
}
