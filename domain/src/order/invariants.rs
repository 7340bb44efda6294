//! What must hold of every order's recorded history, checked against what is recorded.
//!
//! `decide` makes histories that obey; these checks find those that something else made, be it a
//! defect, another tool or another hand.

use super::codec::event_type;
use super::event::{OrderEvent, OrderFailed, OrderQueued, Stage};
use super::state::{Recorded, Status};
use crate::ids::OrderId;

/// A rule over recorded histories. docs/AUDIT.md has the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Every accepted order is fulfilled, failed or in flight, never nowhere.
    AcceptedIsTracked,
    /// At most one fulfilment per order, and one end per attempt.
    FulfilledOnce,
    /// Nothing follows an end but a redrive, or the discard of a dead letter.
    EndIsFinal,
    /// Accepted orders are the fulfilled, the failed and those in flight, together.
    AllAreCounted,
    /// A stream is one order, placed once.
    PlacedOnce,
    /// Revisions have no gaps, causes exist, and events are about their stream's order.
    Causality,
}

impl Invariant {
    /// The short name in reports and documents.
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

/// A recorded event that should not be there, or should be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The event's number in its stream.
    pub revision: u64,
    pub invariant: Invariant,
    /// What should have been there.
    pub expected: String,
    /// What is.
    pub found: String,
}

/// One order's history, checked event by event. Small: a whole store is checked with one of these
/// for each order.
#[derive(Debug, Clone, Copy)]
pub struct HistoryCheck {
    order_id: OrderId,
    next_revision: u64,
    phase: Phase,
    attempt: u32,
}

/// How far the history has come.
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

/// What is wrong with an event: the rule, and what it would have allowed.
type Objection = (Invariant, String);

impl HistoryCheck {
    /// Before the first event of an order's stream.
    pub fn new(order_id: OrderId) -> Self {
        Self { order_id, next_revision: 0, phase: Phase::New, attempt: 0 }
    }

    /// Takes the next event, and says what it breaks. Total: what was recorded is taken for what it
    /// says, and the rest of the history is held against that.
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
        if let Err((invariant, expected)) = self.allows(event) {
            let found = described(event);
            violations.push(Violation { revision: *revision, invariant, expected, found });
        }
        self.advance(event);
        violations
    }

    /// Takes an event of which nothing is known but its place.
    pub fn observe_unreadable(&mut self, revision: u64) -> Option<Violation> {
        let expected = std::mem::replace(&mut self.next_revision, revision.saturating_add(1));
        (revision != expected).then(|| Violation {
            revision,
            invariant: Invariant::Causality,
            expected: format!("revision {expected}"),
            found: format!("revision {revision}"),
        })
    }

    /// Says whether the history may end here.
    pub fn finish(&self) -> Option<Violation> {
        let expected = match self.phase {
            Phase::New => "OrderReceived",
            Phase::Received | Phase::Validated | Phase::Stored => "OrderQueued or OrderFailed",
            Phase::Queued | Phase::Fulfilled | Phase::Failed(_) | Phase::Discarded => return None,
        };
        Some(Violation {
            revision: self.next_revision.saturating_sub(1),
            invariant: Invariant::AcceptedIsTracked,
            expected: expected.to_owned(),
            found: "the end of the stream".to_owned(),
        })
    }

    /// What the order counts as; `None` if it is nowhere.
    pub fn status(&self) -> Option<Status> {
        match self.phase {
            Phase::New | Phase::Received | Phase::Validated | Phase::Stored => None,
            Phase::Queued => Some(Status::Processing),
            Phase::Fulfilled => Some(Status::Fulfilled),
            Phase::Failed(_) | Phase::Discarded => Some(Status::Failed),
        }
    }

    fn allows(&self, event: &OrderEvent) -> Result<(), Objection> {
        use OrderEvent as E;
        match event {
            E::Received(_) if self.phase == Phase::New => Ok(()),
            E::Received(_) => {
                Err(objection(Invariant::PlacedOnce, "one OrderReceived, at revision 0"))
            }
            E::Validated(_) => self.follows(Phase::Received, "OrderReceived"),
            E::Stored(_) => self.follows(Phase::Validated, "OrderValidated"),
            E::Queued(queued) => self.allows_queued(queued),
            E::Fulfilled(_) if self.phase == Phase::Fulfilled => {
                Err(objection(Invariant::FulfilledOnce, "one OrderFulfilled in the whole stream"))
            }
            E::Fulfilled(it) => self.under_way(it.attempt),
            E::Failed(failed) => self.allows_failed(failed),
            E::DeliveryFailed(it) => self.under_way(it.attempt),
            E::DeliveryStarted(it) => self.under_way(it.attempt),
            E::Discarded(it) if self.phase == Phase::Failed(Stage::DeadLetter) => {
                self.of_the_attempt(it.attempt)
            }
            E::Discarded(_) => Err(objection(
                Invariant::EndIsFinal,
                "DeadLetterDiscarded only behind an OrderFailed of stage dead_letter",
            )),
        }
    }

    fn allows_queued(&self, queued: &OrderQueued) -> Result<(), Objection> {
        let attempt = match self.phase {
            Phase::Stored
            | Phase::Failed(Stage::Fulfillment | Stage::DeadLetter)
            | Phase::Discarded => self.attempt.saturating_add(1),
            Phase::Queued => self.attempt,
            Phase::Fulfilled | Phase::Failed(Stage::Validation) => return Err(self.ended()),
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

    fn allows_failed(&self, failed: &OrderFailed) -> Result<(), Objection> {
        match (self.phase, failed.stage) {
            (Phase::Received, Stage::Validation) => self.of_the_attempt(failed.attempt),
            (Phase::Queued, Stage::Validation) => Err(objection(
                Invariant::AcceptedIsTracked,
                "OrderFailed of stage validation only behind an OrderReceived",
            )),
            _ => self.under_way(failed.attempt),
        }
    }

    /// What belongs to an attempt, while it lasts.
    fn under_way(&self, attempt: u32) -> Result<(), Objection> {
        match self.phase {
            Phase::Queued => self.of_the_attempt(attempt),
            Phase::Fulfilled | Phase::Failed(_) | Phase::Discarded => Err(self.ended()),
            Phase::New | Phase::Received | Phase::Validated | Phase::Stored => {
                Err(objection(Invariant::AcceptedIsTracked, "OrderQueued before it"))
            }
        }
    }

    fn of_the_attempt(&self, attempt: u32) -> Result<(), Objection> {
        if attempt == self.attempt {
            Ok(())
        } else {
            Err((Invariant::FulfilledOnce, format!("attempt {}", self.attempt)))
        }
    }

    fn follows(&self, phase: Phase, name: &str) -> Result<(), Objection> {
        if self.phase == phase {
            return Ok(());
        }
        let invariant = if self.status().is_some() {
            Invariant::EndIsFinal
        } else {
            Invariant::AcceptedIsTracked
        };
        Err((invariant, format!("it only behind {name}")))
    }

    /// The objection to whatever may not follow the end that was reached.
    fn ended(&self) -> Objection {
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

    fn advance(&mut self, event: &OrderEvent) {
        use OrderEvent as E;
        self.phase = match event {
            // They come at the beginning: later ones change nothing.
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
            E::Discarded(_) if self.status() == Some(Status::Failed) => Phase::Discarded,
            E::DeliveryFailed(_) | E::DeliveryStarted(_) | E::Discarded(_) => return,
        };
    }
}

fn objection(invariant: Invariant, expected: &str) -> Objection {
    (invariant, expected.to_owned())
}

/// The event as a report names it.
fn described(event: &OrderEvent) -> String {
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
    let stage = stage.map_or_else(String::new, |it| format!(" of stage {}", it.as_str()));
    let attempt = attempt.map_or_else(String::new, |it| format!(", attempt {it}"));
    format!("{}{stage}{attempt}", event_type(event))
}
