//! The tables built anew beside the live ones, compared with them, and put in their place.

use std::time::Duration;

use event_log::{EventLog, LogError, Position};
use jiff::SignedDuration;
use service_kit::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::pace::Pace;
use crate::progress::{Observer, Phase, Progress};
use crate::replay::{Replay, ReplayError, Replayed};
use crate::runner::{check_origin, turn};
use crate::store::{Begin, Checkpoint, ReadModel, StoreError, SwapWhen, Swapped};
use crate::verify::{Comparison, Finding, Side, Verified};

/// How long the previous set is kept for a rollback.
pub(crate) const KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How often the new set is brought up to the live one while the projector works. It may always be
/// a step ahead; then it has to stand by for a moment.
const POLITE_SWAPS: usize = 3;
/// How often at all.
const MAX_SWAPS: usize = 20;
/// How often the new set follows the live one before both are compared: each time, fewer events
/// have come meanwhile.
const MAX_APPROACHES: usize = 5;
/// So few events are no reason for another approach.
const NEAR_EVENTS: u64 = 1_000;
/// How long a projector that works may take to reach a new set that is ahead of the live one.
const PROJECTOR_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the live checkpoint.
const LOOK: Duration = Duration::from_millis(50);
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
    Replay(ReplayError),
    #[error(
        "{0} events cannot be projected, so the new tables are not made live: run the release of \
         `dofs` that knows these events, which `dofs projections verify` names"
    )]
    Poison(u64),
    /// Another process builds the next set, or has dropped it.
    #[error(
        "another process has taken over the unfinished tables of this rebuild, or has dropped \
         them, and the live tables are as they were: `dofs projections status` shows the sets"
    )]
    TakenOver,
    #[error(
        "the new tables are built but not live: in {MAX_SWAPS} attempts the live tables moved on \
         before the swap; try again with `--resume`, or stop the projector for it"
    )]
    NeverCaughtUp,
    #[error(
        "the new tables are built but not live: in {MAX_SWAPS} attempts another transaction kept \
         the live tables in use; end long transactions on the database of the read model, then \
         try again with `--resume`"
    )]
    Locked,
}

impl From<ReplayError> for RebuildError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Store(StoreError::CheckpointMoved) => Self::TakenOver,
            error @ (ReplayError::Store(_)
            | ReplayError::Log(_)
            | ReplayError::Origin(_)
            | ReplayError::Scratch { .. }
            | ReplayError::Misfolded(_)) => Self::Replay(error),
        }
    }
}

impl From<StoreError> for RebuildError {
    fn from(error: StoreError) -> Self {
        ReplayError::from(error).into()
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
        let observer = &mut Observer { progress, found };
        self.store.check_schema().await?;
        if let Ok(retired_before) = self.clock.now().checked_sub(KEPT_FOR) {
            self.store.drop_previous(retired_before).await?;
        }
        let next = self.store.next_set(self.begin).await?;
        let live = self.store.checkpoint().await?;
        let is_of_this_log = match check_origin::<ReplayError>(self.log, self.store, &live).await {
            Ok(_) => true,
            Err(ReplayError::Origin(_)) => false,
            Err(error) => return Err(error.into()),
        };
        let mut compared = None;
        if is_of_this_log {
            let reached = self.approach(&*next, observer).await?;
            // With events that cannot be projected it ends below, once all of them are named.
            if reached.events_skipped == 0 {
                compared = Some(self.compare(&*next, observer).await?);
            }
        }
        let is_near = compared.is_some() && live.position.is_some();
        let phase = if is_near { Phase::CatchUp } else { Phase::Replay };
        let mut checkpoint = self.catch_up(&*next, phase, observer).await?;
        let mut steps =
            |n_done, n_total| (observer.progress)(step(Phase::Indexes, n_done, n_total));
        self.store.complete_next_set(&mut steps).await?;
        let is_live = self.at_end == SwapAtEnd::Yes;
        if is_live {
            checkpoint = self.put_in_place(&*next, is_of_this_log, observer).await?;
        }
        Ok(Rebuilt { n_events: checkpoint.events_applied, compared, is_live })
    }

    /// Brings the next set to where the live one is, and not beyond: there they can be compared.
    async fn approach(
        &self,
        next: &dyn ReadModel,
        observer: &mut Observer<'_>,
    ) -> Result<Checkpoint, RebuildError> {
        let mut reached = next.checkpoint().await?;
        for _approach in 0..MAX_APPROACHES {
            let live = self.store.checkpoint().await?.position;
            if live.is_none() {
                break;
            }
            let n_before = reached.n_events();
            reached = self.replay(next, live, Phase::Replay, observer).await?;
            if reached.n_events() - n_before <= NEAR_EVENTS {
                break;
            }
        }
        Ok(reached)
    }

    /// Compares the next set with the live one at one position; where they differ, the streams
    /// decide about both.
    async fn compare(
        &self,
        next: &dyn ReadModel,
        observer: &mut Observer<'_>,
    ) -> Result<Verified, RebuildError> {
        self.wait_for_projector(next.checkpoint().await?.position).await?;
        let live = self.store.snapshot().await?;
        let live_position = live.checkpoint().await?.position;
        if live_position.is_some() {
            self.replay(next, live_position, Phase::Replay, observer).await?;
        }
        let comparison = Comparison {
            log: self.log,
            expected: Side { store: next, position: next.checkpoint().await?.position },
            found: Side { store: &*live, position: live_position },
            mended: None,
            pace: Pace::Full,
        };
        let mut compared = Verified::default();
        comparison.all(&mut compared, observer).await?;
        Ok(compared)
    }

    /// A next set that an earlier rebuild left is at the log's end of then, which a projector that
    /// works reaches soon. Without one, the streams of orders that have moved on are asked.
    async fn wait_for_projector(&self, reached: Option<Position>) -> Result<(), RebuildError> {
        let deadline = Instant::now() + PROJECTOR_PATIENCE;
        while Instant::now() < deadline && self.store.lease().await?.holder.is_some() {
            let live = self.store.checkpoint().await?.position;
            // The positions may differ though no order's event is between them.
            if live >= reached || self.log.count_backlog(live, 1).await?.n_events == 0 {
                break;
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Makes the next set the live one, and returns its checkpoint.
    async fn put_in_place(
        &self,
        next: &dyn ReadModel,
        is_of_this_log: bool,
        observer: &mut Observer<'_>,
    ) -> Result<Checkpoint, RebuildError> {
        let mut last = Swapped::Behind;
        for n_tries in 1..=MAX_SWAPS {
            // While the projector stands by, the live set stays where it is.
            let epoch = if n_tries > POLITE_SWAPS { self.hold_projector().await? } else { None };
            // Read before the catching up. All that the live set has was in the log by then, so the
            // next set has it after, wherever the position of the live one is: it may name an event
            // of another program, or the log's end.
            let live = self.store.checkpoint().await?.position;
            let caught_up = self.catch_up(next, Phase::CatchUp, observer);
            let checkpoint = match epoch {
                Some(epoch) => tokio::select! {
                    caught_up = caught_up => caught_up?,
                    () = turn::keep(self.store, epoch) => continue,
                },
                None => caught_up.await?,
            };
            let when = if is_of_this_log {
                SwapWhen::LiveAtMost(live.max(checkpoint.position))
            } else {
                SwapWhen::Anyway
            };
            let mut steps =
                |n_done, n_total| (observer.progress)(step(Phase::Swap, n_done, n_total));
            let swapped = self.store.swap(&checkpoint, when, self.clock.now(), &mut steps).await;
            if epoch.is_some() {
                self.let_projector_go().await?;
            }
            last = swapped?;
            if last == Swapped::Done {
                return Ok(checkpoint);
            }
        }
        Err(if last == Swapped::Locked {
            RebuildError::Locked
        } else {
            RebuildError::NeverCaughtUp
        })
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

    /// Brings the next set to the log's end.
    async fn catch_up(
        &self,
        next: &dyn ReadModel,
        phase: Phase,
        observer: &mut Observer<'_>,
    ) -> Result<Checkpoint, RebuildError> {
        let checkpoint = self.replay(next, None, phase, observer).await?;
        match checkpoint.events_skipped {
            0 => Ok(checkpoint),
            n_poison => Err(RebuildError::Poison(n_poison)),
        }
    }

    /// Brings the next set to a position, or to the log's end, and names what cannot be projected.
    async fn replay(
        &self,
        next: &dyn ReadModel,
        to: Option<Position>,
        phase: Phase,
        observer: &mut Observer<'_>,
    ) -> Result<Checkpoint, RebuildError> {
        let (log, clock, batch_size) = (self.log, self.clock, self.batch_size);
        let replay = Replay { log, store: next, clock, batch_size, phase, pace: Pace::Full };
        let mut replayed = Replayed::default();
        match to {
            Some(position) => replay.run_to(position, &mut replayed, observer.progress).await?,
            None => replay.run(&mut replayed, observer.progress).await?,
        }
        for it in replayed.poison {
            (observer.found)(Finding::Poison(it));
        }
        Ok(next.checkpoint().await?)
    }
}

fn step(phase: Phase, n_done: u64, n_total: u64) -> Progress {
    Progress { phase, n_done, n_total: Some(n_total) }
}
