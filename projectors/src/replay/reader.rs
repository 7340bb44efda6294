//! A reader of the log that decodes events while previous batches are written.

use std::panic::resume_unwind;
use std::time::Duration;

use event_log::{EventLog, LogError, LoggedEvent, Position, Subscription, SubscriptionItem};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::runner::batch::Batch;

/// Batches that wait to be written. A replay also holds the batch that is read and the batch that is
/// written in memory.
const WAITING_BATCHES: usize = 1;
/// After this time without an event, the log is asked whether there are more events.
const IDLE: Duration = Duration::from_millis(100);

/// The batches from one position to another. The reading task ends when the reader is dropped.
pub(super) struct Reader {
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    reading: JoinSet<()>,
}

impl Reader {
    /// Starts to read after `after`. The log must have reached `until`, which is the position of the last
    /// batch, even if no event of an order is there.
    pub(super) fn start(
        log: &EventLog,
        after: Option<Position>,
        until: Position,
        batch_size: u64,
    ) -> Self {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let source = FromLog { subscription: log.store().subscribe(after), log: log.clone() };
        let reading = Reading { source, read_to: after, until, batch_size };
        let mut task = JoinSet::new();
        task.spawn(reading.run(sender));
        Self { batches, reading: task }
    }

    /// Returns the next batch; `None` at the end.
    ///
    /// # Panics
    /// If the reading task has panicked: then batches are missing.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, LogError> {
        if let Some(batch) = self.batches.recv().await {
            return batch.map(Some);
        }
        match self.reading.join_next().await {
            Some(Err(ended)) => resume_unwind(ended.into_panic()),
            Some(Ok(())) | None => Ok(None),
        }
    }
}

/// A source of events.
trait FeedSource: Send + 'static {
    /// Returns the next item of the feed if it is there.
    fn ready(&mut self) -> Option<SubscriptionItem>;

    /// Waits for the next item of the feed. Cancel safe.
    fn next(&mut self) -> impl Future<Output = SubscriptionItem> + Send;

    /// Returns whether no event of an order follows a position.
    fn is_at_end(
        &self,
        position: Option<Position>,
    ) -> impl Future<Output = Result<bool, LogError>> + Send;
}

struct FromLog {
    log: EventLog,
    subscription: Subscription,
}

impl FeedSource for FromLog {
    fn ready(&mut self) -> Option<SubscriptionItem> {
        self.subscription.try_next()
    }

    async fn next(&mut self) -> SubscriptionItem {
        self.subscription.next().await
    }

    async fn is_at_end(&self, position: Option<Position>) -> Result<bool, LogError> {
        Ok(self.log.store().count_backlog(position, 1).await?.n_events == 0)
    }
}

struct Reading<S> {
    source: S,
    read_to: Option<Position>,
    until: Position,
    batch_size: u64,
}

impl<S: FeedSource> Reading<S> {
    async fn run(mut self, batches: mpsc::Sender<Result<Batch, LogError>>) {
        while self.read_to < Some(self.until) {
            let batch = self.read_batch().await;
            let is_over = batch.is_err();
            // The receiver is gone if the replay has failed.
            if batches.send(batch).await.is_err() || is_over {
                return;
            }
        }
    }

    /// Reads the next batch.
    async fn read_batch(&mut self) -> Result<Batch, LogError> {
        let mut batch = Batch::default();
        while !batch.is_full(self.batch_size) && self.read_to < Some(self.until) {
            let next = match self.source.ready() {
                Some(next) => next,
                None => match timeout(IDLE, self.source.next()).await {
                    Ok(next) => next,
                    Err(_) if !batch.is_empty() => break,
                    // The events up to `until` may belong to other programs, and a server need not
                    // report that it has passed them. `until` was in the log before this question, so
                    // the answer covers every event of an order up to there.
                    Err(_) if self.source.is_at_end(self.read_to).await? => {
                        self.pass_to(self.until, &mut batch);
                        break;
                    }
                    Err(_) => continue,
                },
            };
            self.take_item(next, &mut batch);
        }
        batch.note_begun();
        Ok(batch)
    }

    fn take_item(&mut self, next: SubscriptionItem, batch: &mut Batch) {
        match &next {
            SubscriptionItem::Event(LoggedEvent { position, .. })
            | SubscriptionItem::Deleted { position, .. } => {
                let position = *position;
                if position > self.until {
                    // Events come in order, so none up to `until` is missing.
                    self.pass_to(self.until, batch);
                } else if Some(position) > self.read_to {
                    self.read_to = Some(position);
                    batch.add(next);
                }
                // A redelivered event was taken already.
            }
            // The position may be the end of the log, where the next event will be. Limited to `until`,
            // which was in the log when the reading began, it skips no event.
            SubscriptionItem::Checkpoint(position) => {
                self.pass_to((*position).min(self.until), batch);
            }
            SubscriptionItem::CaughtUp => {}
        }
    }

    /// Notes that all events of orders up to a position have been taken.
    fn pass_to(&mut self, position: Position, batch: &mut Batch) {
        if Some(position) > self.read_to {
            self.read_to = Some(position);
            batch.add(SubscriptionItem::Checkpoint(position));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::pending;

    use domain::ids::OrderId;
    use event_log::LoggedEvent;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    /// A store whose positions are byte offsets, and which says nothing of the events of other
    /// programs that it passes but for the checkpoints given.
    struct Script {
        feed: VecDeque<SubscriptionItem>,
        last_of_orders: Option<Position>,
    }

    impl FeedSource for Script {
        fn ready(&mut self) -> Option<SubscriptionItem> {
            self.feed.pop_front()
        }

        async fn next(&mut self) -> SubscriptionItem {
            pending().await
        }

        async fn is_at_end(&self, position: Option<Position>) -> Result<bool, LogError> {
            Ok(position >= self.last_of_orders)
        }
    }

    fn position(byte: u64) -> Position {
        Position { commit: byte, prepare: byte }
    }

    fn event(byte: u64) -> SubscriptionItem {
        SubscriptionItem::Event(LoggedEvent {
            order_id: OrderId(Uuid::from_u128(7)),
            event_id: Uuid::from_u128(byte.into()),
            revision: byte,
            position: position(byte),
            event_type: "Unknown".to_owned(),
            data: Vec::new(),
            metadata: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
        })
    }

    /// Reads up to a byte, and returns how many events came and where the last batch ends.
    async fn read(
        feed: Vec<SubscriptionItem>,
        after: Option<u64>,
        until: u64,
    ) -> (u64, Option<Position>) {
        let events = feed.iter().filter_map(|item| match item {
            SubscriptionItem::Event(event) => Some(event.position),
            SubscriptionItem::Deleted { position, .. } => Some(*position),
            SubscriptionItem::Checkpoint(_) | SubscriptionItem::CaughtUp => None,
        });
        let source = Script { last_of_orders: events.max(), feed: feed.into() };
        let (until, read_to) = (position(until), after.map(position));
        let (sender, mut batches) = mpsc::channel(WAITING_BATCHES);
        let reading = Reading { source, read_to, until, batch_size: 2 };
        let mut task = JoinSet::new();
        task.spawn(reading.run(sender));
        let (mut n_events, mut end) = (0, None);
        while let Some(batch) = batches.recv().await {
            let batch = batch.unwrap();
            n_events += batch.n_events();
            assert!(batch.position > end, "{:?} behind {end:?}", batch.position);
            end = batch.position;
        }
        (n_events, end)
    }

    #[tokio::test]
    async fn foreign_events_at_the_end_are_passed_without_a_checkpoint() {
        let end = Some(position(9_000));
        assert_eq!(read(vec![], None, 9_000).await, (0, end));
        assert_eq!(read(vec![SubscriptionItem::CaughtUp], Some(8_000), 9_000).await, (0, end));
        let feed = vec![event(118), event(977), event(3_141), SubscriptionItem::CaughtUp];
        assert_eq!(read(feed, None, 9_000).await, (3, end));
        let feed = vec![
            event(118),
            SubscriptionItem::Checkpoint(position(4_004)),
            SubscriptionItem::CaughtUp,
        ];
        assert_eq!(read(feed, None, 9_000).await, (1, end));
    }

    #[tokio::test]
    async fn panic_of_the_reading_task_is_not_the_end() {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let _held = sender;
            panic!("injected");
        });
        let mut reader = Reader { batches, reading };
        let mut replay = JoinSet::new();
        replay.spawn(async move { reader.next().await.map(|batch| batch.is_some()) });
        let ended = replay.join_next().await.unwrap();
        assert!(ended.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn reading_ends_at_its_position_not_beyond() {
        let end = Some(position(977));
        for beyond in [event(1_200), SubscriptionItem::Checkpoint(position(1_200))] {
            let feed = vec![event(118), event(977), beyond];
            assert_eq!(read(feed, None, 977).await, (2, end));
        }
        for beyond in [event(1_200), SubscriptionItem::Checkpoint(position(1_200))] {
            assert_eq!(read(vec![event(118), beyond], None, 977).await, (1, end));
        }
        assert_eq!(read(vec![], Some(977), 977).await, (0, None));
    }
}
