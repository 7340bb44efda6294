//! The page of an order: state, timeline, past states, command lines.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::fake_api::{FakeApi, KEY, ORDER, failed_order, history, newest_first, problem, with};
use super::orders::hostile_text;
use super::visitor::{Shown, Visitor};

fn address(rest: &str) -> String {
    format!("/console/orders/{ORDER}{rest}")
}

fn api_path(rest: &str) -> String {
    format!("/v1/orders/{ORDER}{rest}")
}

async fn show(api: &FakeApi, rest: &str) -> Shown {
    Visitor::of(api).get(&address(rest)).await
}

async fn signed_in(api: &FakeApi) -> Visitor {
    let mut visitor = Visitor::of(api);
    visitor.post("/console/sign-in", &[("key", KEY), ("next", "/console/orders")]).await;
    visitor
}

#[tokio::test]
async fn page_shows_state_items_and_events() {
    let page = show(&FakeApi::open(), "").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["retries_exhausted", "prod-widget-001", "1, 4 deliveries"]);
    page.assert_contains(&["Hash chain verified", "Acceptance", "Attempt 1", "Delivery 2 started"]);
    page.assert_contains(&[
        "next delivery after 200 ms",
        "2026-01-02 03:04:05.100 UTC",
        "(+1.0 s)",
    ]);
    page.assert_contains(&["caused by <a href=\"#event-3\">event 3</a>", "caused by request"]);
    page.assert_contains(&[
        "<del><bdi>PROCESSING</bdi></del><span aria-hidden=\"true\"> → </span>",
        "<ins><bdi>FAILED</bdi></ins>",
    ]);
    page.assert_contains(&[
        "data-copy=\"data-8\"",
        "data-copy=\"metadata-8\"",
        "&quot;actor&quot;",
    ]);
}

#[tokio::test]
async fn deliveries_stand_together_in_their_attempt() {
    let page = show(&FakeApi::open(), "").await;
    let (_, attempt) = page.html.split_once("id=\"attempt-1\"").unwrap();
    let (_, second) = attempt.split_once("aria-label=\"Delivery 2\"").unwrap();
    let (second, _) = second.split_once("</ol>").unwrap();
    assert!(second.contains("id=\"event-5\"") && second.contains("id=\"event-6\""), "{second}");
    assert!(!second.contains("id=\"event-4\"") && !second.contains("id=\"event-7\""), "{second}");
}

#[tokio::test]
async fn state_of_the_hash_chain_is_told() {
    for (chain, text) in [
        (json!({"state": "broken", "broken_at": 5}), "Hash chain broken at revision 5"),
        (json!({"state": "unhashed", "broken_at": null}), "Events without hashes"),
    ] {
        let history = with(newest_first(history()), &json!({"chain": chain}));
        let api = FakeApi::open().with_answer(&api_path("/history"), 200, history);
        show(&api, "").await.assert_contains(&[text]);
    }
}

#[tokio::test]
async fn long_history_is_shown_page_by_page() {
    let long = with(newest_first(history()), &json!({"next_cursor": "older"}));
    let api = FakeApi::open().with_answer(&api_path("/history"), 200, long);
    let page = show(&api, "").await;
    let first_read = api_path("/history?sort=newest&limit=200");
    assert!(api.reads().contains(&first_read), "{:?}", api.reads());
    page.assert_contains(&[
        &address("?sort=newest&amp;cursor=older#timeline"),
        "Earlier events",
        &address("?sort=oldest#timeline"),
        "First events",
    ]);
    assert!(!page.html.contains("Later events"));
    let page = show(&api, "?sort=newest&cursor=one&cursor=two").await;
    let read = api_path("/history?sort=newest&limit=200&cursor=two");
    assert!(api.reads().contains(&read), "{:?}", api.reads());
    page.assert_contains(&[
        &address("?sort=newest&amp;cursor=one#timeline"),
        &address("?sort=newest&amp;cursor=one&amp;cursor=two&amp;cursor=older#timeline"),
        "Later events",
    ]);
    let cursors = "&cursor=c".repeat(20);
    let page = show(&api, &format!("?sort=newest{cursors}")).await;
    let next =
        address(&format!("?sort=newest{}&amp;cursor=older#timeline", "&amp;cursor=c".repeat(19)));
    page.assert_contains(&[&next]);
}

#[tokio::test]
async fn long_page_opens_its_newest_attempt_only() {
    let mut long = history();
    let events = long["events"].as_array_mut().unwrap();
    let attempt = events[3..].to_vec();
    for number in 2..10 {
        events.extend(attempt.iter().map(|event| {
            let mut event = event.clone();
            event["data"]["attempt"] = number.into();
            event
        }));
    }
    let api = FakeApi::open().with_answer(&api_path("/history"), 200, newest_first(long));
    let page = show(&api, "").await;
    page.assert_contains(&["<a href=\"#attempt-9\">Attempt 9</a>"]);
    page.assert_contains(&["<details class=\"attempt\" open id=\"attempt-9\">"]);
    page.assert_contains(&["<details class=\"attempt\" id=\"attempt-8\">"]);
}

#[tokio::test]
async fn older_page_of_events_does_not_tell_whether_the_dead_letter_is_discarded() {
    let event = |revision: u64, name: &str| {
        let event = with(
            history()["events"][8].clone(),
            &json!({"revision": revision, "type": name, "data": {"order_id": ORDER, "reason": "Old"}}),
        );
        with(history(), &json!({"events": [event], "next_cursor": "older"}))
    };
    let discarded = "DeadLetterDiscarded";
    let newest = api_path("/history?sort=newest&limit=1");
    for (on_page, at_the_end, is_discarded) in
        [("OrderFailed", discarded, true), (discarded, "OrderFailed", false)]
    {
        let api = FakeApi::open()
            .with_answer(&api_path("/history"), 200, event(8, on_page))
            .with_answer(&newest, 200, event(250, at_the_end));
        for query in ["?sort=oldest", "?sort=newest&cursor=older"] {
            let page = show(&api, query).await;
            assert_eq!(
                page.html.contains("The dead letter is discarded."),
                is_discarded,
                "{query}"
            );
            assert_eq!(page.html.contains("Discard…"), !is_discarded, "{query}");
            // The slider reaches the newest revision too.
            page.assert_contains(&["max=\"250\" value=\"250\""]);
        }
        let page = show(&api, "").await;
        assert_eq!(page.html.contains("The dead letter is discarded."), !is_discarded);
    }
}

#[tokio::test]
async fn past_state_stands_beside_the_changes_since() {
    let api = FakeApi::open();
    let page = show(&api, "?at=3").await;
    assert!(api.reads().contains(&api_path("/history/compare?from=3")), "{:?}", api.reads());
    page.assert_contains(&["State after event 3", "Changed since", "Event before", "Event after"]);
    page.assert_contains(&["max=\"8\" value=\"3\" autofocus", "--at-revision 3"]);
    let missing = problem(404, "not_found", "Order has no revision 99");
    let api = FakeApi::open().with_answer(&api_path("/history/compare"), 404, missing);
    show(&api, "?at=99")
        .await
        .assert_contains(&["Order has no revision 99", "Hash chain verified"]);
}

#[tokio::test]
async fn two_revisions_are_compared() {
    let api = FakeApi::open();
    let page = show(&api, "?from=3&to=8&at=").await;
    let reads = api.reads();
    assert!(reads.contains(&api_path("/history/compare?from=3&to=8")), "{reads:?}");
    page.assert_contains(&["Revision 3", "Revision 8", "PROCESSING"]);
    page.assert_contains(&[&format!("dofs audit compare {ORDER} 3 8")]);
}

#[tokio::test]
async fn command_lines_have_placeholders_for_address_and_key() {
    let api = FakeApi::with_key(&["orders:read", "audit:read"], None);
    let page = signed_in(&api).await.get(&address("")).await;
    page.assert_contains(&[
        "curl -H &quot;Authorization: Bearer $DOFS_API_KEY&quot; &quot;$DOFS_URL/v1/orders/",
        &format!("dofs order get {ORDER}"),
        &format!("dofs audit show {ORDER}"),
    ]);
    assert!(!page.html.contains(KEY), "the page shows the key");
}

#[tokio::test]
async fn live_regions_are_the_state_and_the_number_of_new_events() {
    let address_of_regions = show(&FakeApi::open(), "?at=3").await.live_address();
    assert!(address_of_regions.contains("at%3D3%26seen%3D8"), "{address_of_regions}");
    let order = with(failed_order(), &json!({"status": "PROCESSING", "revision": 11}));
    let api = FakeApi::open().with_answer(&api_path(""), 200, order);
    let regions =
        Visitor::of(&api).open_stream(&address_of_regions, None).await.next_regions().await;
    let link = format!("<a href=\"{}\">3 new events: reload</a>", address(""));
    assert_eq!(regions["timeline-news"], link);
    assert!(regions["status"].contains("Processing"));
}

#[tokio::test]
async fn key_without_the_audit_scope_sees_the_state_only() {
    let api = FakeApi::with_key(&["orders:read"], Some("shop"));
    let page = signed_in(&api).await.get(&address("?at=3&from=1")).await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_contains(&["prod-widget-001", "it lacks <code>audit:read</code>"]);
    page.assert_contains(&["it lacks <code>ops:write</code>"]);
    assert!(!page.html.contains("Redrive…"), "{}", page.html);
    assert!(!api.reads().iter().any(|uri| uri.contains("/history")), "{:?}", api.reads());
}

#[tokio::test]
async fn order_that_cannot_be_shown_is_reported() {
    for (status, code, detail) in [
        (404, "order_not_found", "Order not found"),
        (410, "order_deleted", "Order was deleted"),
        (503, "event_store_unavailable", "Event store unavailable"),
    ] {
        let refused = problem(status, code, detail);
        let api = FakeApi::open().with_answer(&api_path(""), status, refused.clone());
        let page = show(&api, "").await;
        assert_eq!(page.status.as_u16(), status);
        page.assert_contains(&[detail]);
        // The read model may still have the order.
        let api = FakeApi::open().with_answer(&api_path("/history"), status, refused);
        let page = show(&api, "").await;
        assert_eq!(page.status, StatusCode::OK);
        page.assert_contains(&[detail, "prod-widget-001"]);
    }
    let page = Visitor::of(&FakeApi::open()).get("/console/orders/no-uuid/more").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn hostile_values_and_foreign_events_are_shown_inert() {
    let text = hostile_text();
    let mut hostile = newest_first(history());
    for (index, event) in hostile["events"].as_array_mut().unwrap().iter_mut().enumerate() {
        event["changes"] =
            json!([{"field": text, "before": text, "after": [{"product_id": text}, text]}]);
        for member in ["reason", "error", "code", "reference"] {
            event["data"][member] = text.clone().into();
        }
        event["metadata"] =
            if index == 0 { json!(text) } else { json!({"actor": text, "$causationId": text}) };
        if index == 1 {
            event["type"] = text.clone().into();
            event["data"] = Value::Null;
            event["state_after"] = Value::Null;
        }
    }
    let order = with(
        failed_order(),
        &json!({"customer_id": text, "failure_reason": text, "reference": text, "failure_code": text,
            "items": (0..30).map(|_| json!({"product_id": text, "quantity": 1})).collect::<Vec<_>>()}),
    );
    let api = FakeApi::open().with_answer(&api_path(""), 200, order).with_answer(
        &api_path("/history"),
        200,
        hostile,
    );
    let page = show(&api, "?at=%3Cscript%3Ealert(1)&from=%22%3E%3Cscript%3Ealert(1)").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(!page.html.contains("<script>alert"), "{}", page.html);
    page.assert_contains(&["30 items", "This release cannot read the data of the event."]);
}
