//! Rights that a store denies.

use event_log::Right;
use testkit::store::{Store, connect};
use testkit::strict_store::StrictStore;

const GROUP: &str = "fulfillment";
const ALL: [Right; 3] = [Right::ReadAll, Right::UseOrders, Right::ReadParked];

#[tokio::test]
async fn store_that_denies_nothing_is_not_changed_by_the_look() {
    let store = Store::start().await;
    let before = store.log.head().await.unwrap();
    assert_eq!(store.log.find_denied(&ALL, GROUP).await.unwrap(), None);
    assert_eq!(store.log.head().await.unwrap(), before);
}

#[tokio::test]
async fn denied_right_is_named() {
    let parked = format!("$persistentsubscription-$all::{GROUP}-parked");
    for (stream, right) in [("$all", Right::ReadAll), (&parked, Right::ReadParked)] {
        let store = StrictStore::start();
        store.deny_reading(stream);
        let log = connect(&store.url()).unwrap();
        assert_eq!(log.find_denied(&ALL, GROUP).await.unwrap(), Some(right));
    }
}
