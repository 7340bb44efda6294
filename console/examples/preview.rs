//! Serves the pages over an API with fixed answers, to look at them without a system.
#![allow(
    warnings,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "a tool for looking at pages"
)]
#[path = "../tests/pages/fake_api.rs"]
mod fake_api;
#[tokio::main]
async fn main() {
    let port: u16 = std::env::args().nth(1).unwrap_or("8099".into()).parse().unwrap();
    let api = if std::env::args().any(|a| a == "--keys") {
        fake_api::FakeApi::with_key(&["orders:read", "audit:read", "ops:read"], None)
    } else {
        fake_api::FakeApi::open()
    };
    let api = if std::env::args().any(|a| a == "--incident") {
        let w = fake_api::with(
            fake_api::workers(),
            &serde_json::json!({
            "paused": true, "since": "2026-01-02T03:00:00Z", "actor": "ann", "reason": "Gateway maintenance until four", "breaker": "open",
            "unconfirmed": ["dofs-018f2d6e-0000-7d34-9e2a-0b5d6a1f2c44-worker"],
            "unavailable": {"read_model": "it does not answer"}, "orders_processing": null, "oldest_waiting_seconds": null,
            "workers": [fake_api::workers()["workers"][0].clone(), {
                "worker": "dofs-018f2d6e-0000-7d34-9e2a-0b5d6a1f2c44-worker", "connected": false, "paused": true,
                "last_seen_at": "2026-01-02T03:04:05Z", "breaker": "open", "since": "2026-01-02T03:00:00Z",
                "error": "HTTP 503 Service Unavailable: upstream connect error or disconnect/reset before headers",
                "watchdog_reconnects": 2, "in_flight": null, "gateway": null, "reported_at": null}]}),
        );
        let mut p = fake_api::projections();
        p["items"][0]["lag_events"] = 1200.into();
        p["items"][0]["lag_seconds"] = 95.0.into();
        p["items"][0]["stuck"] = true.into();
        p["items"][0]["verification"]["findings"] = 2.into();
        p["items"][0]["sets"][1]["progress"]["updated_at"] = "2026-01-02T03:00:00Z".into();
        api.with_answer("/v1/ops/worker", 200, w).with_answer("/v1/ops/projections", 200, p)
            .with_answer("/readyz", 503, serde_json::json!({"status": "unavailable", "checks": {"event_store": "unavailable", "read_model": "ok"}, "reasons": {"event_store": "connection refused"}}))
            .with_answer("/v1/events", 200, serde_json::json!({"items": [], "next_cursor": null}))
            .with_answer("/v1/ops/actions", 200, serde_json::json!({"items": [], "next_cursor": null}))
    } else {
        api
    };
    let api = if std::env::args().any(|a| a == "--hostile") {
        let bad = format!("<script>alert(1)</script>\u{202e}evil{}\u{1f600}", "x".repeat(220));
        let mut order = fake_api::failed_order();
        order["customer_id"] = bad.clone().into();
        order["failure_reason"] = bad.clone().into();
        order["items"] = serde_json::json!(
            (0..30)
                .map(|n| serde_json::json!({"product_id": bad, "quantity": n + 1}))
                .collect::<Vec<_>>()
        );
        let mut h = fake_api::history();
        let mut events = h["events"].as_array().unwrap().clone();
        for e in &mut events {
            e["data"]["reason"] = bad.clone().into();
            e["data"]["error"] = bad.clone().into();
            e["changes"] = serde_json::json!([{"field": "customer_id", "before": bad, "after": bad}, {"field": "items", "before": null, "after": order["items"]}]);
        }
        let worker = events[3..].to_vec();
        for attempt in 2..20 {
            for e in &worker {
                let mut e = e.clone();
                let r = events.len();
                e["revision"] = r.into();
                e["data"]["attempt"] = attempt.into();
                e["event_id"] = format!("3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d{r:04}").into();
                events.push(e);
            }
        }
        h["events"] = events.into_iter().rev().collect();
        h["next_cursor"] = "more".into();
        let mut list = vec![order.clone()];
        list.push(fake_api::failed_order());
        api.with_answer(&format!("/v1/orders/{}", fake_api::ORDER), 200, order.clone())
            .with_answer("/v1/orders", 200, serde_json::json!({"items": list, "next_cursor": "n"}))
            .with_answer(&format!("/v1/orders/{}/history", fake_api::ORDER), 200, h)
            .with_answer(&format!("/v1/orders/{}/history/compare", fake_api::ORDER), 200, serde_json::json!({"order_id": fake_api::ORDER, "from": order, "to": order, "changes": [{"field": "customer_id", "before": bad, "after": bad}]}))
    } else {
        api
    };
    let console = console::routes(console::Console {
        config: console::ConsoleConfig {
            enabled: true,
            session_minutes: 480.try_into().unwrap(),
            session_secret: String::new(),
        },
        api: api.router(),
        clock: service_kit::clock::Clock::new(
            || "2026-01-02T03:04:30Z".parse().unwrap(),
            uuid::Uuid::new_v4,
        ),
        secret: console::CookieSecret::derive_from(b"x"),
        has_tls: false,
        stop: Default::default(),
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, console).await.unwrap();
}
