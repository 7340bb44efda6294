//! Attempts of an order, collected from its events.

use api_types::{
    Attempt, AttemptDelivery, AttemptDiscarded, AttemptEnd, AttemptOutcome, AttemptQueued,
    DeliveryFailure, EventSource,
};
use domain::order::{OrderEvent, Recorded};
use event_log::LoggedEvent;

/// Attempts of an order, the oldest first.
#[derive(Default)]
pub(super) struct Attempts(Vec<Attempt>);

impl Attempts {
    /// Adds an event to its attempt.
    pub(super) fn add(&mut self, logged: &LoggedEvent, recorded: &Recorded) {
        let source = to_source(logged, recorded);
        match &recorded.event {
            OrderEvent::Received(_) | OrderEvent::Validated(_) | OrderEvent::Stored(_) => {}
            OrderEvent::Queued(event) => {
                let attempt = self.attempt(event.attempt);
                attempt.customer_id = Some(event.customer_id.clone());
                attempt.items = Some(event.items.iter().map(Into::into).collect());
                attempt.queued.push(AttemptQueued { reason: event.reason.clone(), source });
            }
            OrderEvent::DeliveryStarted(event) => {
                let attempt = self.attempt(event.attempt);
                delivery(attempt, event.delivery).started = Some(source);
            }
            OrderEvent::DeliveryFailed(event) => {
                let attempt = self.attempt(event.attempt);
                delivery(attempt, event.delivery).failed = Some(DeliveryFailure {
                    class: event.class.into(),
                    error: event.error.clone(),
                    retry_in_ms: event.retry_in_ms,
                    source,
                });
            }
            OrderEvent::Fulfilled(event) => {
                self.attempt(event.attempt).ended = Some(AttemptEnd {
                    outcome: AttemptOutcome::Fulfilled,
                    reference: Some(event.reference.clone()),
                    stage: None,
                    code: None,
                    reason: None,
                    deliveries: event.deliveries,
                    at: event.fulfilled_at,
                    source,
                });
            }
            OrderEvent::Failed(event) => {
                self.attempt(event.attempt).ended = Some(AttemptEnd {
                    outcome: AttemptOutcome::Failed,
                    reference: None,
                    stage: Some(event.stage.into()),
                    code: Some(event.code.clone()),
                    reason: Some(event.reason.clone()),
                    deliveries: event.deliveries,
                    at: event.failed_at,
                    source,
                });
            }
            OrderEvent::Discarded(event) => {
                let (reason, at) = (event.reason.clone(), event.discarded_at);
                self.attempt(event.attempt).discarded =
                    Some(AttemptDiscarded { reason, at, source });
            }
        }
    }

    pub(super) fn into_vec(self) -> Vec<Attempt> {
        self.0
    }

    /// Returns the attempt with this number, which is added if it is new.
    fn attempt(&mut self, number: u32) -> &mut Attempt {
        let index = self.0.partition_point(|attempt| attempt.attempt < number);
        if self.0.get(index).is_none_or(|attempt| attempt.attempt != number) {
            let attempt = Attempt {
                attempt: number,
                customer_id: None,
                items: None,
                queued: Vec::new(),
                deliveries: Vec::new(),
                ended: None,
                discarded: None,
            };
            self.0.insert(index, attempt);
        }
        // Found or inserted above.
        &mut self.0[index]
    }
}

/// Returns the delivery with this number, which is added if it is new.
fn delivery(attempt: &mut Attempt, number: u32) -> &mut AttemptDelivery {
    let index = attempt.deliveries.partition_point(|delivery| delivery.delivery < number);
    if attempt.deliveries.get(index).is_none_or(|delivery| delivery.delivery != number) {
        let delivery = AttemptDelivery { delivery: number, started: None, failed: None };
        attempt.deliveries.insert(index, delivery);
    }
    // Found or inserted above.
    &mut attempt.deliveries[index]
}

fn to_source(event: &LoggedEvent, recorded: &Recorded) -> EventSource {
    let metadata = event.metadata();
    EventSource {
        event_id: event.event_id,
        revision: recorded.revision,
        recorded_at: recorded.recorded_at,
        causation_id: metadata.as_ref().map(|metadata| metadata.causation_id),
        correlation_id: metadata.as_ref().map(|metadata| metadata.correlation_id),
        actor: metadata.map(|metadata| metadata.actor),
    }
}
