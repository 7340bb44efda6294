//! Answers about failed orders and redrives.

use serde_json::{Value, json};

use super::{ORDER, OTHER_ORDER, TASK, failed_order, with};

pub(crate) fn failure() -> Value {
    json!({
        "order_id": ORDER, "stage": "dead_letter", "code": "retries_exhausted", "reason": "HTTP 503",
        "attempt": 1, "deliveries": 4, "failed_at": "2026-01-02T03:04:09Z", "order": failed_order(),
        "resolved_at": null
    })
}

pub(super) fn other_failure() -> Value {
    let items: Vec<_> =
        (1..=25).map(|n| json!({"product_id": format!("prod-{n:03}"), "quantity": n})).collect();
    let order = with(failed_order(), &json!({"items": items, "customer_id": "cust-wholesale-002"}));
    let reason = "HTTP 503 Service Unavailable: the upstream connection was reset before the headers \
        were read, and the circuit breaker is open";
    with(
        failure(),
        &json!({"order_id": OTHER_ORDER, "attempt": 2, "deliveries": 1, "reason": reason, "order": order}),
    )
}

pub(super) fn dead_letter_summary() -> Value {
    json!({
        "total": 4,
        "groups": [{
            "stage": "dead_letter", "code": "retries_exhausted", "count": 3,
            "oldest_failed_at": "2026-01-02T02:54:09Z", "oldest_age_seconds": 600,
            "newest_failed_at": "2026-01-02T03:04:09Z", "failed_last_hour": 3, "failed_previous_hour": 1
        }, {
            "stage": "dead_letter", "code": "poison", "count": 1,
            "oldest_failed_at": "2026-01-01T02:54:09Z", "oldest_age_seconds": 87_000,
            "newest_failed_at": "2026-01-01T02:54:09Z", "failed_last_hour": 0, "failed_previous_hour": 0
        }]
    })
}

pub(crate) fn dead_letter() -> Value {
    let source = json!({
        "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c12", "revision": 3,
        "recorded_at": "2026-01-02T03:04:05.1Z", "actor": "customer",
        "causation_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44",
        "correlation_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44"
    });
    with(
        failure(),
        &json!({
            "status": "FAILED", "revision": 8, "is_discarded": false,
            "attempts": [{
                "attempt": 1, "customer_id": "cust-retail-001",
                "items": [{"product_id": "prod-widget-001", "quantity": 2}],
                "queued": [with(source.clone(), &json!({"reason": null}))],
                "deliveries": [
                    {"delivery": 1, "started": null, "failed": with(source.clone(),
                        &json!({"class": "transient", "error": "HTTP 503", "retry_in_ms": 200}))},
                    {"delivery": 2, "started": source.clone(), "failed": null},
                    {"delivery": 3, "started": source.clone(), "failed": null}
                ],
                "ended": with(source, &json!({"outcome": "failed", "stage": "dead_letter",
                    "code": "retries_exhausted", "reason": "HTTP 503", "deliveries": 4,
                    "at": "2026-01-02T03:04:09Z"})),
                "discarded": null
            }]
        }),
    )
}

pub(crate) fn task() -> Value {
    json!({
        "task_id": TASK, "kind": "redrive", "state": "running",
        "filter": {
            "stage": "dead_letter", "code": "retries_exhausted", "failed_before": "2026-01-02T03:04:20Z",
            "order_ids": null, "customer_id": null
        },
        "reason": "Gateway is back", "actor": "ann", "rate_per_second": 50, "total": 120,
        "redriven": 40, "skipped": 2, "failed": 1, "started_at": "2026-01-02T03:04:20Z",
        "ended_at": null, "error": null, "waiting_for": null
    })
}

/// One task of each state, the newest first. Their ids end with 1, 2, 3 and 4.
pub(super) fn tasks() -> Vec<Value> {
    let ended = |number: u32, changed: Value| {
        let id = json!({
            "task_id": format!("018f2d70-0000-7000-8000-00000000000{number}"),
            "started_at": "2026-01-02T02:04:20Z", "ended_at": "2026-01-02T02:05:20Z"
        });
        with(with(task(), &id), &changed)
    };
    vec![
        task(),
        ended(2, json!({"state": "succeeded", "redriven": 118, "failed": 0})),
        ended(
            3,
            json!({"state": "failed", "error": "the journal is not readable", "rate_per_second": null}),
        ),
        ended(
            4,
            json!({"state": "cancelled", "filter": {"order_ids": [ORDER]}, "total": 1,
            "redriven": 0, "skipped": 0, "failed": 0}),
        ),
    ]
}

pub(super) fn redrive_preview() -> Value {
    let item = |id: &str, action: &str, why: &str| {
        json!({
            "order_id": id, "stage": "dead_letter", "code": "retries_exhausted", "reason": "HTTP 503",
            "attempt": 1, "failed_at": "2026-01-02T03:04:09Z", "revision": 8, "action": action, "why": why
        })
    };
    let missing = json!({
        "order_id": "018f2d70-0000-7000-8000-0000000000ff", "stage": null, "code": null, "reason": null,
        "attempt": null, "failed_at": null, "revision": null, "action": "skip", "why": "there is no such order"
    });
    json!({
        "total": 3, "redrive": 1, "skip": 2, "truncated": false,
        "items": [
            item(ORDER, "redrive", "it has failed and was not redriven"),
            item(OTHER_ORDER, "skip", "it was discarded: redrive it by itself if that was wrong"),
            missing
        ]
    })
}
