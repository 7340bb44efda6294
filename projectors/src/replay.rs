//! The whole log, projected into tables that nobody else writes.

use std::time::Duration;

use domain::ids::OrderId;
use event_log::{EventLog, LogError, Position};
use service_kit::clock::Clock;
use tokio::time::timeout;

use crate::runner::batch::{Batch, Poison};
use crate::runner::{first_event_id, project};
use crate::store::{ReadModel, StoreError};

/// How many events that cannot be projected are named; beyond it they are counted.
const MAX_NAMED: usize = 1_000;
/// A log that brings nothing for so long is asked whether there is more.
const IDLE: Duration = Duration::from_millis(100);

/// How far a replay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub n_events: u64,
    pub position: Option<Position>,
    /// The newest event when the replay began.
    pub head: Position,
}

/// Why the log could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    /// A defect of this release: it must not be trusted with the tables.
    #[error("tables folded from the log disagree with the stream of order {0}")]
    Misfolded(OrderId),
}

/// What a replay came by.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) n_events: u64,
    pub(crate) n_poison: u64,
    /// The first of the events that cannot be projected.
    pub(crate) poison: Vec<Poison>,
}

/// What is replayed into which tables.
pub(crate) struct Replay<'a> {
    pub(crate) log: &'a EventLog,
    pub(crate) store: &'a dyn ReadModel,
    pub(crate) clock: &'a Clock,
    /// The most events in one transaction.
    pub(crate) batch_size: u64,
}

impl Replay<'_> {
    /// Projects from the tables' checkpoint to what is the log's end now.
    pub(crate) async fn run(
        &self,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Replayed, ReplayError> {
        let mut replayed = Replayed::default();
        let Some(head) = self.log.head().await? else { return Ok(replayed) };
        let mut checkpoint = self.store.checkpoint().await?;
        checkpoint.first_event_id = first_event_id(self.log).await?;
        let mut subscription = self.log.subscribe(checkpoint.position);
        while checkpoint.position < Some(head) {
            let mut batch = Batch::default();
            let mut is_idle = false;
            while batch.n_events() < self.batch_size && !is_idle {
                match subscription.ready() {
                    Some(next) => batch.add(next),
                    None => match timeout(IDLE, subscription.next()).await {
                        Ok(next) => batch.add(next),
                        Err(_) => is_idle = true,
                    },
                }
            }
            let n_events = batch.n_events();
            replayed.n_events += n_events;
            replayed.n_poison += batch.skipped.len() as u64;
            let room = MAX_NAMED - replayed.poison.len();
            replayed.poison.extend(batch.skipped.iter().take(room).cloned());
            if batch.position.is_some() {
                let now = self.clock.now();
                checkpoint = project(self.store, checkpoint, batch, now).await?;
                let (position, n_events) = (checkpoint.position, replayed.n_events);
                progress(Progress { n_events, position, head });
            }
            // The log's newest event need not be an order's, and a store need not say that it has
            // passed it.
            if is_idle
                && n_events == 0
                && self.log.backlog(checkpoint.position, 0).await?.n_events == 0
            {
                break;
            }
        }
        Ok(replayed)
    }
}
