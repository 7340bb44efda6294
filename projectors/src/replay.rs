//! The log, projected into tables that nobody else writes.

mod reader;

use domain::ids::OrderId;
use event_log::{EventLog, LogError, Position};
use service_kit::clock::Clock;

use crate::runner::batch::Poison;
use crate::runner::{first_event_id, project};
use crate::store::{ReadModel, StoreError};
use reader::Reader;

/// How many events that cannot be projected are named; beyond it they are counted.
const MAX_NAMED: usize = 1_000;

/// How far a replay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub n_events: u64,
    pub position: Option<Position>,
    /// Where the replay will end.
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

/// What is replayed into which tables. They reflect the log up to their checkpoint, and nothing
/// else.
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
        replayed: &mut Replayed,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), ReplayError> {
        match self.log.head().await? {
            Some(head) => self.run_to(head, replayed, progress).await,
            None => Ok(()),
        }
    }

    /// Projects from the tables' checkpoint to `head`, and no event beyond it.
    pub(crate) async fn run_to(
        &self,
        head: Position,
        replayed: &mut Replayed,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), ReplayError> {
        let mut checkpoint = self.store.checkpoint().await?;
        checkpoint.first_event_id = first_event_id(self.log).await?;
        let mut reader = Reader::start(self.log, checkpoint.position, head, self.batch_size);
        while let Some(batch) = reader.next().await? {
            replayed.n_events += batch.n_events();
            replayed.n_poison += batch.skipped.len() as u64;
            let room = MAX_NAMED - replayed.poison.len();
            replayed.poison.extend(batch.skipped.iter().take(room).cloned());
            checkpoint = project(self.store, checkpoint, batch, self.clock.now()).await?;
            let (position, n_events) = (checkpoint.position, replayed.n_events);
            progress(Progress { n_events, position, head });
        }
        Ok(())
    }
}
