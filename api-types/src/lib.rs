//! The contract of the HTTP API: every request body, query and response body, once.
//!
//! Handlers, the command line, tests and the `OpenAPI` document use these types. Each type serialises,
//! deserialises and describes itself, so that the document cannot say anything else than the code. The
//! limits of requests are schema attributes here; handlers enforce them.

/// Implements `From` between two enums with the same variants: one of the domain and one of the API.
macro_rules! convert_variants {
    ($from:ident => $to:ident: $($variant:ident),+) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                match value {
                    $($from::$variant => Self::$variant,)+
                }
            }
        }
    };
}

mod customer;
mod dead_letter;
mod event;
mod failure;
mod health;
mod history;
mod operator;
mod operator_action;
mod order;
mod problem;
mod projection;
mod redrive;
mod statistics;
mod system;
mod time;
mod worker;

/// Types of the events of this release.
pub use domain::order::EVENT_TYPES;

pub use customer::{Customer, CustomerFailure, CustomerOrder, CustomerOrderCounts, CustomerPage};
pub use dead_letter::{
    Attempt, AttemptDelivery, AttemptDiscarded, AttemptEnd, AttemptOutcome, AttemptQueued,
    DeadLetter, DeadLetterGroup, DeadLetterSummary, DeliveryFailure, EventSource,
};
pub use event::{
    BrokenRule, DeadLetterDiscarded, EventData, EventPage, FailureClass, FeedEvent, FeedMessage,
    FeedReset, FeedResetReason, FulfillmentDeliveryFailed, FulfillmentDeliveryStarted, OrderFailed,
    OrderFulfilled, OrderQueued, OrderReceived, OrderStored, OrderValidated, RecordedEvent,
    StreamEventsQuery, event_schemas,
};
pub use failure::{FailedOrder, FailedOrderPage, FailedOrderRange, FailureFilter};
pub use health::{HealthReport, HealthState, ReadinessQuery, Unavailable};
pub use history::{
    ChainCheck, ChainState, CompareHistoryQuery, FieldChange, HistoryEntry, HistoryQuery,
    HistorySort, OrderComparison, OrderHistory,
};
pub use operator::{DiscardRequest, DiscardedOrder, OperatorRequest};
pub use operator_action::{
    OperatorAction, OperatorActionFilter, OperatorActionKind, OperatorActionPage,
};
pub use order::{
    AcceptedStatus, FailureStage, GetOrderQuery, MAX_QUANTITY, Order, OrderFilter, OrderItem,
    OrderPage, OrderSource, OrderState, OrderStatus, PageQuery, PlaceOrderRequest,
    PlaceOrderResult, PlacedOrder,
};
pub use problem::{Fault, Message, Problem, ProblemCode, Refusal, RefusedRequest};
pub use projection::{
    Projection, ProjectionList, ProjectionSet, ProjectionSetState, RebuildProgress,
};
pub use redrive::{
    CancelRedriveQuery, RedriveAction, RedriveFilter, RedriveOrderRequest, RedrivePreview,
    RedrivePreviewItem, RedriveTask, RedriveTaskKind, RedriveTaskPage, RedriveTaskState,
    RedrivenOrder, StartRedriveRequest,
};
pub use statistics::{
    EventStoreUsage, FailureCounts, FulfillmentStatus, LastVerification, MinuteStatistics,
    OrderCounts, ProjectionStatus, QueueStatus, Statistics, StatisticsQuery, SuccessRate,
};
pub use system::{ApiKeyInfo, ApiKeyList, Principal, Setting, SystemInfo};
pub use time::{Age, AgeError, ClampedTimestamp};
pub use worker::{BreakerState, GatewayLatency, WorkerQueue, WorkerStatus, WorkersStatus};
