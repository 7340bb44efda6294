//! Rebuild: tables are built beside the live ones, compared with them, and swapped in.

use std::time::Duration;

use event_log::{EventLog, LogError, Position};
use service_kit::clock::Clock;
use service_kit::telemetry::traces;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, info_span};

use crate::pace::Pace;
use crate::progress::{Phase, Progress};
use crate::replay::{Replay, ReplayError, Replayed};
use crate::runner::{check_origin, turn};
use crate::store::{
    Begin, Checkpoint, PREVIOUS_KEPT_FOR, ReadModel, StoreError, SwapWhen, Swapped,
};
use crate::verify::{Comparison, Finding, Observer, Side, Verified};

/// Maximum number of swap attempts beside a running projector. If the projector stays ahead, the next
/// attempts make it stand by for a moment.
const POLITE_SWAPS: usize = 3;
/// Maximum number of all swap attempts.
const MAX_SWAPS: usize = 20;
/// Maximum number of times that the new set catches up before both are compared. Each time, fewer
/// events have come meanwhile.
const MAX_APPROACHES: usize = 5;
/// With fewer new events than this, the new set is near enough for the comparison.
const NEAR_EVENTS: u64 = 1_000;
/// How long a running projector may take to reach a new set that is ahead of the live one.
const PROJECTOR_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay between two reads of the live checkpoint.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The name of a rebuild in the lease.
const HOLDER: &str = "rebuild";

/// A rebuild of the tables of one projection.
pub struct Rebuild<'a> {
    pub log: &'a EventLog,
    pub store: &'a ReadModel,
    pub clock: &'a Clock,
    pub begin: Begin,
    pub at_end: SwapAtEnd,
    /// Maximum number of events in one transaction.
    pub batch_size: u64,
}

/// Whether the new set becomes the live one at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapAtEnd {
    Yes,
    No,
}

/// The outcome of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Number of events in the new set.
    pub n_events: u64,
    /// The comparison with the live set; `None` if the live set comes from another event store.
    pub compared: Option<Verified>,
    pub is_live: bool,
}

/// Why a rebuild failed. The live tables are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Replay(ReplayError),
    #[error(
        "{0} events cannot be projected, so the new tables are not made live: run the release of \
         `dofs` that knows these events, which `dofs projections verify` names"
    )]
    Poison(u64),
    /// Another process builds or has dropped the next set.
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
    /// Builds, compares and swaps. If it ends early, `Begin::WhereItStopped` continues it.
    pub async fn run(
        &self,
        progress: &mut (dyn FnMut(Progress) + Send),
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Rebuilt, RebuildError> {
        let projection = self.store.projection().name;
        let span = info_span!("rebuild read model", otel.kind = "internal", projection);
        let trace = traces::continue_trace(&span, None);
        let rebuilt = self.build_and_swap(progress, found).instrument(span.clone()).await;
        match &rebuilt {
            Ok(rebuilt) => traces::set_attributes(&span, trace, || {
                [("dofs.events", i64::try_from(rebuilt.n_events).unwrap_or(i64::MAX).into())]
            }),
            Err(_) => traces::mark_failed(&span, "rebuild"),
        }
        rebuilt
    }

    async fn build_and_swap(
        &self,
        progress: &mut (dyn FnMut(Progress) + Send),
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Rebuilt, RebuildError> {
        let observer = &mut Observer { progress, found };
        self.store.check_schema().await?;
        if let Ok(retired_before) = self.clock.now().checked_sub(PREVIOUS_KEPT_FOR) {
            self.store.drop_previous(retired_before).await?;
        }
        let next = self.store.next_set(self.begin).await?;
        let live = self.store.checkpoint().await?;
        let is_of_this_log = match check_origin::<ReplayError>(self.log, self.store, &live).await {
            Ok(_) => true,
            // The event store was replaced: the live tables are about other orders.
            Err(ReplayError::Origin(_)) => false,
            Err(error) => return Err(error.into()),
        };
        let mut compared = None;
        if is_of_this_log {
            let reached = self.approach_live_set(&next, observer).await?;
            // With events that cannot be projected, the rebuild fails below, after all are reported.
            if reached.events_skipped == 0 {
                compared = Some(self.compare_with_live(&next, observer).await?);
            }
        }
        let is_near = compared.is_some() && live.position.is_some();
        let phase = if is_near { Phase::CatchUp } else { Phase::Replay };
        let mut checkpoint = self.catch_up(&next, phase, observer).await?;
        let mut steps =
            |n_done, n_total| (observer.progress)(step_progress(Phase::Indexes, n_done, n_total));
        // Indexes come last: rows are inserted faster without them.
        self.store.complete_next_set(&mut steps).await?;
        let is_live = self.at_end == SwapAtEnd::Yes;
        if is_live {
            checkpoint = self.swap_in(&next, is_of_this_log, observer).await?;
        }
        Ok(Rebuilt { n_events: checkpoint.events_applied, compared, is_live })
    }

    /// Brings the next set to the position of the live one, and not beyond: there both are compared.
    async fn approach_live_set(
        &self,
        next: &ReadModel,
        observer: &mut Observer<'_>,
    ) -> Result<Checkpoint, RebuildError> {
        let mut reached = next.checkpoint().await?;
        for _approach in 0..MAX_APPROACHES {
            let live = self.store.checkpoint().await?.position;
            // Empty tables have no position at which both could be compared.
            if live.is_none() {
                break;
            }
            let n_before = reached.n_events();
            reached = self.replay_into(next, live, Phase::Replay, observer).await?;
            if reached.n_events() - n_before <= NEAR_EVENTS {
                break;
            }
        }
        Ok(reached)
    }

    /// Compares the next set with the live one at one position. Where they differ, the streams decide
    /// which one is right.
    async fn compare_with_live(
        &self,
        next: &ReadModel,
        observer: &mut Observer<'_>,
    ) -> Result<Verified, RebuildError> {
        self.wait_for_projector(next.checkpoint().await?.position).await?;
        let live = self.store.snapshot().await?;
        let live_position = live.checkpoint().await?.position;
        if live_position.is_some() {
            // Exactly to the position of the snapshot: there every difference is a fault.
            self.replay_into(next, live_position, Phase::Replay, observer).await?;
        }
        let comparison = Comparison {
            log: self.log,
            expected: Side { store: next, position: next.checkpoint().await?.position },
            found: Side { store: &live, position: live_position },
            mended: None,
            pace: Pace::Full,
        };
        let mut compared = Verified::default();
        comparison.compare_all(&mut compared, observer).await?;
        Ok(compared)
    }

    /// Waits until a running projector has reached a next set that is ahead of the live one. Without a
    /// projector, the comparison asks the streams of the orders that have changed since.
    async fn wait_for_projector(&self, reached: Option<Position>) -> Result<(), RebuildError> {
        let deadline = Instant::now() + PROJECTOR_TIMEOUT;
        while Instant::now() < deadline && self.store.lease().await?.holder.is_some() {
            let live = self.store.checkpoint().await?.position;
            // The positions may differ without any event of an order between them.
            if live >= reached || self.log.store().count_backlog(live, 1).await?.n_events == 0 {
                break;
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Swaps the next set with the live one, and returns its checkpoint.
    async fn swap_in(
        &self,
        next: &ReadModel,
        is_of_this_log: bool,
        observer: &mut Observer<'_>,
    ) -> Result<Checkpoint, RebuildError> {
        let mut last = Swapped::Behind;
        for n_tries in 1..=MAX_SWAPS {
            // Without the lease, the projector cannot move the live set.
            let epoch = if n_tries > POLITE_SWAPS { self.hold_projector().await? } else { None };
            // Read before the next set catches up. All events of the live set were in the log by then,
            // so the next set has them afterwards. The position itself proves less: it may be that of
            // an event of another program, or of the end of the log.
            let live = self.store.checkpoint().await?.position;
            let caught_up = self.catch_up(next, Phase::CatchUp, observer);
            let checkpoint = match epoch {
                Some(epoch) => tokio::select! {
                    caught_up = caught_up => caught_up?,
                    // A projector has taken the lease: the live tables move on.
                    () = turn::keep_turn(self.store, epoch) => continue,
                },
                None => caught_up.await?,
            };
            let when = if is_of_this_log {
                SwapWhen::LiveAtMost(live.max(checkpoint.position))
            } else {
                SwapWhen::Anyway
            };
            let mut steps =
                |n_done, n_total| (observer.progress)(step_progress(Phase::Swap, n_done, n_total));
            let swapped = self.store.swap(&checkpoint, when, self.clock.now(), &mut steps).await;
            if epoch.is_some() {
                // Before an error is returned: the projector would wait for its time-out otherwise.
                self.release_projector().await?;
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

    /// Takes the lease, so that the projector stands by. If this process dies, the projector takes the
    /// lease back as from any other holder.
    async fn hold_projector(&self) -> Result<Option<u64>, StoreError> {
        let seen = self.store.lease().await?;
        self.store.take_lease(&seen, HOLDER).await
    }

    /// Gives the lease back, which the swap has moved to the new live set.
    async fn release_projector(&self) -> Result<(), StoreError> {
        let lease = self.store.lease().await?;
        if lease.holder.as_deref() == Some(HOLDER) {
            self.store.give_back_lease(lease.epoch).await?;
        }
        Ok(())
    }

    /// Brings the next set to the end of the log.
    async fn catch_up(
        &self,
        next: &ReadModel,
        phase: Phase,
        observer: &mut Observer<'_>,
    ) -> Result<Checkpoint, RebuildError> {
        let checkpoint = self.replay_into(next, None, phase, observer).await?;
        match checkpoint.events_skipped {
            0 => Ok(checkpoint),
            n_poison => Err(RebuildError::Poison(n_poison)),
        }
    }

    /// Brings the next set to a position, or to the end of the log, and reports undecodable events.
    async fn replay_into(
        &self,
        next: &ReadModel,
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
        replayed.poison.into_iter().map(Finding::Poison).for_each(&mut *observer.found);
        Ok(next.checkpoint().await?)
    }
}

fn step_progress(phase: Phase, n_done: u64, n_total: u64) -> Progress {
    Progress { phase, n_done, n_total: Some(n_total) }
}
