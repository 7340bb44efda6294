//! What a group can be asked, and what it says.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    log::{GroupKey, ResolvedEvent},
    persistent::{
        consumers::{Consumer, ConsumerId, Rate},
        figures::Figures,
        machine::NackAction,
        settings::Settings,
    },
};

/// A message handed to a consumer.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub resolved: ResolvedEvent,
    /// Earlier deliveries that failed.
    pub retry_count: i32,
}

/// What reaches a consumer. Its channel closing means that the node is stopping.
#[derive(Debug)]
pub(crate) enum ToConsumer {
    Deliver(Delivery),
    /// The group was updated, deleted or restarted: connect again.
    GroupDropped,
}

/// Who wants to consume.
#[derive(Debug)]
pub(crate) struct NewConsumer {
    /// Messages taken at a time.
    pub slots: usize,
    pub connection_name: String,
}

/// A consumer's end of the group.
pub(crate) struct Connected {
    pub id: ConsumerId,
    pub deliveries: mpsc::Receiver<ToConsumer>,
}

/// What a consumer says about messages, by the ids of their original events.
#[derive(Debug)]
pub(crate) enum Answer {
    Ack(Vec<Uuid>),
    Nack { ids: Vec<Uuid>, action: NackAction, reason: String },
}

/// What a group can be asked.
pub(super) enum Command {
    /// `None` if there is no room for another consumer.
    Connect(NewConsumer, oneshot::Sender<Option<Connected>>),
    Disconnect(ConsumerId),
    Answer(Answer),
    /// Replay parked messages, up to a revision of the parked stream if given.
    Replay(Option<u64>),
    Info(oneshot::Sender<GroupInfo>),
    /// End, telling consumers that the group was dropped; the sender is dropped when that is done.
    Drop(oneshot::Sender<()>),
}

/// What a group says about itself. Places are as the protocol writes them.
#[derive(Debug)]
pub(crate) struct GroupInfo {
    pub key: GroupKey,
    pub settings: Settings,
    pub is_live: bool,
    pub is_reading: bool,
    pub is_replaying: bool,
    pub pushed: Rate,
    pub last_checkpoint: Option<u64>,
    pub last_known: Option<u64>,
    pub buffered: usize,
    pub live_buffered: usize,
    pub retrying: usize,
    pub outstanding: usize,
    pub in_flight: usize,
    pub parked: u64,
    pub consumers: Vec<ConsumerInfo>,
}

impl GroupInfo {
    /// Describes a group, whose parked messages are still to be counted, and begins its next
    /// measurement.
    pub(super) fn of(
        (key, settings): (&GroupKey, &Settings),
        figures: &mut Figures<'_>,
        is_reading: bool,
        now: Duration,
    ) -> Self {
        let mut consumers: Vec<ConsumerInfo> =
            figures.consumers.iter_mut().map(|consumer| ConsumerInfo::of(consumer, now)).collect();
        if !settings.extra_statistics {
            for consumer in &mut consumers {
                consumer.measurements.clear();
            }
        }
        Self {
            key: key.clone(),
            settings: settings.clone(),
            is_live: figures.is_live,
            is_reading,
            is_replaying: figures.is_replaying,
            pushed: figures.pushed,
            last_checkpoint: figures.checkpointed.checked_sub(1),
            last_known: figures.last_known,
            buffered: figures.buffered,
            live_buffered: figures.live_buffered,
            retrying: figures.retrying,
            outstanding: figures.outstanding,
            in_flight: figures.in_flight,
            parked: 0,
            consumers,
        }
    }
}

/// What a group says about one of its consumers.
#[derive(Debug)]
pub(crate) struct ConsumerInfo {
    pub connection_name: String,
    pub sent: Rate,
    pub free_slots: usize,
    pub in_flight: usize,
    pub measurements: Vec<(&'static str, u64)>,
}

impl ConsumerInfo {
    /// Describes a consumer, and begins its next measurement.
    pub(super) fn of(consumer: &mut Consumer, now: Duration) -> Self {
        Self {
            connection_name: consumer.connection_name.clone(),
            sent: consumer.sent.measure(now),
            free_slots: consumer.slots.saturating_sub(consumer.in_flight),
            in_flight: consumer.in_flight,
            measurements: consumer.measurements.figures(),
        }
    }
}
