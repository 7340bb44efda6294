//! Long streams, and streams that an operator has deleted or truncated.

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, FulfillmentDeliveryFailed, OrderEvent};
use event_log::{Expected, LogError, SubscriptionItem};
use testkit::store::{Store, cause, placed};
use testkit::stream_tool::StreamTool;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const LONG: Duration = Duration::from_secs(30);
/// Number of an order that was never placed.
const NEVER: OrderId = OrderId(Uuid::from_u128(9));

fn is_deleted<T>(read: &Result<T, LogError>) -> bool {
    matches!(read, Err(LogError::Deleted))
}

#[tokio::test]
async fn deleted_order_differs_from_a_missing_one() {
    let store = Store::start_embedded().await;
    let tool = StreamTool::new(&store.url());
    let [deleted, ended, truncated] =
        [store.place(1).await, store.place(2).await, store.place(3).await];
    tool.delete(deleted).await;
    tool.tombstone(ended).await;
    tool.truncate(truncated, 4).await;
    let log = &store.log;
    for order_id in [deleted, ended, truncated] {
        assert!(is_deleted(&log.read_history(order_id).await), "{order_id}");
        assert!(is_deleted(&log.load_readable(order_id).await), "{order_id}");
        assert!(is_deleted(&log.load(order_id).await), "{order_id}");
        assert!(is_deleted(&log.newest_revision(order_id).await), "{order_id}");
        assert_eq!(log.read_tenant(order_id).await.unwrap(), None, "{order_id}");
    }
    assert!(log.read_history(NEVER).await.unwrap().is_empty());
    assert_eq!(log.load_readable(NEVER).await.unwrap(), None);
    assert_eq!(log.newest_revision(NEVER).await.unwrap(), None);

    assert!(is_deleted(&log.refuse_soft_deleted(deleted).await));
    log.refuse_soft_deleted(truncated).await.unwrap();
    log.refuse_soft_deleted(NEVER).await.unwrap();
    let again = log.append(ended, Expected::NoStream, &placed(ended), &cause(20)).await;
    assert!(is_deleted(&again));
}

#[tokio::test]
async fn truncated_history_begins_with_the_first_remaining_event() {
    let store = Store::start_embedded().await;
    let order_id = store.place(1).await;
    StreamTool::new(&store.url()).truncate(order_id, 2).await;
    let history = store.log.read_history(order_id).await.unwrap();
    let revisions: Vec<_> = history.iter().map(|it| it.revision).collect();
    assert_eq!(revisions, [2, 3]);
    assert_eq!(store.log.newest_revision(order_id).await.unwrap(), Some(3));
}

#[tokio::test]
async fn long_history_is_read_in_portions_of_bounded_size() {
    let store = Store::start_embedded().await;
    let order_id = store.place(1).await;
    let failed = |delivery, error: &str| {
        OrderEvent::DeliveryFailed(FulfillmentDeliveryFailed {
            order_id,
            attempt: 1,
            delivery,
            class: FailureClass::Transient,
            error: error.to_owned(),
            retry_in_ms: 0,
        })
    };
    let mut revision = 3;
    let large = "x".repeat(400_000);
    let mut append = async |errors: &[&str]| {
        let events: Vec<_> = errors.iter().map(|it| failed(1, it)).collect();
        let cause = cause(100 + u128::from(revision));
        let expected = Expected::Revision(revision);
        revision = store.log.append(order_id, expected, &events, &cause).await.unwrap();
    };
    for _ in 0..4 {
        append(&[""; 250]).await;
    }
    append(&[&large, &large]).await;
    append(&[&large, &large]).await;

    let mut reader = store.log.read_history_from(order_id, 2);
    let mut revisions = Vec::new();
    let mut portions = Vec::new();
    while let Some(events) = reader.next().await.unwrap() {
        portions.push(events.len());
        revisions.extend(events.iter().map(|it| it.revision));
    }
    assert_eq!(revisions, (2..=1_007).collect::<Vec<_>>());
    assert_eq!(portions, [500, 500, 5, 1], "the last event does not fit into the previous portion");
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn subscription_delivers_deletions_and_no_system_events() {
    let store = Store::start_embedded().await;
    let tool = StreamTool::new(&store.url());
    let orders = [store.place(1).await, store.place(2).await, store.place(3).await];
    let placed = store.log.store().count_backlog(None, 100).await.unwrap().n_events;
    tool.truncate(orders[2], 1).await;
    tool.tombstone(orders[0]).await;
    tool.delete(orders[1]).await;
    // The truncation is no deletion.
    assert_eq!(store.log.store().count_backlog(None, 100).await.unwrap().n_events, placed + 2);

    let mut subscription = store.log.store().subscribe(None);
    let mut deleted = Vec::new();
    while deleted.len() < 2 {
        match timeout(LONG, subscription.next()).await.unwrap() {
            SubscriptionItem::Event(event) => {
                assert!(!event.event_type.starts_with('$'), "{event:?}");
            }
            SubscriptionItem::Deleted { order_id, .. } => deleted.push(order_id),
            SubscriptionItem::Checkpoint(_) | SubscriptionItem::CaughtUp => {}
        }
    }
    assert_eq!(deleted, orders[..2]);
}
