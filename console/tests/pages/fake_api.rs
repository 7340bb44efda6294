//! An API with fixed answers, which notes the commands that it receives.

#[path = "failures.rs"]
mod failures;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

pub(crate) use failures::dead_letter;
use failures::{dead_letter_summary, other_failure, redrive_preview, tasks};
pub(crate) use failures::{failure, task};

pub(crate) const ORDER: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";
pub(crate) const OTHER_ORDER: &str = "018f2d70-0a2c-7f01-8c11-6e5d4b3a2f10";
pub(crate) const TASK: &str = "018f2d70-0000-7000-8000-000000000001";
pub(crate) const KEY: &str = "dofs_operator_secret";
/// Another key with the same scopes.
pub(crate) const OTHER_KEY: &str = "dofs_other_secret";

/// Answers of the API; tests change single ones.
#[derive(Clone)]
pub(crate) struct FakeApi {
    shared: Arc<Shared>,
}

struct Shared {
    principal: Value,
    requires_key: bool,
    /// Answers that replace the fixed ones: path with or without query, or kind of request and path;
    /// status, body.
    replaced: Mutex<Vec<(String, u16, Value)>>,
    received: Mutex<Vec<Received>>,
}

/// A request that the API has received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) body: Value,
    pub(crate) if_match: Option<String>,
    pub(crate) last_event_id: Option<String>,
    pub(crate) request_id: Option<String>,
}

impl FakeApi {
    /// An API that requires no keys.
    pub(crate) fn open() -> Self {
        Self::new(
            &["orders:write", "orders:read", "audit:read", "ops:read", "ops:write"],
            false,
            None,
        )
    }

    /// An API that requires keys and knows [`KEY`], which has these scopes.
    pub(crate) fn with_key(scopes: &[&str], tenant: Option<&str>) -> Self {
        Self::new(scopes, true, tenant)
    }

    fn new(scopes: &[&str], requires_key: bool, tenant: Option<&str>) -> Self {
        let principal = json!({
            "actor": if requires_key { "ann" } else { "customer" }, "tenant": tenant, "scopes": scopes,
            "requires_key": requires_key, "environment": "dev", "version": "0.1.0",
        });
        let (replaced, received) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { principal, requires_key, replaced, received }) }
    }

    /// Replaces an answer. `path` may begin with a method and a space, or with `PREVIEW ` for dry runs.
    #[must_use]
    pub(crate) fn with_answer(self, path: &str, status: u16, body: Value) -> Self {
        self.change_answer(path, status, body);
        self
    }

    /// Replaces an answer while pages are open.
    pub(crate) fn change_answer(&self, path: &str, status: u16, body: Value) {
        self.shared.replaced.lock().unwrap().insert(0, (path.to_owned(), status, body));
    }

    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// Returns the commands: requests other than `GET`.
    pub(crate) fn commands(&self) -> Vec<Received> {
        let received = self.shared.received.lock().unwrap();
        received.iter().filter(|request| request.method != Method::GET).cloned().collect()
    }

    /// Returns the last request to a path.
    pub(crate) fn last_request(&self, path: &str) -> Option<Received> {
        let received = self.shared.received.lock().unwrap();
        received.iter().rev().find(|request| request.uri.split('?').next() == Some(path)).cloned()
    }

    /// Returns the addresses of all `GET` requests.
    pub(crate) fn reads(&self) -> Vec<String> {
        let received = self.shared.received.lock().unwrap();
        let reads = received.iter().filter(|request| request.method == Method::GET);
        reads.map(|request| request.uri.clone()).collect()
    }
}

async fn answer(State(api): State<FakeApi>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    note_request(&api, &parts.method, &parts.uri, &parts.headers, &body);
    let known_keys = [KEY, OTHER_KEY].map(|key| format!("Bearer {key}"));
    let is_dry_run = serde_json::from_slice(&body).is_ok_and(|body: Value| body["dry_run"] == true);
    let kind = if is_dry_run { "PREVIEW" } else { parts.method.as_str() };
    let key = parts.headers.get(header::AUTHORIZATION).map(|key| key.to_str().unwrap().to_owned());
    if api.shared.requires_key && !key.is_some_and(|key| known_keys.contains(&key)) {
        return respond(401, &problem(401, "unauthorized", "Unauthorized"));
    }
    let path = parts.uri.path();
    let kind_and_path = format!("{kind} {path}");
    let uri = parts.uri.to_string();
    let is_known = |known: &str| [path, kind_and_path.as_str(), uri.as_str()].contains(&known);
    let replaced = api.shared.replaced.lock().unwrap();
    let replaced = replaced.iter().find(|(known, ..)| is_known(known)).cloned();
    if let Some((_, status, body)) = replaced {
        return respond(status, &body);
    }
    if path == "/v1/events/stream" {
        return event_stream();
    }
    if path == "/v1/principal" {
        return respond(200, &api.shared.principal);
    }
    let query = parts.uri.query().unwrap_or_default();
    let (status, body) = fixed_answer(kind, path, query);
    respond(status, &body)
}

fn note_request(api: &FakeApi, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let received = Received {
        method: method.clone(),
        uri: uri.to_string(),
        body: serde_json::from_slice(body).unwrap_or(Value::Null),
        if_match: text("if-match"),
        last_event_id: text("last-event-id"),
        request_id: text("x-request-id"),
    };
    api.shared.received.lock().unwrap().push(received);
}

fn respond(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// A stream that stays open after its first messages.
fn event_stream() -> Response {
    let mut event = feed_event();
    event["event_id"] = json!("3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c77");
    let messages = format!("retry: 2000\n\nid: 7-5\nevent: OrderStored\ndata: {event}\n\n");
    let messages = [messages, ": alive\n\n".to_owned()].map(Ok::<_, Infallible>);
    let messages = stream::iter(messages).chain(stream::pending());
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(messages)).into_response()
}

/// Returns a problem document.
pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Value {
    json!({
        "type": format!("urn:dofs:problem:{code}"), "title": detail, "status": status,
        "detail": detail, "code": code, "errors": [], "request_id": "request-1",
    })
}

fn fixed_answer(kind: &str, path: &str, query: &str) -> (u16, Value) {
    let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let body = match (kind, segments.as_slice()) {
        ("GET", ["v1", "stats"]) => statistics(),
        ("GET", ["v1", "orders"]) => {
            json!({"items": [order(), failed_order()], "next_cursor": "next"})
        }
        ("GET", ["v1", "orders", _]) => failed_order(),
        ("GET", ["v1", "orders", _, "history"]) if query.contains("sort=newest") => {
            newest_first(history())
        }
        ("GET", ["v1", "orders", _, "history"]) => history(),
        ("GET", ["v1", "orders", _, "history", "compare"]) => json!({
            "order_id": ORDER, "from": state(), "to": failed_order(),
            "changes": [{"field": "status", "before": "PROCESSING", "after": "FAILED"}],
        }),
        ("GET", ["v1", "failed-orders"]) => {
            json!({"items": [failure(), other_failure()], "next_cursor": "next"})
        }
        ("GET", ["v1", "dead-letters"]) => dead_letter_summary(),
        ("GET", ["v1", "dead-letters", _]) => dead_letter(),
        ("GET", ["v1", "customers", _]) => customer(),
        ("GET", ["v1", "customers"]) => json!({"items": [], "next_cursor": null}),
        ("GET", ["v1", "events"]) => json!({"items": [feed_event()], "next_cursor": null}),
        ("GET", ["v1", "ops", "worker"]) => workers(),
        ("GET", ["v1", "ops", "projections"]) => projections(),
        ("GET", ["v1", "ops", "actions"]) => actions(),
        ("GET", ["v1", "ops", "system"]) => system(),
        ("GET", ["v1", "ops", "keys"]) => keys(),
        ("GET", ["readyz"]) => health(),
        ("GET", ["v1", "ops", "dead-letters", "redrives"]) => {
            json!({"items": tasks(), "next_cursor": null})
        }
        ("GET", ["v1", "ops", "dead-letters", "redrives", id]) => {
            match tasks().into_iter().find(|task| task["task_id"] == *id) {
                Some(task) => task,
                None => return (404, problem(404, "not_found", "Redrive not found")),
            }
        }
        ("DELETE", ["v1", "ops", "dead-letters", "redrives", _]) => {
            return (202, with(task(), &json!({"state": "cancelled"})));
        }
        ("PREVIEW", ["v1", "ops", "dead-letters", "redrives"]) => redrive_preview(),
        ("POST", ["v1", "ops", "dead-letters", "redrives"]) => return (202, task()),
        ("POST", ["v1", "ops", "worker", "pause" | "resume"]) => workers(),
        ("POST", ["v1", "orders", _, "redrive"]) => {
            json!({"order_id": ORDER, "status": "PROCESSING", "attempt": 2, "revision": 5})
        }
        ("POST", ["v1", "dead-letters", _, "discard"]) => {
            json!({"order_id": ORDER, "status": "FAILED", "revision": 5})
        }
        _ => return (404, problem(404, "not_found", "Not Found")),
    };
    (200, body)
}

pub(crate) fn statistics() -> Value {
    json!({
        "orders": {"PROCESSING": 14, "FULFILLED": 1200, "FAILED": 31},
        "failed_by_stage": {"validation": 20, "fulfillment": 10, "dead_letter": 1},
        "queue": {"waiting": 3, "in_flight": 10, "parked": 0, "retrying": 1, "oldest_waiting_seconds": 2.5},
        "fulfillment": {"paused": false, "breaker": "closed", "watchdog_reconnects": 0},
        "projection": {
            "lag_events": 0, "lag_seconds": 0.0, "stuck": false, "ahead_events": 0,
            "verification": {"verified_at": "2026-01-02T03:00:00Z", "orders": 1231, "findings": 0},
            "advice": null
        },
        "event_store": {"oldest_event_at": "2026-01-01T00:00:00Z", "disk_bytes": 1_048_576},
        "success_rate": {"observed": 0.99, "configured": 0.7},
        "per_minute": [{
            "minute": "2026-01-02T03:03:00Z", "events": 50, "received": 12, "fulfilled": 8, "failed": 3,
            "success_rate": 0.727, "mean_completion_seconds": 0.05, "max_completion_seconds": 1.2
        }],
        "unavailable": {}
    })
}

pub(crate) fn state() -> Value {
    json!({
        "order_id": ORDER, "customer_id": "cust-retail-001",
        "items": [{"product_id": "prod-widget-001", "quantity": 2}], "total_quantity": 2,
        "status": "PROCESSING", "stage": null, "attempt": 1, "deliveries": 0, "failure_code": null,
        "failure_reason": null, "reference": null, "revision": 3,
        "received_at": "2026-01-02T03:04:05.1Z", "queued_at": "2026-01-02T03:04:05.1Z",
        "fulfilled_at": null, "failed_at": null, "updated_at": "2026-01-02T03:04:05.1Z", "source": "table"
    })
}

/// Returns an object with some members replaced.
pub(crate) fn with(mut value: Value, changed: &Value) -> Value {
    for (name, member) in changed.as_object().unwrap() {
        value[name] = member.clone();
    }
    value
}

fn order() -> Value {
    with(
        state(),
        &json!({"order_id": OTHER_ORDER, "status": "FULFILLED", "deliveries": 1,
            "reference": "gw-7f3a", "revision": 4, "fulfilled_at": "2026-01-02T03:04:05.3Z"}),
    )
}

pub(crate) fn failed_order() -> Value {
    with(
        state(),
        &json!({"status": "FAILED", "stage": "dead_letter", "deliveries": 4, "revision": 8,
            "failure_code": "retries_exhausted", "failure_reason": "HTTP 503",
            "failed_at": "2026-01-02T03:04:09Z"}),
    )
}

pub(crate) fn history() -> Value {
    let event = |revision: u64, name: &str, data: Value, state_after: Value, changes: Value| {
        // Each event of the worker is caused by the event that queued the order.
        let causation = if revision > 3 {
            "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c03"
        } else {
            "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44"
        };
        json!({
            "revision": revision, "event_id": format!("3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c{revision:02}"),
            "type": name, "data": data,
            "metadata": {"$correlationId": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44",
                "$causationId": causation, "actor": "customer",
                "request_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44", "schema_version": 1},
            "recorded_at": format!("2026-01-02T03:04:0{}.100Z", revision.min(9)),
            "state_after": state_after, "changes": changes,
        })
    };
    let failed_delivery = |revision: u64, delivery: u64| {
        let data = json!({"order_id": ORDER, "attempt": 1, "delivery": delivery,
            "class": "transient", "error": "HTTP 503", "retry_in_ms": 200});
        event(revision, "FulfillmentDeliveryFailed", data, state(), json!([]))
    };
    json!({
        "order_id": ORDER,
        "events": [
            event(0, "OrderReceived", json!({"order_id": ORDER, "customer_id": "cust-retail-001",
                "items": [{"product_id": "prod-widget-001", "quantity": 2}],
                "received_at": "2026-01-02T03:04:05.1Z"}), state(),
                json!([{"field": "status", "before": null, "after": "PROCESSING"}])),
            event(1, "OrderValidated", json!({"order_id": ORDER, "total_quantity": 2, "rules_version": 1}),
                state(), json!([])),
            event(2, "OrderStored", json!({"order_id": ORDER, "stored_at": "2026-01-02T03:04:05.1Z"}),
                state(), json!([])),
            event(3, "OrderQueued", json!({"order_id": ORDER, "attempt": 1, "customer_id": "cust-retail-001",
                "items": [{"product_id": "prod-widget-001", "quantity": 2}]}), state(),
                json!([{"field": "attempt", "before": 0, "after": 1}])),
            failed_delivery(4, 1),
            event(5, "FulfillmentDeliveryStarted",
                json!({"order_id": ORDER, "attempt": 1, "delivery": 2}), state(), json!([])),
            failed_delivery(6, 2),
            failed_delivery(7, 3),
            event(8, "OrderFailed", json!({"order_id": ORDER, "stage": "dead_letter",
                "code": "retries_exhausted", "reason": "HTTP 503", "attempt": 1, "deliveries": 4,
                "failed_at": "2026-01-02T03:04:09Z"}), failed_order(),
                json!([{"field": "status", "before": "PROCESSING", "after": "FAILED"}])),
        ],
        "chain": {"state": "verified", "broken_at": null},
        "next_cursor": null
    })
}

/// Returns a history with its newest event first.
pub(crate) fn newest_first(mut history: Value) -> Value {
    history["events"].as_array_mut().unwrap().reverse();
    history
}

fn customer() -> Value {
    json!({
        "customer_id": "cust-retail-001", "orders": {"processing": 0, "fulfilled": 2, "failed": 1},
        "total_quantity": 7,
        "first_order": {"order_id": ORDER, "received_at": "2026-01-02T03:04:05.1Z"},
        "last_order": {"order_id": ORDER, "received_at": "2026-01-02T03:04:05.1Z"},
        "last_failure": {"order_id": ORDER, "stage": "dead_letter", "code": "retries_exhausted",
            "failed_at": "2026-01-02T03:04:09Z"}
    })
}

pub(crate) fn workers() -> Value {
    json!({
        "paused": false, "since": null, "actor": null, "reason": null, "breaker": "closed",
        "watchdog_reconnects": 0,
        "workers": [{
            "worker": "dofs-018f2d6e-0000-7d34-9e2a-0b5d6a1f2c33-worker", "connected": true,
            "paused": false, "last_seen_at": "2026-01-02T03:04:05Z", "breaker": "closed",
            "since": "2026-01-02T03:00:00Z", "error": null, "watchdog_reconnects": 0, "in_flight": 4,
            "gateway": {"calls": 1200, "mean_ms": 22.5, "p95_ms": 40.0, "max_ms": 61.0},
            "reported_at": "2026-01-02T03:03:05Z"
        }],
        "unconfirmed": [],
        "queue": {"waiting": 3, "in_flight": 10, "parked": 0, "retrying": 1},
        "orders_processing": 14, "oldest_waiting_seconds": 2.5, "unavailable": {}
    })
}

pub(crate) fn projections() -> Value {
    json!({
        "items": [{
            "name": "orders", "lag_events": 0, "lag_seconds": 0.0, "stuck": false,
            "events_per_second": 41.5, "holder": "dofs-018f2d6e",
            "verification": {"verified_at": "2026-01-02T03:00:00Z", "orders": 1231, "findings": 0},
            "sets": [
                {"set": "orders_1", "state": "live", "version": 3, "position": 1_048_576,
                    "events_applied": 5120, "last_event_at": "2026-01-02T03:04:05Z", "progress": null},
                {"set": "orders_2", "state": "building", "version": 4, "position": 524_288,
                    "events_applied": 2560, "last_event_at": "2026-01-02T01:04:05Z",
                    "progress": {"share": 0.5, "updated_at": "2026-01-02T03:04:05Z"}}
            ]
        }],
        "unavailable": {}
    })
}

pub(crate) fn actions() -> Value {
    let action = json!({
        "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c12", "kind": "order_redriven",
        "at": "2026-01-02T03:04:05Z", "actor": "ann", "reason": "Gateway is back",
        "order_id": ORDER, "task_id": null, "detail": "attempt 2"
    });
    let started = json!({
        "kind": "redrive_started", "order_id": null, "task_id": TASK, "detail": "code retries_exhausted"
    });
    let paused =
        json!({"kind": "workers_paused", "order_id": null, "reason": null, "detail": null});
    let items = [action.clone(), with(action.clone(), &started), with(action, &paused)];
    json!({"items": items, "next_cursor": "next"})
}

fn system() -> Value {
    json!({
        "version": "0.1.0", "commit": "386d98f", "environment": "dev",
        "roles": ["api", "worker", "projector"], "started_at": "2026-01-02T03:00:00Z",
        "settings": [
            {"key": "api.listen", "value": "127.0.0.1:8080", "source": "default.toml"},
            {"key": "api.rate_limit", "value": 100, "source": "default.toml"},
            {"key": "read_model.url", "value": "postgres://***@db/dofs", "source": "DOFS__READ_MODEL__URL"}
        ]
    })
}

pub(crate) fn keys() -> Value {
    json!({
        "items": [{
            "key_id": "3f0d1a522d7e", "name": "ann", "tenant": null, "scopes": ["ops:read", "ops:write"],
            "created_at": "2026-01-01T00:00:00Z", "expires_at": null, "revoked_at": null
        }]
    })
}

fn health() -> Value {
    json!({"status": "ok", "checks": {"event_store": "ok", "read_model": "ok"}, "reasons": {}})
}

pub(crate) fn feed_event() -> Value {
    json!({
        "order_id": ORDER, "revision": 2, "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c11",
        "type": "OrderStored", "data": {"order_id": ORDER, "stored_at": "2026-01-02T03:04:05.1Z"},
        "metadata": {"actor": "customer", "schema_version": 1}, "recorded_at": "2026-01-02T03:04:05.1Z"
    })
}
