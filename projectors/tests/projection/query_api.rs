//! The routes, over SQLite and without an event store.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use domain::order::Stage;
use projectors::{ReadModel, open};
use serde_json::{Value, json};

use crate::contract::project;
use crate::events::{History, id};
use crate::stores::Database;
use crate::system::{get, log, queries};

/// The routes over a read model, with an unreachable event store.
fn api(store: Arc<ReadModel>) -> Router {
    // The port of the discard service, which no machine of ours runs.
    queries(store, log("esdb://127.0.0.1:9?tls=false"))
}

/// Orders 1 to 5, received one second after another; 4 and 5 failed.
async fn five_orders(database: &Database) -> Router {
    let store = database.read_model().await;
    let history = |number: u128| {
        let placed = History::of(number).second(1_000 + i64::try_from(number).unwrap()).placed();
        match number {
            4 | 5 => placed.failed(Stage::Fulfillment, "refused").events(),
            _ => placed.events(),
        }
    };
    let log: Vec<_> = (1..=5).flat_map(history).collect();
    project(&store, &log).await;
    api(store)
}

#[tokio::test]
async fn order_is_answered_from_the_table_with_its_revision() {
    let database = Database::sqlite();
    let api = five_orders(&database).await;
    for path in ["/v1/orders", "/order"] {
        let answer = get(&api, &format!("{path}/{}", id(4))).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("etag"), Some("\"4\""));
        assert_eq!(
            answer.body,
            json!({
                "order_id": id(4).to_string(),
                "customer_id": "cust-retail-001",
                "items": [{"product_id": "prod-widget-001", "quantity": 2}],
                "total_quantity": 2,
                "status": "FAILED",
                "stage": "fulfillment",
                "attempt": 1,
                "deliveries": 1,
                "failure_code": "refused",
                "failure_reason": "it did not work",
                "reference": null,
                "revision": 4,
                "received_at": "1970-01-01T00:16:44Z",
                "queued_at": "1970-01-01T00:16:44Z",
                "fulfilled_at": null,
                "failed_at": "1970-01-01T00:17:14Z",
                "updated_at": "1970-01-01T00:16:44Z",
                "source": "table",
            })
        );
    }
}

#[tokio::test]
async fn failures_are_listed_with_the_order_as_it_was() {
    let database = Database::sqlite();
    let api = five_orders(&database).await;
    let answer = get(&api, "/v1/failed-orders?stage=fulfillment&code=refused&limit=1").await;
    let failed = &answer.body["items"][0];
    let members: Vec<_> = failed.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "order_id",
            "stage",
            "code",
            "reason",
            "attempt",
            "deliveries",
            "failed_at",
            "order",
            "resolved_at"
        ]
    );
    assert_eq!(failed["order_id"], json!(id(5)));
    assert_eq!(failed["failed_at"], json!("1970-01-01T00:17:15Z"));
    assert_eq!(failed["resolved_at"], Value::Null);
    assert_eq!(failed["order"]["status"], json!("FAILED"));
    assert_eq!(failed["order"]["total_quantity"], json!(2));
}

#[tokio::test]
async fn links_lead_through_every_page_and_end() {
    let database = Database::sqlite();
    let api = five_orders(&database).await;
    for (first, n_expected) in
        [("/v1/orders?limit=2", 5), ("/v1/orders?limit=1&status=FAILED", 2), ("/v1/orders", 5)]
    {
        let mut seen = Vec::new();
        let mut next = Some(first.to_owned());
        while let Some(uri) = next {
            let answer = get(&api, &uri).await;
            assert_eq!(answer.status, StatusCode::OK, "{uri}: {}", answer.body);
            seen.extend(answer.order_ids().into_iter().map(str::to_owned));
            next = answer.header("link").map(|link| {
                let (uri, rel) = link.split_once(">; ").unwrap();
                assert_eq!(rel, "rel=\"next\"");
                uri.trim_start_matches('<').to_owned()
            });
            assert_eq!(next.is_some(), answer.body["next_cursor"].is_string());
            assert!(seen.len() <= n_expected, "{first} has no end: {seen:?}");
        }
        let distinct: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (n_expected, n_expected), "{first}");
        assert!(seen.is_sorted_by(|before, behind| before > behind), "{seen:?}");
    }
}

#[tokio::test]
async fn cursor_carries_its_filter_and_fits_no_other() {
    let database = Database::sqlite();
    let api = five_orders(&database).await;
    let first = get(&api, "/v1/orders?limit=1&status=FAILED").await;
    let cursor = first.body["next_cursor"].as_str().unwrap();

    for fitting in ["", "&status=FAILED"] {
        let answer = get(&api, &format!("/v1/orders?cursor={cursor}{fitting}")).await;
        assert_eq!(answer.order_ids(), [id(4).to_string()], "{fitting}");
    }
    for other in ["&status=PROCESSING", "&customer_id=cust-retail-001"] {
        let answer = get(&api, &format!("/v1/orders?cursor={cursor}{other}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{other}");
    }
    // A cursor of another list holds nothing that this one can be filtered by.
    let answer = get(&api, &format!("/v1/failed-orders?cursor={cursor}")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn malformed_parameters_are_refused() {
    let database = Database::sqlite();
    let api = five_orders(&database).await;
    let malformed = [
        "/v1/orders?limit=0",
        "/v1/orders?limit=201",
        "/v1/orders?limit=-1",
        "/v1/orders?limit=many",
        "/v1/orders?limit=",
        "/v1/orders?limit=1&limit=2",
        "/v1/orders?status=lost",
        "/v1/orders?status=",
        "/v1/orders?from=yesterday",
        "/v1/orders?to=2026-13-01T00:00:00Z",
        "/v1/orders?cursor=",
        "/v1/orders?cursor=bm90IGEgY3Vyc29y",
        "/v1/failed-orders?stage=VALIDATION",
        "/v1/failed-orders?include_resolved=perhaps",
        "/v1/failed-orders?older_than=long",
        "/v1/dead-letters?older_than=-1",
        "/v1/dead-letters?stage=poison",
        "/v1/dead-letters/42",
        "/v1/orders/42",
        "/v1/orders/42/history",
        "/order/%ff",
        "/order/00000000000000000000000000000001",
    ];
    for uri in malformed {
        let answer = get(&api, uri).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
        assert_eq!(answer.body, json!({"message": "Invalid request parameters"}), "{uri}");
    }
    for (uri, n_orders) in [
        ("/v1/orders?limit=200&to=2026-01-01T00:00:00Z", 5),
        ("/v1/orders?to=9999-12-31T23:59:59Z", 5),
        ("/v1/orders?from=9999-12-31T23:59:59Z", 0),
        ("/v1/orders?status=failed", 2),
        ("/v1/orders?status=FAILED", 2),
        ("/v1/failed-orders?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59%2B02:00", 2),
    ] {
        let answer = get(&api, uri).await;
        assert_eq!((answer.status, answer.order_ids().len()), (StatusCode::OK, n_orders), "{uri}");
    }
}

#[tokio::test]
async fn what_is_down_is_503_with_a_time_to_try_again() {
    let database = Database::sqlite();
    // Nobody migrated it: there is not even a file.
    let api = api(open(&database.url()).unwrap());
    let by_id = format!("/v1/orders/{}", id(1));
    let history = format!("/v1/orders/{}/history", id(1));
    let dead_letter = format!("/v1/dead-letters/{}", id(1));
    let answers = tokio::join!(
        get(&api, "/v1/orders"),
        get(&api, "/v1/failed-orders"),
        get(&api, "/v1/stats"),
        get(&api, "/v1/dead-letters"),
        get(&api, &by_id),
        get(&api, &history),
        get(&api, &dead_letter),
    );
    for answer in <[_; 7]>::from(answers) {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(answer.header("retry-after").is_some());
        assert!(answer.body["error"].is_string(), "{}", answer.body);
    }
}
