//! The tables built anew beside the live ones, compared with them, and put in their place.

use std::path::Path;

use event_log::{EventLog, LogError};
use jiff::SignedDuration;
use service_kit::clock::Clock;

use crate::replay::{Progress, Replay, ReplayError, Replayed};
use crate::runner::turn;
use crate::store::{Begin, Checkpoint, ReadModel, StoreError, SwapWhen, Swapped};
use crate::verify::{Finding, Repair, Verification, Verified};

/// How long the previous set is kept for a rollback.
pub(crate) const KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How often the new set is brought up to the live one while the projector works. It may always be
/// a step ahead; then it has to stand by for a moment.
const POLITE_SWAPS: usize = 3;
/// How often at all.
const MAX_SWAPS: usize = 20;
/// Our name in the lease.
const HOLDER: &str = "rebuild";

/// What is rebuilt, and how.
pub struct Rebuild<'a> {
    pub log: &'a EventLog,
    pub store: &'a dyn ReadModel,
    pub clock: &'a Clock,
    pub begin: Begin,
    pub at_end: SwapAtEnd,
    /// The most events in one transaction.
    pub batch_size: u64,
}

/// Whether the new set becomes the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapAtEnd {
    Yes,
    No,
}

/// What a rebuild came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Events in the new set.
    pub n_events: u64,
    /// The comparison with the live set; `None` if that comes from another event store.
    pub compared: Option<Verified>,
    pub is_live: bool,
}

/// Why the tables were not rebuilt. The live ones are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(
        "{0} events cannot be projected, so the new tables are not made live: run the release of \
         `dofs` that knows these events"
    )]
    Poison(u64),
    #[error(
        "the live tables moved on faster than the new ones followed: try again with `--resume`"
    )]
    NeverCaughtUp,
}

impl From<StoreError> for RebuildError {
    fn from(error: StoreError) -> Self {
        Self::Replay(error.into())
    }
}

impl From<LogError> for RebuildError {
    fn from(error: LogError) -> Self {
        Self::Replay(error.into())
    }
}

impl Rebuild<'_> {
    /// Builds, compares and swaps. What was built so far stays if this ends early.
    pub async fn run(
        &self,
        progress: &mut (dyn FnMut(Progress) + Send),
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Rebuilt, RebuildError> {
        self.store.check_schema().await?;
        if let Ok(retired_before) = self.clock.now().checked_sub(KEPT_FOR) {
            self.store.drop_previous(retired_before).await?;
        }
        let next = self.store.next_set(self.begin).await?;
        let mut checkpoint = self.catch_up(&*next, progress, found).await?;
        self.store.complete_next_set().await?;

        let live = self.store.checkpoint().await?;
        let is_of_this_log =
            live.first_event_id.is_none() || live.first_event_id == checkpoint.first_event_id;
        let is_ahead = live.position > self.log.head().await?;
        let when = if is_of_this_log && !is_ahead { SwapWhen::CaughtUp } else { SwapWhen::Anyway };
        let compared = if is_of_this_log { Some(self.compare(&*next, found).await?) } else { None };

        if self.at_end == SwapAtEnd::No {
            return Ok(Rebuilt { n_events: checkpoint.events_applied, compared, is_live: false });
        }
        for n_tries in 1..=MAX_SWAPS {
            // While the projector stands by, the live set stays where it is.
            let epoch = if n_tries > POLITE_SWAPS { self.hold_projector().await? } else { None };
            let caught_up = self.catch_up(&*next, progress, found);
            checkpoint = match epoch {
                Some(epoch) => tokio::select! {
                    caught_up = caught_up => caught_up?,
                    () = turn::keep(self.store, epoch) => continue,
                },
                None => caught_up.await?,
            };
            let swapped = self.store.swap(&checkpoint, when, self.clock.now()).await;
            if epoch.is_some() {
                self.let_projector_go().await?;
            }
            if swapped? == Swapped::Done {
                let n_events = checkpoint.events_applied;
                return Ok(Rebuilt { n_events, compared, is_live: true });
            }
        }
        Err(RebuildError::NeverCaughtUp)
    }

    /// Takes the lease, so that the projector stands by. If this process dies now, the projector
    /// takes it back as from any other.
    async fn hold_projector(&self) -> Result<Option<u64>, StoreError> {
        let seen = self.store.lease().await?;
        self.store.take_lease(&seen, HOLDER).await
    }

    /// Gives the lease back, which the swap has handed on.
    async fn let_projector_go(&self) -> Result<(), StoreError> {
        let lease = self.store.lease().await?;
        if lease.holder.as_deref() == Some(HOLDER) {
            self.store.give_back_lease(lease.epoch).await?;
        }
        Ok(())
    }

    async fn catch_up(
        &self,
        next: &dyn ReadModel,
        progress: &mut (dyn FnMut(Progress) + Send),
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Checkpoint, RebuildError> {
        let (log, clock, batch_size) = (self.log, self.clock, self.batch_size);
        let mut replayed = Replayed::default();
        Replay { log, store: next, clock, batch_size }.run(&mut replayed, progress).await?;
        for it in replayed.poison {
            found(Finding::Poison(it));
        }
        let checkpoint = next.checkpoint().await?;
        match checkpoint.events_skipped {
            0 => Ok(checkpoint),
            n_poison => Err(RebuildError::Poison(n_poison)),
        }
    }

    /// Reads both sets side by side; where they differ, the streams decide about both.
    async fn compare(
        &self,
        next: &dyn ReadModel,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Verified, ReplayError> {
        let comparison = Verification {
            log: self.log,
            store: self.store,
            clock: self.clock,
            scratch: Path::new(""),
            repair: Repair::Never,
        };
        let mut compared = Verified::default();
        comparison.side_by_side(next, &mut compared, found).await?;
        Ok(compared)
    }
}
