//! Access rights that a store denies.

use event_log::AccessRight;
use testkit::store::{Store, connect};
use testkit::strict_store::StrictStore;

const GROUP: &str = "fulfillment";
const ALL: [AccessRight; 3] =
    [AccessRight::ReadAll, AccessRight::UseOrders, AccessRight::ReadParked];

#[tokio::test]
async fn check_of_granted_rights_changes_nothing() {
    let store = Store::start().await;
    let before = store.log.store().head().await.unwrap();
    assert_eq!(store.log.find_denied(&ALL, GROUP).await.unwrap(), None);
    assert_eq!(store.log.store().head().await.unwrap(), before);
}

#[tokio::test]
async fn denied_right_is_returned() {
    let parked = format!("$persistentsubscription-$all::{GROUP}-parked");
    for (stream, right) in [("$all", AccessRight::ReadAll), (&parked, AccessRight::ReadParked)] {
        let store = StrictStore::start();
        store.deny_reading(stream);
        let log = connect(&store.url()).unwrap();
        assert_eq!(log.find_denied(&ALL, GROUP).await.unwrap(), Some(right));
    }
}
