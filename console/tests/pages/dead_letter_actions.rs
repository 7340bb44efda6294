//! Dead letters: what the forms send.

use axum::http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fake_api::{FakeApi, ORDER, OTHER_ORDER, TASK, dead_letter, problem, with};
use super::visitor::{Shown, Visitor};

const REDRIVE: &str = "/console/dead-letters/redrive";
const DISCARD: &str = "/console/dead-letters/discard";
const REDRIVES: &str = "/v1/ops/dead-letters/redrives";
const FIELDS: [(&str, &str); 3] =
    [("reason", " Gateway is back "), ("rate", "20"), ("actor", "ann")];

/// Returns the commands without the dry runs: method, address and body.
fn commands(api: &FakeApi) -> Vec<(String, String, Value)> {
    let commands = api.commands().into_iter().filter(|command| command.body["dry_run"] != true);
    commands.map(|command| (command.method.to_string(), command.uri, command.body)).collect()
}

async fn submit(api: &FakeApi, address: &str, fields: &[(&str, &str)]) -> Shown {
    Visitor::of(api).submit(address, address, fields).await
}

fn selected(page: &str, ids: &[impl AsRef<str>]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| format!("&order_id={}", id.as_ref())).collect();
    format!("{page}?stage=dead_letter&selected=true{}", ids.concat())
}

#[tokio::test]
async fn dry_run_is_shown_at_once() {
    let api = FakeApi::open();
    let page = Visitor::of(&api).get(&format!("{REDRIVE}?code=poison&older_than=1h")).await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["Dead letters with code <code>poison</code> older than 1h"]);
    page.assert_contains(&["<strong>1 order</strong> would be queued again, 2 would be skipped"]);
    page.assert_contains(&[
        "1 skipped: there is no such order",
        "it has failed and was not redriven",
    ]);
    page.assert_contains(&["Start redrive", "value=\"50\"", "A redrive is running:"]);
    let sent: Vec<_> = api.commands().into_iter().map(|command| command.body).collect();
    let filter = json!({"stage": "dead_letter", "code": "poison", "older_than": "1h"});
    assert_eq!(sent, [json!({"filter": filter, "dry_run": true})]);
}

#[tokio::test]
async fn redrive_of_all_that_match_sends_the_filter() {
    let api = FakeApi::open();
    let address = format!("{REDRIVE}?code=retries_exhausted&customer=cust-1&older_than=15m");
    let answer = submit(&api, &address, &FIELDS).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let progress = format!("/console/dead-letters/tasks/{TASK}");
    assert_eq!(answer.location, Some(progress));
    let body = json!({
        "actor": "ann", "reason": "Gateway is back", "rate_per_second": 20, "dry_run": false,
        "filter": {
            "stage": "dead_letter", "code": "retries_exhausted", "customer_id": "cust-1", "older_than": "15m"
        }
    });
    assert_eq!(commands(&api), [("POST".to_owned(), REDRIVES.to_owned(), body)]);
}

#[tokio::test]
async fn redrive_of_selected_orders_sends_their_ids_alone() {
    let api = FakeApi::open();
    submit(&api, &selected(REDRIVE, &[ORDER, OTHER_ORDER]), &FIELDS).await;
    let filter = json!({"order_ids": [ORDER, OTHER_ORDER]});
    assert_eq!(commands(&api)[0].2["filter"], filter);
}

#[tokio::test]
async fn empty_selection_is_not_a_redrive_of_all() {
    let api = FakeApi::open();
    for page in [REDRIVE, DISCARD] {
        let page = Visitor::of(&api).get(&selected(page, &[""; 0])).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        page.assert_contains(&["No order is selected.", "Back to the list"]);
    }
    let page = Visitor::of(&api).get(DISCARD).await;
    page.assert_contains(&["No order is selected."]);
    assert!(api.commands().is_empty());
}

#[tokio::test]
async fn form_with_a_fault_keeps_what_was_typed() {
    let api = FakeApi::open();
    for (fields, fault) in [
        ([("reason", "  "), ("rate", "7")], "Enter a reason."),
        ([("reason", "mended"), ("rate", "0")], "from 1 to 100,000"),
        ([("reason", "mended"), ("rate", "100001")], "from 1 to 100,000"),
        ([("reason", "mended"), ("rate", "fast")], "from 1 to 100,000"),
    ] {
        let page = submit(&api, REDRIVE, &fields).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        let [(_, reason), (_, rate)] = fields;
        let typed = [format!("value=\"{reason}\""), format!("value=\"{rate}\"")];
        page.assert_contains(&[fault, &typed[0], &typed[1]]);
    }
    let page = submit(&api, &selected(DISCARD, &[ORDER]), &[("reason", " ")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.assert_contains(&["Enter a reason."]);
    assert!(commands(&api).is_empty());
}

#[tokio::test]
async fn running_redrive_is_linked_instead_of_a_second_one() {
    let mut conflict = problem(409, "conflict", "Redrive is running");
    conflict["task_id"] = json!(TASK);
    let api = FakeApi::open().with_answer(&format!("POST {REDRIVES}"), 409, conflict);
    let page = submit(&api, REDRIVE, &FIELDS).await;
    assert_eq!(page.status, StatusCode::CONFLICT);
    let link = format!("href=\"/console/dead-letters/tasks/{TASK}\"");
    page.assert_contains(&["Not started: another redrive is running.", &link, "Gateway is back"]);
}

#[tokio::test]
async fn failed_dry_run_offers_no_start() {
    let away = problem(503, "read_model_unavailable", "Read model unavailable");
    let api = FakeApi::open().with_answer(&format!("PREVIEW {REDRIVES}"), 503, away);
    let page = Visitor::of(&api).get(REDRIVE).await;
    page.assert_contains(&["Read model unavailable"]);
    page.assert_lacks(&["Start redrive"]);
    let none = json!({"total": 0, "redrive": 0, "skip": 0, "truncated": false, "items": []});
    let api = FakeApi::open().with_answer(&format!("PREVIEW {REDRIVES}"), 200, none);
    let page = Visitor::of(&api).get(REDRIVE).await;
    page.assert_contains(&["Nothing to redrive."]);
    page.assert_lacks(&["Start redrive"]);
}

#[tokio::test]
async fn long_dry_run_is_listed_in_full_on_request() {
    let item = |number: u128| {
        json!({"order_id": Uuid::from_u128(number), "stage": "dead_letter", "code": "poison",
            "reason": "HTTP 503", "attempt": 1, "failed_at": "2026-01-02T03:04:09Z", "action": "redrive",
            "why": "it has failed and was not redriven"})
    };
    let items: Vec<_> = (1..=500).map(item).collect();
    let preview =
        json!({"total": 500, "redrive": 500, "skip": 0, "truncated": true, "items": items});
    let api = FakeApi::open().with_answer(&format!("PREVIEW {REDRIVES}"), 200, preview);
    let page = Visitor::of(&api).get(REDRIVE).await;
    page.assert_contains(&[
        "200 of 500 orders are listed.",
        "redrive?all=true",
        "More orders match",
    ]);
    assert_eq!(page.html.matches("class=\"id\"").count(), 200);
    let page = Visitor::of(&api).get(&format!("{REDRIVE}?all=true")).await;
    assert_eq!(page.html.matches("class=\"id\"").count(), 500);
}

#[tokio::test]
async fn cancel_deletes_the_task() {
    let api = FakeApi::open();
    let page = format!("/console/dead-letters/tasks/{TASK}/cancel");
    let answer = submit(&api, &page, &[("actor", "ann & co")]).await;
    assert_eq!(answer.location.as_deref(), page.strip_suffix("/cancel"));
    let path = format!("{REDRIVES}/{TASK}?actor=ann+%26+co");
    assert_eq!(commands(&api), [("DELETE".to_owned(), path, Value::Null)]);
}

#[tokio::test]
async fn cancel_of_an_ended_task_says_so() {
    let ended = problem(409, "conflict", "Redrive has ended already");
    let api = FakeApi::open().with_answer(&format!("DELETE {REDRIVES}/{TASK}"), 409, ended);
    let page = format!("/console/dead-letters/tasks/{TASK}/cancel");
    let mut visitor = Visitor::of(&api);
    let answer = visitor.submit(&page, &page, &[]).await;
    let page = visitor.get(&answer.location.unwrap()).await;
    page.assert_contains(&["data-kind=\"error\"", "Redrive has ended already"]);
    let page = "/console/dead-letters/tasks/018f2d70-0000-7000-8000-000000000002/cancel";
    visitor.get(page).await.assert_contains(&["there is nothing to cancel"]);
}

#[tokio::test]
async fn discard_is_confirmed_and_sent_for_each_order() {
    let api = FakeApi::open();
    let address = selected(DISCARD, &[ORDER, OTHER_ORDER]);
    let mut visitor = Visitor::of(&api);
    let page = visitor.get(&address).await;
    page.assert_contains(&["2 dead letters will be discarded", ORDER, OTHER_ORDER, "HTTP 503"]);
    let fields = [("reason", "cancelled by the customer"), ("actor", "")];
    let answer = visitor.submit(&address, &address, &fields).await;
    assert_eq!(answer.location.as_deref(), Some("/console/dead-letters"));
    visitor.get("/console/dead-letters").await.assert_contains(&["2 discarded."]);
    let body = json!({"reason": "cancelled by the customer"});
    let command = |id| ("POST".to_owned(), format!("/v1/dead-letters/{id}/discard"), body.clone());
    assert_eq!(commands(&api), [command(ORDER), command(OTHER_ORDER)]);
}

#[tokio::test]
async fn discard_applies_to_the_revisions_that_the_visitor_saw() {
    let changed = problem(412, "precondition_failed", "Order has changed: read it again");
    let [path, other] = [ORDER, OTHER_ORDER].map(|id| format!("/v1/dead-letters/{id}"));
    let discarded = with(dead_letter(), &json!({"is_discarded": true}));
    let api = FakeApi::open()
        .with_answer(&format!("{path}/discard"), 412, changed.clone())
        .with_answer(&format!("{other}/discard"), 412, changed)
        .with_answer(&other, 200, discarded);
    let address = selected(DISCARD, &[ORDER, OTHER_ORDER]);
    let mut visitor = Visitor::of(&api);
    let [seen, other_seen] = [ORDER, OTHER_ORDER].map(|id| format!("{id}:8"));
    visitor.get(&address).await.assert_contains(&[&format!("name=\"revision\" value=\"{seen}\"")]);
    let fields = [("reason", "old"), ("revision", &*seen), ("revision", &*other_seen)];
    let page = visitor.submit(&address, &address, &fields).await;
    // Another visitor has discarded the second one.
    page.assert_contains(&["1 discarded, 1 failed.", "Order has changed"]);
    let sent = api.commands().into_iter().filter(|command| command.uri.ends_with("/discard"));
    let sent: Vec<_> = sent.map(|command| command.if_match).collect();
    assert_eq!(sent, [Some("\"8\"".to_owned()), Some("\"8\"".to_owned())]);
}

#[tokio::test]
async fn refused_discard_does_not_stop_the_others() {
    let refused = problem(409, "conflict", "the order is not a dead letter: it is FULFILLED");
    let path = format!("/v1/dead-letters/{ORDER}/discard");
    let api = FakeApi::open().with_answer(&path, 409, refused);
    let page = submit(&api, &selected(DISCARD, &[ORDER, OTHER_ORDER]), &FIELDS).await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["1 discarded, 1 failed.", ORDER, "not a dead letter: it is FULFILLED"]);
    page.assert_contains(&[&format!("discard?selected=true&amp;order_id={ORDER}\"")]);
    assert_eq!(commands(&api).len(), 2);
}

#[tokio::test]
async fn outage_stops_the_discards() {
    let away = problem(503, "event_store_unavailable", "Event store unavailable");
    let path = format!("/v1/dead-letters/{ORDER}/discard");
    let api = FakeApi::open().with_answer(&path, 503, away);
    let page = submit(&api, &selected(DISCARD, &[ORDER, OTHER_ORDER]), &FIELDS).await;
    page.assert_contains(&["0 discarded, 1 failed, 1 not tried.", "Event store unavailable"]);
    let again = format!("discard?selected=true&amp;order_id={ORDER}&amp;order_id={OTHER_ORDER}\"");
    page.assert_contains(&[&again]);
    assert_eq!(commands(&api).len(), 1);
}

fn selections(
    length: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = Vec<String>> {
    let id = any::<u128>().prop_map(|id| Uuid::from_u128(id).to_string());
    proptest::collection::vec(id, length)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn selected_ids_are_sent_unchanged_and_in_order(ids in selections(1..=200)) {
        let api = FakeApi::open();
        block_on(submit(&api, &selected(REDRIVE, &ids), &FIELDS));
        prop_assert_eq!(&commands(&api)[0].2["filter"]["order_ids"], &json!(ids));
        let api = FakeApi::open();
        block_on(submit(&api, &selected(DISCARD, &ids), &FIELDS));
        let sent: Vec<_> = commands(&api).into_iter().map(|(_, path, _)| path).collect();
        let expected = ids.iter().map(|id| format!("/v1/dead-letters/{id}/discard"));
        prop_assert_eq!(sent, expected.collect::<Vec<_>>());
    }

    #[test]
    fn more_than_a_page_of_ids_is_refused(ids in selections(201..=210)) {
        let api = FakeApi::open();
        for page in [REDRIVE, DISCARD] {
            let page = block_on(Visitor::of(&api).get(&selected(page, &ids)));
            prop_assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        }
        prop_assert!(api.commands().is_empty());
    }
}
