//! What a delivery's outcome means: what is recorded, and what the store is answered.
//!
//! Pure: everything that decides is an argument.

use std::time::Duration;

use domain::order::{
    FailureClass, OrderCommand, RecordDeliveryFailed, RecordFailed, RecordFulfilled, Stage,
};
use jiff::Timestamp;

use crate::gateway::{GatewayError, Outcome};

/// The code of a dead letter whose retries ran out.
const RETRIES_EXHAUSTED: &str = "retries_exhausted";

/// What the store is answered for one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done, or found done already.
    Ack,
    /// Could work later: ask for it again after a wait. The store would not wait by itself.
    Retry { after: Duration, reason: String },
    /// Could work later, but not before this time, which is longer than the store would wait for an
    /// answer: acknowledge it. The order is queued again then.
    Postpone { until: Timestamp },
    /// Set aside for a person; the reason says why.
    Park { reason: String },
    /// No answer: it was not begun, and goes back to the store.
    LetGo,
}

/// Which delivery the outcome is of, and what its limits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Circumstances {
    pub(crate) attempt: u32,
    /// The number of the delivery within the attempt, from 1.
    pub(crate) delivery: u32,
    /// Deliveries after the first, before the order is dead-lettered.
    pub(crate) max_retries: u32,
    /// How long to wait if it is retried, unless the gateway asks for longer.
    pub(crate) wait: Duration,
    /// The longest wait within one delivery. If the gateway asks for more, the order waits outside the
    /// subscription.
    pub(crate) longest_wait: Duration,
    pub(crate) at: Timestamp,
}

/// What to record first, and what to answer once it is durable.
pub(crate) fn verdict(
    outcome: Result<Outcome, GatewayError>,
    circumstances: Circumstances,
) -> (OrderCommand, Verdict) {
    let Circumstances { attempt, delivery, max_retries, wait, longest_wait, at } = circumstances;
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
                let error = failure.recorded();
                let failed = RecordDeliveryFailed { attempt, delivery, class, error, retry_in_ms };
                let verdict = match at.checked_add(wait) {
                    Ok(until) if wait > longest_wait => Verdict::Postpone { until },
                    Ok(_) | Err(_) => Verdict::Retry { after: wait, reason: failure.recorded() },
                };
                (OrderCommand::RecordDeliveryFailed(failed), verdict)
            }
            FailureClass::Transient => {
                let last = failure.recorded();
                let reason =
                    format!("gave up after {delivery} deliveries, the last of which: {last}");
                dead_letter(circumstances, RETRIES_EXHAUSTED, reason)
            }
            class @ (FailureClass::Permanent | FailureClass::Poison) => {
                dead_letter(circumstances, class.as_str(), failure.recorded())
            }
        },
    }
}

/// Our record of a dead letter comes first; the parked message is the operator's handle on it.
fn dead_letter(
    circumstances: Circumstances,
    code: &str,
    reason: String,
) -> (OrderCommand, Verdict) {
    let verdict = Verdict::Park { reason: format!("{code}: {reason}") };
    let failed = RecordFailed {
        attempt: circumstances.attempt,
        deliveries: circumstances.delivery,
        stage: Stage::DeadLetter,
        code: code.to_owned(),
        reason,
        at: circumstances.at,
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
        let circumstances = Circumstances {
            attempt: 1,
            delivery,
            max_retries: 3,
            wait: WAIT,
            longest_wait: WAIT * 4,
            at: Timestamp::UNIX_EPOCH,
        };
        verdict(outcome, circumstances)
    }

    fn failed(class: FailureClass) -> Result<Outcome, GatewayError> {
        Err(GatewayError::new(class, "no answer".to_owned()))
    }

    fn stage_and_code(command: OrderCommand) -> Option<(Stage, String)> {
        if let OrderCommand::RecordFailed(it) = command { Some((it.stage, it.code)) } else { None }
    }

    #[test]
    fn answer_of_the_gateway_is_final() {
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
    fn gateway_may_ask_for_a_longer_wait_and_for_one_that_outlasts_the_delivery() {
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
    fn what_cannot_work_later_is_dead_lettered_at_once() {
        for class in [FailureClass::Permanent, FailureClass::Poison] {
            let (command, verdict) = verdict_of(failed(class), 1);
            let expected = (Stage::DeadLetter, class.as_str().to_owned());
            assert_eq!(stage_and_code(command), Some(expected));
            assert!(matches!(verdict, Verdict::Park { .. }));
        }
    }
}
