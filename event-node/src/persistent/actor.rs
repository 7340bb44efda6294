//! The task of a group: feeds the machine with events, answers and time, and does what it wants.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    log::{CatchUpReader, CatchUpSource, GroupKey, Log, LogError, ResolvedEvent},
    persistent::{
        checkpoint::write_checkpoint,
        command::{Answer, Command, Connected, Delivery, GroupInfo, NewConsumer, ToConsumer},
        consumers::{Consumer, ConsumerId},
        machine::{Effect, MAX_READ, Machine},
        parked::{self, ToPark},
        settings::Settings,
        source::{Read, Reading},
    },
};

/// How often time-outs and checkpoints are looked at. Clients' tests rely on this granularity.
const TICK: Duration = Duration::from_secs(1);

/// Answers and questions that may wait for a group.
pub(super) const MAX_WAITING_COMMANDS: usize = 1_024;

/// Messages that one consumer may have in flight, whatever it asks for.
const MAX_SLOTS: usize = 10_000;

/// Deliveries beyond its slots that may wait for a consumer: time-outs give slots back while the
/// deliveries still wait. A consumer that leaves more unread is taken for gone.
const SPARE_DELIVERIES: usize = 16;

/// Messages that are parked with one append.
const MAX_PARKED_AT_ONCE: usize = 100;

/// What a piece of work beside the actor came to.
enum Done {
    Read(CatchUpReader, Result<Read, LogError>),
    Scouted(CatchUpReader, Result<(Vec<u64>, bool), LogError>),
    Parked(Vec<Uuid>, bool),
    Checkpointed(u64, bool),
    ReplayExtent(Option<u64>, Result<Option<(u64, u64)>, LogError>),
    ReplayRead(Result<(Vec<(u64, ResolvedEvent)>, u64), LogError>),
    Truncated(u64, bool),
    Informed,
}

/// Why the actor ends.
enum Ending {
    Stop,
    /// Whoever waits for the sender to be dropped waits for the actor to end.
    Dropped(oneshot::Sender<()>),
}

/// What an actor is made of.
pub(super) struct Start {
    pub key: GroupKey,
    pub settings: Settings,
    pub source: CatchUpSource,
    /// The next place of the source to read.
    pub next: u64,
    /// The first place of what is committed from now on.
    pub live_from: u64,
}

/// A group's task.
pub(super) struct Actor {
    key: GroupKey,
    settings: Settings,
    machine: Machine,
    log: Log,
    head: watch::Receiver<u64>,
    reading: Reading,
    is_replay_reading: bool,
    /// Parked in this order, one append at a time.
    to_park: VecDeque<ToPark>,
    is_parking: bool,
    has_checkpoint: bool,
    consumers: HashMap<ConsumerId, mpsc::Sender<ToConsumer>>,
    next_consumer: u64,
    work: JoinSet<Done>,
    started: Instant,
}

impl Actor {
    pub(super) fn new(start: Start, has_checkpoint: bool, log: Log) -> Self {
        let Start { key, settings, source, next, live_from } = start;
        let places = (next, live_from);
        Self {
            reading: Reading::new(log.clone(), source, places, settings.resolve_links),
            machine: Machine::new(settings.clone(), next, live_from, Duration::ZERO),
            key,
            settings,
            head: log.watch_head(),
            log,
            is_replay_reading: false,
            to_park: VecDeque::new(),
            is_parking: false,
            has_checkpoint,
            consumers: HashMap::new(),
            next_consumer: 0,
            work: JoinSet::new(),
            started: Instant::now(),
        }
    }

    /// Runs until the group is dropped or the node stops.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ending = self.serve(&mut inbox, &stop, &mut ticks).await;
        while let Ok(command) = inbox.try_recv() {
            // What was answered before the end need not be delivered again after it.
            if let Command::Answer(answer) = command {
                self.take(Command::Answer(answer));
            }
        }
        if let Ending::Dropped(_) = &ending {
            self.drop_consumers();
        }
        // Parks and checkpoints under way are finished before the last checkpoint is known.
        while let Some(done) = self.work.join_next().await {
            if let Ok(done) = done {
                self.finish(done);
            }
        }
        if let Some(done) = self.machine.final_checkpoint() {
            write_checkpoint(&self.log, &self.key, done).await;
        }
        tracing::debug!(group = %self.key, "group ended");
        if let Ending::Dropped(waiting) = ending {
            drop(waiting);
        }
    }

    async fn serve(
        &mut self,
        inbox: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
        ticks: &mut Interval,
    ) -> Ending {
        loop {
            self.pump();
            tokio::select! {
                () = stop.cancelled() => return Ending::Stop,
                command = inbox.recv() => match command {
                    None => return Ending::Stop,
                    Some(Command::Drop(dropped)) => return Ending::Dropped(dropped),
                    Some(command) => self.take(command),
                },
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.finish(done),
                    Err(error) => {
                        tracing::error!(group = %self.key, %error, "work of a group panicked");
                        return Ending::Stop;
                    }
                },
                changed = self.head.changed() => match changed {
                    Ok(()) => self.reading.committed(),
                    Err(_) => return Ending::Stop,
                },
                _ = ticks.tick() => {
                    self.reading.is_backing_off = false;
                    let now = self.now();
                    self.machine.tick(now);
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Connect(consumer, reply) => self.connect(consumer, reply),
            Command::Disconnect(id) => {
                self.consumers.remove(&id);
                self.machine.disconnect(id, now);
            }
            Command::Answer(Answer::Ack(ids)) => self.machine.ack(&ids, now),
            Command::Answer(Answer::Nack { ids, action, reason }) => {
                self.machine.nack(&ids, action, &reason, now);
            }
            Command::Replay(stop_at) => {
                let (log, key) = (self.log.clone(), self.key.clone());
                self.work.spawn(async move {
                    Done::ReplayExtent(stop_at, parked::extent(&log, &key).await)
                });
            }
            Command::Info(reply) => self.info(reply),
            // Taken by the loop, which it ends.
            Command::Drop(_) => {}
        }
    }

    fn connect(&mut self, consumer: NewConsumer, reply: oneshot::Sender<Option<Connected>>) {
        if !self.machine.has_consumer_room() {
            drop(reply.send(None));
            return;
        }
        let slots = consumer.slots.min(MAX_SLOTS);
        let id = ConsumerId(self.next_consumer);
        self.next_consumer += 1;
        let (sender, deliveries) = mpsc::channel(2 * slots + SPARE_DELIVERIES);
        if reply.send(Some(Connected { id, deliveries })).is_err() {
            return;
        }
        self.consumers.insert(id, sender);
        let now = self.now();
        self.machine.connect(Consumer::new(id, slots, consumer.connection_name), now);
    }

    /// Tells all consumers that the group was dropped.
    fn drop_consumers(&mut self) {
        let now = self.now();
        for (id, consumer) in self.consumers.drain() {
            // A full queue is as good: a stream that ends without a word is an error too.
            drop(consumer.try_send(ToConsumer::GroupDropped));
            self.machine.disconnect(id, now);
        }
    }

    fn finish(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Read(follower, Ok(read)) => {
                self.reading.ended(follower, &read);
                self.machine.read(read, now);
            }
            Done::Read(follower, Err(error)) => {
                self.reading.failed(follower);
                self.report(&error);
            }
            Done::Scouted(follower, Ok((places, at_end))) => {
                self.reading.scouted(follower, at_end);
                self.machine.scouted(&places);
            }
            Done::Scouted(follower, Err(error)) => {
                self.reading.scouted(follower, false);
                self.reading.is_backing_off = true;
                self.report(&error);
            }
            Done::Parked(ids, is_durable) => {
                self.is_parking = false;
                for id in ids {
                    self.machine.parked(id, is_durable, now);
                }
            }
            Done::Checkpointed(done, is_durable) => {
                self.has_checkpoint |= is_durable;
                self.machine.checkpoint_written(done, is_durable, now);
            }
            Done::ReplayExtent(_, Ok(None)) | Done::Informed => {}
            Done::ReplayExtent(stop_at, Ok(Some((first, last)))) => {
                let end = last.saturating_add(1);
                self.machine.replay(first, stop_at.map_or(end, |stop_at| end.min(stop_at)));
            }
            Done::ReplayRead(Ok((messages, next))) => {
                self.is_replay_reading = false;
                self.machine.replay_read(messages, next, now);
            }
            Done::ReplayRead(Err(error)) => {
                self.is_replay_reading = false;
                self.reading.is_backing_off = true;
                self.report(&error);
            }
            Done::ReplayExtent(_, Err(error)) => self.report(&error),
            Done::Truncated(before, is_durable) => {
                self.machine.parked_truncated(before, is_durable);
            }
        }
    }

    fn report(&self, error: &LogError) {
        tracing::warn!(group = %self.key, error = error as &dyn std::error::Error, "read failed");
    }

    /// Does what the machine wants, and reads what it has room for.
    fn pump(&mut self) {
        loop {
            let effects = self.machine.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.perform(effect);
            }
        }
        if self.reading.is_over() && self.machine.is_done() {
            // Nothing will ever be delivered again, and consumers would wait for it.
            self.drop_consumers();
        }
        self.pump_source();
        if !self.is_replay_reading
            && !self.reading.is_backing_off
            && let Some(range) = self.machine.wanted_replay()
        {
            self.is_replay_reading = true;
            let (log, key) = (self.log.clone(), self.key.clone());
            self.work.spawn(async move { Done::ReplayRead(parked::read(&log, &key, range).await) });
        }
        if !self.is_parking && !self.to_park.is_empty() {
            self.is_parking = true;
            let count = self.to_park.len().min(MAX_PARKED_AT_ONCE);
            let batch: Vec<ToPark> = self.to_park.drain(..count).collect();
            let (log, key) = (self.log.clone(), self.key.clone());
            self.work.spawn(async move {
                let is_durable = parked::record(&log, &key, &batch).await;
                Done::Parked(batch.into_iter().map(|message| message.id).collect(), is_durable)
            });
        }
    }

    /// Reads the source as far as there is room, and looks ahead of that.
    fn pump_source(&mut self) {
        if let Some(limit) = self.machine.wanted_events()
            && let Some(follower) = self.reading.begin()
        {
            let reader = self.reading.reader.clone();
            self.work.spawn(async move {
                let (follower, read) = reader.read(follower, limit).await;
                Done::Read(follower, read)
            });
        }
        if self.machine.wants_scouting()
            && let Some(follower) = self.reading.begin_scouting(self.machine.next())
        {
            let reader = self.reading.reader.clone();
            self.work.spawn(async move {
                let (follower, places) = reader.scout(follower, MAX_READ).await;
                Done::Scouted(follower, places)
            });
        }
    }

    fn perform(&mut self, effect: Effect) {
        let (log, key) = (self.log.clone(), self.key.clone());
        match effect {
            Effect::Deliver { consumer, resolved, retry_count } => {
                let delivery = ToConsumer::Deliver(Delivery { resolved, retry_count });
                let sent =
                    self.consumers.get(&consumer).is_some_and(|it| it.try_send(delivery).is_ok());
                if !sent && self.consumers.remove(&consumer).is_some() {
                    let now = self.now();
                    self.machine.disconnect(consumer, now);
                }
            }
            Effect::Park { id, resolved, reason } => {
                self.to_park.push_back(ToPark { id, resolved, reason });
            }
            Effect::WriteCheckpoint { done } => {
                self.work.spawn(async move {
                    Done::Checkpointed(done, write_checkpoint(&log, &key, done).await)
                });
            }
            Effect::TruncateParked { before } => {
                self.work.spawn(async move {
                    Done::Truncated(before, parked::truncate(&log, &key, before).await)
                });
            }
        }
    }

    /// Answers beside the loop, since the parked messages have to be counted.
    fn info(&mut self, reply: oneshot::Sender<GroupInfo>) {
        let now = self.now();
        // The original never gets the page that it asks a tombstoned source for.
        let is_reading = self.reading.is_running() || self.reading.is_over();
        let mut figures = self.machine.figures(now);
        let replayed_before = figures.replayed_before;
        let mut info = GroupInfo::of((&self.key, &self.settings), &mut figures, is_reading, now);
        info.last_checkpoint = info.last_checkpoint.filter(|_| self.has_checkpoint);
        let log = self.log.clone();
        let counting = async move {
            if let Ok(Some((first, last))) = parked::extent(&log, &info.key).await {
                info.parked = (last + 1).saturating_sub(first.max(replayed_before));
            }
            drop(reply.send(info));
        };
        self.work.spawn(async move {
            counting.await;
            Done::Informed
        });
    }
}
