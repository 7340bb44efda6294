//! One delivery: from the queued order to a recorded outcome and a verdict.

use std::sync::Arc;
use std::time::Duration;

use domain::order::{
    FailureClass, Order, OrderCommand, RecordDeliveryStarted, Redrive, Stage, Status,
};
use event_log::{Delivery, EventLog, LogError};
use jiff::Timestamp;
use service_kit::clock::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::breaker::Admission;
use crate::config::FulfillmentConfig;
use crate::gateway::{Fulfillment, Gateway, GatewayError, Outcome, chance};
use crate::postponed;
use crate::queued::Queued;
use crate::verdict::{Circumstances, Verdict, verdict};

/// Who records outcomes, as the audit names it.
const ACTOR: &str = "fulfillment-worker";
/// Who redrives what a tool of the event store had delivered again. The store does not say who
/// used it.
const REPLAYER: &str = "replay-parked";

/// How much longer than its limit a gateway may take to say by itself that there was no answer in
/// time: it knows more of it.
const GRACE: Duration = Duration::from_millis(100);
/// How long the outcome of a call may take to be on record after the call has ended.
const SETTLE: Duration = Duration::from_secs(1);

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
        admission: &Admission,
    ) -> Verdict {
        let queued = match Queued::read(&delivery.event) {
            Ok(queued) => queued,
            Err(reason) => {
                warn!(reason, "Delivery cannot be read, parked");
                return Verdict::Park { reason };
            }
        };
        self.fulfill(delivery, queued, permit, admission).await.unwrap_or_else(|error| {
            let cause = &error as &dyn std::error::Error;
            // There is nothing to record it in, and nobody to tell.
            if matches!(error, LogError::Deleted) {
                warn!(error = cause, "Delivery of a deleted order dropped");
                return Verdict::Ack;
            }
            warn!(error = cause, "Outcome could not be recorded, asking for redelivery");
            let after = self.wait(delivery.event.event_id, delivery.retry_count.saturating_add(1));
            Verdict::Retry { after, reason: "outcome could not be recorded".to_owned() }
        })
    }

    async fn fulfill(
        &self,
        delivery: &Delivery,
        queued: Queued,
        permit: OwnedSemaphorePermit,
        admission: &Admission,
    ) -> Result<Verdict, LogError> {
        let mut permit = Some(permit);
        let beginning = if !delivery.is_first {
            self.begin_on_record(delivery, &queued, &mut permit, admission).await?
        } else if self.may_begin(delivery, admission) {
            let number = queued.queued.deliveries + 1;
            Beginning::Call { order: queued.order.clone(), delivery: number, _alone: None }
        } else {
            Beginning::Answered(Verdict::LetGo)
        };
        match beginning {
            Beginning::Call { order, delivery, _alone } => {
                let outcome = self.call_gateway(&queued, delivery).await;
                admission.note(&outcome);
                match outcome {
                    // One order found out that the gateway is still away: that is nothing it did.
                    Err(GatewayError { class: FailureClass::Transient, error, .. })
                        if admission.is_probe() =>
                    {
                        Ok(Verdict::Retry { after: Duration::ZERO, reason: error })
                    }
                    outcome => self.conclude(&queued, order, delivery, outcome).await,
                }
            }
            Beginning::Poison { order, delivery } => {
                let error = format!(
                    "delivery {delivery} was the last allowed and has no recorded end: handling \
                     it may have ended the worker"
                );
                let outcome = Err(GatewayError::new(FailureClass::Poison, error));
                self.conclude(&queued, order, delivery, outcome).await
            }
            Beginning::Answered(verdict) => Ok(verdict),
        }
    }

    /// Records what came of a delivery, and says what the store is to be answered.
    async fn conclude(
        &self,
        queued: &Queued,
        order: Order,
        delivery: u32,
        outcome: Result<Outcome, GatewayError>,
    ) -> Result<Verdict, LogError> {
        // Only a failure is waited after, and chance has its price.
        let wait = outcome
            .as_ref()
            .map_or_else(|_| self.wait(queued.event_id, delivery), |_| Duration::ZERO);
        let circumstances = Circumstances {
            attempt: queued.queued.attempt,
            delivery,
            max_retries: self.config.max_retries,
            wait,
            longest_wait: self.longest_wait(),
            at: self.clock.now(),
        };
        let error = outcome.as_ref().err().map(|it| it.error.clone());
        let (command, verdict) = verdict(outcome, circumstances);
        let cause = queued.cause(ACTOR, &command, delivery, circumstances.at);
        if self.log.change(order, Some(queued.head), &command, &cause).await?.is_err() {
            info!("The attempt was answered by somebody else");
            return Ok(Verdict::Ack);
        }
        tell(&command, error.as_deref());
        if let Verdict::Postpone { until } = verdict {
            self.postpone(queued, until).await?;
        }
        Ok(verdict)
    }

    /// Sets the timer of an order that waits outside the subscription. Its message may be acknowledged
    /// once this is durable, not before.
    async fn postpone(&self, queued: &Queued, until: Timestamp) -> Result<(), LogError> {
        let at = self.clock.now();
        postponed::set_timer(&self.log, queued, until, at).await
    }

    /// Whether the order was queued so lately that the beginning of its first delivery need not be on
    /// record: the store has not forgotten its count of deliveries meanwhile.
    fn is_young(&self, queued: &Queued) -> bool {
        let age = self.clock.now().duration_since(queued.order.updated_at);
        Duration::try_from(age).unwrap_or_default() < self.config.message_timeout()
    }

    /// Until when the order is to be left alone, if its last delivery was followed by a wait outside the
    /// subscription that is not over.
    fn waits_until(&self, order: &Order) -> Option<Timestamp> {
        let until = order.retry_at?;
        // The failed delivery is the last event.
        let wait = Duration::try_from(until.duration_since(order.updated_at)).ok()?;
        (wait > self.longest_wait() && until > self.clock.now()).then_some(until)
    }

    fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.config.backoff_max_ms)
    }

    /// Whether the gateway may still be called for it: the breaker has not moved since it was
    /// taken, and the store will not lose patience meanwhile.
    fn may_begin(&self, delivery: &Delivery, admission: &Admission) -> bool {
        let until_answer = delivery.received.elapsed() + self.config.timeout();
        admission.is_current() && until_answer < self.config.message_timeout()
    }

    /// A delivery that may not be the first: what is recorded decides, not the store's count, which
    /// a crash raises for every message in flight beside the culprit.
    async fn begin_on_record(
        &self,
        delivery: &Delivery,
        queued: &Queued,
        permit: &mut Option<OwnedSemaphorePermit>,
        admission: &Admission,
    ) -> Result<Beginning<'_>, LogError> {
        let mut alone = None;
        // A group that was made anew delivers what another worker is busy with: its call ends first.
        if let Some(lost) = delivery.lost_connection.filter(|_| delivery.retry_count == 0) {
            sleep_until(lost + self.config.timeout() + SETTLE).await;
        }
        loop {
            let loaded = self.log.load(queued.order_id).await?;
            let is_newest = loaded.newest_queued().is_some_and(|it| it.event_id == queued.event_id);
            let Some(order) = loaded.order else {
                let reason = "the order's stream is gone".to_owned();
                return Ok(Beginning::Answered(Verdict::Park { reason }));
            };
            if order.attempt != queued.queued.attempt || order.status != Status::Processing {
                return self.settle(delivery, queued, order).await.map(Beginning::Answered);
            }
            if !is_newest {
                // The attempt was queued again: that message is the one to be handled.
                return Ok(Beginning::Answered(Verdict::Ack));
            }
            if let Some(until) = self.waits_until(&order) {
                self.postpone(queued, until).await?;
                return Ok(Beginning::Answered(Verdict::Postpone { until }));
            }
            // A first delivery leaves no record of its beginning, unless it came late.
            let n_begun_before = queued.queued.deliveries;
            let n_begun =
                order.deliveries.max(n_begun_before + u32::from(delivery.retry_count > 0));
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
            if !self.may_begin(delivery, admission) {
                return Ok(Beginning::Answered(Verdict::LetGo));
            }
            let number = n_begun + 1;
            // What a probe finds out is not held against the order.
            if admission.is_probe() || (n_begun == n_begun_before && self.is_young(queued)) {
                return Ok(Beginning::Call { order, delivery: number, _alone: alone });
            }
            let started = RecordDeliveryStarted { attempt: order.attempt, delivery: number };
            let command = OrderCommand::RecordDeliveryStarted(started);
            let cause = queued.cause(ACTOR, &command, number, self.clock.now());
            if let Ok(order) = self.log.change(order, Some(queued.head), &command, &cause).await? {
                return Ok(Beginning::Call { order, delivery: number, _alone: alone });
            }
        }
    }

    /// A delivery whose attempt is over. One that was parked and that somebody asked the store to
    /// deliver again begins the next attempt, if nobody did that yet.
    async fn settle(
        &self,
        delivery: &Delivery,
        queued: &Queued,
        order: Order,
    ) -> Result<Verdict, LogError> {
        let is_dead_letter = order.attempt == queued.queued.attempt
            && order.stage == Some(Stage::DeadLetter)
            && !order.is_discarded;
        if !is_dead_letter {
            return Ok(Verdict::Ack);
        }
        if !delivery.is_replayed {
            // The record is there, the parked message may not be: it is the operator's handle.
            let reason = order.failure_reason.unwrap_or_default();
            return Ok(Verdict::Park { reason });
        }
        let reason = "the parked message was replayed".to_owned();
        let redrive = OrderCommand::Redrive(Redrive { reason, customer_id: None, items: None });
        let cause = queued.cause(REPLAYER, &redrive, 0, self.clock.now());
        if self.log.change(order, None, &redrive, &cause).await?.is_ok() {
            info!("Order redriven: its parked message was replayed");
        }
        Ok(Verdict::Ack)
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
        timeout(limit + GRACE, self.gateway.fulfill(&fulfillment)).await.unwrap_or_else(|_| {
            let error = format!("gateway did not answer within {} ms", limit.as_millis());
            Err(GatewayError::new(FailureClass::Transient, error))
        })
    }

    /// How long to wait before the retry that follows this delivery.
    fn wait(&self, event_id: Uuid, delivery: u32) -> Duration {
        let chance = chance(self.config.seed, &format!("{event_id}/backoff/{delivery}"));
        self.backoff.after(delivery, chance)
    }
}

/// One log line per fact, once it is durable. What the gateway says may repeat the order, and stands
/// in its history only.
fn tell(command: &OrderCommand, error: Option<&str>) {
    match command {
        OrderCommand::RecordFulfilled(it) => {
            info!(deliveries = it.deliveries, reference = it.reference, "Order fulfilled");
        }
        OrderCommand::RecordFailed(it) if it.stage == Stage::DeadLetter => {
            warn!(code = it.code, deliveries = it.deliveries, error, "Order dead-lettered");
        }
        OrderCommand::RecordFailed(it) => {
            info!(deliveries = it.deliveries, "Order failed: the gateway refused it");
        }
        OrderCommand::RecordDeliveryFailed(it) => {
            let retry_in_ms = it.retry_in_ms;
            warn!(delivery = it.delivery, error, retry_in_ms, "Delivery failed");
        }
        OrderCommand::Place(_)
        | OrderCommand::RecordDeliveryStarted(_)
        | OrderCommand::Redrive(_)
        | OrderCommand::Requeue(_)
        | OrderCommand::Discard(_) => {}
    }
}
