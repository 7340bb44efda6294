//! The task of a group: feeds events, commands and time to the state machine, and performs its
//! effects.

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
        command::{
            Acknowledgement, ConsumerConnection, ConsumerId, ConsumerMessage, ConsumerOptions,
            Delivery, GroupCommand,
        },
        consumers::Consumer,
        parked_stream::{self, MessageToPark},
        settings::{GroupSettings, MAX_READ_BATCH},
        source_reader::{ReadScheduler, SourceBatch},
        state_machine::{Effect, GroupState},
        statistics::GroupInfo,
    },
};

/// Interval at which message time-outs and checkpoints are checked. Clients' tests rely on it.
const TICK: Duration = Duration::from_secs(1);

/// Maximum number of commands that wait for a group.
pub(super) const MAX_WAITING_COMMANDS: usize = 1_024;

/// Maximum number of messages that one consumer may have in flight, whatever it asks for.
const MAX_SLOTS: usize = 10_000;

/// Number of deliveries that may wait for a consumer beyond twice its slots. Time-outs free slots
/// while the deliveries still wait. A consumer that leaves more unread is disconnected.
const SPARE_DELIVERIES: usize = 16;

/// Maximum number of messages that are parked with one append.
const MAX_PARKED_AT_ONCE: usize = 100;

/// Result of work that runs beside the group's task.
enum WorkResult {
    Read(CatchUpReader, Result<SourceBatch, LogError>),
    LookedAhead(CatchUpReader, Result<(Vec<u64>, bool), LogError>),
    Parked(Vec<Uuid>, bool),
    Checkpointed(u64, bool),
    ParkedBounds(Option<u64>, Result<Option<(u64, u64)>, LogError>),
    ParkedRead(Result<(Vec<(u64, ResolvedEvent)>, u64), LogError>),
    Truncated(u64, bool),
    InfoSent,
}

/// Why the task ends.
enum EndReason {
    Stop,
    /// The group was dropped. Dropping the sender reports the end of the task.
    Dropped(oneshot::Sender<()>),
}

/// Parameters of a group's task.
pub(super) struct GroupStart {
    pub key: GroupKey,
    pub settings: GroupSettings,
    pub source: CatchUpSource,
    /// The next source position to read.
    pub next: u64,
    /// The source position of the next event that is committed.
    pub live_from: u64,
}

pub(super) struct GroupTask {
    key: GroupKey,
    settings: GroupSettings,
    state: GroupState,
    log: Log,
    head: watch::Receiver<u64>,
    reads: ReadScheduler,
    is_reading_parked: bool,
    /// Messages to park, in this order, with one append at a time.
    to_park: VecDeque<MessageToPark>,
    is_parking: bool,
    has_checkpoint: bool,
    consumers: HashMap<ConsumerId, mpsc::Sender<ConsumerMessage>>,
    next_consumer: u64,
    work: JoinSet<WorkResult>,
    started: Instant,
}

impl GroupTask {
    pub(super) fn new(start: GroupStart, has_checkpoint: bool, log: Log) -> Self {
        let GroupStart { key, settings, source, next, live_from } = start;
        let positions = (next, live_from);
        Self {
            reads: ReadScheduler::new(log.clone(), source, positions, settings.resolve_links),
            state: GroupState::new(settings.clone(), next, live_from, Duration::ZERO),
            key,
            settings,
            head: log.watch_head(),
            log,
            is_reading_parked: false,
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
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<GroupCommand>,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(TICK);
        // After a stall, the default would fire the missed ticks in a burst. Each tick retries
        // failed reads and parks.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ending = self.run_until_ended(&mut inbox, &stop, &mut ticks).await;
        // Other commands are dropped with their reply channels, which fails the calls.
        while let Ok(command) = inbox.try_recv() {
            // Acknowledgements that were sent before the end count: their messages are not
            // delivered again after it.
            if let GroupCommand::Acknowledge(acknowledgement) = command {
                self.acknowledge_messages(acknowledgement);
            }
        }
        if let EndReason::Dropped(_) = &ending {
            self.drop_consumers();
        }
        // Running parks and checkpoints finish first. The last checkpoint depends on them.
        while let Some(result) = self.work.join_next().await {
            if let Ok(result) = result {
                self.handle_result(result);
            }
        }
        // The results above may have caused effects, which are not performed any more. A message
        // whose parking is still due stays open, and the checkpoint stays before it. EventStoreDB
        // writes no checkpoint here (`stop-checkpoint` in docs/event-store-compatibility.md).
        if let Some(done) = self.state.final_checkpoint() {
            write_checkpoint(&self.log, &self.key, done).await;
        }
        tracing::debug!(group = %self.key, "Persistent subscription group ended");
        // Last of all: `update_group` reads the checkpoint as soon as the sender is gone.
        if let EndReason::Dropped(waiting) = ending {
            drop(waiting);
        }
    }

    async fn run_until_ended(
        &mut self,
        inbox: &mut mpsc::Receiver<GroupCommand>,
        stop: &CancellationToken,
        ticks: &mut Interval,
    ) -> EndReason {
        loop {
            // Before the wait: the effects may start the work that the wait is for.
            self.perform_effects();
            tokio::select! {
                () = stop.cancelled() => return EndReason::Stop,
                command = inbox.recv() => match command {
                    None => return EndReason::Stop,
                    Some(GroupCommand::Drop(dropped)) => return EndReason::Dropped(dropped),
                    Some(command) => self.handle_command(command),
                },
                // Without running work, `join_next` returns `None` at once, and `select!` waits for
                // the other branches.
                Some(result) = self.work.join_next() => match result {
                    Ok(result) => self.handle_result(result),
                    Err(error) => {
                        tracing::error!(
                            group = %self.key, %error,
                            "Work of persistent subscription group panicked"
                        );
                        return EndReason::Stop;
                    }
                },
                changed = self.head.changed() => match changed {
                    Ok(()) => self.reads.note_commit(),
                    Err(_) => return EndReason::Stop,
                },
                _ = ticks.tick() => {
                    self.reads.is_backing_off = false;
                    let now = self.elapsed();
                    self.state.tick(now);
                }
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn handle_command(&mut self, command: GroupCommand) {
        let now = self.elapsed();
        match command {
            GroupCommand::Connect(options, reply) => self.connect_consumer(options, reply),
            GroupCommand::Disconnect(id) => {
                self.consumers.remove(&id);
                self.state.disconnect_consumer(id, now);
            }
            GroupCommand::Acknowledge(acknowledgement) => {
                self.acknowledge_messages(acknowledgement);
            }
            GroupCommand::ReplayParked(stop_at) => {
                // The log is read beside the loop, which goes on delivering.
                let (log, key) = (self.log.clone(), self.key.clone());
                self.work.spawn(async move {
                    WorkResult::ParkedBounds(stop_at, parked_stream::read_bounds(&log, &key).await)
                });
            }
            GroupCommand::ReadInfo(reply) => self.send_info(reply),
            // `run_until_ended` handles this command, because it ends the loop.
            GroupCommand::Drop(_) => {}
        }
    }

    fn acknowledge_messages(&mut self, acknowledgement: Acknowledgement) {
        let now = self.elapsed();
        match acknowledgement {
            Acknowledgement::Ack(ids) => self.state.ack_messages(&ids, now),
            Acknowledgement::Nack { ids, action, reason } => {
                self.state.nack_messages(&ids, action, &reason, now);
            }
        }
    }

    fn connect_consumer(
        &mut self,
        mut options: ConsumerOptions,
        reply: oneshot::Sender<Option<ConsumerConnection>>,
    ) {
        if !self.state.has_consumer_room() {
            drop(reply.send(None));
            return;
        }
        options.n_slots = options.n_slots.min(MAX_SLOTS);
        let id = ConsumerId(self.next_consumer);
        self.next_consumer += 1;
        let (sender, messages) = mpsc::channel(2 * options.n_slots + SPARE_DELIVERIES);
        if reply.send(Some(ConsumerConnection { id, messages })).is_err() {
            // The client has gone meanwhile. Nobody would disconnect the consumer.
            return;
        }
        self.consumers.insert(id, sender);
        let now = self.elapsed();
        self.state.connect_consumer(Consumer::new(id, options), now);
    }

    /// Disconnects all consumers and tells them that the group was dropped.
    fn drop_consumers(&mut self) {
        let now = self.elapsed();
        for (id, consumer) in self.consumers.drain() {
            // A full queue loses the message. The consumer's call still ends with an error status
            // when the channel closes.
            drop(consumer.try_send(ConsumerMessage::GroupDropped));
            self.state.disconnect_consumer(id, now);
        }
    }

    fn handle_result(&mut self, result: WorkResult) {
        let now = self.elapsed();
        match result {
            WorkResult::Read(follower, Ok(batch)) => {
                self.reads.finish_read(follower, &batch);
                self.state.add_events(batch, now);
            }
            WorkResult::Read(follower, Err(error)) => {
                self.reads.fail_read(follower);
                self.log_read_failure(&error);
            }
            WorkResult::LookedAhead(follower, Ok((positions, at_end))) => {
                self.reads.finish_look_ahead(follower, at_end);
                self.state.note_committed(&positions);
            }
            WorkResult::LookedAhead(follower, Err(error)) => {
                // `false` keeps the look ahead due, so that the next tick repeats it.
                self.reads.finish_look_ahead(follower, false);
                self.reads.is_backing_off = true;
                self.log_read_failure(&error);
            }
            WorkResult::Parked(ids, is_durable) => {
                self.is_parking = false;
                for id in ids {
                    self.state.finish_parking(id, is_durable, now);
                }
            }
            WorkResult::Checkpointed(done, is_durable) => {
                self.has_checkpoint |= is_durable;
                self.state.finish_checkpoint(done, is_durable, now);
            }
            WorkResult::ParkedBounds(_, Ok(None)) | WorkResult::InfoSent => {}
            WorkResult::ParkedBounds(stop_at, Ok(Some((first, last)))) => {
                // As in EventStoreDB, `stop_at` is a revision of the parked stream and exclusive,
                // not a count.
                let end = last.saturating_add(1);
                self.state.begin_replay(first, stop_at.map_or(end, |stop_at| end.min(stop_at)));
            }
            WorkResult::ParkedRead(Ok((messages, next))) => {
                self.is_reading_parked = false;
                self.state.add_parked(messages, next, now);
            }
            WorkResult::ParkedRead(Err(error)) => {
                self.is_reading_parked = false;
                self.reads.is_backing_off = true;
                self.log_read_failure(&error);
            }
            WorkResult::ParkedBounds(_, Err(error)) => self.log_read_failure(&error),
            WorkResult::Truncated(before, is_durable) => {
                self.state.finish_truncation(before, is_durable);
            }
        }
    }

    fn log_read_failure(&self, error: &LogError) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(group = %self.key, error, "Read for persistent subscription group failed");
    }

    /// Performs the state machine's effects, and starts reads for which there is room.
    fn perform_effects(&mut self) {
        // A delivery that fails disconnects its consumer, which adds effects. So this repeats until
        // there are none.
        loop {
            let effects = self.state.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.perform_effect(effect);
            }
        }
        if self.reads.is_over() && self.state.is_drained() {
            // A tombstoned source gets no more events. Consumers would wait for ever.
            self.drop_consumers();
        }
        self.start_source_reads();
        if !self.is_reading_parked
            && !self.reads.is_backing_off
            && let Some(range) = self.state.wanted_replay()
        {
            self.is_reading_parked = true;
            let (log, key) = (self.log.clone(), self.key.clone());
            self.work.spawn(async move {
                WorkResult::ParkedRead(parked_stream::read_parked(&log, &key, range).await)
            });
        }
        if !self.is_parking && !self.to_park.is_empty() {
            self.is_parking = true;
            // One append at a time keeps the order of parked messages.
            let count = self.to_park.len().min(MAX_PARKED_AT_ONCE);
            let batch: Vec<MessageToPark> = self.to_park.drain(..count).collect();
            let (log, key) = (self.log.clone(), self.key.clone());
            self.work.spawn(async move {
                let is_durable = parked_stream::append_parked(&log, &key, &batch).await;
                WorkResult::Parked(
                    batch.into_iter().map(|message| message.id).collect(),
                    is_durable,
                )
            });
        }
    }

    /// Starts a read of the source if there is room, and a look ahead if events stay unread.
    fn start_source_reads(&mut self) {
        if let Some(limit) = self.state.wanted_events()
            && let Some(follower) = self.reads.begin_read()
        {
            let reader = self.reads.reader.clone();
            self.work.spawn(async move {
                let (follower, batch) = reader.read_events(follower, limit).await;
                WorkResult::Read(follower, batch)
            });
        }
        if self.state.wants_look_ahead()
            && let Some(follower) = self.reads.begin_look_ahead(self.state.next_position())
        {
            let reader = self.reads.reader.clone();
            self.work.spawn(async move {
                let (follower, positions) = reader.look_ahead(follower, MAX_READ_BATCH).await;
                WorkResult::LookedAhead(follower, positions)
            });
        }
    }

    fn perform_effect(&mut self, effect: Effect) {
        let (log, key) = (self.log.clone(), self.key.clone());
        match effect {
            Effect::Deliver { consumer, resolved, retry_count } => {
                let delivery = ConsumerMessage::Deliver(Delivery { resolved, retry_count });
                let sent = self
                    .consumers
                    .get(&consumer)
                    .is_some_and(|sender| sender.try_send(delivery).is_ok());
                // The channel is full or closed. Waiting for room would block all other consumers.
                if !sent && self.consumers.remove(&consumer).is_some() {
                    let now = self.elapsed();
                    self.state.disconnect_consumer(consumer, now);
                }
            }
            Effect::Park { id, resolved, reason } => {
                self.to_park.push_back(MessageToPark { id, resolved, reason });
            }
            Effect::WriteCheckpoint { done } => {
                self.work.spawn(async move {
                    WorkResult::Checkpointed(done, write_checkpoint(&log, &key, done).await)
                });
            }
            Effect::TruncateParked { before } => {
                self.work.spawn(async move {
                    WorkResult::Truncated(
                        before,
                        parked_stream::truncate_before(&log, &key, before).await,
                    )
                });
            }
        }
    }

    /// Sends the group's statistics. A read beside the loop counts the parked messages.
    fn send_info(&mut self, reply: oneshot::Sender<GroupInfo>) {
        let now = self.elapsed();
        // As in EventStoreDB, the read of a tombstoned source counts as never answered.
        let is_reading = self.reads.is_running() || self.reads.is_over();
        let mut counters = self.state.measure_counters(now);
        // The state machine always has a stored position. EventStoreDB reports none before the
        // first checkpoint.
        counters.last_checkpoint = counters.last_checkpoint.filter(|_| self.has_checkpoint);
        if !self.settings.extra_statistics {
            counters.consumers.iter_mut().for_each(|consumer| consumer.latencies.clear());
        }
        let (key, settings) = (self.key.clone(), self.settings.clone());
        let mut info = GroupInfo { key, settings, is_reading, n_parked: 0, counters };
        let log = self.log.clone();
        let counting = async move {
            if let Ok(Some((first, last))) = parked_stream::read_bounds(&log, &info.key).await {
                // Messages that a replay has read do not count, although they leave the stream only
                // when they are done.
                info.n_parked = (last + 1).saturating_sub(first.max(info.counters.replayed_before));
            }
            drop(reply.send(info));
        };
        self.work.spawn(async move {
            counting.await;
            WorkResult::InfoSent
        });
    }
}
