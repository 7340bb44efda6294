//! A simulation of a group's source, consumers and store that checks every effect of the group.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use super::{Effect, GroupState, NackAction};
use crate::{
    log::{Event, ResolvedEvent},
    persistent::{
        command::{ConsumerId, ConsumerOptions},
        consumers::Consumer,
        message::Origin,
        settings::{ConsumerStrategy, GroupSettings},
        source_reader::SourceBatch,
    },
};

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(3);
pub(super) const MAX_RETRIES: i32 = 2;

/// Number of events of the source when a simulation ends.
pub(super) const EVENTS: u64 = 60;

pub(super) const BUFFER_SIZE: usize = 10;
pub(super) const LIVE_BUFFER_SIZE: usize = 7;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Commits this number of events to the source.
    Commit(u64),
    Read(usize),
    /// Looks ahead at this number of events.
    LookAhead(u64),
    Connect(usize),
    Disconnect(usize),
    Ack(usize),
    Nack(usize, NackAction),
    Parked(bool),
    Checkpointed(bool),
    Tick(u64),
    /// Replays parked messages up to this revision.
    Replay(u64),
    ReadParked,
    Truncated(bool),
    Restart,
}

fn settings(strategy: ConsumerStrategy) -> GroupSettings {
    GroupSettings {
        message_timeout_ms: i32::try_from(MESSAGE_TIMEOUT.as_millis()).unwrap(),
        checkpoint_after_ms: 1_000,
        max_retry_count: MAX_RETRIES,
        min_checkpoint_count: 1,
        max_checkpoint_count: 5,
        live_buffer_size: i32::try_from(LIVE_BUFFER_SIZE).unwrap(),
        read_batch_size: 1,
        history_buffer_size: i32::try_from(BUFFER_SIZE).unwrap(),
        strategy,
        ..GroupSettings::for_tests()
    }
}

pub(super) fn id_of(origin: Origin) -> Uuid {
    let (kind, number) = match origin {
        Origin::Source(position) => (1, position),
        Origin::Parked(revision) => (2, revision),
    };
    Uuid::from_u64_pair(kind, number)
}

fn origin_of(id: Uuid) -> Origin {
    match id.as_u64_pair() {
        (1, position) => Origin::Source(position),
        (_, revision) => Origin::Parked(revision),
    }
}

/// Returns the link that a replay delivers for the event at `position`. Every fifth event is gone.
fn parked_link(revision: u64, position: u64) -> ResolvedEvent {
    let target = source_event(position).event;
    let link = target.as_deref().cloned().map(|target| {
        let event_type = "$>".to_owned();
        Arc::new(Event { id: id_of(Origin::Parked(revision)), revision, event_type, ..target })
    });
    ResolvedEvent { event: target.filter(|_| !position.is_multiple_of(5)), link }
}

fn source_event(position: u64) -> ResolvedEvent {
    ResolvedEvent::without_link(Arc::new(Event {
        position: position + 1,
        stream: format!("order-{}", position % 7).into(),
        revision: position,
        id: id_of(Origin::Source(position)),
        ..Event::default()
    }))
}

/// A group with everything outside it.
pub(super) struct Simulation {
    pub group: GroupState,
    strategy: ConsumerStrategy,
    pub now: Duration,
    /// Number of events that the source has.
    committed: u64,
    /// Number of events that the source had when the group began.
    history: u64,
    /// The next source position to give to the group.
    next: u64,
    /// The next source position that the group does not know of.
    looked_ahead: u64,
    last_known: Option<u64>,
    slots: HashMap<ConsumerId, usize>,
    next_consumer: u64,
    /// Message, consumer and time of each outstanding delivery, in order.
    pub outstanding: Vec<(Uuid, ConsumerId, Duration)>,
    pub parking: Vec<Uuid>,
    checkpointing: Option<u64>,
    pub stored_checkpoint: u64,
    pub done: BTreeSet<u64>,
    /// Source positions that the links of the parked stream name.
    pub parked: Vec<u64>,
    /// Revisions of the parked stream whose replay is done or was parked again.
    replays_done: BTreeSet<u64>,
    truncating: Option<u64>,
    /// First revision of the parked stream.
    pub truncated: u64,
    /// Deliveries of each message since the last start, without those that a disconnect ended.
    charged: HashMap<Uuid, i32>,
}

impl Simulation {
    pub(super) fn new(strategy: ConsumerStrategy, history: u64) -> Self {
        Self {
            group: GroupState::new(settings(strategy), 0, history, Duration::ZERO),
            strategy,
            now: Duration::ZERO,
            committed: history,
            history,
            next: 0,
            looked_ahead: history,
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

    /// Carries out one step, performs the effects and checks the counters.
    pub(super) fn run_step(&mut self, step: &Step) {
        match step {
            Step::Commit(count) => self.committed = (self.committed + count).min(EVENTS),
            Step::Read(count) => self.read_source(*count),
            Step::LookAhead(count) => self.look_ahead(*count),
            Step::Connect(slots) => {
                let id = ConsumerId(self.next_consumer);
                self.next_consumer += 1;
                self.slots.insert(id, *slots);
                let options = ConsumerOptions {
                    n_slots: *slots,
                    connection_name: String::new(),
                    user_name: String::new(),
                };
                self.group.connect_consumer(Consumer::new(id, options), self.now);
            }
            Step::Disconnect(index) => self.disconnect_consumer(*index),
            Step::Ack(index) => {
                if let Some((id, ..)) = self.take_outstanding(*index) {
                    self.mark_done(id);
                    self.group.ack_messages(&[id], self.now);
                }
            }
            Step::Nack(index, action) => self.nack_outstanding(*index, *action),
            Step::Parked(is_durable) => {
                if let Some(id) = self.parking.pop() {
                    if *is_durable {
                        self.parked.push(self.position_of(id));
                        self.mark_done(id);
                    }
                    self.group.finish_parking(id, *is_durable, self.now);
                }
            }
            Step::Checkpointed(is_durable) => {
                if let Some(done) = self.checkpointing.take() {
                    if *is_durable {
                        self.stored_checkpoint = done;
                    }
                    self.group.finish_checkpoint(done, *is_durable, self.now);
                }
            }
            Step::Tick(millis) => {
                self.now += Duration::from_millis(*millis);
                let now = self.now;
                // The group takes back what timed out, at exactly the same moment: later acks of it
                // must not be chosen.
                self.outstanding.retain(|(_, _, sent_at)| now < *sent_at + MESSAGE_TIMEOUT);
                self.group.tick(now);
            }
            Step::Replay(stop_at) => {
                let end = (*stop_at).min(self.parked.len() as u64);
                if self.truncated < end {
                    self.group.begin_replay(self.truncated, end);
                }
            }
            Step::ReadParked => self.read_parked(),
            Step::Truncated(is_durable) => {
                if let Some(before) = self.truncating.take() {
                    if *is_durable {
                        self.truncated = before;
                    }
                    self.group.finish_truncation(before, *is_durable);
                }
            }
            Step::Restart => self.restart(),
        }
        self.perform_effects();
        self.check_counters();
    }

    /// Checks that the counters stay within their bounds, and that the last known event never goes
    /// back.
    fn check_counters(&mut self) {
        let now = self.now;
        let counters = self.group.measure_counters(now);
        assert!(counters.n_buffered <= BUFFER_SIZE, "the buffer holds everything that is read");
        assert!(counters.n_live_buffered <= LIVE_BUFFER_SIZE, "old live events are dropped");
        assert!(counters.last_known >= self.last_known, "the last known event never goes back");
        // Positions count from 0, so the last committed one is `committed - 1`.
        assert!(counters.last_known < Some(self.committed), "only committed events are known");
        self.last_known = counters.last_known;
        if self.looked_ahead == self.committed && self.committed > self.history {
            let end = self.committed.checked_sub(1);
            assert_eq!(self.last_known, end, "the end of the source is known, read or not");
        }
    }

    fn look_ahead(&mut self, count: u64) {
        if self.group.wants_look_ahead() {
            // Reading may have passed the place where the last look ahead ended.
            let from = self.looked_ahead.max(self.group.next_position());
            let positions: Vec<u64> = (from..self.committed.min(from + count)).collect();
            self.looked_ahead = positions.last().map_or(self.looked_ahead, |last| last + 1);
            self.group.note_committed(&positions);
        }
    }

    fn mark_done(&mut self, id: Uuid) {
        match origin_of(id) {
            Origin::Source(position) => self.done.insert(position),
            Origin::Parked(revision) => self.replays_done.insert(revision),
        };
    }

    /// Returns the source position of a message's event.
    pub(super) fn position_of(&self, id: Uuid) -> u64 {
        match origin_of(id) {
            Origin::Source(position) => position,
            Origin::Parked(revision) => self.parked[usize::try_from(revision).unwrap()],
        }
    }

    fn read_parked(&mut self) {
        let Some(range) = self.group.wanted_replay() else { return };
        let end = range.end;
        let messages = range.map(|revision| {
            (revision, parked_link(revision, self.position_of(id_of(Origin::Parked(revision)))))
        });
        let messages = messages.collect();
        self.group.add_parked(messages, end, self.now);
    }

    fn read_source(&mut self, count: usize) {
        let Some(wanted) = self.group.wanted_events() else { return };
        let end = (self.next + wanted.min(count) as u64).min(self.committed);
        let events = (self.next..end).map(|position| (position, source_event(position))).collect();
        let batch =
            SourceBatch { events, next: end, at_end: end == self.committed, is_over: false };
        self.next = end;
        self.looked_ahead = self.looked_ahead.max(end);
        self.group.add_events(batch, self.now);
    }

    fn disconnect_consumer(&mut self, index: usize) {
        let mut ids: Vec<ConsumerId> = self.slots.keys().copied().collect();
        ids.sort_unstable();
        let Some(id) = ids.get(index).copied() else { return };
        self.slots.remove(&id);
        for (message, ..) in self.outstanding.extract_if(.., |(_, consumer, _)| *consumer == id) {
            // A disconnect raises the retry count and never parks. So the message may be delivered
            // once more than its retries allow.
            *self.charged.entry(message).or_default() -= 1;
        }
        self.group.disconnect_consumer(id, self.now);
    }

    fn take_outstanding(&mut self, index: usize) -> Option<(Uuid, ConsumerId, Duration)> {
        (index < self.outstanding.len()).then(|| self.outstanding.remove(index))
    }

    fn nack_outstanding(&mut self, index: usize, action: NackAction) {
        let Some((id, ..)) = self.take_outstanding(index) else { return };
        if matches!(action, NackAction::Skip | NackAction::Stop) {
            self.mark_done(id);
        }
        self.group.nack_messages(&[id], action, "reason", self.now);
    }

    /// Kills the node and starts it again. Only durable state is left.
    fn restart(&mut self) {
        // `done` stays: events finished before the restart are delivered again if no checkpoint
        // covers them, and that is no error. They just may not be missing at the end.
        let (next, history) = (self.stored_checkpoint, self.committed);
        self.group = GroupState::new(settings(self.strategy), next, history, self.now);
        (self.next, self.looked_ahead, self.history) = (next, history, history);
        // Only what was read or looked at since the start is known.
        self.last_known = None;
        self.slots.clear();
        self.outstanding.clear();
        self.parking.clear();
        self.checkpointing = None;
        self.truncating = None;
        self.charged.clear();
    }

    fn perform_effects(&mut self) {
        for effect in self.group.take_effects() {
            match effect {
                Effect::Deliver { consumer, resolved, .. } => {
                    let id = resolved.original_event().unwrap().id;
                    let held =
                        self.outstanding.iter().filter(|delivery| delivery.1 == consumer).count();
                    assert!(
                        held < self.slots[&consumer],
                        "a consumer has at most as many messages as slots"
                    );
                    assert!(
                        !self.outstanding.iter().any(|delivery| delivery.0 == id),
                        "no other consumer has the message"
                    );
                    let charged = self.charged.entry(id).or_default();
                    *charged += 1;
                    assert!(*charged <= 1 + MAX_RETRIES, "deliveries stay within the retry count");
                    self.outstanding.push((id, consumer, self.now));
                }
                Effect::Park { id, .. } => self.parking.push(id),
                Effect::WriteCheckpoint { done } => {
                    assert!(self.checkpointing.is_none(), "one checkpoint at a time");
                    // A checkpoint that was not stored may be written again, but a stored one
                    // never.
                    assert!(done > self.stored_checkpoint, "checkpoints go forward");
                    assert!(
                        (0..done).all(|position| self.done.contains(&position)),
                        "a checkpoint covers only events that are done"
                    );
                    self.checkpointing = Some(done);
                }
                Effect::TruncateParked { before } => {
                    assert!(self.truncating.is_none(), "one truncation at a time");
                    assert!(before > self.truncated, "the parked stream only gets shorter");
                    assert!(
                        (self.truncated..before)
                            .all(|revision| self.replays_done.contains(&revision)),
                        "only revisions that are done leave the parked stream"
                    );
                    self.truncating = Some(before);
                }
            }
        }
    }

    /// Finishes every message. No step fails any more.
    pub(super) fn finish_all(&mut self) {
        self.run_step(&Step::Connect(100));
        self.run_step(&Step::Commit(EVENTS));
        // Far more rounds than needed; a group that makes no progress fails the caller's checks
        // instead of running for ever.
        for _ in 0..4 * EVENTS {
            if self.stored_checkpoint == EVENTS && self.truncated == self.parked.len() as u64 {
                return;
            }
            self.run_step(&Step::Read(10));
            self.run_step(&Step::Replay(u64::MAX));
            self.run_step(&Step::ReadParked);
            while !self.outstanding.is_empty() {
                self.run_step(&Step::Ack(0));
            }
            while !self.parking.is_empty() {
                self.run_step(&Step::Parked(true));
            }
            self.run_step(&Step::Checkpointed(true));
            self.run_step(&Step::Truncated(true));
            self.run_step(&Step::Tick(1_000));
        }
    }
}
