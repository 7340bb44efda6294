//! Reads the log and decodes its events while the batches before are written.

use std::time::Duration;

use event_log::{EventLog, Feed, LogError, Position, Subscription};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::runner::batch::Batch;

/// Batches that wait to be written. With the one that is being read and the one that is being
/// written, they are what a replay holds in memory.
const WAITING_BATCHES: usize = 1;
/// A log that brings nothing for so long is asked whether there is more.
const IDLE: Duration = Duration::from_millis(100);

/// The batches from one position to another. Dropping it ends it.
pub(super) struct Reader {
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    _reading: JoinSet<()>,
}

impl Reader {
    /// Begins to read behind `after`.
    pub(super) fn start(
        log: &EventLog,
        after: Option<Position>,
        head: Position,
        batch_size: u64,
    ) -> Self {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let subscription = log.subscribe(after);
        let log = log.clone();
        let reading = Reading { log, subscription, read_to: after, head, batch_size };
        let mut task = JoinSet::new();
        task.spawn(reading.run(sender));
        Self { batches, _reading: task }
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, LogError> {
        self.batches.recv().await.transpose()
    }
}

struct Reading {
    log: EventLog,
    subscription: Subscription,
    read_to: Option<Position>,
    head: Position,
    batch_size: u64,
}

impl Reading {
    async fn run(mut self, batches: mpsc::Sender<Result<Batch, LogError>>) {
        while self.read_to < Some(self.head) {
            let batch = match self.batch().await {
                Ok(Some(batch)) => Ok(batch),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let is_over = batch.is_err();
            // Nobody takes them any more if the replay has failed.
            if batches.send(batch).await.is_err() || is_over {
                return;
            }
        }
    }

    /// The next batch; `None` if there is nothing more.
    async fn batch(&mut self) -> Result<Option<Batch>, LogError> {
        let mut batch = Batch::default();
        while !batch.is_full(self.batch_size) && self.read_to < Some(self.head) {
            let next = match self.subscription.ready() {
                Some(next) => next,
                None => match timeout(IDLE, self.subscription.next()).await {
                    Ok(next) => next,
                    Err(_) if batch.position.is_some() => break,
                    // The log's newest event need not be an order's, and a store need not say that
                    // it has passed it.
                    Err(_) if self.log.backlog(self.read_to, 1).await?.n_events == 0 => {
                        return Ok(None);
                    }
                    Err(_) => continue,
                },
            };
            self.take(next, &mut batch);
        }
        batch.note_begun();
        Ok(Some(batch))
    }

    fn take(&mut self, next: Feed, batch: &mut Batch) {
        match &next {
            // All before it has come.
            Feed::Event(event) if event.position > self.head => {
                batch.position = Some(self.head);
            }
            // What came already was taken.
            Feed::Event(event) if Some(event.position) <= self.read_to => return,
            Feed::Event(_) | Feed::Checkpoint(_) | Feed::CaughtUp => batch.add(next),
        }
        self.read_to = batch.position.or(self.read_to);
    }
}
