//! One delivery: from the queued order to a recorded outcome and a verdict.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{CommandId, OrderId};
use domain::order::{
    FailureClass, Order, OrderCommand, OrderEvent, OrderQueued, RecordDeliveryStarted, Recorded,
    Stage, Status, decide, evolve,
};
use event_log::{Cause, Delivery, EventLog, Expected, LogError};
use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::error::Chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::config::FulfillmentConfig;
use crate::gateway::{Fulfillment, Gateway, GatewayError, Outcome, chance};
use crate::verdict::{Circumstances, Verdict, verdict};

/// How often an outcome is decided anew because somebody else appended to the stream.
const MAX_CONFLICTS: usize = 5;
/// Who records outcomes, as the audit names it.
const ACTOR: &str = "fulfillment-worker";

/// Handles deliveries.
pub(crate) struct Handler<G> {
    log: EventLog,
    gateway: G,
    config: FulfillmentConfig,
    backoff: Backoff,
    clock: Clock,
    /// Held while a delivery is handled whose predecessor has no recorded end: it may have ended
    /// its worker. One at a time, so that if it does so again, none but it is counted for that.
    suspects: Arc<Semaphore>,
}

/// An order that was queued, as it was delivered.
struct Queued {
    event_id: Uuid,
    order_id: OrderId,
    queued: OrderQueued,
    /// The order as of the event.
    order: Order,
    correlation_id: Uuid,
    traceparent: Option<String>,
}

/// How a delivery begins.
enum Beginning<'a> {
    /// The gateway is to be called.
    Call { order: Order, delivery: u32, _alone: Option<SemaphorePermit<'a>> },
    /// It was delivered too often without a recorded end.
    Poison { order: Order, delivery: u32 },
    /// Nothing is to be done but to answer.
    Answered(Verdict),
}

impl<G: Gateway> Handler<G> {
    pub(crate) fn new(log: EventLog, gateway: G, config: FulfillmentConfig, clock: Clock) -> Self {
        let backoff = Backoff::new(&config);
        Self { log, gateway, config, backoff, clock, suspects: Arc::new(Semaphore::new(1)) }
    }

    /// Handles a delivery, up to and including the durable record of what came of it. The permit
    /// is held while it is handled, but for suspects: they have a turn of their own, and while they
    /// wait for it others go on.
    pub(crate) async fn handle(
        &self,
        delivery: &Delivery,
        permit: OwnedSemaphorePermit,
    ) -> Verdict {
        let queued = match Queued::from_delivery(delivery) {
            Ok(queued) => queued,
            Err(reason) => {
                warn!(reason, "Delivery cannot be read, parked");
                return Verdict::Park { reason };
            }
        };
        self.fulfill(queued, delivery.retry_count, permit).await.unwrap_or_else(|error| {
            let cause = &error as &dyn std::error::Error;
            warn!(error = cause, "Outcome could not be recorded, asking for redelivery");
            let after = self.wait(delivery.event.event_id, delivery.retry_count.saturating_add(1));
            Verdict::Retry { after, reason: "outcome could not be recorded".to_owned() }
        })
    }

    async fn fulfill(
        &self,
        queued: Queued,
        retry_count: u32,
        permit: OwnedSemaphorePermit,
    ) -> Result<Verdict, LogError> {
        let mut permit = Some(permit);
        let beginning = if retry_count == 0 && self.is_fresh(&queued) {
            Beginning::Call { order: queued.order.clone(), delivery: 1, _alone: None }
        } else {
            self.begin_on_record(&queued, retry_count, &mut permit).await?
        };
        let (order, delivery, outcome) = match beginning {
            Beginning::Call { order, delivery, _alone } => {
                let outcome = self.call_gateway(&queued, delivery).await;
                (order, delivery, outcome)
            }
            Beginning::Poison { order, delivery } => {
                let error = format!(
                    "delivery {delivery} was the last allowed and has no recorded end: handling \
                     it may have ended the worker"
                );
                (order, delivery, Err(GatewayError { class: FailureClass::Poison, error }))
            }
            Beginning::Answered(verdict) => return Ok(verdict),
        };
        let circumstances = Circumstances {
            attempt: queued.queued.attempt,
            delivery,
            max_retries: self.config.max_retries,
            wait: self.wait(queued.event_id, delivery),
            at: self.clock.now(),
        };
        let (command, verdict) = verdict(outcome, circumstances);
        if self.record(order, &command, &queued, delivery).await?.is_none() {
            info!("The attempt was answered by somebody else");
            return Ok(Verdict::Ack);
        }
        tell(&command);
        Ok(verdict)
    }

    /// Whether the order was queued so lately that this can only be its first delivery. The store
    /// counts from 0 again for what it delivers after a restart, and for everything after a group
    /// was made anew; the gateway may have forgotten by then what it did.
    fn is_fresh(&self, queued: &Queued) -> bool {
        let age = self.clock.now().duration_since(queued.order.updated_at);
        Duration::try_from(age).unwrap_or_default() < self.config.message_timeout()
    }

    /// A delivery that may not be the first: what is recorded decides, not the store's count, which
    /// a crash raises for every message in flight beside the culprit.
    async fn begin_on_record(
        &self,
        queued: &Queued,
        retry_count: u32,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Beginning<'_>, LogError> {
        let mut alone = None;
        loop {
            let Some(order) = self.log.load(queued.order_id).await?.order else {
                let reason = "the order's stream is gone".to_owned();
                return Ok(Beginning::Answered(Verdict::Park { reason }));
            };
            if let Some(verdict) = answered(&order, queued.queued.attempt) {
                return Ok(Beginning::Answered(verdict));
            }
            if retry_count == 0 && order.deliveries == 0 {
                return Ok(Beginning::Call { order, delivery: 1, _alone: None });
            }
            // The first delivery leaves no record of its beginning.
            let n_begun = order.deliveries.max(1);
            if n_begun > self.config.max_retries {
                return Ok(Beginning::Poison { order, delivery: n_begun });
            }
            if order.failed_delivery < n_begun && alone.is_none() {
                // What another delivery may record meanwhile is read before anything is done. The
                // semaphore is never closed.
                drop(permit.take());
                alone = self.suspects.acquire().await.ok();
                continue;
            }
            let delivery = n_begun + 1;
            let started = RecordDeliveryStarted { attempt: queued.queued.attempt, delivery };
            let command = OrderCommand::RecordDeliveryStarted(started);
            if let Some(order) = self.record(order, &command, queued, delivery).await? {
                return Ok(Beginning::Call { order, delivery, _alone: alone });
            }
        }
    }

    async fn call_gateway(&self, queued: &Queued, delivery: u32) -> Result<Outcome, GatewayError> {
        let fulfillment = Fulfillment {
            order_id: queued.order_id,
            attempt: queued.queued.attempt,
            delivery,
            customer_id: queued.queued.customer_id.clone(),
            items: queued.queued.items.clone(),
            traceparent: queued.traceparent.clone(),
        };
        let limit = self.config.timeout();
        timeout(limit, self.gateway.fulfill(&fulfillment)).await.unwrap_or_else(|_| {
            let error = format!("gateway did not answer within {} ms", limit.as_millis());
            Err(GatewayError { class: FailureClass::Transient, error })
        })
    }

    /// Decides on the command, makes what follows durable, and returns the order as it then is.
    /// If somebody else appended first, the recorded state decides. `None`: the attempt was
    /// answered otherwise.
    async fn record(
        &self,
        mut order: Order,
        command: &OrderCommand,
        queued: &Queued,
        delivery: u32,
    ) -> Result<Option<Order>, LogError> {
        let cause = queued.cause(command, delivery, self.clock.now());
        let mut n_conflicts = 0;
        loop {
            let Ok(events) = decide(Some(&order), command.clone()) else { return Ok(None) };
            if events.is_empty() {
                return Ok(Some(order));
            }
            let expected = Expected::Revision(order.revision);
            match self.log.append(queued.order_id, expected, &events, &cause).await {
                Ok(_) => return Ok(Some(after(order, events, cause.at))),
                Err(LogError::Conflict { .. }) if n_conflicts < MAX_CONFLICTS => n_conflicts += 1,
                Err(error) => return Err(error),
            }
            match self.log.load(queued.order_id).await?.order {
                Some(current) => order = current,
                None => return Ok(None),
            }
        }
    }

    /// How long to wait before the retry that follows this delivery.
    fn wait(&self, event_id: Uuid, delivery: u32) -> Duration {
        let chance = chance(self.config.seed, &format!("{event_id}/backoff/{delivery}"));
        self.backoff.after(delivery, chance)
    }
}

impl Queued {
    /// Reads a delivery; the error is the reason to park it.
    fn from_delivery(delivery: &Delivery) -> Result<Self, String> {
        let event = &delivery.event;
        let recorded = event.decode().map_err(|error| Chain(&error).to_string())?;
        let order = evolve(None, &recorded);
        let OrderEvent::Queued(queued) = recorded.event else {
            return Err(format!("the event is an {}, not an OrderQueued", event.event_type));
        };
        let metadata = event.metadata();
        Ok(Self {
            event_id: event.event_id,
            order_id: event.order_id,
            queued,
            order,
            correlation_id: metadata.as_ref().map_or(event.event_id, |it| it.correlation_id),
            traceparent: metadata.and_then(|it| it.traceparent),
        })
    }

    fn cause(&self, command: &OrderCommand, delivery: u32, at: Timestamp) -> Cause {
        let happened = happened(command);
        Cause {
            command_id: CommandId::of_delivery(self.event_id, delivery, happened),
            correlation_id: self.correlation_id,
            causation_id: self.event_id,
            actor: ACTOR.to_owned(),
            request_id: None,
            traceparent: self.traceparent.clone(),
            request_fingerprint: None,
            at,
        }
    }
}

/// The order after events that were appended to its stream.
fn after(order: Order, events: Vec<OrderEvent>, recorded_at: Timestamp) -> Order {
    events.into_iter().fold(order, |order, event| {
        let revision = order.revision + 1;
        evolve(Some(order), &Recorded { revision, recorded_at, event })
    })
}

/// The verdict on a delivery whose attempt is over; `None` if it is not.
fn answered(order: &Order, attempt: u32) -> Option<Verdict> {
    if order.attempt != attempt {
        return Some(Verdict::Ack);
    }
    match (order.status, order.stage) {
        (Status::Processing, _) => None,
        // The record is there, the parked message may not be: it is the operator's handle.
        (Status::Failed, Some(Stage::DeadLetter)) => {
            let reason = order.failure_reason.clone().unwrap_or_default();
            Some(Verdict::Park { reason })
        }
        (Status::Failed, Some(Stage::Validation | Stage::Fulfillment) | None)
        | (Status::Fulfilled, _) => Some(Verdict::Ack),
    }
}

/// What the command says has happened, as part of its id.
fn happened(command: &OrderCommand) -> &'static str {
    match command {
        OrderCommand::Place(_) => "placed",
        OrderCommand::RecordFulfilled(_) => "fulfilled",
        OrderCommand::RecordFailed(_) => "failed",
        OrderCommand::RecordDeliveryFailed(_) => "delivery_failed",
        OrderCommand::RecordDeliveryStarted(_) => "delivery_started",
        OrderCommand::Redrive(_) => "redriven",
        OrderCommand::Requeue(_) => "requeued",
        OrderCommand::Discard(_) => "discarded",
    }
}

/// One log line per fact, once it is durable.
fn tell(command: &OrderCommand) {
    match command {
        OrderCommand::RecordFulfilled(it) => {
            info!(deliveries = it.deliveries, reference = it.reference, "Order fulfilled");
        }
        OrderCommand::RecordFailed(it) if it.stage == Stage::DeadLetter => {
            warn!(code = it.code, reason = it.reason, "Order dead-lettered");
        }
        OrderCommand::RecordFailed(it) => {
            info!(code = it.code, reason = it.reason, "Order failed");
        }
        OrderCommand::RecordDeliveryFailed(it) => {
            let retry_in_ms = it.retry_in_ms;
            warn!(delivery = it.delivery, error = it.error, retry_in_ms, "Delivery failed");
        }
        OrderCommand::RecordDeliveryStarted(it) => {
            info!(delivery = it.delivery, "Delivery begins");
        }
        OrderCommand::Place(_)
        | OrderCommand::Redrive(_)
        | OrderCommand::Requeue(_)
        | OrderCommand::Discard(_) => {}
    }
}
