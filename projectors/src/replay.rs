//! Replay: the log is projected into tables that no other process writes.

mod reader;

use domain::ids::OrderId;
use event_log::{EventLog, LogError, Position};
use service_kit::clock::Clock;

use crate::pace::Pace;
use crate::progress::{Phase, Progress, Watcher, estimate_total};
use crate::runner::batch::Poison;
use crate::runner::{OtherEventStore, project_batch};
use crate::store::{Checkpoint, ReadModel, StoreError};
use reader::Reader;

/// Maximum number of undecodable events that are reported. Further ones are only counted.
const MAX_NAMED: usize = 1_000;

/// Why the log could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    /// A comparison or repair would be about orders that the event store never had.
    #[error("the read model cannot be verified")]
    Origin(#[from] OtherEventStore),
    /// The temporary tables of a verification cannot be written or read.
    #[error("the log cannot be folded into temporary tables in `{folder}`")]
    Scratch {
        folder: String,
        #[source]
        source: StoreError,
    },
    /// A defect of this release: its repairs cannot be trusted.
    #[error(
        "tables folded from the log disagree with the stream of order {0}, which is a defect of \
         this release: the live tables are as they were; report it with the output of `dofs audit \
         show {0}`"
    )]
    Misfolded(OrderId),
}

/// What a replay has found.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) n_events: u64,
    /// Orders whose streams were deleted.
    pub(crate) n_deletions: u64,
    pub(crate) n_poison: u64,
    /// The first undecodable events.
    pub(crate) poison: Vec<Poison>,
}

/// A replay of the log into tables, which reflect the log up to their checkpoint.
pub(crate) struct Replay<'a> {
    pub(crate) log: &'a EventLog,
    pub(crate) store: &'a ReadModel,
    pub(crate) clock: &'a Clock,
    /// Maximum number of events in one transaction.
    pub(crate) batch_size: u64,
    /// The phase that progress is reported for.
    pub(crate) phase: Phase,
    pub(crate) pace: Pace,
}

impl Replay<'_> {
    /// Projects from the checkpoint to the current end of the log, and moves the checkpoint there, even if
    /// the last event belongs to another program.
    pub(crate) async fn run(
        &self,
        replayed: &mut Replayed,
        progress: &mut Watcher<'_>,
    ) -> Result<(), ReplayError> {
        match self.log.store().head().await? {
            Some(head) => self.run_until(head, replayed, progress).await,
            None => Ok(()),
        }
    }

    /// Projects from the checkpoint to a position, and no event beyond it. A position beyond the newest
    /// event counts as that event: a server may name the end of the log in a checkpoint, and events
    /// that are appended there later must not be skipped.
    pub(crate) async fn run_to(
        &self,
        position: Position,
        replayed: &mut Replayed,
        progress: &mut Watcher<'_>,
    ) -> Result<(), ReplayError> {
        match self.log.store().head().await? {
            Some(head) => self.run_until(position.min(head), replayed, progress).await,
            None => Ok(()),
        }
    }

    async fn run_until(
        &self,
        until: Position,
        replayed: &mut Replayed,
        progress: &mut Watcher<'_>,
    ) -> Result<(), ReplayError> {
        let mut checkpoint = self.store.checkpoint().await?;
        progress(self.progress_to(&checkpoint, until));
        if checkpoint.position >= Some(until) {
            return Ok(());
        }
        // Marks the tables as rows of this event store.
        checkpoint.first_event_id = self.log.store().first_event_id().await?;
        let mut reader = Reader::start(self.log, checkpoint.position, until, self.batch_size);
        while let Some(batch) = reader.next().await? {
            let n_events = batch.n_events();
            replayed.n_events += n_events;
            replayed.n_deletions += batch.deletions.len() as u64;
            replayed.n_poison += batch.skipped.len() as u64;
            let room = MAX_NAMED - replayed.poison.len();
            replayed.poison.extend(batch.skipped.iter().take(room).cloned());
            checkpoint = project_batch(self.store, checkpoint, batch, self.clock.now()).await?;
            progress(self.progress_to(&checkpoint, until));
            self.pace.rest_after(n_events).await;
        }
        Ok(())
    }

    fn progress_to(&self, checkpoint: &Checkpoint, until: Position) -> Progress {
        let n_done = checkpoint.n_events();
        let position = checkpoint.position.map_or(0, |position| position.commit);
        Progress {
            phase: self.phase,
            n_done,
            n_total: estimate_total(n_done, position, until.commit),
        }
    }
}
