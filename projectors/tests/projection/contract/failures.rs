//! The contract of unresolved failures.

use domain::ids::OrderId;
use domain::order::Stage;
use projectors::{FailedOrderFilter, FailureFilter, FailureGroup, Page, Place, ReadModel};

use super::{crowd, project, read_pages};
use crate::events::{History, at, id};
use crate::stores::Database;

/// Projects failures of every kind, resolved failures, and orders that did not fail.
async fn failures(store: &ReadModel) {
    let dead = |number: u128, second, code| {
        History::of(number).second(second).placed().failed(Stage::DeadLetter, code)
    };
    let log = [
        dead(1, 300, "poison").events(),
        dead(2, 100, "permanent").events(),
        dead(3, 200, "permanent").events(),
        History::of(4).second(100).placed().failed(Stage::Fulfillment, "permanent").events(),
        History::of(5).second(50).received().failed(Stage::Validation, "rules").events(),
        // Queued again, with an unknown outcome.
        dead(6, 400, "permanent\0").queued().events(),
        dead(7, 10, "permanent").queued().fulfilled().events(),
        dead(8, 10, "permanent").discarded().events(),
        History::of(9).customer("cust-\0").second(500).placed().events(),
        dead(10, 500, "poison")
            .customer("cust-\0")
            .queued()
            .failed(Stage::DeadLetter, "a")
            .events(),
    ];
    project(store, &log.concat()).await;
}

fn stage(stage: Stage) -> FailureFilter {
    FailureFilter { stage: Some(stage), ..FailureFilter::default() }
}

fn ids(numbers: &[u128]) -> Vec<OrderId> {
    numbers.iter().copied().map(id).collect()
}

pub(crate) async fn unresolved_failures_are_listed_oldest_first(database: &Database) {
    let store = database.read_model().await;
    failures(&store).await;
    let all = FailureFilter::default;
    let dead = || stage(Stage::DeadLetter);
    let code = |code: &str| Some(code.to_owned());
    let filters: [(FailureFilter, &[u128]); 11] = [
        (all(), &[5, 2, 4, 3, 1, 6, 10]),
        (dead(), &[2, 3, 1, 6, 10]),
        (FailureFilter { code: code("permanent"), ..all() }, &[2, 4, 3]),
        (FailureFilter { code: code("permanent"), ..dead() }, &[2, 3]),
        (FailureFilter { code: code("permanent\0"), ..dead() }, &[6]),
        (FailureFilter { failed_before: Some(at(230)), ..dead() }, &[2]),
        (FailureFilter { customer_id: code("cust-\0"), ..all() }, &[10]),
        (FailureFilter { customer_id: code("cust-"), ..all() }, &[]),
        (FailureFilter { order_ids: Some(ids(&[1, 3, 7, 8, 99])), ..all() }, &[3, 1]),
        (FailureFilter { order_ids: Some(Vec::new()), ..all() }, &[]),
        (
            FailureFilter {
                stage: Some(Stage::DeadLetter),
                code: code("poison"),
                failed_before: Some(at(331)),
                order_ids: Some(ids(&[1, 2])),
                customer_id: code("cust-retail-001"),
            },
            &[1],
        ),
    ];
    for (filter, expected) in filters {
        let found = store.failures_now(&filter, None, 100).await.unwrap();
        let found: Vec<_> = found.iter().map(|failed| failed.order_id).collect();
        assert_eq!(found, ids(expected), "{filter:?}");
    }
}

pub(crate) async fn unresolved_failures_are_walked_through_exactly_once(database: &Database) {
    let store = crowd(database).await;
    let list = async |Page { after, limit }: Page| {
        let failed = store.failures_now(&FailureFilter::default(), after, limit).await.unwrap();
        failed.iter().map(Place::of_failure).collect()
    };
    let seen = read_pages(list).await;
    assert!(seen.is_sorted_by(|before, behind| before < behind), "{seen:?}");
}

pub(crate) async fn unresolved_failures_are_counted_by_their_cause(database: &Database) {
    let store = database.read_model().await;
    assert_eq!(store.failure_groups(&FailureFilter::default(), at(4_030)).await.unwrap(), []);
    failures(&store).await;

    // The last hour begins at second 430, and the hour before it at second -3,170.
    let group =
        |code: &str, [n_last_hour, n_previous_hour]: [u64; 2], oldest, newest| FailureGroup {
            stage: Stage::DeadLetter,
            code: code.to_owned(),
            n_orders: n_last_hour + n_previous_hour,
            oldest_failed_at: at(oldest),
            newest_failed_at: at(newest),
            n_last_hour,
            n_previous_hour,
        };
    let dead = store.failure_groups(&stage(Stage::DeadLetter), at(4_030)).await.unwrap();
    let expected = [
        group("permanent", [0, 2], 130, 230),
        group("poison", [0, 1], 330, 330),
        group("permanent\0", [1, 0], 430, 430),
        group("a", [1, 0], 530, 530),
    ];
    assert_eq!(dead, expected);

    let all = store.failure_groups(&FailureFilter::default(), at(4_030)).await.unwrap();
    assert_eq!((all.len(), all.iter().map(|group| group.n_orders).sum::<u64>()), (6, 7));
    let filter = FailureFilter {
        code: Some("permanent".to_owned()),
        failed_before: Some(at(131)),
        order_ids: Some(ids(&[2, 3, 4])),
        ..stage(Stage::DeadLetter)
    };
    let one = store.failure_groups(&filter, at(9_999)).await.unwrap();
    // Both hours begin later.
    let earlier = FailureGroup { n_orders: 1, ..group("permanent", [0, 0], 130, 130) };
    assert_eq!(one, [earlier]);
    assert_eq!(store.count_failures(&filter).await.unwrap(), 1);
    assert_eq!(store.count_failures(&FailureFilter::default()).await.unwrap(), 7);
}

pub(crate) async fn pages_show_every_failure_exactly_once(database: &Database) {
    let store = crowd(database).await;
    let list = async |page: Page| {
        let failed = store.failed_orders(&FailedOrderFilter::default(), &page).await.unwrap();
        failed.iter().map(Place::of_failure).collect()
    };
    let seen = read_pages(list).await;
    assert!(seen.is_sorted_by(|before, behind| before > behind), "{seen:?}");
}
