//! Random lives of a group: whatever happens, nothing is lost and nothing is delivered too often.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use prost::bytes::Bytes;
use uuid::Uuid;

use super::{
    consumers::{Consumer, ConsumerId},
    machine::{Effect, Machine, NackAction},
    message::Origin,
    settings::{Settings, StartFrom, Strategy as Sharing},
};
use crate::log::{Event, Resolved};

const TIMEOUT: Duration = Duration::from_secs(3);
const MAX_RETRIES: i32 = 2;

/// Events that the source has.
const PLACES: u64 = 60;

#[derive(Debug, Clone)]
enum Step {
    Read(usize),
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

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        Just(NackAction::Retry),
        Just(NackAction::Unknown),
        Just(NackAction::Park),
        Just(NackAction::Skip),
        Just(NackAction::Stop),
    ];
    prop_oneof![
        4 => (1..8_usize).prop_map(Step::Read),
        2 => (1..5_usize).prop_map(Step::Connect),
        1 => (0..4_usize).prop_map(Step::Disconnect),
        8 => (0..20_usize).prop_map(Step::Ack),
        4 => (0..20_usize, action).prop_map(|(index, action)| Step::Nack(index, action)),
        3 => any::<bool>().prop_map(Step::Parked),
        3 => any::<bool>().prop_map(Step::Checkpointed),
        2 => (0..4_000_u64).prop_map(Step::Tick),
        1 => (0..30_u64).prop_map(Step::Replay),
        2 => Just(Step::ReadParked),
        2 => any::<bool>().prop_map(Step::Truncated),
        1 => Just(Step::Restart),
    ]
}

fn sharing() -> impl Strategy<Value = Sharing> {
    prop_oneof![
        Just(Sharing::RoundRobin),
        Just(Sharing::DispatchToSingle),
        Just(Sharing::Pinned),
        Just(Sharing::PinnedByCorrelation),
    ]
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
        live_buffer_size: 10,
        read_batch_size: 1,
        history_buffer_size: 10,
        strategy,
    }
}

/// What a message is of: a place of the source, or a revision of the parked stream.
fn id_of(origin: Origin) -> Uuid {
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

/// The event at `place`, as a replay delivers it from the parked stream.
fn replayed(revision: u64, place: u64) -> Resolved {
    let target = event(place).event;
    let link = target.as_deref().cloned().map(|target| {
        let event_type = "$>".to_owned();
        Arc::new(Event { id: id_of(Origin::Parked(revision)), revision, event_type, ..target })
    });
    Resolved { event: target, link }
}

fn event(place: u64) -> Resolved {
    Resolved::plain(Arc::new(Event {
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
struct World {
    machine: Machine,
    sharing: Sharing,
    now: Duration,
    /// The next place that the machine has not been given.
    next: u64,
    slots: HashMap<ConsumerId, usize>,
    next_consumer: u64,
    /// In the order of delivery: message, consumer, time.
    outstanding: Vec<(Uuid, ConsumerId, Duration)>,
    parking: Vec<Uuid>,
    checkpointing: Option<u64>,
    stored_checkpoint: u64,
    done: BTreeSet<u64>,
    /// The places that the records of the parked stream link to.
    parked: Vec<u64>,
    /// Revisions of the parked stream whose replay was done, or parked again.
    replays_done: BTreeSet<u64>,
    truncating: Option<u64>,
    /// The parked stream begins here.
    truncated: u64,
    /// Deliveries since the last start, less those that a disconnect took back.
    charged: HashMap<Uuid, i32>,
}

impl World {
    fn new(sharing: Sharing) -> Self {
        Self {
            machine: Machine::new(settings(sharing), 0, Duration::ZERO),
            sharing,
            now: Duration::ZERO,
            next: 0,
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

    fn take(&mut self, step: &Step) {
        match step {
            Step::Read(count) => self.read(*count),
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
    }

    fn is_done(&mut self, id: Uuid) {
        match origin_of(id) {
            Origin::Source(place) => self.done.insert(place),
            Origin::Parked(revision) => self.replays_done.insert(revision),
        };
    }

    /// The place in the source that a message is about.
    fn place_of(&self, id: Uuid) -> u64 {
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
        let end = (self.next + wanted.min(count) as u64).min(PLACES);
        let events = (self.next..end).map(|place| (place, event(place))).collect();
        self.next = end;
        self.machine.read(events, end, self.now);
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
        self.machine = Machine::new(settings(self.sharing), self.stored_checkpoint, self.now);
        self.next = self.stored_checkpoint;
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
                    let id = resolved.original().unwrap().id;
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
    fn finish(&mut self) {
        self.take(&Step::Connect(100));
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

proptest! {
    #[test]
    fn every_event_is_done_in_the_end(
        sharing in sharing(),
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut world = World::new(sharing);
        for step in &steps {
            world.take(step);
        }
        world.finish();
        prop_assert_eq!(world.done.len() as u64, PLACES);
        prop_assert_eq!(world.stored_checkpoint, PLACES);
        prop_assert_eq!(world.truncated, world.parked.len() as u64, "all replays are done");
    }

    #[test]
    fn one_consumer_without_failures_gets_the_order_of_the_source(slots in 1..30_usize) {
        let mut world = World::new(Sharing::RoundRobin);
        world.take(&Step::Connect(slots));
        let mut delivered = Vec::new();
        while delivered.len() as u64 != PLACES {
            world.take(&Step::Read(3));
            while let Some((id, ..)) = world.outstanding.first().copied() {
                delivered.push(world.place_of(id));
                world.take(&Step::Ack(0));
            }
        }
        prop_assert!(delivered.is_sorted());
    }
}

#[test]
fn two_consumers_get_equal_shares() {
    let mut world = World::new(Sharing::RoundRobin);
    world.take(&Step::Connect(10));
    world.take(&Step::Connect(10));
    world.take(&Step::Read(7));
    let first = world.outstanding.iter().filter(|it| it.1 == ConsumerId(0)).count();
    assert_eq!((first, world.outstanding.len()), (4, 7));
}

#[test]
fn a_retried_message_comes_before_new_ones_and_is_parked_after_its_last_retry() {
    let mut world = World::new(Sharing::DispatchToSingle);
    world.take(&Step::Connect(1));
    world.take(&Step::Read(5));
    for _ in 0..=MAX_RETRIES {
        assert_eq!(world.outstanding[0].0, id_of(Origin::Source(0)));
        assert!(world.parking.is_empty());
        world.take(&Step::Nack(0, NackAction::Retry));
    }
    assert_eq!(world.parking, [id_of(Origin::Source(0))]);
    assert_eq!(world.outstanding[0].0, id_of(Origin::Source(1)));
}

#[test]
fn a_parked_message_holds_the_checkpoint_until_its_record_is_durable() {
    let mut world = World::new(Sharing::RoundRobin);
    world.take(&Step::Connect(10));
    world.take(&Step::Read(4));
    world.take(&Step::Nack(0, NackAction::Park));
    for _ in 0..3 {
        world.take(&Step::Ack(0));
    }
    world.take(&Step::Parked(false));
    assert_eq!(world.machine.final_checkpoint(), None);
    world.take(&Step::Tick(1_000));
    world.take(&Step::Parked(true));
    assert_eq!(world.machine.final_checkpoint(), Some(4));
}
