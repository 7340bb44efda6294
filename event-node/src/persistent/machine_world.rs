//! The world of a group in tests: its source, consumers and store, which check what the group does.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use prost::bytes::Bytes;
use uuid::Uuid;

use super::{
    consumers::{Consumer, ConsumerId},
    machine::{Effect, Machine, NackAction},
    message::Origin,
    settings::{Settings, StartFrom, Strategy as Sharing},
    source::Read,
};
use crate::log::{Event, ResolvedEvent};

const TIMEOUT: Duration = Duration::from_secs(3);
pub(super) const MAX_RETRIES: i32 = 2;

/// Events that the source has in the end.
pub(super) const PLACES: u64 = 60;

pub(super) const BUFFER_SIZE: usize = 10;
pub(super) const LIVE_BUFFER_SIZE: usize = 7;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// So many events are committed to the source.
    Commit(u64),
    Read(usize),
    /// Looks ahead at so many events.
    Scout(u64),
    Connect(usize),
    Disconnect(usize),
    Ack(usize),
    Nack(usize, NackAction),
    Parked(bool),
    Checkpointed(bool),
    Tick(u64),
    /// Replay parked messages up to this revision.
    Replay(u64),
    ReadParked,
    Truncated(bool),
    Restart,
}

fn settings(strategy: Sharing) -> Settings {
    Settings {
        filter: None,
        start: StartFrom::Beginning,
        resolve_links: false,
        extra_statistics: false,
        message_timeout_ms: i32::try_from(TIMEOUT.as_millis()).unwrap(),
        checkpoint_after_ms: 1_000,
        max_retry_count: MAX_RETRIES,
        min_checkpoint_count: 1,
        max_checkpoint_count: 5,
        max_subscriber_count: 0,
        live_buffer_size: i32::try_from(LIVE_BUFFER_SIZE).unwrap(),
        read_batch_size: 1,
        history_buffer_size: i32::try_from(BUFFER_SIZE).unwrap(),
        strategy,
    }
}

/// What a message is of: a place of the source, or a revision of the parked stream.
pub(super) fn id_of(origin: Origin) -> Uuid {
    let (kind, number) = match origin {
        Origin::Source(place) => (1, place),
        Origin::Parked(revision) => (2, revision),
    };
    Uuid::from_u64_pair(kind, number)
}

fn origin_of(id: Uuid) -> Origin {
    match id.as_u64_pair() {
        (1, place) => Origin::Source(place),
        (_, revision) => Origin::Parked(revision),
    }
}

/// The event at `place`, as a replay delivers it from the parked stream. Some are gone meanwhile.
fn replayed(revision: u64, place: u64) -> ResolvedEvent {
    let target = event(place).event;
    let link = target.as_deref().cloned().map(|target| {
        let event_type = "$>".to_owned();
        Arc::new(Event { id: id_of(Origin::Parked(revision)), revision, event_type, ..target })
    });
    ResolvedEvent { event: target.filter(|_| !place.is_multiple_of(5)), link }
}

fn event(place: u64) -> ResolvedEvent {
    ResolvedEvent::without_link(Arc::new(Event {
        position: place + 1,
        stream: format!("order-{}", place % 7).into(),
        revision: place,
        id: id_of(Origin::Source(place)),
        event_type: "OrderQueued".to_owned(),
        is_json: true,
        created_ticks: 0,
        metadata: Bytes::new(),
        data: Bytes::new(),
    }))
}

/// What the outside knows about the group.
pub(super) struct World {
    pub machine: Machine,
    sharing: Sharing,
    pub now: Duration,
    /// Events of the source.
    committed: u64,
    /// Those that were there when the machine began.
    history: u64,
    /// The next place that the machine has not been given.
    next: u64,
    /// The next place that the machine was not told of.
    scouted: u64,
    last_known: Option<u64>,
    slots: HashMap<ConsumerId, usize>,
    next_consumer: u64,
    /// In the order of delivery: message, consumer, time.
    pub outstanding: Vec<(Uuid, ConsumerId, Duration)>,
    pub parking: Vec<Uuid>,
    checkpointing: Option<u64>,
    pub stored_checkpoint: u64,
    pub done: BTreeSet<u64>,
    /// The places that the records of the parked stream link to.
    pub parked: Vec<u64>,
    /// Revisions of the parked stream whose replay was done, or parked again.
    replays_done: BTreeSet<u64>,
    truncating: Option<u64>,
    /// The parked stream begins here.
    pub truncated: u64,
    /// Deliveries since the last start, less those that a disconnect took back.
    charged: HashMap<Uuid, i32>,
}

impl World {
    pub(super) fn new(sharing: Sharing, history: u64) -> Self {
        Self {
            machine: Machine::new(settings(sharing), 0, history, Duration::ZERO),
            sharing,
            now: Duration::ZERO,
            committed: history,
            history,
            next: 0,
            scouted: history,
            last_known: None,
            slots: HashMap::new(),
            next_consumer: 0,
            outstanding: Vec::new(),
            parking: Vec::new(),
            checkpointing: None,
            stored_checkpoint: 0,
            done: BTreeSet::new(),
            parked: Vec::new(),
            replays_done: BTreeSet::new(),
            truncating: None,
            truncated: 0,
            charged: HashMap::new(),
        }
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Commit(count) => self.committed = (self.committed + count).min(PLACES),
            Step::Read(count) => self.read(*count),
            Step::Scout(count) => self.scout(*count),
            Step::Connect(slots) => {
                let id = ConsumerId(self.next_consumer);
                self.next_consumer += 1;
                self.slots.insert(id, *slots);
                self.machine.connect(Consumer::new(id, *slots, String::new()), self.now);
            }
            Step::Disconnect(index) => self.disconnect(*index),
            Step::Ack(index) => {
                if let Some((id, ..)) = self.answered(*index) {
                    self.is_done(id);
                    self.machine.ack(&[id], self.now);
                }
            }
            Step::Nack(index, action) => self.nack(*index, *action),
            Step::Parked(is_durable) => {
                if let Some(id) = self.parking.pop() {
                    if *is_durable {
                        self.parked.push(self.place_of(id));
                        self.is_done(id);
                    }
                    self.machine.parked(id, *is_durable, self.now);
                }
            }
            Step::Checkpointed(is_durable) => {
                if let Some(done) = self.checkpointing.take() {
                    if *is_durable {
                        self.stored_checkpoint = done;
                    }
                    self.machine.checkpoint_written(done, *is_durable, self.now);
                }
            }
            Step::Tick(millis) => {
                self.now += Duration::from_millis(*millis);
                let now = self.now;
                self.outstanding.retain(|(_, _, sent_at)| now < *sent_at + TIMEOUT);
                self.machine.tick(now);
            }
            Step::Replay(stop_at) => {
                let end = (*stop_at).min(self.parked.len() as u64);
                if self.truncated < end {
                    self.machine.replay(self.truncated, end);
                }
            }
            Step::ReadParked => self.read_parked(),
            Step::Truncated(is_durable) => {
                if let Some(before) = self.truncating.take() {
                    if *is_durable {
                        self.truncated = before;
                    }
                    self.machine.parked_truncated(before, *is_durable);
                }
            }
            Step::Restart => self.restart(),
        }
        self.perform();
        self.check_figures();
    }

    /// What the group says about itself is never more than there is, and never less than it said.
    fn check_figures(&mut self) {
        let now = self.now;
        let figures = self.machine.figures(now);
        assert!(figures.buffered <= BUFFER_SIZE, "what is read has room");
        assert!(figures.live_buffered <= LIVE_BUFFER_SIZE, "old live events make room");
        assert!(figures.last_known >= self.last_known, "what is known stays known");
        assert!(figures.last_known < Some(self.committed), "only what was committed is known");
        self.last_known = figures.last_known;
        if self.scouted == self.committed && self.committed > self.history {
            let end = self.committed.checked_sub(1);
            assert_eq!(self.last_known, end, "the end of the source is known, read or not");
        }
    }

    fn scout(&mut self, count: u64) {
        if self.machine.wants_scouting() {
            let from = self.scouted.max(self.machine.next());
            let places: Vec<u64> = (from..self.committed.min(from + count)).collect();
            self.scouted = places.last().map_or(self.scouted, |last| last + 1);
            self.machine.scouted(&places);
        }
    }

    fn is_done(&mut self, id: Uuid) {
        match origin_of(id) {
            Origin::Source(place) => self.done.insert(place),
            Origin::Parked(revision) => self.replays_done.insert(revision),
        };
    }

    /// The place in the source that a message is about.
    pub(super) fn place_of(&self, id: Uuid) -> u64 {
        match origin_of(id) {
            Origin::Source(place) => place,
            Origin::Parked(revision) => self.parked[usize::try_from(revision).unwrap()],
        }
    }

    fn read_parked(&mut self) {
        let Some(range) = self.machine.wanted_replay() else { return };
        let end = range.end;
        let messages = range.map(|revision| {
            (revision, replayed(revision, self.place_of(id_of(Origin::Parked(revision)))))
        });
        let messages = messages.collect();
        self.machine.replay_read(messages, end, self.now);
    }

    fn read(&mut self, count: usize) {
        let Some(wanted) = self.machine.wanted_events() else { return };
        let end = (self.next + wanted.min(count) as u64).min(self.committed);
        let events = (self.next..end).map(|place| (place, event(place))).collect();
        let read = Read { events, next: end, at_end: end == self.committed, is_over: false };
        self.next = end;
        self.scouted = self.scouted.max(end);
        self.machine.read(read, self.now);
    }

    fn disconnect(&mut self, index: usize) {
        let mut ids: Vec<ConsumerId> = self.slots.keys().copied().collect();
        ids.sort_unstable();
        let Some(id) = ids.get(index).copied() else { return };
        self.slots.remove(&id);
        for (message, ..) in self.outstanding.extract_if(.., |(_, consumer, _)| *consumer == id) {
            // A disconnect counts as a failure and does not park, so it earns a delivery.
            *self.charged.entry(message).or_default() -= 1;
        }
        self.machine.disconnect(id, self.now);
    }

    fn answered(&mut self, index: usize) -> Option<(Uuid, ConsumerId, Duration)> {
        (index < self.outstanding.len()).then(|| self.outstanding.remove(index))
    }

    fn nack(&mut self, index: usize, action: NackAction) {
        let Some((id, ..)) = self.answered(index) else { return };
        if matches!(action, NackAction::Skip | NackAction::Stop) {
            self.is_done(id);
        }
        self.machine.nack(&[id], action, "reason", self.now);
    }

    /// The node was killed and started again: only what was durable is left.
    fn restart(&mut self) {
        let (next, history) = (self.stored_checkpoint, self.committed);
        self.machine = Machine::new(settings(self.sharing), next, history, self.now);
        (self.next, self.scouted, self.history) = (next, history, history);
        self.last_known = None;
        self.slots.clear();
        self.outstanding.clear();
        self.parking.clear();
        self.checkpointing = None;
        self.truncating = None;
        self.charged.clear();
    }

    fn perform(&mut self) {
        for effect in self.machine.take_effects() {
            match effect {
                Effect::Deliver { consumer, resolved, .. } => {
                    let id = resolved.original_event().unwrap().id;
                    let held = self.outstanding.iter().filter(|it| it.1 == consumer).count();
                    assert!(held < self.slots[&consumer], "a consumer gets no more than its slots");
                    assert!(
                        !self.outstanding.iter().any(|it| it.0 == id),
                        "nobody else has the message"
                    );
                    let charged = self.charged.entry(id).or_default();
                    *charged += 1;
                    assert!(*charged <= 1 + MAX_RETRIES, "not more often than allowed");
                    self.outstanding.push((id, consumer, self.now));
                }
                Effect::Park { id, .. } => self.parking.push(id),
                Effect::WriteCheckpoint { done } => {
                    assert!(self.checkpointing.is_none(), "one checkpoint at a time");
                    assert!(done > self.stored_checkpoint, "checkpoints go forward");
                    assert!(
                        (0..done).all(|place| self.done.contains(&place)),
                        "a checkpoint covers only what is done"
                    );
                    self.checkpointing = Some(done);
                }
                Effect::TruncateParked { before } => {
                    assert!(self.truncating.is_none(), "one truncation at a time");
                    assert!(before > self.truncated, "the parked stream only gets shorter");
                    assert!(
                        (self.truncated..before).all(|it| self.replays_done.contains(&it)),
                        "what leaves the parked stream was done or parked again"
                    );
                    self.truncating = Some(before);
                }
            }
        }
    }

    /// Everything works from now on: all that is left gets done.
    pub(super) fn finish(&mut self) {
        self.take(&Step::Connect(100));
        self.take(&Step::Commit(PLACES));
        for _ in 0..4 * PLACES {
            if self.stored_checkpoint == PLACES && self.truncated == self.parked.len() as u64 {
                return;
            }
            self.take(&Step::Read(10));
            self.take(&Step::Replay(u64::MAX));
            self.take(&Step::ReadParked);
            while !self.outstanding.is_empty() {
                self.take(&Step::Ack(0));
            }
            while !self.parking.is_empty() {
                self.take(&Step::Parked(true));
            }
            self.take(&Step::Checkpointed(true));
            self.take(&Step::Truncated(true));
            self.take(&Step::Tick(1_000));
        }
    }
}
