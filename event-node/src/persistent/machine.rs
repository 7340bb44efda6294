//! The state machine of a group: pure. Time comes in, effects come out.
//!
//! **Invariant:** a message that was read is in exactly one of `buffer`, `retry`, `outstanding`
//! and `parking` until it is done, and its place is in `open` as long. So nothing is lost, and a
//! checkpoint never passes what is not done.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    log::ResolvedEvent,
    persistent::{
        checkpoint::Checkpoint,
        consumers::{Choice, Consumer, ConsumerId, Consumers, Counter},
        figures::Figures,
        live::Live,
        message::{Message, Origin},
        replay::Replay,
        settings::{MAX_READ_BATCH, Settings, to_u64, to_usize},
        source::Read,
    },
};

/// Most events that one read of the source asks for.
pub(super) const MAX_READ: usize = MAX_READ_BATCH;

/// What the machine wants done.
#[derive(Debug)]
pub(super) enum Effect {
    Deliver {
        consumer: ConsumerId,
        resolved: ResolvedEvent,
        retry_count: i32,
    },
    /// Record that the message was set aside; [`Machine::parked`] says how that went.
    Park {
        id: Uuid,
        resolved: ResolvedEvent,
        reason: String,
    },
    /// Everything before this place is done; [`Machine::checkpoint_written`] follows.
    WriteCheckpoint {
        done: u64,
    },
    /// Parked messages before this revision are done; [`Machine::parked_truncated`] follows.
    TruncateParked {
        before: u64,
    },
}

/// What a consumer says when a message was not handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NackAction {
    Unknown,
    Park,
    Retry,
    Skip,
    Stop,
}

/// The order of messages that wait for another delivery: by place, replayed ones last.
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
    /// The last try to record it failed; the next tick tries again.
    is_failed: bool,
}

/// A group.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    consumers: Consumers,
    buffer: VecDeque<Message>,
    retry: BTreeMap<RetryKey, Message>,
    replays_queued: u64,
    outstanding: HashMap<Uuid, Outstanding>,
    parking: HashMap<Uuid, Parking>,
    /// Places of the source that were read and are not done.
    open: BTreeSet<u64>,
    /// The next place of the source to look at.
    next: u64,
    /// The last place of the source that has an event, as far as it was read or is news.
    last_known: Option<u64>,
    live: Live,
    checkpoint: Checkpoint,
    replay: Replay,
    pushed: Counter,
    effects: Vec<Effect>,
}

impl Machine {
    /// A group whose next place to read is `next`. What is at `live_from` or later is committed
    /// after this.
    pub(super) fn new(settings: Settings, next: u64, live_from: u64, now: Duration) -> Self {
        Self {
            consumers: Consumers::new(settings.strategy),
            live: Live::new(to_usize(settings.live_buffer_size), live_from),
            settings,
            buffer: VecDeque::new(),
            retry: BTreeMap::new(),
            replays_queued: 0,
            outstanding: HashMap::new(),
            parking: HashMap::new(),
            open: BTreeSet::new(),
            next,
            last_known: None,
            checkpoint: Checkpoint::new(next, now),
            replay: Replay::default(),
            pushed: Counter::default(),
            effects: Vec::new(),
        }
    }

    /// What was decided since the last call, in order.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How many events there is room for; `None` while it is not worth a read.
    pub(super) fn wanted_events(&self) -> Option<usize> {
        let size = to_usize(self.settings.history_buffer_size);
        if self.live.is_live() {
            let room = size.saturating_sub(self.buffer.len());
            return (room > 0).then_some(room.min(MAX_READ));
        }
        // The original reads in batches, as long as there is room for more than one.
        let room = size.saturating_sub(self.buffer.len() + self.retry.len());
        let spare = room.saturating_sub(to_usize(self.settings.read_batch_size));
        let batch = self.settings.read_batch();
        let n_batches = spare.div_ceil(batch).min(MAX_READ / batch);
        (n_batches > 0).then_some(n_batches * batch)
    }

    /// Events of the source arrived; all before their `next` was looked at.
    pub(super) fn read(&mut self, read: Read, now: Duration) {
        for (place, resolved) in read.events {
            if place < self.next {
                continue;
            }
            self.last_known = self.last_known.max(Some(place));
            self.live.add(place);
            self.live.read(place);
            if let Some(message) = Message::new(Origin::Source(place), resolved) {
                self.open.insert(place);
                self.buffer.push_back(message);
            }
        }
        self.next = self.next.max(read.next);
        if read.at_end {
            self.live.caught_up();
        }
        self.push(now);
    }

    /// Whether to look ahead: what is committed now is not read at once.
    pub(super) fn wants_scouting(&self) -> bool {
        !self.live.is_live() || self.wanted_events().is_none()
    }

    /// The next place of the source to look at.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Events were committed to the source at these places, and not read.
    pub(super) fn scouted(&mut self, places: &[u64]) {
        for place in places {
            if self.live.add(*place) {
                self.last_known = self.last_known.max(Some(*place));
                if self.buffer.len() >= to_usize(self.settings.history_buffer_size) {
                    self.live.overflowed();
                }
            }
        }
    }

    /// Whether no message of the group is left.
    pub(super) fn is_done(&self) -> bool {
        self.buffer.is_empty()
            && self.retry.is_empty()
            && self.outstanding.is_empty()
            && self.parking.is_empty()
    }

    /// Whether another consumer may connect.
    pub(super) fn has_consumer_room(&self) -> bool {
        let max = to_usize(self.settings.max_subscriber_count);
        max == 0 || self.consumers.len() < max
    }

    pub(super) fn connect(&mut self, consumer: Consumer, now: Duration) {
        self.consumers.join(consumer);
        self.push(now);
    }

    /// What the consumer had goes to others, whatever its retry count.
    pub(super) fn disconnect(&mut self, id: ConsumerId, now: Duration) {
        self.consumers.leave(id);
        let held: Vec<Uuid> = self
            .outstanding
            .iter()
            .filter(|(_, outstanding)| outstanding.consumer == id)
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            if let Some(message) = self.take_back(id, None) {
                self.retry_again(message);
            }
        }
        self.push(now);
    }

    pub(super) fn ack(&mut self, ids: &[Uuid], now: Duration) {
        for id in ids {
            if let Some(message) = self.take_back(*id, Some(now)) {
                self.done(message.origin);
            }
        }
        self.push(now);
    }

    pub(super) fn nack(&mut self, ids: &[Uuid], action: NackAction, reason: &str, now: Duration) {
        for id in ids {
            let Some(message) = self.take_back(*id, Some(now)) else { continue };
            match action {
                NackAction::Unknown | NackAction::Retry => self.retry_or_park(message),
                NackAction::Skip | NackAction::Stop => self.done(message.origin),
                NackAction::Park => {
                    self.park(message, format!("Client explicitly NAK'ed message.\n{reason}"));
                }
            }
        }
        self.push(now);
    }

    /// Once a second: time-outs, failed parks, checkpoints by time.
    pub(super) fn tick(&mut self, now: Duration) {
        let timeout = Duration::from_millis(to_u64(self.settings.message_timeout_ms));
        let mut expired: Vec<(Origin, Uuid)> = self
            .outstanding
            .iter()
            .filter(|(_, outstanding)| now >= outstanding.sent_at + timeout)
            .map(|(id, outstanding)| (outstanding.message.origin, *id))
            .collect();
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
        self.push(now);
        self.checkpoint_by_time(now);
    }

    /// The message's parked record is durable, or could not be written.
    pub(super) fn parked(&mut self, id: Uuid, is_durable: bool, now: Duration) {
        if !is_durable {
            if let Some(parking) = self.parking.get_mut(&id) {
                parking.is_failed = true;
            }
            return;
        }
        if let Some(parking) = self.parking.remove(&id) {
            self.done(parking.message.origin);
        }
        self.push(now);
    }

    /// The last [`Effect::WriteCheckpoint`] was performed, or failed.
    pub(super) fn checkpoint_written(&mut self, done: u64, is_durable: bool, now: Duration) {
        self.checkpoint.written(done, is_durable, now);
    }

    /// What is done and not yet checkpointed, to be written when the group stops.
    pub(super) fn final_checkpoint(&self) -> Option<u64> {
        Some(self.done_before()).filter(|done| *done > self.checkpoint.done())
    }

    /// Begins to deliver parked messages again: those with revisions in `first..end`.
    pub(super) fn replay(&mut self, first: u64, end: u64) {
        self.replay.begin(first, end);
    }

    /// The range of the parked stream to be read next, if there is room for it.
    pub(super) fn wanted_replay(&self) -> Option<std::ops::Range<u64>> {
        self.replay.wanted().filter(|_| self.retry.len() < MAX_READ)
    }

    /// Parked messages arrived; all before `next` was looked at.
    pub(super) fn replay_read(
        &mut self,
        parked: Vec<(u64, ResolvedEvent)>,
        next: u64,
        now: Duration,
    ) {
        for (revision, resolved) in parked {
            // If its event is gone the record is delivered without it: it says what failed, and
            // leaves the parked stream only when that was seen.
            if let Some(message) = Message::new(Origin::Parked(revision), resolved)
                && self.replay.add(revision)
            {
                self.queue_retry(message);
            }
        }
        self.replay.looked_to(next);
        self.truncate_parked();
        self.push(now);
    }

    /// The last [`Effect::TruncateParked`] was performed, or failed.
    pub(super) fn parked_truncated(&mut self, before: u64, is_durable: bool) {
        self.replay.truncated(before, is_durable);
        if is_durable {
            self.truncate_parked();
        }
    }

    pub(super) fn figures(&mut self, now: Duration) -> Figures<'_> {
        Figures {
            pushed: self.pushed.measure(now),
            last_known: self.last_known,
            checkpointed: self.checkpoint.done(),
            buffered: self.buffer.len(),
            live_buffered: self.live.count(),
            is_live: self.live.is_live(),
            retrying: self.retry.len(),
            outstanding: self.outstanding.len() + self.parking.len(),
            in_flight: self.consumers.in_flight(),
            is_replaying: self.replay.is_running(),
            replayed_before: self.replay.replayed_before(),
            consumers: &mut self.consumers,
        }
    }

    /// Hands out what waits, retries first, as long as somebody has room.
    fn push(&mut self, now: Duration) {
        let mut stuck = Vec::new();
        while let Some((key, message)) = self.retry.pop_first() {
            match self.offer(message, now) {
                Offer::Taken => {}
                Offer::Skipped(message) => stuck.push((key, message)),
                Offer::Full(message) => {
                    stuck.push((key, message));
                    break;
                }
            }
        }
        self.retry.extend(stuck);
        let mut index = 0;
        while let Some(message) = self.buffer.remove(index) {
            match self.offer(message, now) {
                Offer::Taken => {}
                Offer::Skipped(message) => {
                    self.buffer.insert(index, message);
                    index += 1;
                }
                Offer::Full(message) => {
                    self.buffer.insert(index, message);
                    break;
                }
            }
        }
        self.checkpoint_by_count();
    }

    fn offer(&mut self, message: Message, now: Duration) -> Offer {
        // A second event of the same id waits for the first: answers name only the id.
        if self.outstanding.contains_key(&message.id) || self.parking.contains_key(&message.id) {
            return Offer::Skipped(message);
        }
        let consumer = match self.consumers.choose(&message.resolved) {
            Choice::To(consumer) => consumer,
            Choice::Skip => return Offer::Skipped(message),
            Choice::Full => return Offer::Full(message),
        };
        self.consumers.sent(consumer, &message.resolved);
        self.pushed.total += 1;
        let (resolved, retry_count) = (message.resolved.clone(), message.retry_count);
        self.effects.push(Effect::Deliver { consumer, resolved, retry_count });
        self.outstanding.insert(message.id, Outstanding { message, consumer, sent_at: now });
        Offer::Taken
    }

    /// Takes a message from its consumer; `finished` is when the consumer answered.
    fn take_back(&mut self, id: Uuid, finished: Option<Duration>) -> Option<Message> {
        let Outstanding { message, consumer, sent_at } = self.outstanding.remove(&id)?;
        let latency = finished.map(|now| now.saturating_sub(sent_at));
        self.consumers.returned(consumer, &message.resolved, latency);
        Some(message)
    }

    fn retry_or_park(&mut self, message: Message) {
        let max = self.settings.max_retry_count;
        if message.retry_count < max {
            self.retry_again(message);
        } else {
            self.park(message, format!("Reached retry count of {max}"));
        }
    }

    fn retry_again(&mut self, mut message: Message) {
        message.retry_count = message.retry_count.saturating_add(1);
        self.queue_retry(message);
    }

    fn queue_retry(&mut self, message: Message) {
        let key = match message.origin {
            Origin::Source(place) => (false, place),
            Origin::Parked(_) => {
                self.replays_queued += 1;
                (true, self.replays_queued)
            }
        };
        self.retry.insert(key, message);
    }

    fn park(&mut self, message: Message, reason: String) {
        let id = message.id;
        let parking = Parking { message, reason, is_failed: false };
        self.effects.push(park_effect(id, &parking));
        self.parking.insert(id, parking);
    }

    fn done(&mut self, origin: Origin) {
        match origin {
            Origin::Source(place) => {
                self.open.remove(&place);
            }
            Origin::Parked(revision) => {
                self.replay.done(revision);
                self.truncate_parked();
            }
        }
    }

    /// The first place that is not done.
    fn done_before(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    fn checkpoint_by_count(&mut self) {
        let done = self.done_before();
        if self.checkpoint.begin_by_count(&self.settings, done) {
            self.effects.push(Effect::WriteCheckpoint { done });
        }
    }

    fn checkpoint_by_time(&mut self, now: Duration) {
        let done = self.done_before();
        if self.checkpoint.begin_by_time(&self.settings, done, now) {
            self.effects.push(Effect::WriteCheckpoint { done });
        }
    }

    fn truncate_parked(&mut self) {
        if let Some(before) = self.replay.truncation() {
            self.effects.push(Effect::TruncateParked { before });
        }
    }
}

enum Offer {
    Taken,
    Skipped(Message),
    Full(Message),
}

fn park_effect(id: Uuid, parking: &Parking) -> Effect {
    let (resolved, reason) = (parking.message.resolved.clone(), parking.reason.clone());
    Effect::Park { id, resolved, reason }
}
