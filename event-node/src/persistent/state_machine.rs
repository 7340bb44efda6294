//! The pure state machine of a group. Its methods take inputs and the time, and collect effects.
//!
//! **Invariant:** a message that was read is in exactly one of `buffer`, `retry`, `outstanding` and
//! `parking` until it is done. Its source position is in `open` for as long. So no message is lost,
//! and no checkpoint passes a message that is not done.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    log::ResolvedEvent,
    persistent::{
        checkpoint::CheckpointSchedule,
        command::{ConsumerId, NackAction},
        consumers::{Consumer, ConsumerChoice, ConsumerSet},
        live_buffer::LiveBuffer,
        message::{Message, Origin},
        parked_replay::ParkedReplay,
        settings::{GroupSettings, MAX_READ_BATCH, to_u64, to_usize},
        source_reader::SourceBatch,
        statistics::{GroupCounters, RateCounter},
    },
};

/// An action that the group's task has to perform.
#[derive(Debug)]
pub(super) enum Effect {
    Deliver {
        consumer: ConsumerId,
        resolved: ResolvedEvent,
        retry_count: i32,
    },
    /// Append the message to the parked stream, then call [`GroupState::finish_parking`].
    Park {
        id: Uuid,
        resolved: ResolvedEvent,
        reason: String,
    },
    /// Store that everything before this position is done, then call [`GroupState::finish_checkpoint`].
    WriteCheckpoint {
        done: u64,
    },
    /// Truncate the parked stream before this revision, then call [`GroupState::finish_truncation`].
    TruncateParked {
        before: u64,
    },
}

/// Order of messages that wait for a retry: by source position, replayed messages last.
type RetryKey = (bool, u64);

#[derive(Debug)]
struct Outstanding {
    message: Message,
    consumer: ConsumerId,
    sent_at: Duration,
}

#[derive(Debug)]
struct Parking {
    message: Message,
    reason: String,
    /// Whether the last append to the parked stream failed. The next tick repeats it.
    is_failed: bool,
}

#[derive(Debug)]
pub(super) struct GroupState {
    settings: GroupSettings,
    consumers: ConsumerSet,
    buffer: VecDeque<Message>,
    retry: BTreeMap<RetryKey, Message>,
    n_replays_queued: u64,
    outstanding: HashMap<Uuid, Outstanding>,
    parking: HashMap<Uuid, Parking>,
    /// Source positions that were read and are not done.
    open: BTreeSet<u64>,
    /// The next source position to read.
    next: u64,
    /// The last source position that is known to hold an event, by reading or looking ahead.
    last_known: Option<u64>,
    live: LiveBuffer,
    checkpoint: CheckpointSchedule,
    replay: ParkedReplay,
    pushed: RateCounter,
    effects: Vec<Effect>,
}

impl GroupState {
    /// Creates a group that reads from the source position `next` on. Events at `live_from` or
    /// later are committed after this call.
    pub(super) fn new(settings: GroupSettings, next: u64, live_from: u64, now: Duration) -> Self {
        Self {
            consumers: ConsumerSet::new(settings.strategy),
            live: LiveBuffer::new(to_usize(settings.live_buffer_size), live_from),
            settings,
            buffer: VecDeque::new(),
            retry: BTreeMap::new(),
            n_replays_queued: 0,
            outstanding: HashMap::new(),
            parking: HashMap::new(),
            open: BTreeSet::new(),
            next,
            last_known: None,
            checkpoint: CheckpointSchedule::new(next, now),
            replay: ParkedReplay::default(),
            pushed: RateCounter::default(),
            effects: Vec::new(),
        }
    }

    /// Returns the effects since the last call, in order.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Returns the number of events to read next, or `None` while the buffer has too little room.
    pub(super) fn wanted_events(&self) -> Option<usize> {
        let size = to_usize(self.settings.history_buffer_size);
        if self.live.is_live() {
            let room = size.saturating_sub(self.buffer.len());
            return (room > 0).then_some(room.min(MAX_READ_BATCH));
        }
        // EventStoreDB reads in batches, as long as there is room for more than one.
        let room = size.saturating_sub(self.buffer.len() + self.retry.len());
        let spare = room.saturating_sub(to_usize(self.settings.read_batch_size));
        let batch = self.settings.read_batch();
        let n_batches = spare.div_ceil(batch).min(MAX_READ_BATCH / batch);
        (n_batches > 0).then_some(n_batches * batch)
    }

    /// Adds a batch of events that was read from the source.
    pub(super) fn add_events(&mut self, batch: SourceBatch, now: Duration) {
        for (position, resolved) in batch.events {
            if position < self.next {
                continue;
            }
            self.last_known = self.last_known.max(Some(position));
            self.live.push(position);
            self.live.note_read(position);
            if let Some(message) = Message::new(Origin::Source(position), resolved) {
                self.open.insert(position);
                self.buffer.push_back(message);
            }
        }
        self.next = self.next.max(batch.next);
        if batch.at_end {
            self.live.mark_live();
        }
        self.dispatch_waiting(now);
    }

    /// Returns whether to look ahead, because events that are committed now are not read at once.
    pub(super) fn wants_look_ahead(&self) -> bool {
        !self.live.is_live() || self.wanted_events().is_none()
    }

    pub(super) fn next_position(&self) -> u64 {
        self.next
    }

    /// Notes events that were committed at these source positions and have not been read.
    pub(super) fn note_committed(&mut self, positions: &[u64]) {
        for position in positions {
            if self.live.push(*position) {
                self.last_known = self.last_known.max(Some(*position));
                if self.buffer.len() >= to_usize(self.settings.history_buffer_size) {
                    self.live.mark_behind();
                }
            }
        }
    }

    /// Returns whether the group has no message that is not done.
    pub(super) fn is_drained(&self) -> bool {
        self.buffer.is_empty()
            && self.retry.is_empty()
            && self.outstanding.is_empty()
            && self.parking.is_empty()
    }

    /// Returns whether another consumer may connect.
    pub(super) fn has_consumer_room(&self) -> bool {
        let max = to_usize(self.settings.max_subscriber_count);
        max == 0 || self.consumers.len() < max
    }

    pub(super) fn connect_consumer(&mut self, consumer: Consumer, now: Duration) {
        self.consumers.add_consumer(consumer);
        self.dispatch_waiting(now);
    }

    /// Removes a consumer. Its messages go to other consumers, even at the maximum retry count: a
    /// lost connection does not park a message.
    pub(super) fn disconnect_consumer(&mut self, id: ConsumerId, now: Duration) {
        self.consumers.remove_consumer(id);
        let held: Vec<Uuid> = self
            .outstanding
            .iter()
            .filter(|(_, outstanding)| outstanding.consumer == id)
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            if let Some(message) = self.take_back(id, None) {
                self.retry_message(message);
            }
        }
        self.dispatch_waiting(now);
    }

    pub(super) fn ack_messages(&mut self, ids: &[Uuid], now: Duration) {
        for id in ids {
            // A late answer counts, even if the message is with another consumer by now: it has
            // been handled.
            if let Some(message) = self.take_back(*id, Some(now)) {
                self.mark_done(message.origin);
            }
        }
        self.dispatch_waiting(now);
    }

    pub(super) fn nack_messages(
        &mut self,
        ids: &[Uuid],
        action: NackAction,
        reason: &str,
        now: Duration,
    ) {
        for id in ids {
            let Some(message) = self.take_back(*id, Some(now)) else { continue };
            match action {
                NackAction::Unknown | NackAction::Retry => self.retry_or_park(message),
                // As in EventStoreDB, `Stop` stops neither the group nor the consumer.
                NackAction::Skip | NackAction::Stop => self.mark_done(message.origin),
                NackAction::Park => {
                    let reason = format!("Client explicitly NAK'ed message.\n{reason}");
                    self.park_message(message, reason);
                }
            }
        }
        self.dispatch_waiting(now);
    }

    /// Handles expired messages, repeats failed parks and begins checkpoints by time. Called once a
    /// second.
    pub(super) fn tick(&mut self, now: Duration) {
        let timeout = Duration::from_millis(to_u64(self.settings.message_timeout_ms));
        let mut expired: Vec<(Origin, Uuid)> = self
            .outstanding
            .iter()
            .filter(|(_, outstanding)| now >= outstanding.sent_at + timeout)
            .map(|(id, outstanding)| (outstanding.message.origin, *id))
            .collect();
        // The map has no order. Sorting parks and retries messages in the order of the source.
        expired.sort_unstable();
        for (_, id) in expired {
            if let Some(message) = self.take_back(id, Some(now)) {
                self.retry_or_park(message);
            }
        }
        for (id, parking) in &mut self.parking {
            if parking.is_failed {
                parking.is_failed = false;
                self.effects.push(park_effect(*id, parking));
            }
        }
        self.truncate_parked();
        self.dispatch_waiting(now);
        let done = self.done_before();
        if self.checkpoint.begin_by_time(&self.settings, done, now) {
            self.effects.push(Effect::WriteCheckpoint { done });
        }
    }

    /// Ends [`Effect::Park`]. A message whose record is not durable stays outstanding: the next
    /// tick parks it again.
    pub(super) fn finish_parking(&mut self, id: Uuid, is_durable: bool, now: Duration) {
        if !is_durable {
            if let Some(parking) = self.parking.get_mut(&id) {
                parking.is_failed = true;
            }
            return;
        }
        if let Some(parking) = self.parking.remove(&id) {
            self.mark_done(parking.message.origin);
        }
        self.dispatch_waiting(now);
    }

    /// Ends [`Effect::WriteCheckpoint`].
    pub(super) fn finish_checkpoint(&mut self, done: u64, is_durable: bool, now: Duration) {
        self.checkpoint.finish_write(done, is_durable, now);
    }

    /// Returns the checkpoint to write when the group stops; `None` if the stored one is current.
    pub(super) fn final_checkpoint(&self) -> Option<u64> {
        Some(self.done_before()).filter(|done| *done > self.checkpoint.stored_position())
    }

    /// Begins to replay the parked messages with revisions in `first..end`.
    pub(super) fn begin_replay(&mut self, first: u64, end: u64) {
        self.replay.begin_replay(first, end);
    }

    /// Returns the revisions of the parked stream to read next, or `None` if there is no room.
    pub(super) fn wanted_replay(&self) -> Option<std::ops::Range<u64>> {
        self.replay.next_read().filter(|_| self.retry.len() < MAX_READ_BATCH)
    }

    /// Adds parked messages that were read for a replay. Everything before `next` was read.
    pub(super) fn add_parked(
        &mut self,
        parked: Vec<(u64, ResolvedEvent)>,
        next: u64,
        now: Duration,
    ) {
        for (revision, resolved) in parked {
            // A link whose event is gone is delivered without the event. The consumer still learns
            // what failed, and the link leaves the parked stream only after its acknowledgement.
            if let Some(message) = Message::new(Origin::Parked(revision), resolved)
                && self.replay.add_open(revision)
            {
                self.queue_retry(message);
            }
        }
        self.replay.note_read_before(next);
        self.truncate_parked();
        self.dispatch_waiting(now);
    }

    /// Ends [`Effect::TruncateParked`].
    pub(super) fn finish_truncation(&mut self, before: u64, is_durable: bool) {
        self.replay.finish_truncation(before, is_durable);
        if is_durable {
            self.truncate_parked();
        }
    }

    /// Returns the group's counters, and begins the next measurement of its rates.
    pub(super) fn measure_counters(&mut self, now: Duration) -> GroupCounters {
        GroupCounters {
            pushed: self.pushed.measure_rate(now),
            last_known: self.last_known,
            last_checkpoint: self.checkpoint.stored_position().checked_sub(1),
            n_buffered: self.buffer.len(),
            n_live_buffered: self.live.len(),
            is_live: self.live.is_live(),
            n_retrying: self.retry.len(),
            n_outstanding: self.outstanding.len() + self.parking.len(),
            n_in_flight: self.consumers.count_in_flight(),
            is_replaying: self.replay.is_running(),
            replayed_before: self.replay.replayed_before(),
            consumers: self.consumers.measure_infos(now),
        }
    }

    /// Sends waiting messages to consumers, retries first, until no consumer has a free slot.
    fn dispatch_waiting(&mut self, now: Duration) {
        let mut kept = Vec::new();
        while let Some((key, message)) = self.retry.pop_first() {
            match self.dispatch_message(message, now) {
                Dispatched::Sent => {}
                // A skipped message waits for its own consumer. Messages after it may be sent.
                Dispatched::Skipped(message) => kept.push((key, message)),
                Dispatched::Full(message) => {
                    kept.push((key, message));
                    break;
                }
            }
        }
        self.retry.extend(kept);
        let mut index = 0;
        while let Some(message) = self.buffer.remove(index) {
            match self.dispatch_message(message, now) {
                Dispatched::Sent => {}
                Dispatched::Skipped(message) => {
                    self.buffer.insert(index, message);
                    index += 1;
                }
                Dispatched::Full(message) => {
                    self.buffer.insert(index, message);
                    break;
                }
            }
        }
        let done = self.done_before();
        if self.checkpoint.begin_by_count(&self.settings, done) {
            self.effects.push(Effect::WriteCheckpoint { done });
        }
    }

    fn dispatch_message(&mut self, message: Message, now: Duration) -> Dispatched {
        // Acknowledgements name messages by id. A second event with the same id has to wait until
        // the first is done, or one acknowledgement would finish the wrong event.
        if self.outstanding.contains_key(&message.id) || self.parking.contains_key(&message.id) {
            return Dispatched::Skipped(message);
        }
        let consumer = match self.consumers.choose_consumer(&message.resolved) {
            ConsumerChoice::SendTo(consumer) => consumer,
            ConsumerChoice::PinnedConsumerFull => return Dispatched::Skipped(message),
            ConsumerChoice::AllFull => return Dispatched::Full(message),
        };
        self.consumers.take_slot(consumer, &message.resolved);
        self.pushed.total += 1;
        let (resolved, retry_count) = (message.resolved.clone(), message.retry_count);
        self.effects.push(Effect::Deliver { consumer, resolved, retry_count });
        self.outstanding.insert(message.id, Outstanding { message, consumer, sent_at: now });
        Dispatched::Sent
    }

    /// Takes a message from its consumer. `answered_at` is the time of the consumer's answer, if
    /// the consumer answered.
    fn take_back(&mut self, id: Uuid, answered_at: Option<Duration>) -> Option<Message> {
        let Outstanding { message, consumer, sent_at } = self.outstanding.remove(&id)?;
        let latency = answered_at.map(|now| now.saturating_sub(sent_at));
        self.consumers.free_slot(consumer, &message.resolved, latency);
        Some(message)
    }

    fn retry_or_park(&mut self, message: Message) {
        let max = self.settings.max_retry_count;
        if message.retry_count < max {
            self.retry_message(message);
        } else {
            self.park_message(message, format!("Reached retry count of {max}"));
        }
    }

    fn retry_message(&mut self, mut message: Message) {
        message.retry_count = message.retry_count.saturating_add(1);
        self.queue_retry(message);
    }

    fn queue_retry(&mut self, message: Message) {
        let key = match message.origin {
            Origin::Source(position) => (false, position),
            Origin::Parked(_) => {
                self.n_replays_queued += 1;
                (true, self.n_replays_queued)
            }
        };
        self.retry.insert(key, message);
    }

    fn park_message(&mut self, message: Message, reason: String) {
        let id = message.id;
        let parking = Parking { message, reason, is_failed: false };
        self.effects.push(park_effect(id, &parking));
        self.parking.insert(id, parking);
    }

    fn mark_done(&mut self, origin: Origin) {
        match origin {
            Origin::Source(position) => {
                self.open.remove(&position);
            }
            Origin::Parked(revision) => {
                self.replay.mark_done(revision);
                self.truncate_parked();
            }
        }
    }

    /// Returns the first source position that is not done.
    fn done_before(&self) -> u64 {
        // A position before `next` that is not open is done: acknowledged, or without an event of
        // the source.
        self.open.first().copied().unwrap_or(self.next)
    }

    fn truncate_parked(&mut self) {
        if let Some(before) = self.replay.begin_truncation() {
            self.effects.push(Effect::TruncateParked { before });
        }
    }
}

/// Result of an attempt to send a message to a consumer.
enum Dispatched {
    Sent,
    Skipped(Message),
    Full(Message),
}

fn park_effect(id: Uuid, parking: &Parking) -> Effect {
    let (resolved, reason) = (parking.message.resolved.clone(), parking.reason.clone());
    Effect::Park { id, resolved, reason }
}
