//! The feed: newest events, filters, and the stream.

use axum::http::{StatusCode, header};
use serde_json::json;

use super::fake_api::{FakeApi, KEY, ORDER, feed_event, problem};
use super::visitor::{ALIVE, Visitor};

const STREAM: &str = "/console/feed/events?types=OrderStored";

#[tokio::test]
async fn feed_shows_the_newest_events() {
    let api = FakeApi::open();
    let page = Visitor::of(&api).get("/console/feed").await;
    page.assert_contains(&[
        "OrderStored",
        "2026-01-02 03:04:05.100",
        "customer",
        "018f2d6e…6a1f2c33",
    ]);
    page.assert_contains(&["data-feed=\"/console/feed/events?\"", "FulfillmentDeliveryStarted"]);
    page.assert_contains(&["id=\"feed-pause\"", "aria-pressed=\"false\"", "role=\"status\""]);
    assert!(api.reads().contains(&"/v1/events?limit=50".to_owned()), "{:?}", api.reads());
}

#[tokio::test]
async fn filters_are_in_the_address_and_reach_the_api() {
    let api = FakeApi::open();
    let address = format!("/console/feed?types=OrderFailed&types=OrderQueued&order_id={ORDER}");
    let page = Visitor::of(&api).get(&address).await;
    let filter = format!("types=OrderFailed%2COrderQueued&amp;order_id={ORDER}");
    page.assert_contains(&[&format!("data-feed=\"/console/feed/events?{filter}\"")]);
    page.assert_contains(&[
        "value=\"OrderFailed\" checked",
        "value=\"OrderQueued\" checked",
        "Clear",
    ]);
    let read = api.reads().into_iter().find(|read| read.starts_with("/v1/events?")).unwrap();
    assert!(read.contains("types=OrderFailed%2COrderQueued") && read.contains(ORDER), "{read}");
    let page = Visitor::of(&api).get("/console/feed?order_id=&types=").await;
    page.assert_contains(&["data-feed=\"/console/feed/events?\""]);
}

#[tokio::test]
async fn older_events_do_not_move() {
    let older = json!({"items": [feed_event()], "next_cursor": "a b"});
    let api = FakeApi::open().with_answer("/v1/events", 200, older);
    let mut visitor = Visitor::of(&api);
    let page = visitor.get("/console/feed?types=OrderStored").await;
    page.assert_contains(&["href=\"/console/feed?types=OrderStored&amp;cursor=a+b\""]);
    let page = visitor.get("/console/feed?types=OrderStored&cursor=a+b").await;
    page.assert_contains(&["Newest events"]);
    assert!(!page.html.contains("data-feed="), "{}", page.html);
}

#[tokio::test]
async fn range_without_a_match_leads_to_the_next_page() {
    let none = json!({"items": [], "next_cursor": "next"});
    let api = FakeApi::open().with_answer("/v1/events", 200, none);
    let page = Visitor::of(&api).get("/console/feed?types=OrderFailed").await;
    page.assert_contains(&[
        "No event in this range matches the filter. The next page may have some.",
    ]);
    page.assert_contains(&["href=\"/console/feed?types=OrderFailed&amp;cursor=next\""]);
}

#[tokio::test]
async fn invalid_filter_leaves_the_form() {
    let invalid = problem(400, "invalid_parameters", "order_id must be a UUID");
    let api = FakeApi::open().with_answer("/v1/events", 400, invalid);
    let page = Visitor::of(&api).get("/console/feed?order_id=%22%3E%3Cscript%3E").await;
    page.assert_contains(&["order_id must be a UUID", "value=\"&quot;&gt;&lt;script&gt;\""]);
    assert!(!page.html.contains("data-feed="), "{}", page.html);
}

#[tokio::test]
async fn hostile_events_are_inert() {
    let mut event = feed_event();
    event["type"] = json!("<script>alert(1)</script>");
    event["metadata"] = json!({"actor": "\u{202e}<img src=x>🦀"});
    let mut other = feed_event();
    other["metadata"] = json!("not an object");
    let api = FakeApi::open().with_answer(
        "/v1/events",
        200,
        json!({"items": [event, other], "next_cursor": null}),
    );
    let page = Visitor::of(&api).get("/console/feed").await;
    page.assert_contains(&["&lt;script&gt;alert(1)", "\u{202e}&lt;img src=x&gt;🦀"]);
}

#[tokio::test]
async fn key_without_the_scope_is_refused() {
    let denied = problem(403, "forbidden", "The key lacks the scope audit:read");
    let api = FakeApi::open().with_answer("/v1/events", 403, denied.clone()).with_answer(
        "/v1/events/stream",
        403,
        denied,
    );
    let visitor = &mut Visitor::of(&api);
    assert_eq!(visitor.get("/console/feed").await.status, StatusCode::FORBIDDEN);
    assert_eq!(visitor.open_stream(STREAM, None).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn stream_passes_on_the_messages_of_the_api() {
    let api = FakeApi::with_key(&["audit:read"], None);
    let mut visitor = Visitor::with_moving_clock(&api);
    visitor.sign_in(KEY).await;
    let mut stream = visitor.open_stream(STREAM, Some("7-4")).await;
    assert_eq!(stream.headers[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    let messages = stream.next().await.unwrap();
    assert!(messages.contains("id: 7-5\nevent: OrderStored\ndata: {"), "{messages}");
    assert_eq!(stream.next().await.as_deref(), Some(ALIVE), "the heartbeat of the API");
    let request = api.last_request("/v1/events/stream").unwrap();
    assert_eq!(request.uri, "/v1/events/stream?types=OrderStored");
    assert_eq!(request.last_event_id.as_deref(), Some("7-4"));
    visitor.stop_console();
    assert_eq!(stream.next().await, None, "the stream ends before the process stops");
}

#[tokio::test(start_paused = true)]
async fn stream_ends_with_the_session() {
    let api = FakeApi::with_key(&["audit:read"], None);
    let mut visitor = Visitor::with_moving_clock(&api);
    visitor.sign_in(KEY).await;
    let mut stream = visitor.open_stream(STREAM, None).await;
    stream.next().await.unwrap();
    let opened = tokio::time::Instant::now();
    assert_eq!(stream.next().await.as_deref(), Some(ALIVE));
    assert_eq!(stream.next().await, None);
    assert_eq!(opened.elapsed().as_secs(), 60);
    let after = visitor.open_stream(STREAM, None).await;
    assert_eq!(after.status, StatusCode::SEE_OTHER, "the browser is led to the sign-in");
}
