//! Invariants of every order's recorded history.
//!
//! `decide` writes only valid histories. These checks find histories that a defect, another tool or a
//! person has changed.

use super::codec::event_type;
use super::event::{OrderEvent, OrderFailed, OrderQueued, Stage};
use super::state::{Recorded, Status};
use crate::ids::OrderId;

/// An invariant of recorded histories. docs/AUDIT.md has the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Every accepted order is fulfilled, failed or in flight.
    AcceptedIsTracked,
    /// At most one fulfilment per order, and one end per attempt.
    FulfilledOnce,
    /// Only a redrive, or the discard of a dead letter, follows an end.
    EndIsFinal,
    /// The number of accepted orders is the sum of fulfilled, failed and in-flight orders.
    AllAreCounted,
    /// A stream is one order, placed once.
    PlacedOnce,
    /// Revisions have no gaps, causes exist, and events are about their stream's order.
    Causality,
}

impl Invariant {
    /// Returns the short name in reports and documents.
    pub fn code(self) -> &'static str {
        match self {
            Self::AcceptedIsTracked => "I1",
            Self::FulfilledOnce => "I2",
            Self::EndIsFinal => "I3",
            Self::AllAreCounted => "I5",
            Self::PlacedOnce => "I6",
            Self::Causality => "I7",
        }
    }
}

/// A recorded event that violates an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The event's number in its stream.
    pub revision: u64,
    pub invariant: Invariant,
    /// The event or value that the invariant requires.
    pub expected: String,
    /// The event or value that is recorded.
    pub found: String,
}

/// Check of one order's history, event by event. Small, because the audit of a whole store keeps one
/// for each order.
#[derive(Debug, Clone, Copy)]
pub struct HistoryCheck {
    order_id: OrderId,
    next_revision: u64,
    phase: Phase,
    attempt: u32,
}

/// Phase that the history has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Received,
    Validated,
    Stored,
    Queued,
    Fulfilled,
    Failed(Stage),
    Discarded,
}

/// The invariant that an event violates, and what it requires instead.
type Objection = (Invariant, String);

impl HistoryCheck {
    /// Begins before the first event of an order's stream.
    pub fn new(order_id: OrderId) -> Self {
        Self { order_id, next_revision: 0, phase: Phase::New, attempt: 0 }
    }

    /// Checks the next event, and returns its violations. Total: an event that violates an invariant is
    /// still applied, and the rest of the history is checked against the result.
    pub fn observe(&mut self, recorded: &Recorded) -> Vec<Violation> {
        let Recorded { revision, event, .. } = recorded;
        let mut violations = Vec::from_iter(self.observe_unreadable(*revision));
        if event.order_id() != self.order_id {
            violations.push(Violation {
                revision: *revision,
                invariant: Invariant::Causality,
                expected: format!("event of order {}", self.order_id),
                found: format!("event of order {}", event.order_id()),
            });
        }
        if let Err((invariant, expected)) = self.check_event(event) {
            let found = describe_event(event);
            violations.push(Violation { revision: *revision, invariant, expected, found });
        }
        self.advance_phase(event);
        violations
    }

    /// Checks the revision of an event that cannot be decoded.
    pub fn observe_unreadable(&mut self, revision: u64) -> Option<Violation> {
        // The next revision is counted from the one found: a gap is reported once, not with every
        // event after it.
        let expected = std::mem::replace(&mut self.next_revision, revision.saturating_add(1));
        (revision != expected).then(|| Violation {
            revision,
            invariant: Invariant::Causality,
            expected: format!("revision {expected}"),
            found: format!("revision {revision}"),
        })
    }

    /// Checks that the history may end here.
    pub fn finish(&self) -> Option<Violation> {
        let expected = match self.phase {
            Phase::New => "OrderReceived",
            Phase::Received | Phase::Validated | Phase::Stored => "OrderQueued or OrderFailed",
            Phase::Queued | Phase::Fulfilled | Phase::Failed(_) | Phase::Discarded => return None,
        };
        Some(Violation {
            // The last event's revision; 0 if there is none.
            revision: self.next_revision.saturating_sub(1),
            invariant: Invariant::AcceptedIsTracked,
            expected: expected.to_owned(),
            found: "the end of the stream".to_owned(),
        })
    }

    /// Returns the order of the stream.
    pub fn order_id(&self) -> OrderId {
        self.order_id
    }

    /// Returns the revision that the next event must have.
    pub fn next_revision(&self) -> u64 {
        self.next_revision
    }

    /// Returns the order's status; `None` if it was not queued and has not failed.
    pub fn status(&self) -> Option<Status> {
        match self.phase {
            Phase::New | Phase::Received | Phase::Validated | Phase::Stored => None,
            Phase::Queued => Some(Status::Processing),
            Phase::Fulfilled => Some(Status::Fulfilled),
            Phase::Failed(_) | Phase::Discarded => Some(Status::Failed),
        }
    }

    fn check_event(&self, event: &OrderEvent) -> Result<(), Objection> {
        use OrderEvent as E;
        match event {
            E::Received(_) if self.phase == Phase::New => Ok(()),
            E::Received(_) => {
                Err(objection(Invariant::PlacedOnce, "one OrderReceived, at revision 0"))
            }
            E::Validated(_) => self.check_follows(Phase::Received, "OrderReceived"),
            E::Stored(_) => self.check_follows(Phase::Validated, "OrderValidated"),
            E::Queued(queued) => self.check_queued(queued),
            E::Fulfilled(_) if self.phase == Phase::Fulfilled => {
                Err(objection(Invariant::FulfilledOnce, "one OrderFulfilled in the whole stream"))
            }
            E::Fulfilled(it) => self.check_in_progress(it.attempt),
            E::Failed(failed) => self.check_failed(failed),
            E::DeliveryFailed(it) => self.check_in_progress(it.attempt),
            E::DeliveryStarted(it) => self.check_in_progress(it.attempt),
            E::Discarded(it) if self.phase == Phase::Failed(Stage::DeadLetter) => {
                self.check_attempt(it.attempt)
            }
            E::Discarded(_) => Err(objection(
                Invariant::EndIsFinal,
                "DeadLetterDiscarded only behind an OrderFailed of stage dead_letter",
            )),
        }
    }

    fn check_queued(&self, queued: &OrderQueued) -> Result<(), Objection> {
        let attempt = match self.phase {
            Phase::Stored
            | Phase::Failed(Stage::Fulfillment | Stage::DeadLetter)
            | Phase::Discarded => self.attempt.saturating_add(1),
            // A requeue keeps the attempt.
            Phase::Queued => self.attempt,
            Phase::Fulfilled | Phase::Failed(Stage::Validation) => return Err(self.end_is_final()),
            Phase::New | Phase::Received | Phase::Validated => {
                return Err(objection(
                    Invariant::AcceptedIsTracked,
                    "OrderQueued only behind an OrderStored",
                ));
            }
        };
        if queued.attempt == attempt {
            Ok(())
        } else {
            Err((Invariant::FulfilledOnce, format!("attempt {attempt}")))
        }
    }

    fn check_failed(&self, failed: &OrderFailed) -> Result<(), Objection> {
        match (self.phase, failed.stage) {
            // The only failure of an order that was never queued: its attempt is 0.
            (Phase::Received, Stage::Validation) => self.check_attempt(failed.attempt),
            (Phase::Queued, Stage::Validation) => Err(objection(
                Invariant::AcceptedIsTracked,
                "OrderFailed of stage validation only behind an OrderReceived",
            )),
            _ => self.check_in_progress(failed.attempt),
        }
    }

    /// Checks an event that belongs to an attempt in progress.
    fn check_in_progress(&self, attempt: u32) -> Result<(), Objection> {
        match self.phase {
            Phase::Queued => self.check_attempt(attempt),
            Phase::Fulfilled | Phase::Failed(_) | Phase::Discarded => Err(self.end_is_final()),
            Phase::New | Phase::Received | Phase::Validated | Phase::Stored => {
                Err(objection(Invariant::AcceptedIsTracked, "OrderQueued before it"))
            }
        }
    }

    fn check_attempt(&self, attempt: u32) -> Result<(), Objection> {
        if attempt == self.attempt {
            Ok(())
        } else {
            Err((Invariant::FulfilledOnce, format!("attempt {}", self.attempt)))
        }
    }

    fn check_follows(&self, phase: Phase, name: &str) -> Result<(), Objection> {
        if self.phase == phase {
            return Ok(());
        }
        let invariant = if self.status().is_some() {
            Invariant::EndIsFinal
        } else {
            Invariant::AcceptedIsTracked
        };
        Err((invariant, format!("this event only behind {name}")))
    }

    /// Returns the objection to an event that may not follow the reached end.
    fn end_is_final(&self) -> Objection {
        let expected = match self.phase {
            Phase::Failed(Stage::DeadLetter) => "nothing but a redrive or a discard",
            Phase::Failed(Stage::Fulfillment) | Phase::Discarded => "nothing but a redrive",
            Phase::Failed(Stage::Validation)
            | Phase::Fulfilled
            | Phase::New
            | Phase::Received
            | Phase::Validated
            | Phase::Stored
            | Phase::Queued => "nothing",
        };
        let end = self.status().map_or("its end", Status::as_str);
        (Invariant::EndIsFinal, format!("{expected} once it is {end}"))
    }

    fn advance_phase(&mut self, event: &OrderEvent) {
        use OrderEvent as E;
        self.phase = match event {
            // These events begin a history: later ones change nothing.
            E::Received(_) | E::Validated(_) | E::Stored(_) if self.status().is_some() => return,
            E::Received(_) => Phase::Received,
            E::Validated(_) => Phase::Validated,
            E::Stored(_) => Phase::Stored,
            E::Queued(it) => {
                self.attempt = it.attempt;
                Phase::Queued
            }
            E::Fulfilled(_) => Phase::Fulfilled,
            E::Failed(it) => Phase::Failed(it.stage),
            // In other phases one wrong discard would make every later event of the attempt a violation.
            E::Discarded(_) if self.status() == Some(Status::Failed) => Phase::Discarded,
            E::DeliveryFailed(_) | E::DeliveryStarted(_) | E::Discarded(_) => return,
        };
    }
}

fn objection(invariant: Invariant, expected: &str) -> Objection {
    (invariant, expected.to_owned())
}

/// Describes an event for a report.
fn describe_event(event: &OrderEvent) -> String {
    use OrderEvent as E;
    let (attempt, stage) = match event {
        E::Received(_) | E::Validated(_) | E::Stored(_) => (None, None),
        E::Queued(it) => (Some(it.attempt), None),
        E::Fulfilled(it) => (Some(it.attempt), None),
        E::Failed(it) => (Some(it.attempt), Some(it.stage)),
        E::DeliveryFailed(it) => (Some(it.attempt), None),
        E::DeliveryStarted(it) => (Some(it.attempt), None),
        E::Discarded(it) => (Some(it.attempt), None),
    };
    let stage = stage.map_or_else(String::new, |stage| format!(" of stage {}", stage.as_str()));
    let attempt = attempt.map_or_else(String::new, |attempt| format!(", attempt {attempt}"));
    format!("{}{stage}{attempt}", event_type(event))
}
