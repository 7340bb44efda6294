//! The routes of dead letters: counted from the tables, told from the stream.

use axum::http::StatusCode;
use domain::ids::OrderId;
use domain::order::Stage;
use projectors::open;
use serde_json::{Value, json};

use crate::contract::project;
use crate::events::{History, at, id};
use crate::stores::Database;
use crate::system::{Answer, EventStore, get, log, queries};

fn dead(number: u128, second: i64, code: &str) -> History {
    History::of(number).second(second).placed().failed(Stage::DeadLetter, code)
}

#[tokio::test]
async fn dead_letters_are_counted_by_their_cause_with_the_age_of_the_oldest() {
    let database = Database::sqlite();
    let store = database.read_model().await;
    let log_of = [
        dead(1, 1_000, "poison").events(),
        dead(2, 900, "permanent").events(),
        // Recorded by a clock that is ahead of the reader's, which shows second 2,000.
        History::of(3)
            .second(3_000)
            .customer("cust-2")
            .placed()
            .failed(Stage::DeadLetter, "late")
            .events(),
        dead(4, 800, "permanent").discarded().events(),
        History::of(5).placed().failed(Stage::Fulfillment, "refused").events(),
    ];
    project(&store, &log_of.concat()).await;
    let api = queries(store, log("esdb://127.0.0.1:9?tls=false"));

    let answer = get(&api, "/v1/dead-letters").await;
    let group = |code: &str, failed_at: i64, age: i64| {
        let failed_at = at(failed_at).to_string();
        json!({"stage": "dead_letter", "code": code, "count": 1, "oldest_failed_at": failed_at,
            "oldest_age_seconds": age, "newest_failed_at": failed_at,
            "failed_last_hour": 1, "failed_previous_hour": 0})
    };
    let groups =
        [group("permanent", 930, 1_070), group("poison", 1_030, 970), group("late", 3_030, 0)];
    assert_eq!(answer.body, json!({"total": 3, "groups": groups}));

    let count = async |query: &str| get(&api, &format!("/v1/dead-letters?{query}")).await.body;
    assert_eq!(count("stage=fulfillment").await["groups"][0]["code"], "refused");
    assert_eq!(count("code=poison").await["total"], 1);
    assert_eq!(count("customer_id=cust-2").await["groups"][0]["code"], "late");
    // Older than second 1,000 of the clock that shows 2,000.
    assert_eq!(count("older_than=1000").await, json!({"total": 1, "groups": [groups[0]]}));
    assert_eq!(count("older_than=1w").await, json!({"total": 0, "groups": []}));
    let listed = get(&api, "/v1/failed-orders?stage=dead_letter&older_than=1000s").await;
    assert_eq!(listed.order_ids(), [id(2).to_string()]);
    // The narrower of the two counts.
    let until = "older_than=1000s&to=1970-01-01T00:15:30Z";
    let listed = get(&api, &format!("/v1/failed-orders?stage=dead_letter&{until}")).await;
    assert_eq!(listed.order_ids(), Vec::<&str>::new());
    let listed = get(&api, "/v1/failed-orders?customer_id=cust-2").await;
    assert_eq!(listed.order_ids(), [id(3).to_string()]);
}

/// The order of number 1 with these events, as its dead letter is told.
async fn told(history: History) -> Answer {
    let events = EventStore::start().await;
    events.append(&history.events()).await;
    let database = Database::sqlite();
    let api = queries(open(&database.url()).unwrap(), events.log.clone());
    get(&api, &format!("/v1/dead-letters/{}", id(1))).await
}

#[tokio::test]
async fn dead_letter_is_told_with_every_attempt_and_delivery() {
    let history = History::of(1).placed().delivery_failed().delivery_started(2);
    let history = history.delivery_started(3).failed(Stage::DeadLetter, "retries_exhausted");
    let answer = told(history.queued().failed(Stage::DeadLetter, "permanent").discarded()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.header("etag"), Some("\"10\""));

    let body = &answer.body;
    assert_eq!((&body["status"], &body["revision"]), (&json!("FAILED"), &json!(10)));
    assert_eq!((&body["code"], &body["attempt"]), (&json!("permanent"), &json!(2)));
    assert_eq!((&body["is_discarded"], &body["resolved_at"]), (&json!(true), &json!(at(1_090))));
    assert_eq!(body["order"]["items"][0]["product_id"], "prod-widget-001");
    // As it was when it failed, and not as it is.
    assert_eq!(body["order"]["revision"], 9);

    let [first, second] = body["attempts"].as_array().unwrap().as_slice() else {
        panic!("{body}");
    };
    assert_eq!(first["queued"][0]["revision"], 3);
    assert_eq!(
        (&first["customer_id"], &first["discarded"]),
        (&json!("cust-retail-001"), &Value::Null)
    );
    let deliveries = first["deliveries"].as_array().unwrap();
    let told: Vec<_> = deliveries
        .iter()
        .map(|delivery| {
            let revision = |event: &str| &delivery[event]["revision"];
            (&delivery["delivery"], revision("started"), revision("failed"))
        })
        .collect();
    let null = Value::Null;
    let expected = [
        (&json!(1), &null, &json!(4)),
        (&json!(2), &json!(5), &null),
        (&json!(3), &json!(6), &null),
    ];
    assert_eq!(told, expected);
    let failed = &deliveries[0]["failed"];
    assert_eq!(
        (&failed["class"], &failed["error"], &failed["retry_in_ms"]),
        (&json!("transient"), &json!("timed out"), &json!(100))
    );
    let ended = &first["ended"];
    assert_eq!(
        (&ended["outcome"], &ended["stage"], &ended["code"], &ended["reason"], &ended["at"]),
        (
            &json!("failed"),
            &json!("dead_letter"),
            &json!("retries_exhausted"),
            &json!("it did not work"),
            &json!(at(1_030)),
        )
    );
    assert_eq!((&second["attempt"], &second["ended"]["code"]), (&json!(2), &json!("permanent")));
    assert_eq!(second["discarded"]["reason"], "given up");
}

#[tokio::test]
async fn every_fact_of_a_dead_letter_names_its_event_and_cause() {
    let events = EventStore::start().await;
    events.append(&History::of(1).placed().failed(Stage::DeadLetter, "poison").events()).await;
    let database = Database::sqlite();
    let api = queries(open(&database.url()).unwrap(), events.log.clone());
    let history = get(&api, &format!("/v1/orders/{}/history", id(1))).await.body;
    let told = get(&api, &format!("/v1/dead-letters/{}", id(1))).await.body;
    let attempt = &told["attempts"][0];
    for (fact, revision) in [(&attempt["queued"][0], 3), (&attempt["ended"], 4)] {
        let event = &history["events"][revision];
        assert_eq!(fact["event_id"], event["event_id"]);
        assert_eq!(fact["recorded_at"], event["recorded_at"]);
        assert_eq!(fact["actor"], event["metadata"]["actor"]);
        assert_eq!(fact["causation_id"], event["metadata"]["$causationId"]);
        assert_eq!(fact["correlation_id"], event["metadata"]["$correlationId"]);
        assert!(fact["causation_id"].is_string(), "{fact}");
    }
}

#[tokio::test]
async fn dead_letter_that_was_mended_says_so() {
    let answer = told(dead(1, 1_000, "permanent").queued().fulfilled()).await;
    assert_eq!(answer.body["status"], "FULFILLED");
    assert_eq!(answer.body["resolved_at"], json!(at(1_060)));
    assert_eq!(answer.body["attempts"][1]["ended"]["outcome"], "fulfilled");
    assert_eq!(answer.body["attempts"][1]["ended"]["reference"], "ref-1");
    // The failure stays the one that it was.
    assert_eq!((&answer.body["code"], &answer.body["attempt"]), (&json!("permanent"), &json!(1)));
}

#[tokio::test]
async fn order_that_broke_a_rule_is_told_without_a_delivery() {
    let answer = told(History::of(1).received().failed(Stage::Validation, "rules")).await;
    assert_eq!(answer.body["stage"], "validation");
    let attempt = &answer.body["attempts"][0];
    assert_eq!((&attempt["attempt"], &attempt["queued"]), (&json!(0), &json!([])));
    assert_eq!((&attempt["deliveries"], &attempt["items"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn what_has_not_failed_is_404_and_says_what_it_is() {
    let events = EventStore::start().await;
    events.append(&History::of(1).placed().events()).await;
    let database = Database::sqlite();
    let api = queries(open(&database.url()).unwrap(), events.log.clone());
    let refused = async |order: OrderId| get(&api, &format!("/v1/dead-letters/{order}")).await;

    let answer = refused(id(1)).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let error = format!("Order {} has not failed: it is PROCESSING", id(1));
    assert_eq!(answer.body, json!({"error": error}));
    let answer = refused(id(7)).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.body, json!({"error": format!("Order {} not found", id(7))}));
}
