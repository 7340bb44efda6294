//! One order: three pure functions and the types between them.
//!
//! [`decide()`] turns the state and a command into events or a broken rule, [`evolve`] turns the
//! state and a recorded event into the next state, [`fold`] turns a history into a state.

mod codec;
mod command;
mod decide;
mod error;
mod event;
mod invariants;
mod state;

pub use codec::{CURRENT_SCHEMA, DecodeError, EVENT_TYPES, Encoded, OLDEST_SCHEMA, decode, encode};
pub use command::{
    Discard, OrderCommand, PlaceOrder, RecordDeliveryFailed, RecordDeliveryStarted, RecordFailed,
    RecordFulfilled, Redrive, Requeue,
};
pub use decide::{MAX_TOTAL_QUANTITY, MIN_CUSTOMER_ID_CHARS, RULES_VERSION, decide};
pub use error::OrderError;
pub use event::{
    BrokenRule, DeadLetterDiscarded, FailureClass, FulfillmentDeliveryFailed,
    FulfillmentDeliveryStarted, Item, OrderEvent, OrderFailed, OrderFulfilled, OrderQueued,
    OrderReceived, OrderStored, OrderValidated, Stage,
};
pub use invariants::{HistoryCheck, Invariant, Violation};
pub use state::{Order, Recorded, Status, evolve, fields, fold};
