//! The dead-letter handler: what the store parked by itself is put on record, and parked messages
//! whose orders are resolved are let go.

use std::time::Duration;

use domain::order::{Order, OrderCommand, RecordFailed, Stage, Status};
use event_log::{EventLog, LogError, Parked};
use futures::{StreamExt, TryStreamExt, stream};
use service_kit::clock::Clock;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::queued::Queued;
use crate::worker::GROUP;

/// Who records what the store did, as the audit names it.
const ACTOR: &str = "dead-letter-handler";
/// The code of a dead letter that the store made.
const PARKED_BY_STORE: &str = "parked_by_store";
/// Between two looks at the parked messages.
const LOOK: Duration = Duration::from_secs(1);
/// How many parked messages are read at once.
const PAGE: usize = 200;
/// Orders that are loaded at one time.
const CONCURRENCY: usize = 16;
/// How long the store may take to deliver what was asked for, before it is asked again.
const REPLAY_PATIENCE: Duration = Duration::from_mins(1);

/// Looks after the parked messages, for as long as it is polled.
pub(crate) async fn attend(log: EventLog, clock: Clock) {
    let mut attendant = Attendant { log, clock, next: None, replayed: None };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Err(error) = attendant.look().await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "Cannot look after parked messages");
        }
    }
}

struct Attendant {
    log: EventLog,
    clock: Clock,
    /// The number of the first parked message that was not looked at.
    next: Option<u64>,
    /// Before which number messages were asked for again, and when.
    replayed: Option<(u64, Instant)>,
}

impl Attendant {
    async fn look(&mut self) -> Result<(), LogError> {
        loop {
            let parked = self.log.parked(GROUP, self.next, PAGE).await?;
            let n_parked = parked.len();
            let behind = parked.last().map(|message| message.number + 1);
            let recorded = stream::iter(parked).map(|message| self.put_on_record(message));
            recorded.buffered(CONCURRENCY).try_collect::<()>().await?;
            self.next = behind.or(self.next);
            if self.next.is_none() {
                // Nothing was ever parked: nothing to settle, and nothing more to read.
                return Ok(());
            }
            if n_parked < PAGE {
                return self.settle().await;
            }
        }
    }

    /// Our record of a dead letter comes before its parked message, unless the store parked it.
    async fn put_on_record(&self, message: Parked) -> Result<(), LogError> {
        let (queued, order) = match self.order_of(&message).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(LogError::Deleted) => return Ok(()),
            Err(error) => return Err(error),
        };
        if order.attempt != queued.queued.attempt || order.status != Status::Processing {
            return Ok(());
        }
        let at = self.clock.now();
        let reason = format!("the event store gave up on it by itself: {}", message.reason);
        let command = OrderCommand::RecordFailed(RecordFailed {
            attempt: order.attempt,
            deliveries: order.deliveries,
            stage: Stage::DeadLetter,
            code: PARKED_BY_STORE.to_owned(),
            reason,
            at,
        });
        let cause = queued.cause(ACTOR, &command, order.deliveries, at);
        let order_id = queued.order_id;
        if self.log.change(order, None, &command, &cause).await?.is_ok() {
            tracing::warn!(order.id = %order_id, "Order dead-lettered: the store parked it");
        }
        Ok(())
    }

    /// Lets the parked messages go that come before the first whose order is not resolved: they are
    /// delivered once more, and found answered.
    async fn settle(&mut self) -> Result<(), LogError> {
        let asked = self.replayed.filter(|(_, at)| at.elapsed() < REPLAY_PATIENCE);
        let begin = asked.map(|(before, _)| before);
        let mut resolved_before = begin;
        'pages: loop {
            let parked = self.log.parked(GROUP, resolved_before, PAGE).await?;
            let n_parked = parked.len();
            let judged = stream::iter(parked).map(|message| self.is_resolved(message));
            let mut judged = judged.buffered(CONCURRENCY);
            while let Some((number, is_resolved)) = judged.try_next().await? {
                if !is_resolved {
                    break 'pages;
                }
                resolved_before = Some(number + 1);
            }
            if n_parked < PAGE {
                break;
            }
        }
        if let (Some(before), true) = (resolved_before, resolved_before != begin) {
            self.log.replay_parked(GROUP, Some(before)).await?;
            self.replayed = Some((before, Instant::now()));
            tracing::info!(before, "Parked messages of resolved orders are let go");
        }
        Ok(())
    }

    /// The message's number, and whether its order is resolved.
    async fn is_resolved(&self, message: Parked) -> Result<(u64, bool), LogError> {
        let (queued, order) = match self.order_of(&message).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok((message.number, message.is_gone)),
            Err(LogError::Deleted) => return Ok((message.number, true)),
            Err(error) => return Err(error),
        };
        let is_resolved = order.attempt != queued.queued.attempt
            || match (order.status, order.stage) {
                (Status::Processing, _) => false,
                (Status::Failed, Some(Stage::DeadLetter)) => order.is_discarded,
                (Status::Failed | Status::Fulfilled, _) => true,
            };
        Ok((message.number, is_resolved))
    }

    /// What the message says and how its order stands; `None` if either cannot be read: that is for
    /// a person to look at.
    async fn order_of(&self, message: &Parked) -> Result<Option<(Queued, Order)>, LogError> {
        let Some(Ok(queued)) = message.event.as_ref().map(Queued::read) else { return Ok(None) };
        match self.log.load(queued.order_id).await {
            Ok(loaded) => Ok(loaded.order.map(|order| (queued, order))),
            Err(LogError::Undecodable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
