//! The projection `customer_orders`: its fold, its tables in both databases, its independence of the
//! projection `orders`, and its routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use domain::order::{Recorded, Stage, Status};
use projectors::{
    Begin, CUSTOMER_ORDERS, Customer, CustomerFilter, CustomerOrder, Deletion, Difference, Events,
    Finding, ReadModel, Repair, Row, RowChanges, SwapAtEnd, Unfinished, Verified,
};
use serde_json::json;

use crate::contract::project;
use crate::events::{History, at, id};
use crate::rebuild::rebuild;
use crate::stores::Database;
use crate::system::{EventStore, Projector, clock, get, log, projected, queries_of_tenant};
use crate::verify::verify;

/// Folds events into no rows.
fn fold(recorded: &[Recorded], tenants: &[(domain::ids::OrderId, String)]) -> Vec<CustomerOrder> {
    let events = Events { recorded, tenants, ..Events::default() };
    written((CUSTOMER_ORDERS.apply)(BTreeMap::new(), &events).unwrap())
}

fn written(changes: RowChanges) -> Vec<CustomerOrder> {
    let rows = changes.written.into_iter().flatten();
    rows.map(|record| CustomerOrder::from_record(record).unwrap()).collect()
}

#[test]
fn order_row_follows_the_status_and_keeps_the_last_failure() {
    let failed = || History::of(1).placed().failed(Stage::DeadLetter, "transient");
    let [row] = &fold(&failed().events(), &[(id(1), "shop-a".to_owned())])[..] else { panic!() };
    assert_eq!((row.status, row.total_quantity, row.revision), (Status::Failed, 2, 4));
    assert_eq!((row.tenant.as_str(), row.customer_id.as_str()), ("shop-a", "cust-retail-001"));
    assert_eq!((row.failure_stage, row.failed_at), (Some(Stage::DeadLetter), Some(at(1_030))));

    let [row] = &fold(&failed().queued().fulfilled().events(), &[])[..] else { panic!() };
    assert_eq!((row.status, row.tenant.as_str()), (Status::Fulfilled, ""));
    assert_eq!(row.failure_code.as_deref(), Some("transient"));
}

#[test]
fn quantity_of_an_order_that_breaks_a_rule_does_not_count() {
    let history = History::of(1).quantity(u64::MAX).received().failed(Stage::Validation, "rule");
    assert_eq!(fold(&history.events(), &[])[0].total_quantity, 0);
}

#[test]
fn applied_events_change_nothing_and_a_deletion_removes_the_row() {
    let history = History::of(1).placed().fulfilled().events();
    let rows = fold(&history, &[]);
    let records = || BTreeMap::from([(id(1), vec![vec![rows[0].clone().into_record()]])]);
    let again = Events { recorded: &history, ..Events::default() };
    assert_eq!(written((CUSTOMER_ORDERS.apply)(records(), &again).unwrap()), []);

    let deletions = [Deletion { order_id: id(1), n_events_before: 0 }];
    let deleted = Events { deletions: &deletions, ..Events::default() };
    let changes = (CUSTOMER_ORDERS.apply)(records(), &deleted).unwrap();
    assert_eq!(changes.deleted.into_iter().collect::<Vec<_>>(), [id(1)]);
    assert_eq!(changes.written.concat(), Vec::<projectors::Record>::new());
}

async fn customer_orders(database: &Database) -> Arc<ReadModel> {
    database.read_model().await.for_projection(&CUSTOMER_ORDERS)
}

/// Orders 1 to 4 of one customer, whose id needs care, and order 5 of another one.
fn five_orders(awkward: &str) -> Vec<Vec<Recorded>> {
    let of = |number: u128| {
        let second = 1_000 * i64::try_from(number).unwrap();
        History::of(number).second(second).customer(awkward)
    };
    vec![
        of(1).placed().fulfilled().events(),
        of(2).placed().failed(Stage::Fulfillment, "refused").events(),
        of(3).placed().failed(Stage::DeadLetter, "transient").queued().fulfilled().events(),
        of(4).placed().events(),
        History::of(5).placed().events(),
    ]
}

pub(crate) async fn customers_are_summed_up(database: &Database) {
    let store = customer_orders(database).await;
    let awkward = "\0 ' \u{E000} ü";
    for history in five_orders(awkward) {
        project(&store, &history).await;
    }
    let all = store.customers(&CustomerFilter::default(), 10).await.unwrap();
    assert_eq!(all.len(), 2);
    let filter =
        CustomerFilter { customer_id: Some(awkward.to_owned()), ..CustomerFilter::default() };
    let expected = Customer {
        customer_id: awkward.to_owned(),
        n_processing: 1,
        n_fulfilled: 2,
        n_failed: 1,
        total_quantity: 8,
        first_order_id: Some(id(1)),
        first_order_at: Some(at(1_000)),
        last_order_id: Some(id(4)),
        last_order_at: Some(at(4_000)),
        failed_order_id: Some(id(3)),
        failed_at: Some(at(3_030)),
        failure_stage: Some(Stage::DeadLetter),
        failure_code: Some("transient".to_owned()),
    };
    assert_eq!(store.customers(&filter, 1).await.unwrap(), [expected]);
    // Pages show every customer once.
    let first = store.customers(&CustomerFilter::default(), 1).await.unwrap();
    let after = Some(first[0].customer_id.clone());
    let rest = CustomerFilter { after, ..CustomerFilter::default() };
    assert_eq!([first, store.customers(&rest, 10).await.unwrap()].concat(), all);
}

async fn verify_customers(events: &EventStore, store: &Arc<ReadModel>) -> (Verified, Vec<Finding>) {
    verify(events, store, Repair::Never).await
}

/// A second projection is built while the first one stands, and each is verified, repaired, rebuilt,
/// swapped and rolled back without the other.
async fn projections_are_independent(database: &Database) {
    let events = EventStore::start().await;
    let orders = database.read_model().await;
    let customers = orders.for_projection(&CUSTOMER_ORDERS);
    let histories = five_orders("cust-1");
    for (history, tenant) in histories.iter().zip([Some("shop-a"), None, None, None, None]) {
        events.append_of(tenant, history[0].event.order_id(), history).await;
    }
    let n_events = histories.iter().map(Vec::len).sum::<usize>() as u64;
    let projector = Projector::start(&events.log, &orders, 10);
    projected(&orders, n_events).await;
    projector.stop().await.unwrap();
    assert_eq!(customers.checkpoint().await.unwrap().position, None);
    let of_orders = orders.checkpoint().await.unwrap();

    // From the start of the log, in small batches.
    let projector = Projector::start(&events.log, &customers, 2);
    projected(&customers, n_events).await;
    let (verified, findings) = verify_customers(&events, &customers).await;
    assert!(verified.is_sound() && verified.n_orders == 5, "{findings:?}");
    events.tool().tombstone(id(2)).await;
    testkit::wait::until_async("the deleted order leaves the customer", async || {
        let all = customers.customers(&CustomerFilter::default(), 10).await.unwrap();
        (all[0].n_failed == 0 && all[0].n_fulfilled == 2).then_some(())
    })
    .await;
    projector.stop().await.unwrap();
    assert_eq!(orders.checkpoint().await.unwrap(), of_orders);

    // A row that was changed is found, and gone after a rebuild.
    database.execute("update customer_orders set status = 'PROCESSING'").await;
    let (verified, findings) = verify_customers(&events, &customers).await;
    assert_eq!((verified.n_differing, findings.len()), (2, 2), "{findings:?}");
    assert!(findings.iter().all(|finding| matches!(
        finding,
        Finding::Difference(Difference { table: "customer_orders", field, .. }) if field == "status"
    )));
    let (rebuilt, _) = rebuild(&events, &customers, Begin::Anew, SwapAtEnd::Yes).await;
    assert!(rebuilt.unwrap().is_live);
    let (verified, findings) = verify_customers(&events, &customers).await;
    assert!(verified.is_sound(), "{findings:?}");
    let names =
        |sets: Vec<projectors::SetInfo>| sets.iter().map(|set| set.name).collect::<Vec<_>>();
    assert_eq!(names(customers.sets().await.unwrap()), ["live", "previous"]);
    assert_eq!(names(orders.sets().await.unwrap()), ["live"]);
    assert_eq!(orders.checkpoint().await.unwrap(), of_orders);
    customers.roll_back(Unfinished::Refuse, clock().now()).await.unwrap();
    let (verified, _) = verify_customers(&events, &customers).await;
    assert_eq!(verified.n_differing, 2);
}

#[tokio::test]
async fn projections_are_independent_in_sqlite() {
    projections_are_independent(&Database::sqlite()).await;
}

#[tokio::test]
async fn projections_are_independent_in_postgres() {
    projections_are_independent(&Database::postgres().await).await;
}

/// The routes, over an event store that cannot be reached, for a key of a tenant.
async fn routes_for(database: &Database, tenant: Option<&str>) -> Router {
    let store = database.read_model().await;
    queries_of_tenant(store, log("esdb://127.0.0.1:9?tls=false"), tenant)
}

#[tokio::test]
async fn routes_show_the_customers_of_the_tenant_only() {
    let database = Database::sqlite();
    let store = customer_orders(&database).await;
    let mut rows = Vec::new();
    for (number, customer, tenant) in
        [(1, "c-1", "a"), (2, "c-1", "b"), (3, "c-2", "b"), (4, "c 3", "")]
    {
        let history = History::of(number).customer(customer).placed().events();
        rows.extend(fold(&history, &[(id(number), tenant.to_owned())]));
    }
    let from = store.checkpoint().await.unwrap();
    let written = vec![rows.into_iter().map(Row::into_record).collect()];
    let changes = RowChanges { written, ..RowChanges::default() };
    store.write(&changes, &from, &from).await.unwrap();

    let ids = async |tenant: Option<&str>, uri: &str| {
        let answer = get(&routes_for(&database, tenant).await, uri).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let items = answer.body["items"].as_array().unwrap().clone();
        let ids: Vec<_> =
            items.iter().map(|item| item["customer_id"].as_str().unwrap().to_owned()).collect();
        (ids, answer)
    };
    assert_eq!(ids(Some("a"), "/v1/customers").await.0, ["c-1"]);
    assert_eq!(ids(Some("b"), "/v1/customers").await.0, ["c-1", "c-2"]);
    let (first, answer) = ids(None, "/v1/customers?limit=2").await;
    assert_eq!(first, ["c 3", "c-1"]);
    let next = answer.header("link").unwrap().trim_start_matches('<');
    let next = next.split_once('>').unwrap().0;
    assert_eq!(ids(None, next).await.0, ["c-2"]);

    let all = get(&routes_for(&database, None).await, "/v1/customers/c-1").await;
    assert_eq!(all.body["orders"], json!({"processing": 2, "fulfilled": 0, "failed": 0}));
    let of_a = get(&routes_for(&database, Some("a")).await, "/v1/customers/c-1").await;
    assert_eq!(
        of_a.body,
        json!({
            "customer_id": "c-1",
            "orders": {"processing": 1, "fulfilled": 0, "failed": 0},
            "total_quantity": 2,
            "first_order": {"order_id": id(1), "received_at": at(1_000)},
            "last_order": {"order_id": id(1), "received_at": at(1_000)},
            "last_failure": null,
        })
    );
    let spaced = get(&routes_for(&database, None).await, "/v1/customers/c%203").await;
    assert_eq!(spaced.body["customer_id"], "c 3");
    let missing = get(&routes_for(&database, Some("a")).await, "/v1/customers/c-2").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.body, json!({"error": "Customer c-2 has no orders"}));
    let of_orders = get(&routes_for(&database, None).await, "/v1/customers?cursor=x").await;
    assert_eq!(of_orders.status, StatusCode::BAD_REQUEST);
}
