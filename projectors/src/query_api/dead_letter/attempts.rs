//! An order's events by attempt and delivery: what was tried, who did it, and what came of it.

use domain::order::{FailureClass, Item, OrderEvent, Recorded, Stage};
use event_log::LoggedEvent;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// What was tried, the oldest attempt first.
#[derive(Default)]
pub(super) struct Attempts(Vec<Attempt>);

/// One attempt. The one of number 0 is that of an order that broke a rule and was never queued.
#[derive(Serialize, ToSchema)]
pub(super) struct Attempt {
    attempt: u32,
    /// What the order said in this attempt; null if it was never queued.
    #[schema(required)]
    customer_id: Option<String>,
    #[schema(required)]
    items: Option<Vec<Item>>,
    /// More than once if the message was lost.
    queued: Vec<Queued>,
    deliveries: Vec<Delivery>,
    /// Null while it goes on.
    #[schema(required)]
    ended: Option<Ended>,
    #[schema(required)]
    discarded: Option<Discarded>,
}

/// Where a fact is recorded, and where it came from. What metadata of another tool does not say is
/// null.
#[derive(Serialize, ToSchema)]
#[schema(as = AttemptSource)]
struct Source {
    event_id: Uuid,
    revision: u64,
    recorded_at: Timestamp,
    #[schema(required)]
    actor: Option<String>,
    #[schema(required)]
    causation_id: Option<Uuid>,
    #[schema(required)]
    correlation_id: Option<Uuid>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AttemptQueued)]
struct Queued {
    #[schema(required)]
    reason: Option<String>,
    #[serde(flatten)]
    source: Source,
}

/// One delivery of an attempt. The beginning of the first is not recorded, nor is a failure of the
/// last: that is the end of the attempt. One between others without a failure ended its worker.
#[derive(Serialize, ToSchema)]
#[schema(as = AttemptDelivery)]
struct Delivery {
    delivery: u32,
    #[schema(required)]
    started: Option<Source>,
    #[schema(required)]
    failed: Option<DeliveryFailed>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AttemptDeliveryFailed)]
struct DeliveryFailed {
    class: FailureClass,
    error: String,
    retry_in_ms: u64,
    #[serde(flatten)]
    source: Source,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AttemptEnded)]
struct Ended {
    #[serde(flatten)]
    outcome: Outcome,
    deliveries: u32,
    at: Timestamp,
    #[serde(flatten)]
    source: Source,
}

#[derive(Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[schema(as = AttemptOutcome)]
enum Outcome {
    Fulfilled { reference: String },
    Failed { stage: Stage, code: String, reason: String },
}

#[derive(Serialize, ToSchema)]
#[schema(as = AttemptDiscarded)]
struct Discarded {
    reason: String,
    at: Timestamp,
    #[serde(flatten)]
    source: Source,
}

impl Attempts {
    /// Adds an event where it belongs.
    pub(super) fn add(&mut self, event: &LoggedEvent, recorded: &Recorded) {
        let source = Source::of(event, recorded);
        match &recorded.event {
            OrderEvent::Received(_) | OrderEvent::Validated(_) | OrderEvent::Stored(_) => {}
            OrderEvent::Queued(it) => {
                let attempt = self.of(it.attempt);
                attempt.customer_id = Some(it.customer_id.clone());
                attempt.items = Some(it.items.clone());
                attempt.queued.push(Queued { reason: it.reason.clone(), source });
            }
            OrderEvent::DeliveryStarted(it) => {
                self.of(it.attempt).delivery(it.delivery).started = Some(source);
            }
            OrderEvent::DeliveryFailed(it) => {
                self.of(it.attempt).delivery(it.delivery).failed = Some(DeliveryFailed {
                    class: it.class,
                    error: it.error.clone(),
                    retry_in_ms: it.retry_in_ms,
                    source,
                });
            }
            OrderEvent::Fulfilled(it) => {
                let outcome = Outcome::Fulfilled { reference: it.reference.clone() };
                let (deliveries, at) = (it.deliveries, it.fulfilled_at);
                self.of(it.attempt).ended = Some(Ended { outcome, deliveries, at, source });
            }
            OrderEvent::Failed(it) => {
                let (code, reason) = (it.code.clone(), it.reason.clone());
                let outcome = Outcome::Failed { stage: it.stage, code, reason };
                let (deliveries, at) = (it.deliveries, it.failed_at);
                self.of(it.attempt).ended = Some(Ended { outcome, deliveries, at, source });
            }
            OrderEvent::Discarded(it) => {
                let (reason, at) = (it.reason.clone(), it.discarded_at);
                self.of(it.attempt).discarded = Some(Discarded { reason, at, source });
            }
        }
    }

    pub(super) fn into_vec(self) -> Vec<Attempt> {
        self.0
    }

    /// The attempt of this number, in its place.
    fn of(&mut self, number: u32) -> &mut Attempt {
        let index = self.0.partition_point(|it| it.attempt < number);
        if self.0.get(index).is_none_or(|it| it.attempt != number) {
            self.0.insert(index, Attempt::new(number));
        }
        &mut self.0[index]
    }
}

impl Attempt {
    fn new(attempt: u32) -> Self {
        Self {
            attempt,
            customer_id: None,
            items: None,
            queued: Vec::new(),
            deliveries: Vec::new(),
            ended: None,
            discarded: None,
        }
    }

    /// The delivery of this number, in its place.
    fn delivery(&mut self, number: u32) -> &mut Delivery {
        let index = self.deliveries.partition_point(|it| it.delivery < number);
        if self.deliveries.get(index).is_none_or(|it| it.delivery != number) {
            let delivery = Delivery { delivery: number, started: None, failed: None };
            self.deliveries.insert(index, delivery);
        }
        &mut self.deliveries[index]
    }
}

impl Source {
    fn of(event: &LoggedEvent, recorded: &Recorded) -> Self {
        let metadata = event.metadata();
        Self {
            event_id: event.event_id,
            revision: recorded.revision,
            recorded_at: recorded.recorded_at,
            causation_id: metadata.as_ref().map(|it| it.causation_id),
            correlation_id: metadata.as_ref().map(|it| it.correlation_id),
            actor: metadata.map(|it| it.actor),
        }
    }
}
