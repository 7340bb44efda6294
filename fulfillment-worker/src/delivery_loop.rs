//! The delivery loop of one group membership: takes deliveries while there is capacity, answers each,
//! and drains at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event_log::{Delivery, GroupMembership};
use service_kit::telemetry::traces;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::circuit_breaker::Admission;
use crate::config::GROUP;
use crate::delivery_handler::DeliveryHandler;
use crate::gateway::Gateway;
use crate::metrics::InFlightDelivery;
use crate::verdict::Verdict;

/// Maximum duration of the drain of deliveries in progress when the loop ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The same when the process stops: together with the limits below less than 5 seconds. A delivery
/// that is cut off is delivered again, and the gateway recognises it by its idempotency key.
const STOP_DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum duration of the question whether work waits at the store.
const STATS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait for further candidates after the first one.
const GATHER_TIME: Duration = Duration::from_millis(50);
/// How long the store may take to receive the last answers.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A group membership, from joining to leaving.
pub(crate) struct DeliveryLoop<G> {
    group: GroupMembership,
    handler: Arc<DeliveryHandler<G>>,
    admission: Arc<Admission>,
    /// One permit per delivery that may be in progress.
    permits: Arc<Semaphore>,
    in_progress: JoinSet<Verdict>,
    /// Delivery of each task.
    delivery_ids: HashMap<task::Id, Uuid>,
    /// Cancelled when the process stops.
    stop: CancellationToken,
    /// Cancelled when the loop ends: deliveries stop waiting for their retries, which another worker
    /// may take at once.
    ending: CancellationToken,
}

impl<G: Gateway> DeliveryLoop<G> {
    pub(crate) fn new(
        group: GroupMembership,
        handler: Arc<DeliveryHandler<G>>,
        admission: Arc<Admission>,
        concurrency: usize,
        stop: CancellationToken,
    ) -> Self {
        Self {
            group,
            handler,
            admission,
            permits: Arc::new(Semaphore::new(concurrency)),
            in_progress: JoinSet::new(),
            delivery_ids: HashMap::new(),
            stop,
            ending: CancellationToken::new(),
        }
    }

    /// Handles deliveries until `end`, then drains.
    pub(crate) async fn run_until(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                Some(ended) = self.in_progress.join_next_with_id() => self.answer_ended(ended),
                (delivery, permit) = next_delivery(&mut self.group, &self.permits) => {
                    self.begin_delivery(delivery, permit);
                }
            }
        }
        self.drain_and_leave().await;
    }

    /// Probes the gateway with one delivery at a time, until `end`. Chooses the candidate with the
    /// fewest retries: a delivery that has failed before may fail because of its order, and must not
    /// keep the circuit breaker open for all others.
    pub(crate) async fn probe_until(mut self, end: impl Future<Output = ()>, n_candidates: usize) {
        let mut end = std::pin::pin!(end);
        let mut candidates: Vec<Delivery> = Vec::new();
        while self.admission.is_current() {
            tokio::select! {
                () = &mut end => break,
                // Cancelling it loses no delivery: each is in `candidates` once it was received.
                () = self.gather_candidates(&mut candidates, n_candidates) => {}
            }
            let n_retries = |candidate: &(usize, &Delivery)| candidate.1.retry_count;
            let choice =
                candidates.iter().enumerate().min_by_key(n_retries).map_or(0, |(index, _)| index);
            // Not empty: `gather_candidates` waits for the first one.
            let delivery = candidates.swap_remove(choice);
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { break };
            self.begin_delivery(delivery, permit);
            if let Some(ended) = self.in_progress.join_next_with_id().await {
                self.answer_ended(ended);
            }
        }
        // Candidates that were not chosen go back to the store with the connection.
        self.drain_and_leave().await;
    }

    /// Waits for a delivery, and for further ones that arrive shortly after it.
    async fn gather_candidates(&mut self, candidates: &mut Vec<Delivery>, n_candidates: usize) {
        if candidates.is_empty() {
            candidates.push(self.group.next().await);
        }
        let deadline = Instant::now() + GATHER_TIME;
        while candidates.len() < n_candidates
            && let Ok(delivery) = timeout_at(deadline, self.group.next()).await
        {
            candidates.push(delivery);
        }
    }

    fn begin_delivery(&mut self, delivery: Delivery, permit: OwnedSemaphorePermit) {
        let span = begin_span(&delivery);
        let id = delivery.id;
        let (handler, admission) = (Arc::clone(&self.handler), Arc::clone(&self.admission));
        let ending = self.ending.clone();
        let work = async move {
            let _in_flight = InFlightDelivery::begin();
            let work = handler.handle(&delivery, permit, &admission);
            let verdict = work.instrument(span.clone()).await;
            mark_verdict(&span, &verdict);
            // Otherwise, the span would last until the retry.
            drop(span);
            if let Verdict::Retry { after, .. } = &verdict {
                // The wait is here because the store delivers a retry at once.
                tokio::select! {
                    () = ending.cancelled() => {}
                    () = sleep(*after) => {}
                }
            }
            verdict
        };
        let task = self.in_progress.spawn(work);
        self.delivery_ids.insert(task.id(), id);
    }

    /// Returns the delivery that has ended, and its verdict. A delivery that panicked has no verdict:
    /// the store delivers it again, and the recorded events count it.
    fn take_ended(
        &mut self,
        ended: Result<(task::Id, Verdict), JoinError>,
    ) -> (Option<Uuid>, Verdict) {
        let (task, verdict) = ended.unwrap_or_else(|panic| {
            let error = &panic as &dyn std::error::Error;
            tracing::error!(error, "Delivery panicked");
            (panic.id(), Verdict::Release)
        });
        (self.delivery_ids.remove(&task), verdict)
    }

    fn answer_ended(&mut self, ended: Result<(task::Id, Verdict), JoinError>) {
        let (id, verdict) = self.take_ended(ended);
        send_verdict(&self.group, id, verdict);
    }

    /// Handles the deliveries that have arrived, so that no other worker must find out whether they
    /// were begun. Answers are sent after the last delivery only: for each answer the store delivers
    /// another event, which would go back unhandled. If more work waits at the store no answer is
    /// sent: the next worker finds the recorded outcomes.
    async fn drain_and_leave(mut self) {
        self.ending.cancel();
        let mut answers = Vec::new();
        let timed_out = wait_for_drain_timeout(self.stop.clone());
        let work_waits = tokio::select! {
            work_waits = self.drain(&mut answers) => work_waits,
            () = timed_out => true,
        };
        let n_unfinished = self.in_progress.len();
        // Aborted deliveries are delivered again. The gateway recognises them by their keys.
        self.in_progress.shutdown().await;
        let n_handled = answers.len();
        // Deliveries that were not begun go back with the connection: do not wait for them.
        answers.retain(|(_, verdict)| *verdict != Verdict::Release);
        if !work_waits {
            for (id, verdict) in answers {
                send_verdict(&self.group, id, verdict);
            }
        }
        self.group.leave(LEAVE_TIMEOUT).await;
        tracing::debug!(n_handled, n_unfinished, work_waits, "Left the group");
    }

    /// Handles all deliveries that have arrived. Returns whether more work waits at the store.
    async fn drain(&mut self, answers: &mut Vec<(Option<Uuid>, Verdict)>) -> bool {
        loop {
            self.finish_in_progress(answers).await;
            let stats = timeout(STATS_TIMEOUT, self.group.read_stats()).await;
            // A delivery may have arrived while the statistics were read: handle it as well.
            match self.group.try_next() {
                Some(delivery) => {
                    // Cannot fail: the semaphore is never closed.
                    if let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
                        self.begin_delivery(delivery, permit);
                    }
                }
                None => {
                    return matches!(stats, Ok(Ok(stats)) if stats.waiting + stats.retrying > 0);
                }
            }
        }
    }

    /// Begins the deliveries that have arrived, and waits for all in progress.
    async fn finish_in_progress(&mut self, answers: &mut Vec<(Option<Uuid>, Verdict)>) {
        loop {
            while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                let Some(delivery) = self.group.try_next() else { break };
                self.begin_delivery(delivery, permit);
            }
            match self.in_progress.join_next_with_id().await {
                Some(ended) => answers.push(self.take_ended(ended)),
                None => return,
            }
        }
    }
}

/// Begins the span of a delivery, in the trace of the order.
fn begin_span(delivery: &Delivery) -> Span {
    let event = &delivery.event;
    let span = tracing::info_span!(
        "process order",
        otel.kind = "consumer",
        order.id = %event.order_id,
        event.id = %event.event_id,
        retry_count = delivery.retry_count,
    );
    let origin = event.trace();
    traces::link_spans(&span, origin);
    let trace = traces::continue_trace(&span, origin);
    traces::set_attributes(&span, trace, || {
        [
            ("messaging.system", "kurrentdb".into()),
            ("messaging.operation.name", "process".into()),
            ("messaging.operation.type", "process".into()),
            ("messaging.destination.name", event.order_id.stream_name().into()),
            ("messaging.destination.template", "order-{id}".into()),
            ("messaging.consumer.group.name", GROUP.into()),
            ("messaging.message.id", event.event_id.to_string().into()),
        ]
    });
    span
}

/// Marks the span of a delivery that has failed.
fn mark_verdict(span: &Span, verdict: &Verdict) {
    match verdict {
        Verdict::Retry { .. } => traces::mark_failed(span, "retry"),
        Verdict::Park { .. } => traces::mark_failed(span, "park"),
        Verdict::Ack | Verdict::Postpone { .. } | Verdict::Release => {}
    }
}

/// Waits until the drain has taken too long. The process may stop while the drain is running: the
/// shorter limit applies from then on.
async fn wait_for_drain_timeout(stop: CancellationToken) {
    let stopped = async {
        stop.cancelled().await;
        sleep(STOP_DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        () = sleep(DRAIN_TIMEOUT) => {}
        () = stopped => {}
    }
}

/// Returns the next delivery, once there is capacity for it. The permit comes first, so that a
/// cancelled wait loses no delivery.
async fn next_delivery(
    group: &mut GroupMembership,
    permits: &Arc<Semaphore>,
) -> (Delivery, OwnedSemaphorePermit) {
    match Arc::clone(permits).acquire_owned().await {
        Ok(permit) => (group.next().await, permit),
        // Cannot happen: the semaphore is never closed.
        Err(_) => std::future::pending().await,
    }
}

fn send_verdict(group: &GroupMembership, delivery_id: Option<Uuid>, verdict: Verdict) {
    // Cannot happen: `begin_delivery` notes the id of every task.
    let Some(id) = delivery_id else { return };
    match verdict {
        Verdict::Ack | Verdict::Postpone { .. } => group.ack(id),
        Verdict::Retry { reason, .. } => group.retry(id, reason),
        Verdict::Park { reason } => group.park(id, reason),
        Verdict::Release => group.release(id),
    }
}
