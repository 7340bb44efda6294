//! Streams of live pages: regions, their changes, shared renderings, and the end.

use std::time::Duration;

use axum::http::StatusCode;
use futures::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::fake_api::{FakeApi, KEY, OTHER_KEY, TASK, problem, with, workers};
use super::visitor::{ALIVE, Messages, REQUEST_ID, Visitor};

const PATH: &str = "/v1/ops/worker";
const LIVE: &str = "/console/live?page=/console/workers";
const SCOPES: [&str; 2] = ["ops:read", "ops:write"];

async fn open(visitor: &Visitor) -> Messages {
    let stream = visitor.open_stream(LIVE, None).await;
    assert_eq!(stream.status, StatusCode::OK);
    stream
}

fn n_reads(api: &FakeApi) -> usize {
    api.reads().iter().filter(|read| *read == PATH).count()
}

#[tokio::test(start_paused = true)]
async fn first_message_has_all_regions() {
    for page in ["/console", "/console/workers", "/console/projections"] {
        let mut visitor = Visitor::with_moving_clock(&FakeApi::open());
        let html = visitor.get(page).await.html;
        let address = format!("/console/live?page={page}");
        let regions = visitor.open_stream(&address, None).await.next_regions().await;
        assert_eq!(regions.len(), html.matches("data-region=").count(), "{page}");
        for name in regions.keys() {
            assert!(
                html.contains(&format!("data-region=\"{name}\"")),
                "{page} has no region {name}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_changed_regions_are_sent_again() {
    let api = FakeApi::open();
    let mut stream = open(&Visitor::with_moving_clock(&api)).await;
    stream.next_regions().await;
    let paused = json!({"paused": true, "actor": "ann", "since": "2026-01-02T03:00:00Z"});
    api.change_answer(PATH, 200, with(workers(), &paused));
    let changed = stream.next_regions().await;
    assert_eq!(changed.keys().collect::<Vec<_>>(), ["state"]);
    assert!(changed["state"].contains("Paused</span> by <bdi>ann</bdi>"), "{changed:?}");
}

#[tokio::test(start_paused = true)]
async fn passing_time_alone_sends_no_region() {
    let api = FakeApi::open();
    let mut stream = open(&Visitor::with_moving_clock(&api)).await;
    stream.next_regions().await;
    let started = Instant::now();
    let next = stream.next().await;
    assert_eq!(next.as_deref(), Some(ALIVE));
    assert!(started.elapsed() >= Duration::from_secs(10) && n_reads(&api) > 5, "{}", n_reads(&api));
}

#[tokio::test(start_paused = true)]
async fn failed_call_is_shown_in_its_region_until_it_succeeds() {
    let api = FakeApi::open();
    let mut stream = open(&Visitor::with_moving_clock(&api)).await;
    stream.next_regions().await;
    api.change_answer(PATH, 503, problem(503, "event_store_unavailable", "Event store away"));
    assert!(stream.next_regions().await["state"].contains("Event store away"));
    api.change_answer(PATH, 200, workers());
    assert!(stream.next_regions().await["state"].contains("Taking orders"));
}

#[tokio::test(start_paused = true)]
async fn visitors_with_the_same_key_share_a_rendering() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut first = Visitor::with_moving_clock(&api);
    first.sign_in(KEY).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = open(&first).await;
        stream.next_regions().await;
        streams.push(stream);
    }
    assert_eq!(n_reads(&api), 1, "twenty visitors");
    api.change_answer(PATH, 200, with(workers(), &json!({"orders_processing": 15})));
    // The server polls all streams at the same time.
    for regions in join_all(streams.iter_mut().map(Messages::next_regions)).await {
        assert!(regions["queue"].contains("15"));
    }
    assert_eq!(n_reads(&api), 2, "twenty visitors, after an interval");
}

#[tokio::test(start_paused = true)]
async fn visitors_with_different_keys_do_not_share() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut first = Visitor::with_moving_clock(&api);
    first.sign_in(KEY).await;
    let mut second = first.another();
    second.sign_in(OTHER_KEY).await;
    for visitor in [&first, &second] {
        open(visitor).await.next_regions().await;
    }
    assert_eq!(n_reads(&api), 2);
}

#[tokio::test(start_paused = true)]
async fn stream_ends_with_the_session() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut visitor = Visitor::with_moving_clock(&api);
    visitor.sign_in(KEY).await;
    let mut stream = open(&visitor).await;
    stream.next_regions().await;
    let started = Instant::now();
    let last = loop {
        let message = stream.next().await.unwrap();
        if message != ALIVE {
            break message;
        }
    };
    // Browsers ignore a message without data.
    assert_eq!(last, "event: expired\ndata: {}\n\n");
    assert_eq!(started.elapsed().as_secs(), 60);
    assert_eq!(stream.next().await, None);
    let after = visitor.open_stream(LIVE, None).await;
    assert_eq!(after.status, StatusCode::SEE_OTHER, "the browser is led to the sign-in");
}

#[tokio::test(start_paused = true)]
async fn stream_ends_when_the_key_is_revoked() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut visitor = Visitor::with_moving_clock(&api);
    visitor.sign_in(KEY).await;
    let mut stream = open(&visitor).await;
    stream.next_regions().await;
    let unauthorized = problem(401, "unauthorized", "Unauthorized");
    api.change_answer("/v1/principal", 401, unauthorized);
    assert_eq!(stream.next().await.as_deref(), Some("event: expired\ndata: {}\n\n"));
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn stream_ends_before_the_process_stops() {
    let visitor = Visitor::with_moving_clock(&FakeApi::open());
    let mut stream = open(&visitor).await;
    stream.next_regions().await;
    visitor.stop_console();
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn stream_goes_on_while_the_scopes_of_the_key_are_unknown() {
    let task_page = format!("/console/live?page=/console/dead-letters/tasks/{TASK}");
    for (address, region) in [(LIVE, "state"), (task_page.as_str(), "task")] {
        let api = FakeApi::open();
        let mut stream = Visitor::with_moving_clock(&api).open_stream(address, None).await;
        assert!(stream.next_regions().await.contains_key(region), "{address}");
        let away = problem(503, "read_model_unavailable", "Read model away");
        api.change_answer("/v1/principal", 503, away);
        let read_only = stream.next_regions().await;
        assert!(!read_only[region].contains("button"), "{read_only:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_is_not_buffered_by_proxies() {
    let stream = open(&Visitor::with_moving_clock(&FakeApi::open())).await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
}

#[tokio::test]
async fn address_without_a_live_page_has_no_stream() {
    let visitor = Visitor::of(&FakeApi::open());
    for page in ["/console/system", "/console/orders%3Fstatus=none", "/v1/workers", "workers", ""] {
        let stream = visitor.open_stream(&format!("/console/live?page={page}"), None).await;
        assert_eq!(stream.status, StatusCode::NOT_FOUND, "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_shared_page_have_no_request_id() {
    let api = FakeApi::open();
    let mut visitor = Visitor::with_moving_clock(&api);
    visitor.get("/console/workers").await;
    assert_eq!(api.last_request(PATH).unwrap().request_id.as_deref(), Some(REQUEST_ID));
    open(&visitor).await.next_regions().await;
    assert_eq!(api.last_request(PATH).unwrap().request_id, None);
}

#[tokio::test(start_paused = true)]
async fn key_with_many_streams_leaves_streams_to_other_keys() {
    let api = FakeApi::with_key(&SCOPES, None);
    let mut first = Visitor::with_moving_clock(&api);
    first.sign_in(KEY).await;
    let mut streams = Vec::new();
    for _ in 0..500 {
        streams.push(open(&first).await);
    }
    let refused = first.open_stream(LIVE, None).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let mut second = first.another();
    second.sign_in(OTHER_KEY).await;
    open(&second).await;
    streams.pop();
    open(&first).await;
}

#[tokio::test(start_paused = true)]
async fn number_of_streams_is_limited() {
    let visitor = Visitor::with_moving_clock(&FakeApi::open());
    let mut streams = Vec::new();
    for _ in 0..2_000 {
        streams.push(open(&visitor).await);
    }
    let refused = visitor.open_stream(LIVE, None).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    streams.pop();
    open(&visitor).await;
}
