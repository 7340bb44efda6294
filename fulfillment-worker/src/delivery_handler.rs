//! Handling of one delivery: from the queued order to a recorded outcome and a verdict.

use std::sync::Arc;
use std::time::Duration;

use domain::order::{
    FailureClass, Order, OrderCommand, RecordDeliveryStarted, Redrive, Stage, Status,
};
use event_log::{Delivery, EventLog, LogError};
use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::error::Chain;
use service_kit::telemetry::traces;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument, Span, info, info_span, warn};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::circuit_breaker::Admission;
use crate::config::FulfillmentConfig;
use crate::gateway::{Fulfillment, Gateway, GatewayError, Outcome, random_fraction};
use crate::gateway_calls::CallRecorder;
use crate::metrics::{
    ParkReason, RetryReason, count_parked, count_poison, count_retry, record_call, record_end,
    record_handling,
};
use crate::postponed_orders::set_timer;
use crate::queued_order::QueuedOrder;
use crate::verdict::{DeliveryContext, Verdict, decide_verdict};

/// Actor of recorded outcomes.
const ACTOR: &str = "fulfillment-worker";
/// Actor of a redrive by a replay of parked messages. The store does not report who asked for it.
const REPLAYER: &str = "replay-parked";

/// Extra time for the gateway to report its own time-out: its error has more detail.
const GRACE: Duration = Duration::from_millis(100);
/// Maximum time between the end of a call and the durable record of its outcome.
const SETTLE: Duration = Duration::from_secs(1);

/// Handles deliveries.
pub(crate) struct DeliveryHandler<G> {
    log: EventLog,
    gateway: G,
    config: FulfillmentConfig,
    backoff: Backoff,
    clock: Clock,
    calls: Arc<CallRecorder>,
    /// Held while a suspect is handled: a delivery whose predecessor has no recorded end and may have
    /// crashed its worker. One at a time, so that another crash counts for the culprit only.
    suspects: Arc<Semaphore>,
}

/// How a delivery begins.
enum Beginning<'a> {
    /// Call the gateway.
    Call { order: Order, delivery: u32, _suspect: Option<SemaphorePermit<'a>> },
    /// The order was delivered too often without a recorded end.
    Poison { order: Order, delivery: u32 },
    /// Only answer.
    Answered(Verdict),
}

impl<G: Gateway> DeliveryHandler<G> {
    pub(crate) fn new(log: EventLog, gateway: G, config: FulfillmentConfig, clock: Clock) -> Self {
        let backoff = Backoff::new(&config);
        let (calls, suspects) = (Arc::default(), Arc::new(Semaphore::new(1)));
        Self { log, gateway, config, backoff, clock, calls, suspects }
    }

    /// Returns the durations of the gateway's calls.
    pub(crate) fn calls(&self) -> Arc<CallRecorder> {
        Arc::clone(&self.calls)
    }

    /// Handles a delivery, including the durable record of its outcome. Holds the permit meanwhile,
    /// except for suspects: while they wait for their turn, other deliveries use the permit.
    pub(crate) async fn handle(
        &self,
        delivery: &Delivery,
        permit: OwnedSemaphorePermit,
        admission: &Admission,
    ) -> Verdict {
        let began = Instant::now();
        let queued = match QueuedOrder::from_event(&delivery.event) {
            Ok(queued) => queued,
            Err(reason) => {
                count_parked(ParkReason::Undecodable);
                warn!(reason, "Delivery parked: the event cannot be decoded");
                return Verdict::Park { reason };
            }
        };
        let handled = self.fulfill(delivery, queued, permit, admission).await;
        record_handling(began.elapsed());
        handled.unwrap_or_else(|error| {
            let cause = &error as &dyn std::error::Error;
            // A deleted stream accepts no record, so another delivery would fail the same way.
            if matches!(error, LogError::Deleted) {
                warn!(error = cause, "Delivery of a deleted order dropped");
                return Verdict::Ack;
            }
            // A later release wrote an event of the order. Until the last retry, a worker of that release
            // may get the delivery.
            if matches!(error, LogError::Undecodable { .. })
                && delivery.retry_count >= self.config.max_retries
            {
                count_parked(ParkReason::Undecodable);
                warn!(error = cause, "Delivery parked: an event of the order cannot be decoded");
                return Verdict::Park { reason: Chain(&error).to_string() };
            }
            count_retry(RetryReason::NotRecorded);
            // The gateway may have been called: the redelivery repeats its idempotency key.
            warn!(error = cause, "Outcome could not be recorded: requesting redelivery");
            let number = delivery.retry_count.saturating_add(1);
            let after = self.retry_delay(delivery.event.event_id, number);
            Verdict::Retry { after, reason: "outcome could not be recorded".to_owned() }
        })
    }

    async fn fulfill(
        &self,
        delivery: &Delivery,
        queued: QueuedOrder,
        permit: OwnedSemaphorePermit,
        admission: &Admission,
    ) -> Result<Verdict, LogError> {
        let mut permit = Some(permit);
        let beginning = if !delivery.is_first {
            self.begin_redelivery(delivery, &queued, &mut permit, admission).await?
        // A first delivery reads nothing from the store: its event has the whole order.
        } else if self.may_begin(delivery, admission) {
            let number = queued.queued.deliveries + 1;
            Beginning::Call { order: queued.order.clone(), delivery: number, _suspect: None }
        } else {
            Beginning::Answered(Verdict::Release)
        };
        match beginning {
            // `_suspect` is held until the outcome is recorded.
            Beginning::Call { order, delivery, _suspect } => {
                let outcome = self.call_gateway(&queued, delivery).await;
                // Before the record, which may have to wait for the event store: the other
                // deliveries must learn at once that the gateway does not answer.
                admission.note_outcome(&outcome);
                match outcome {
                    // A failed probe does not count against the order.
                    Err(GatewayError { class: FailureClass::Transient, error, .. })
                        if admission.is_probe() =>
                    {
                        count_retry(RetryReason::ProbeFailed);
                        Ok(Verdict::Retry { after: Duration::ZERO, reason: error })
                    }
                    outcome => self.record_outcome(&queued, order, delivery, outcome).await,
                }
            }
            Beginning::Poison { order, delivery } => {
                count_poison();
                let error = format!(
                    "delivery {delivery} was the last allowed and has no recorded end: handling \
                     it may have crashed the worker"
                );
                let outcome = Err(GatewayError::new(FailureClass::Poison, error));
                self.record_outcome(&queued, order, delivery, outcome).await
            }
            Beginning::Answered(verdict) => Ok(verdict),
        }
    }

    /// Records the outcome of a delivery, and returns the verdict for the store.
    async fn record_outcome(
        &self,
        queued: &QueuedOrder,
        order: Order,
        delivery: u32,
        outcome: Result<Outcome, GatewayError>,
    ) -> Result<Verdict, LogError> {
        // Computed for failures only: the random delay costs a hash.
        let wait = outcome
            .as_ref()
            .map_or_else(|_| self.retry_delay(queued.event_id, delivery), |_| Duration::ZERO);
        let context = DeliveryContext {
            attempt: queued.queued.attempt,
            delivery,
            max_retries: self.config.max_retries,
            wait,
            longest_wait: self.longest_wait(),
            at: self.clock.now(),
        };
        let error = outcome.as_ref().err().map(|failure| failure.error.clone());
        let (command, verdict) = decide_verdict(outcome, context);
        // A first delivery knows its `OrderQueued` only, which was recorded with the acceptance.
        let accepted_at = order.received_at.or(order.queued_at);
        let cause = queued.cause(ACTOR, &command, delivery, context.at);
        if self.log.execute_command(order, Some(queued.head), &command, &cause).await?.is_err() {
            info!("Attempt already ended: outcome not recorded");
            return Ok(Verdict::Ack);
        }
        log_outcome(&command, error.as_deref());
        record_end(&command, accepted_at);
        match verdict {
            Verdict::Postpone { until } => {
                count_retry(RetryReason::Postponed);
                // Durable before the message is acknowledged: otherwise a crash would lose the order.
                set_timer(&self.log, queued, until, self.clock.now()).await?;
            }
            Verdict::Retry { .. } => count_retry(RetryReason::TransientError),
            Verdict::Ack | Verdict::Park { .. } | Verdict::Release => {}
        }
        Ok(verdict)
    }

    /// Returns whether the order was queued so recently that the start of its first delivery need not
    /// be recorded: the store has not lost its count of deliveries within that time.
    fn is_young(&self, queued: &QueuedOrder) -> bool {
        let age = self.clock.now().duration_since(queued.order.updated_at);
        Duration::try_from(age).unwrap_or_default() < self.config.message_timeout()
    }

    /// Returns until when the order waits outside the subscription; `None` if it does not wait.
    fn postponed_until(&self, order: &Order) -> Option<Timestamp> {
        let until = order.retry_at?;
        // The failed delivery is the last event, so `updated_at` is when the wait began.
        let wait = Duration::try_from(until.duration_since(order.updated_at)).ok()?;
        (wait > self.longest_wait() && until > self.clock.now()).then_some(until)
    }

    fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.config.backoff_max_ms)
    }

    /// Returns whether the gateway may still be called for the delivery: the circuit breaker has not
    /// changed since, and the call ends before the store's message time-out.
    fn may_begin(&self, delivery: &Delivery, admission: &Admission) -> bool {
        let until_answer = delivery.received.elapsed() + self.config.timeout();
        admission.is_current() && until_answer < self.config.message_timeout()
    }

    /// Begins a delivery that may not be the first. The recorded events decide, not the store's
    /// retry count: a crash raises the count of every message in flight, not only of the culprit.
    async fn begin_redelivery(
        &self,
        delivery: &Delivery,
        queued: &QueuedOrder,
        permit: &mut Option<OwnedSemaphorePermit>,
        admission: &Admission,
    ) -> Result<Beginning<'_>, LogError> {
        let mut suspect = None;
        // A group that was created again delivers events that another worker is still handling: wait
        // until that call must have ended and its outcome is recorded.
        if let Some(lost) = delivery.lost_connection.filter(|_| delivery.retry_count == 0) {
            sleep_until(lost + self.config.timeout() + SETTLE).await;
        }
        loop {
            let loaded = self.log.load(queued.order_id).await?;
            let newest = loaded.newest_queued();
            let is_newest = newest.is_some_and(|event| event.event_id == queued.event_id);
            let Some(order) = loaded.order else {
                count_parked(ParkReason::MissingStream);
                let reason = "the order's stream is gone".to_owned();
                return Ok(Beginning::Answered(Verdict::Park { reason }));
            };
            if order.attempt != queued.queued.attempt || order.status != Status::Processing {
                return self.answer_ended(delivery, queued, order).await.map(Beginning::Answered);
            }
            if !is_newest {
                // The attempt was queued again: the newer message is handled instead.
                return Ok(Beginning::Answered(Verdict::Ack));
            }
            if let Some(until) = self.postponed_until(&order) {
                // The worker may have crashed before the timer was durable.
                set_timer(&self.log, queued, until, self.clock.now()).await?;
                return Ok(Beginning::Answered(Verdict::Postpone { until }));
            }
            // The start of a first delivery is not recorded, unless the delivery came late.
            let n_begun_before = queued.queued.deliveries;
            let n_begun =
                order.deliveries.max(n_begun_before + u32::from(delivery.retry_count > 0));
            if n_begun > self.config.max_retries {
                return Ok(Beginning::Poison { order, delivery: n_begun });
            }
            if order.failed_delivery < n_begun && suspect.is_none() {
                // The order is loaded again after the wait: another delivery may have recorded an
                // outcome meanwhile. `acquire` cannot fail: the semaphore is never closed.
                drop(permit.take());
                suspect = self.suspects.acquire().await.ok();
                continue;
            }
            if !self.may_begin(delivery, admission) {
                return Ok(Beginning::Answered(Verdict::Release));
            }
            let number = n_begun + 1;
            // A probe's start is not recorded: a failed probe does not count against the order.
            if admission.is_probe() || (n_begun == n_begun_before && self.is_young(queued)) {
                return Ok(Beginning::Call { order, delivery: number, _suspect: suspect });
            }
            let started = RecordDeliveryStarted { attempt: order.attempt, delivery: number };
            let command = OrderCommand::RecordDeliveryStarted(started);
            let cause = queued.cause(ACTOR, &command, number, self.clock.now());
            let started =
                self.log.execute_command(order, Some(queued.head), &command, &cause).await?;
            // A refusal means that the attempt has ended meanwhile: the next turn answers for that.
            if let Ok(order) = started {
                return Ok(Beginning::Call { order, delivery: number, _suspect: suspect });
            }
        }
    }

    /// Answers a delivery whose attempt has ended. A replayed dead letter begins the next attempt,
    /// unless that has begun already.
    async fn answer_ended(
        &self,
        delivery: &Delivery,
        queued: &QueuedOrder,
        order: Order,
    ) -> Result<Verdict, LogError> {
        let is_dead_letter = order.attempt == queued.queued.attempt
            && order.stage == Some(Stage::DeadLetter)
            && !order.is_discarded;
        if !is_dead_letter {
            return Ok(Verdict::Ack);
        }
        if !delivery.is_replayed {
            // The worker may have crashed after the record and before the message was parked.
            let reason = order.failure_reason.unwrap_or_default();
            return Ok(Verdict::Park { reason });
        }
        let reason = "the parked message was replayed".to_owned();
        let redrive = OrderCommand::Redrive(Redrive { reason, customer_id: None, items: None });
        let cause = queued.cause(REPLAYER, &redrive, 0, self.clock.now());
        // A refused redrive changes nothing, and the message is not needed either way.
        if self.log.execute_command(order, None, &redrive, &cause).await?.is_ok() {
            info!("Order redriven: its parked message was replayed");
        }
        Ok(Verdict::Ack)
    }

    async fn call_gateway(
        &self,
        queued: &QueuedOrder,
        delivery: u32,
    ) -> Result<Outcome, GatewayError> {
        // Only traces need the span: log lines have that of the delivery.
        let span = if traces::is_exporting() {
            info_span!("call gateway", otel.kind = "client", order.id = %queued.order_id)
        } else {
            Span::none()
        };
        let trace = traces::continue_trace(&span, queued.trace());
        let fulfillment = Fulfillment {
            order_id: queued.order_id,
            attempt: queued.queued.attempt,
            delivery,
            customer_id: queued.queued.customer_id.clone(),
            items: queued.queued.items.clone(),
            traceparent: trace.map(|trace| trace.to_string()),
        };
        let limit = self.config.timeout();
        // The time-out drops the call. The gateway may still fulfil the order: the next delivery
        // repeats the idempotency key and gets the same answer.
        let began = Instant::now();
        let call = timeout(limit + GRACE, self.gateway.fulfill(&fulfillment));
        let answer = call.instrument(span.clone()).await.unwrap_or_else(|_| {
            let error = format!("gateway did not answer within {} ms", limit.as_millis());
            Err(GatewayError::new(FailureClass::Transient, error))
        });
        let duration = began.elapsed();
        record_call(&answer, duration);
        self.calls.record(duration);
        if let Err(error) = &answer {
            traces::mark_failed(&span, error.class.as_str());
        }
        answer
    }

    /// Returns the delay of the retry that follows this delivery.
    fn retry_delay(&self, event_id: Uuid, delivery: u32) -> Duration {
        // Not random: runs with the same seed have the same delays.
        let name = format!("{event_id}/backoff/{delivery}");
        self.backoff.delay_after(delivery, random_fraction(self.config.seed, &name))
    }
}

/// Logs a recorded outcome. The gateway's own text is not logged, because it may repeat the order's
/// content.
fn log_outcome(command: &OrderCommand, error: Option<&str>) {
    match command {
        OrderCommand::RecordFulfilled(it) => {
            info!(deliveries = it.deliveries, reference = it.reference, "Order fulfilled");
        }
        OrderCommand::RecordFailed(it) if it.stage == Stage::DeadLetter => {
            warn!(code = it.code, deliveries = it.deliveries, error, "Order dead-lettered");
        }
        OrderCommand::RecordFailed(it) => {
            info!(deliveries = it.deliveries, "Order failed: refused by the gateway");
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
