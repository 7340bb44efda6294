//! Dead letters: what the pages show.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;

use super::fake_api::{FakeApi, KEY, ORDER, OTHER_ORDER, TASK, failure, problem, task, with};
use super::visitor::Visitor;

const LETTERS: &str = "/console/dead-letters";
const REDRIVES: &str = "/v1/ops/dead-letters/redrives";
/// Scopes of an operator who may only read.
const READER: [&str; 2] = ["orders:read", "ops:read"];

/// Values that would break a page that does not escape them.
fn hostile_values() -> [String; 4] {
    [
        "<script>alert(1)</script>".to_owned(),
        "\"><img src=x onerror=alert(1)>".to_owned(),
        "\u{202e}gnp.exe\u{202c} \u{1f4a3}".to_owned(),
        "x".repeat(256),
    ]
}

/// Returns the regions that a live page receives first.
async fn first_regions(api: &FakeApi, address: &str) -> BTreeMap<String, String> {
    Visitor::of(api).open_stream(address, None).await.next_regions().await
}

fn no_letters() -> FakeApi {
    FakeApi::open()
        .with_answer("/v1/dead-letters", 200, json!({"total": 0, "groups": []}))
        .with_answer("/v1/failed-orders", 200, json!({"items": [], "next_cursor": null}))
}

#[tokio::test]
async fn list_shows_groups_trends_and_failures() {
    let api = FakeApi::open();
    let page = Visitor::of(&api).get(&format!("{LETTERS}?code=retries_exhausted")).await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["poison", "↑", "3 (before: 1)", "→", "0 (before: 0)"]);
    page.assert_contains(&["HTTP 503", "cust-retail-001", "Attempt 1, 4 deliveries", "25 items"]);
    page.assert_contains(&["2 × prod-widget-001", "and 5 more", "Redrive all 3 that match…"]);
    page.assert_contains(&[&format!("name=\"order_id\" value=\"{ORDER}\"")]);
    page.assert_contains(&[
        "href=\"/console/dead-letters?code=retries_exhausted&amp;cursor=next\"",
    ]);
}

#[tokio::test]
async fn open_list_counts_new_failures_and_keeps_its_rows() {
    let newer =
        with(failure(), &json!({"order_id": OTHER_ORDER, "failed_at": "2026-01-02T03:04:29Z"}));
    let address = format!("{LETTERS}?code=retries_exhausted");
    let live = Visitor::of(&FakeApi::open()).get(&address).await.live_address();
    let page = json!({"items": [newer, failure()], "next_cursor": null});
    let api = FakeApi::open().with_answer("/v1/failed-orders", 200, page);
    let regions = first_regions(&api, &live).await;
    let link = "<a href=\"/console/dead-letters?code=retries_exhausted\">Show</a>";
    assert_eq!(regions["new"], format!("<p>1 new failure. {link}</p>"));
    assert!(regions["groups"].contains("3 (before: 1)"), "{regions:?}");
    let since = "&limit=200&from=2026-01-02T03%3A04%3A09Z";
    assert!(api.reads().iter().any(|read| read.ends_with(since)), "{:?}", api.reads());
    let regions = first_regions(&FakeApi::open(), &live).await;
    assert_eq!(regions["new"], "", "the visitor sees the failures of that time");
    let later = Visitor::of(&api).get(&format!("{address}&cursor=next")).await.live_address();
    assert_eq!(first_regions(&api, &later).await["new"], "");
}

#[tokio::test]
async fn open_task_shows_its_end_without_a_reload() {
    let live = Visitor::of(&FakeApi::open()).get(&format!("{LETTERS}/tasks/{TASK}")).await;
    let ended = with(task(), &json!({"state": "succeeded", "ended_at": "2026-01-02T03:04:29Z"}));
    let api = FakeApi::open().with_answer(&format!("{REDRIVES}/{TASK}"), 200, ended);
    let regions = first_regions(&api, &live.live_address()).await;
    let task = &regions["task"];
    assert!(task.contains("Succeeded") && task.contains("Failures that remain"), "{task}");
}

#[tokio::test]
async fn filter_of_the_address_reaches_both_calls() {
    let api = FakeApi::open();
    let address = "/console/dead-letters?stage=fulfillment&code=refused&customer=cust+%26+1&older_than=15m\
        &resolved=true&cursor=abc";
    Visitor::of(&api).get(address).await;
    let filter = "stage=fulfillment&customer_id=cust+%26+1&older_than=15m";
    let list = "/v1/failed-orders?stage=fulfillment&code=refused&customer_id=cust+%26+1&older_than=15m\
        &include_resolved=true&limit=100&cursor=abc";
    let reads = api.reads();
    assert!(reads.contains(&format!("/v1/dead-letters?{filter}")), "{reads:?}");
    assert!(reads.contains(&list.to_owned()), "{reads:?}");
}

#[tokio::test]
async fn empty_fields_of_the_filter_restrict_nothing() {
    let api = FakeApi::open();
    let address = format!("{LETTERS}?stage=dead_letter&code=&customer=&older_than=");
    assert_eq!(Visitor::of(&api).get(&address).await.status, StatusCode::OK);
    assert!(api.reads().contains(&"/v1/dead-letters?stage=dead_letter".to_owned()));
    let page = Visitor::of(&api).get(&format!("{LETTERS}?older_than=soon")).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    page.assert_contains(&["invalid age `soon`"]);
}

#[tokio::test]
async fn system_without_dead_letters_is_good_news() {
    let mut visitor = Visitor::of(&no_letters());
    visitor.get(LETTERS).await.assert_contains(&["data-tone=\"good\"", "No dead letters."]);
    let page = visitor.get(&format!("{LETTERS}?code=poison")).await;
    page.assert_contains(&["No dead letters match the filter.", "Show all"]);
}

#[tokio::test]
async fn failed_call_leaves_the_other_part() {
    let away = problem(503, "read_model_unavailable", "Read model unavailable");
    let api = FakeApi::open().with_answer("/v1/failed-orders", 503, away.clone());
    let page = Visitor::of(&api).get(LETTERS).await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["Read model unavailable", "3 (before: 1)"]);
    let api = FakeApi::open().with_answer("/v1/dead-letters", 503, away);
    let page = Visitor::of(&api).get(LETTERS).await;
    page.assert_contains(&["Read model unavailable", "cust-retail-001", "Redrive all that match…"]);
}

#[tokio::test]
async fn validation_failures_have_no_actions() {
    let page = Visitor::of(&FakeApi::open()).get(&format!("{LETTERS}?stage=validation")).await;
    page.assert_contains(&["cannot be redriven"]);
    page.assert_lacks(&["name=\"order_id\"", "Redrive all", "Discard selected"]);
    let page = Visitor::of(&FakeApi::open()).get(&format!("{LETTERS}?stage=fulfillment")).await;
    page.assert_contains(&["Redrive selected…"]);
    page.assert_lacks(&["Discard selected"]);
}

#[tokio::test]
async fn resolved_failures_are_shown_on_request_and_cannot_be_selected() {
    let resolved = with(failure(), &json!({"resolved_at": "2026-01-02T03:04:20Z"}));
    let page = json!({"items": [resolved], "next_cursor": null});
    let api = FakeApi::open().with_answer("/v1/failed-orders", 200, page);
    let page = Visitor::of(&api).get(&format!("{LETTERS}?resolved=true")).await;
    page.assert_contains(&["Resolved", "10 s ago"]);
    page.assert_lacks(&[&format!("name=\"order_id\" value=\"{ORDER}\"")]);
}

#[tokio::test]
async fn hostile_values_are_shown_as_text() {
    for value in hostile_values() {
        let order = with(
            failure()["order"].clone(),
            &json!({"customer_id": value,
            "items": [{"product_id": value, "quantity": 1}]}),
        );
        let letter = with(failure(), &json!({"reason": value, "code": value, "order": order}));
        let list = json!({"items": [letter], "next_cursor": value});
        let api = FakeApi::open().with_answer("/v1/failed-orders", 200, list).with_answer(
            &format!("{REDRIVES}/{TASK}"),
            200,
            with(task(), &json!({"reason": value, "actor": value, "error": value})),
        );
        let mut visitor = Visitor::of(&api);
        let query = serde_html_form::to_string([("code", &value), ("customer", &value)]).unwrap();
        let list = visitor.get(&format!("{LETTERS}?{query}")).await;
        let redrive = visitor.get(&format!("{LETTERS}/redrive?{query}")).await;
        let progress = visitor.get(&format!("{LETTERS}/tasks/{TASK}")).await;
        for page in [list, redrive, progress] {
            assert_eq!(page.status, StatusCode::OK);
            page.assert_lacks(&["<script>", "<img src=x"]);
        }
    }
}

#[tokio::test]
async fn read_only_key_sees_no_actions_and_why() {
    let api = FakeApi::with_key(&READER, None);
    let mut visitor = Visitor::of(&api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", LETTERS)]).await;
    let page = visitor.get(LETTERS).await;
    page.assert_contains(&["cust-retail-001", "This key may not redrive or discard orders"]);
    page.assert_lacks(&["name=\"order_id\"", "Redrive all"]);
    for (page, text) in [
        ("redrive", "This key may not redrive orders"),
        (&format!("discard?order_id={ORDER}"), "This key may not discard dead letters"),
        (&format!("tasks/{TASK}/cancel"), "This key may not cancel a redrive"),
    ] {
        let page = visitor.get(&format!("{LETTERS}/{page}")).await;
        page.assert_contains(&[text]);
        page.assert_lacks(&["Start redrive", "name=\"reason\"", "class=\"danger\""]);
    }
    let page = visitor.get(&format!("{LETTERS}/tasks/{TASK}")).await;
    page.assert_contains(&["Running"]);
    page.assert_lacks(&["Cancel redrive…"]);
    assert!(api.commands().is_empty(), "a dry run needs ops:write");
}

#[tokio::test]
async fn key_of_a_tenant_is_denied() {
    let denied = problem(403, "forbidden", "Forbidden");
    let api = FakeApi::with_key(&["orders:read"], Some("shop")).with_answer(
        "/v1/dead-letters",
        403,
        denied,
    );
    let mut visitor = Visitor::of(&api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", LETTERS)]).await;
    let page = visitor.get(LETTERS).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    page.assert_contains(&["no permission for this page"]);
}

#[tokio::test]
async fn tasks_of_all_states_are_listed_and_linked() {
    let page = Visitor::of(&FakeApi::open()).get(&format!("{LETTERS}/tasks")).await;
    page.assert_contains(&["Running", "Succeeded", "Failed", "Cancelled", "43 of 120 orders"]);
    page.assert_contains(&["unlimited", "1 selected order", &format!("{LETTERS}/tasks/{TASK}")]);
    let none = json!({"items": [], "next_cursor": null});
    let page = Visitor::of(&FakeApi::open().with_answer(REDRIVES, 200, none))
        .get(&format!("{LETTERS}/tasks"))
        .await;
    page.assert_contains(&["No redrive was started yet."]);
}

#[tokio::test]
async fn running_task_shows_progress_and_cancel() {
    let waits = with(task(), &json!({"waiting_for": "the read model does not answer"}));
    let api = FakeApi::open().with_answer(&format!("{REDRIVES}/{TASK}"), 200, waits);
    let page = Visitor::of(&api).get(&format!("{LETTERS}/tasks/{TASK}")).await;
    page.assert_contains(&["data-region=\"task\"", "<progress max=\"120\" value=\"43\""]);
    page.assert_contains(&["The task waits: the read model does not answer.", "50 per second"]);
    page.assert_contains(&["Gateway is back", "Cancel redrive…", "2026-01-02 03:04:20.000 UTC"]);
}

#[tokio::test]
async fn ended_task_leads_to_the_failures_that_remain() {
    let mut visitor = Visitor::of(&FakeApi::open());
    for (end, text) in [(2, "Succeeded"), (3, "the journal is not readable"), (4, "Cancelled")] {
        let id = format!("018f2d70-0000-7000-8000-00000000000{end}");
        let page = visitor.get(&format!("{LETTERS}/tasks/{id}")).await;
        page.assert_contains(&[text, "Failures that remain"]);
        page.assert_lacks(&["<progress", "Cancel redrive…"]);
    }
    let page = visitor.get(&format!("{LETTERS}/tasks/{OTHER_ORDER}")).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn dead_letter_shows_each_attempt_and_leads_to_its_actions() {
    let mut visitor = Visitor::of(&FakeApi::open());
    let page = visitor.get(&format!("{LETTERS}/{ORDER}")).await;
    page.assert_contains(&[
        "Attempt 1",
        "transient",
        "after 200 ms",
        "caused by",
        "Ended the attempt",
    ]);
    page.assert_contains(&[
        "The worker stopped before it recorded an outcome",
        "2 × prod-widget-001",
    ]);
    for action in ["redrive", "discard"] {
        page.assert_contains(&[&format!("href=\"/console/orders/{ORDER}/{action}\"")]);
    }
    page.assert_contains(&["href=\"/console/dead-letters?code=retries_exhausted\""]);
    page.assert_contains(&["href=\"/console/orders?customer=cust-retail-001\""]);
    let page = visitor.get(&format!("{LETTERS}/not-an-id")).await;
    assert_eq!(page.status, StatusCode::OK, "the API judges the id");
}
