//! The description of the command routes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use crate::dead_letters::{discard, redrives};
use crate::ops::worker;
use crate::orders::{place, redrive};

/// The body of a new order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `OrderRequest` reads")]
pub(crate) struct NewOrder {
    /// 3 to 256 characters without a null character; a shorter one breaks a business rule.
    #[schema(min_length = 3, max_length = 256, pattern = r"^[^\x00]+$")]
    customer_id: String,
    /// Quantities that sum up to more than 100 break a business rule.
    #[schema(min_items = 1, max_items = 1000)]
    items: Vec<NewItem>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `OrderRequest` reads")]
pub(crate) struct NewItem {
    #[schema(max_length = 256, pattern = r"^[^\x00]*$")]
    product_id: String,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    quantity: u64,
}

/// Who gives up on a dead letter, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `discard` reads")]
pub(crate) struct Discard {
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    actor: Option<String>,
    #[schema(max_length = 1000, pattern = r"^[!-~][^\x00-\x1F\x7F-\x9F]*$")]
    reason: String,
}

/// A redrive of many, and how far it is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `redrives` answers")]
pub(crate) struct RedriveOfMany {
    task_id: Uuid,
    kind: String,
    /// `running`, `completed`, `failed` or `cancelled`.
    state: String,
    #[schema(value_type = Object)]
    filter: Value,
    #[schema(required)]
    rate_per_second: Option<u32>,
    reason: String,
    actor: String,
    started_at: Timestamp,
    #[schema(required)]
    ended_at: Option<Timestamp>,
    total: u64,
    redriven: u64,
    skipped: u64,
    failed: u64,
    /// Why no order is redriven at present, e.g. because the read model is away.
    #[schema(required)]
    waiting_for: Option<String>,
    #[schema(required)]
    error: Option<String>,
}

/// The newest redrives of many.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `redrives` answers")]
pub(crate) struct RedriveList {
    items: Vec<RedriveOfMany>,
    /// Always null: the newest are all that is listed.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What a redrive of many would do, order by order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `dry_run` answers")]
pub(crate) struct DryRun {
    total: u64,
    redrive: u64,
    skip: u64,
    /// There are more than are listed.
    truncated: bool,
    items: Vec<WouldBe>,
}

/// What would happen to an order, and why.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `dry_run` answers")]
struct WouldBe {
    order_id: Uuid,
    #[schema(required)]
    stage: Option<String>,
    #[schema(required)]
    code: Option<String>,
    #[schema(required)]
    reason: Option<String>,
    #[schema(required)]
    attempt: Option<u32>,
    #[schema(required)]
    failed_at: Option<Timestamp>,
    /// `redrive` or `skip`.
    action: String,
    why: String,
}

/// Whether the workers take work, and how they stand. Members are null if what they come from does not
/// answer: `unavailable` says what, and why.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `worker` answers")]
pub(crate) struct Workers {
    #[schema(required)]
    paused: Option<bool>,
    #[schema(required)]
    since: Option<Timestamp>,
    #[schema(required)]
    actor: Option<String>,
    #[schema(required)]
    reason: Option<String>,
    /// Worst circuit-breaker state of all workers.
    #[schema(required)]
    breaker: Option<String>,
    #[schema(required)]
    watchdog_reconnects: Option<u64>,
    #[schema(required)]
    workers: Option<Vec<OneWorker>>,
    /// Ids of the workers that have not confirmed the pause that holds.
    #[schema(required)]
    unconfirmed: Option<Vec<String>>,
    queue: QueueOfWorkers,
    /// Orders in `PROCESSING`, as the tables have them.
    #[schema(required)]
    orders_processing: Option<u64>,
    /// For how long nothing has happened to the order in `PROCESSING` that waits longest; null if there
    /// is none.
    #[schema(required)]
    oldest_waiting_seconds: Option<f64>,
    /// What did not answer, `event_store` or `read_model`, and why.
    unavailable: BTreeMap<String, String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `worker` answers")]
struct OneWorker {
    /// The worker's id, as its log lines name it (`worker.id`).
    worker: String,
    /// Whether the event store has a connection of it that takes work.
    connected: bool,
    /// Whether it has let go of all work because of a pause.
    paused: bool,
    /// When it showed last that it lives.
    last_seen_at: Timestamp,
    breaker: String,
    #[schema(required)]
    since: Option<Timestamp>,
    #[schema(required)]
    error: Option<String>,
    watchdog_reconnects: u64,
    #[schema(required)]
    reported_at: Option<Timestamp>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `worker` answers")]
struct QueueOfWorkers {
    #[schema(required)]
    waiting: Option<u64>,
    #[schema(required)]
    in_flight: Option<u64>,
    #[schema(required)]
    parked: Option<u64>,
    #[schema(required)]
    retrying: Option<u64>,
}

#[derive(OpenApi)]
#[openapi(
    paths(
        place::place,
        redrive::redrive,
        discard::discard,
        redrives::begin,
        redrives::list,
        redrives::get,
        redrives::cancel,
        worker::status,
        worker::pause,
        worker::resume,
    ),
    components(schemas(NewOrder, NewItem, place::Accepted))
)]
pub(crate) struct Commands;
