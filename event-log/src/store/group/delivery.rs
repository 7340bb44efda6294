//! Settings of a group, its deliveries and their answers.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::store::logged_event::LoggedEvent;

/// How a group is created and joined.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    pub name: String,
    /// Type of the events that the group delivers.
    pub event_type: String,
    /// How long a worker may hold one delivery before the store gives the event to another.
    pub message_timeout: Duration,
    /// Number of failed deliveries after which the store parks a message by itself.
    pub max_retry_count: i32,
    /// Maximum number of deliveries that this worker holds.
    pub buffer_size: usize,
    /// How long the store may deliver nothing while work waits for this worker, before the
    /// connection counts as dead. Noticed after at most three times as long.
    pub silence_limit: Duration,
    /// Counts the connections that were given up for silence.
    pub n_silences: watch::Sender<u64>,
}

/// One event delivered to this worker.
#[derive(Debug)]
pub struct Delivery {
    /// Identifies the delivery in its answer.
    pub id: Uuid,
    pub event: LoggedEvent,
    /// Whether an operator asked the store to deliver the parked message again.
    pub is_replayed: bool,
    /// The store's count of earlier deliveries. A group that was deleted, updated, or loaded after a
    /// crash of the store counts from 0 again.
    pub retry_count: u32,
    /// Whether no worker can have received the event before: it was appended after this worker had
    /// joined the group as it is now, and the group counts no earlier delivery.
    pub is_first: bool,
    /// When this worker last lost its connection to the group. Another worker may have received the
    /// event then, and may still be handling it.
    pub lost_connection: Option<Instant>,
    /// When the delivery arrived. The store's message time-out runs from then on.
    pub received: Instant,
}

/// A worker's answer to a delivery, on its way to the connection.
pub(super) enum Answer {
    Ack(Uuid),
    Retry(Uuid, String),
    Park(Uuid, String),
    /// No answer: the delivery is only no longer held.
    Release(Uuid),
    /// Signals that all earlier answers have been handed to the connection.
    Flush(oneshot::Sender<()>),
}
