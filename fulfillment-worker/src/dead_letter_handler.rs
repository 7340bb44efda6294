//! The dead-letter handler: records the messages that the store has parked by itself, and removes
//! parked messages whose orders are resolved.

use std::time::Duration;

use domain::order::{Order, OrderCommand, RecordFailed, Stage, Status};
use event_log::{EventLog, LogError, ParkedMessage};
use futures::{StreamExt, TryStreamExt, stream};
use service_kit::clock::Clock;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::GROUP;
use crate::metrics::record_end;
use crate::queued_order::QueuedOrder;

/// Actor of the recorded dead letters.
const ACTOR: &str = "dead-letter-handler";
/// Code of a dead letter that the store has parked by itself.
const PARKED_BY_STORE: &str = "parked_by_store";
/// Time between two checks of the parked messages.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Number of parked messages read at once.
const PAGE: usize = 200;
/// Maximum number of orders that are loaded concurrently.
const CONCURRENCY: usize = 16;
/// How long the store may take to replay messages before the replay is requested again.
const REPLAY_TIMEOUT: Duration = Duration::from_mins(1);

/// Handles parked messages. Never returns.
pub(crate) async fn keep_handling_parked(log: EventLog, clock: Clock) {
    let mut handler = DeadLetterHandler { log, clock, next: None, replayed: None };
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        if let Err(error) = handler.handle_parked().await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "Parked messages could not be handled");
        }
    }
}

struct DeadLetterHandler {
    log: EventLog,
    clock: Clock,
    /// Number of the first parked message that was not handled yet.
    next: Option<u64>,
    /// Number before which messages were last replayed, and when.
    replayed: Option<(u64, Instant)>,
}

impl DeadLetterHandler {
    async fn handle_parked(&mut self) -> Result<(), LogError> {
        loop {
            let parked = self.log.read_parked(GROUP, self.next, PAGE).await?;
            let n_parked = parked.len();
            let behind = parked.last().map(|message| message.number + 1);
            let recorded = stream::iter(parked).map(|message| self.record_parked(message));
            recorded.buffered(CONCURRENCY).try_collect::<()>().await?;
            // Only after all of them: an error makes the next check read the page again, and a dead
            // letter that is recorded already is not recorded twice.
            self.next = behind.or(self.next);
            if self.next.is_none() {
                // Nothing was ever parked, so nothing can be resolved.
                return Ok(());
            }
            if n_parked < PAGE {
                return self.replay_resolved().await;
            }
        }
    }

    /// Records a dead letter for a parked message without one. The worker records before it parks, so
    /// the store has parked this message by itself.
    async fn record_parked(&self, message: ParkedMessage) -> Result<(), LogError> {
        let (queued, order) = match self.load_order(&message).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(LogError::Deleted) => return Ok(()),
            Err(error) => return Err(error),
        };
        // The attempt has a recorded end, or a redrive has begun the next one.
        if order.attempt != queued.queued.attempt || order.status != Status::Processing {
            return Ok(());
        }
        let at = self.clock.now();
        let reason = format!("the event store parked the message: {}", message.reason);
        let command = OrderCommand::RecordFailed(RecordFailed {
            attempt: order.attempt,
            deliveries: order.deliveries,
            stage: Stage::DeadLetter,
            code: PARKED_BY_STORE.to_owned(),
            reason,
            at,
        });
        let cause = queued.cause(ACTOR, &command, order.deliveries, at);
        let (order_id, received_at) = (queued.order_id, order.received_at);
        // A refusal means that an outcome was recorded meanwhile, which stays.
        if self.log.execute_command(order, None, &command, &cause).await?.is_ok() {
            record_end(&command, received_at);
            tracing::warn!(order.id = %order_id, "Order dead-lettered: the event store parked its message");
        }
        Ok(())
    }

    /// Replays the parked messages before the first whose order is not resolved. The worker finds
    /// their attempts ended and acknowledges them, which removes them from the parked stream.
    async fn replay_resolved(&mut self) -> Result<(), LogError> {
        // A replay that is still under way is not requested again.
        let replayed = self.replayed.filter(|(_, at)| at.elapsed() < REPLAY_TIMEOUT);
        let begin = replayed.map(|(before, _)| before);
        let mut resolved_before = begin;
        'pages: loop {
            let parked = self.log.read_parked(GROUP, resolved_before, PAGE).await?;
            let n_parked = parked.len();
            let checked = stream::iter(parked).map(|message| self.is_resolved(message));
            let mut checked = checked.buffered(CONCURRENCY);
            while let Some((number, is_resolved)) = checked.try_next().await? {
                if !is_resolved {
                    // The store replays all messages before a number, so the first unresolved order
                    // holds back the messages behind it.
                    break 'pages;
                }
                resolved_before = Some(number + 1);
            }
            if n_parked < PAGE {
                break;
            }
        }
        if let (Some(before), true) = (resolved_before, resolved_before != begin) {
            self.log.store().replay_parked(GROUP, Some(before)).await?;
            self.replayed = Some((before, Instant::now()));
            tracing::info!(before, "Parked messages of resolved orders replayed");
        }
        Ok(())
    }

    /// Returns the message's number, and whether its order is resolved.
    async fn is_resolved(&self, message: ParkedMessage) -> Result<(u64, bool), LogError> {
        let (queued, order) = match self.load_order(&message).await {
            Ok(Some(found)) => found,
            // A deleted event can only be removed; an unreadable one is left to an operator.
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

    /// Returns the message's event and its order; `None` if either cannot be decoded: an operator must
    /// inspect it.
    async fn load_order(
        &self,
        message: &ParkedMessage,
    ) -> Result<Option<(QueuedOrder, Order)>, LogError> {
        let Some(Ok(queued)) = message.event.as_ref().map(QueuedOrder::from_event) else {
            return Ok(None);
        };
        match self.log.load(queued.order_id).await {
            Ok(loaded) => Ok(loaded.order.map(|order| (queued, order))),
            Err(LogError::Undecodable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
