//! The verdict on a delivery: which command records its outcome, and how the store is answered.
//!
//! Pure: time, limits and the random wait are arguments.

use std::time::Duration;

use domain::order::{
    FailureClass, OrderCommand, RecordDeliveryFailed, RecordFailed, RecordFulfilled, Stage,
};
use jiff::Timestamp;

use crate::gateway::{GatewayError, Outcome};

/// Code of a dead letter whose retries are exhausted.
const RETRIES_EXHAUSTED: &str = "retries_exhausted";

/// Answer to the store for one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The delivery is done, or its attempt had already ended.
    Ack,
    /// Ask the store for another delivery after a wait. The store itself delivers at once.
    Retry { after: Duration, reason: String },
    /// Acknowledge the delivery, and queue the order again at this time: the wait is longer than the
    /// store's message time-out.
    Postpone { until: Timestamp },
    /// Park the message for an operator, for this reason.
    Park { reason: String },
    /// No answer: the delivery was not begun, and goes back to the store.
    Release,
}

/// The delivery of an outcome, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliveryContext {
    pub(crate) attempt: u32,
    /// The number of the delivery within the attempt, from 1.
    pub(crate) delivery: u32,
    /// Maximum number of deliveries after the first, before the order is dead-lettered.
    pub(crate) max_retries: u32,
    /// Wait before a retry, unless the gateway asks for a longer one.
    pub(crate) wait: Duration,
    /// Longest wait within one delivery. Beyond it the order waits outside the subscription.
    pub(crate) longest_wait: Duration,
    pub(crate) at: Timestamp,
}

/// Returns the command to record first, and the verdict to answer once the record is durable.
pub(crate) fn decide_verdict(
    outcome: Result<Outcome, GatewayError>,
    context: DeliveryContext,
) -> (OrderCommand, Verdict) {
    let DeliveryContext { attempt, delivery, max_retries, wait, longest_wait, at } = context;
    match outcome {
        Ok(Outcome::Fulfilled { reference }) => {
            let fulfilled = RecordFulfilled { attempt, deliveries: delivery, reference, at };
            (OrderCommand::RecordFulfilled(fulfilled), Verdict::Ack)
        }
        Ok(Outcome::Refused { code, reason }) => {
            let stage = Stage::Fulfillment;
            let refused = RecordFailed { attempt, deliveries: delivery, stage, code, reason, at };
            (OrderCommand::RecordFailed(refused), Verdict::Ack)
        }
        Err(failure) => match failure.class {
            class @ FailureClass::Transient if delivery <= max_retries => {
                let wait = failure.retry_after.map_or(wait, |asked| asked.max(wait));
                let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let error = failure.full_text();
                let failed = RecordDeliveryFailed { attempt, delivery, class, error, retry_in_ms };
                let verdict = match at.checked_add(wait) {
                    Ok(until) if wait > longest_wait => Verdict::Postpone { until },
                    Ok(_) | Err(_) => Verdict::Retry { after: wait, reason: failure.full_text() },
                };
                (OrderCommand::RecordDeliveryFailed(failed), verdict)
            }
            FailureClass::Transient => {
                let last = failure.full_text();
                let reason =
                    format!("gave up after {delivery} deliveries, the last of which: {last}");
                to_dead_letter(context, RETRIES_EXHAUSTED, reason)
            }
            class @ (FailureClass::Permanent | FailureClass::Poison) => {
                to_dead_letter(context, class.as_str(), failure.full_text())
            }
        },
    }
}

/// Returns the record of a dead letter, and the verdict to park its message for an operator.
fn to_dead_letter(context: DeliveryContext, code: &str, reason: String) -> (OrderCommand, Verdict) {
    let verdict = Verdict::Park { reason: format!("{code}: {reason}") };
    let failed = RecordFailed {
        attempt: context.attempt,
        deliveries: context.delivery,
        stage: Stage::DeadLetter,
        code: code.to_owned(),
        reason,
        at: context.at,
    };
    (OrderCommand::RecordFailed(failed), verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(250);

    fn verdict_of(
        outcome: Result<Outcome, GatewayError>,
        delivery: u32,
    ) -> (OrderCommand, Verdict) {
        let context = DeliveryContext {
            attempt: 1,
            delivery,
            max_retries: 3,
            wait: WAIT,
            longest_wait: WAIT * 4,
            at: Timestamp::UNIX_EPOCH,
        };
        decide_verdict(outcome, context)
    }

    fn failed(class: FailureClass) -> Result<Outcome, GatewayError> {
        Err(GatewayError::new(class, "no answer".to_owned()))
    }

    fn stage_and_code(command: OrderCommand) -> Option<(Stage, String)> {
        if let OrderCommand::RecordFailed(it) = command { Some((it.stage, it.code)) } else { None }
    }

    #[test]
    fn outcome_of_the_gateway_is_final() {
        let fulfilled = Outcome::Fulfilled { reference: "r-1".to_owned() };
        let (command, verdict) = verdict_of(Ok(fulfilled), 2);
        assert!(matches!(command, OrderCommand::RecordFulfilled(it) if it.deliveries == 2));
        assert_eq!(verdict, Verdict::Ack);

        let refused = Outcome::Refused { code: "refused".to_owned(), reason: String::new() };
        let (command, verdict) = verdict_of(Ok(refused), 1);
        assert_eq!(stage_and_code(command), Some((Stage::Fulfillment, "refused".to_owned())));
        assert_eq!(verdict, Verdict::Ack);
    }

    #[test]
    fn transient_failure_is_retried_three_times_and_then_dead_lettered() {
        for delivery in 1..=3 {
            let (command, verdict) = verdict_of(failed(FailureClass::Transient), delivery);
            let recorded = matches!(
                command,
                OrderCommand::RecordDeliveryFailed(it)
                    if it.delivery == delivery && it.retry_in_ms == 250
            );
            assert!(recorded);
            assert_eq!(verdict, Verdict::Retry { after: WAIT, reason: "no answer".to_owned() });
        }
        let (command, verdict) = verdict_of(failed(FailureClass::Transient), 4);
        let expected = (Stage::DeadLetter, RETRIES_EXHAUSTED.to_owned());
        assert_eq!(stage_and_code(command), Some(expected));
        assert!(matches!(verdict, Verdict::Park { reason } if reason.contains("no answer")));
    }

    #[test]
    fn gateway_may_ask_for_a_longer_wait_or_a_postponement() {
        let asking = |asked| {
            let retry_after = Some(Duration::from_millis(asked));
            let error = GatewayError::new(FailureClass::Transient, "busy".to_owned());
            verdict_of(Err(GatewayError { retry_after, ..error }), 1)
        };
        for (asked, granted) in [(1, WAIT), (500, WAIT * 2), (1_000, WAIT * 4)] {
            let (_, verdict) = asking(asked);
            assert_eq!(verdict, Verdict::Retry { after: granted, reason: "busy".to_owned() });
        }
        let (command, verdict) = asking(60_000);
        let is_recorded = matches!(
            command,
            OrderCommand::RecordDeliveryFailed(it) if it.retry_in_ms == 60_000
        );
        assert!(is_recorded);
        let until = Timestamp::from_second(60).unwrap();
        assert_eq!(verdict, Verdict::Postpone { until });
    }

    #[test]
    fn permanent_and_poison_failures_are_dead_lettered_at_once() {
        for class in [FailureClass::Permanent, FailureClass::Poison] {
            let (command, verdict) = verdict_of(failed(class), 1);
            let expected = (Stage::DeadLetter, class.as_str().to_owned());
            assert_eq!(stage_and_code(command), Some(expected));
            assert!(matches!(verdict, Verdict::Park { .. }));
        }
    }
}
