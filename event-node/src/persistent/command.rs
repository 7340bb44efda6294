//! Messages between a group's task, its consumers and the rpcs.

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{log::ResolvedEvent, persistent::statistics::GroupInfo};

/// Identifies a consumer within its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConsumerId(pub u64);

/// An event handed to a consumer.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub resolved: ResolvedEvent,
    /// Number of earlier deliveries that failed.
    pub retry_count: i32,
}

/// A message to a consumer. The channel closes when the node stops.
#[derive(Debug)]
pub(crate) enum ConsumerMessage {
    Deliver(Delivery),
    /// The group was updated, deleted or restarted. The consumer has to connect again.
    GroupDropped,
}

/// Parameters of a consumer that connects.
#[derive(Debug)]
pub(crate) struct ConsumerOptions {
    /// Maximum number of unacknowledged messages.
    pub n_slots: usize,
    pub connection_name: String,
    pub user_name: String,
}

/// The consumer's end of its connection to a group.
pub(crate) struct ConsumerConnection {
    pub id: ConsumerId,
    pub messages: mpsc::Receiver<ConsumerMessage>,
}

/// A consumer's acknowledgement of messages, by the ids of their original events.
#[derive(Debug)]
pub(crate) enum Acknowledgement {
    Ack(Vec<Uuid>),
    Nack { ids: Vec<Uuid>, action: NackAction, reason: String },
}

/// The action that a consumer asks for with a negative acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NackAction {
    Unknown,
    Park,
    Retry,
    Skip,
    Stop,
}

/// A command to a group's task.
pub(super) enum GroupCommand {
    /// Connects a consumer. The reply is `None` if the group has its maximum number of consumers.
    Connect(ConsumerOptions, oneshot::Sender<Option<ConsumerConnection>>),
    Disconnect(ConsumerId),
    Acknowledge(Acknowledgement),
    /// Replays parked messages, up to a revision of the parked stream if given.
    ReplayParked(Option<u64>),
    ReadInfo(oneshot::Sender<GroupInfo>),
    /// Ends the task and tells consumers that the group was dropped. The task drops the sender when
    /// it has ended.
    Drop(oneshot::Sender<()>),
}
