//! Verification of rows against events, and their repair.
//!
//! The log is folded into temporary tables up to the position of a snapshot of the live tables. Both are
//! compared in the order of ids. Where they differ, the order's stream decides.

mod comparison;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use domain::ids::OrderId;
use event_log::EventLog;
use serde_json::Value;
use service_kit::clock::Clock;

use crate::pace::Pace;
use crate::progress::{Phase, Progress, Watcher};
use crate::projection::{CountChange, Minute, MinuteDifference};
use crate::replay::{Replay, ReplayError, Replayed};
use crate::runner::batch::Poison;
use crate::runner::check_origin;
use crate::store::{ReadModel, StoreError, open_scratch};
use judge::Judge;

pub(crate) use comparison::Comparison;
pub(crate) use judge::Side;

/// Events in one transaction of the temporary tables.
const BATCH_SIZE: u64 = 20_000;
/// Selects every minute.
const ALL_MINUTES: i64 = i64::MIN;
/// Maximum distance of two orders of a sample.
const MAX_STRIDE: u64 = 10_000;

/// A verification of the tables of one projection against the log.
pub struct Verification<'a> {
    pub log: &'a EventLog,
    pub store: &'a ReadModel,
    pub clock: &'a Clock,
    /// An empty folder with room for the temporary tables.
    pub scratch: &'a Path,
    /// Whether differences are repaired.
    pub repair: Repair,
    pub pace: Pace,
}

/// Whether differences are repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    Never,
    Always,
}

/// A finding of a verification.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A field of a row does not agree with the order's events.
    Difference(Difference),
    /// An event cannot be projected. A repair does not help.
    Poison(Poison),
    /// The statistics are off by this number of orders.
    Miscounted(CountChange),
    /// The statistics of a minute are wrong.
    Minute(MinuteDifference),
}

/// Receives the progress and the findings of a verification or a rebuild.
pub(crate) struct Observer<'a> {
    pub(crate) progress: &'a mut Watcher<'a>,
    pub(crate) found: &'a mut (dyn FnMut(Finding) + Send + 'a),
}

/// A field that does not agree with the order's events.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub order_id: OrderId,
    pub table: &'static str,
    /// `row` if the whole row is missing or should not exist.
    pub field: String,
    pub expected: Value,
    pub found: Value,
}

/// The outcome of a verification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    pub n_events: u64,
    pub n_orders: u64,
    /// Orders with a row that differs.
    pub n_differing: u64,
    /// Orders whose rows were repaired.
    pub n_mended: u64,
    /// Events that cannot be projected; possibly more than were reported.
    pub n_poison: u64,
    /// States of orders, and minutes, whose statistics were wrong.
    pub n_miscounted: u64,
    /// Orders that cannot be verified, because the event store no longer has all of their events. Their
    /// rows are left unchanged.
    pub n_undecided: u64,
}

impl Verified {
    /// Returns whether nothing was found, repaired findings included.
    pub fn is_sound(&self) -> bool {
        self.n_findings() == 0
    }

    /// Returns the number of findings, repaired findings included.
    pub fn n_findings(&self) -> u64 {
        self.n_differing + self.n_poison + self.n_miscounted
    }
}

impl Verification<'_> {
    /// Verifies every row of every order.
    pub async fn verify_all(
        &self,
        progress: &mut (dyn FnMut(Progress) + Send),
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Verified, ReplayError> {
        let observer = &mut Observer { progress, found };
        // This release would report what a newer version of the projection has written as wrong.
        self.store.check_projection().await?;
        let live = self.store.checkpoint().await?;
        check_origin::<ReplayError>(self.log, self.store, &live).await?;
        let file = self.scratch.join("verify.sqlite");
        let opened = open_scratch(&file, self.store.projection()).await;
        let scratch = opened.map_err(|error| self.scratch_error(error.into()))?;
        let phase = Phase::Replay;
        let (log, clock, pace) = (self.log, self.clock, self.pace);
        let batch_size = pace.batch_size(BATCH_SIZE);
        let replay = Replay { log, store: &scratch, clock, batch_size, phase, pace };
        let mut replayed = Replayed::default();
        // Most of the log is folded before the snapshot, which a database should not keep for long.
        if let Some(position) = live.position {
            let replaying = replay.run_to(position, &mut replayed, observer.progress).await;
            replaying.map_err(|error| self.scratch_error(error))?;
        }
        let live = self.store.snapshot().await?;
        let at = live.checkpoint().await?.position;
        if let Some(position) = at {
            let replaying = replay.run_to(position, &mut replayed, observer.progress).await;
            replaying.map_err(|error| self.scratch_error(error))?;
        }
        let mut verified = Verified::default();
        let position = scratch.checkpoint().await?.position;
        let comparison = Comparison {
            log: self.log,
            expected: Side { store: &scratch, position },
            found: Side { store: &live, position: at },
            mended: self.tables_to_mend(),
            pace,
        };
        comparison.compare_all(&mut verified, observer).await?;
        let mut minutes = differing_minutes(
            &scratch.minutes(ALL_MINUTES).await?,
            &live.minutes(ALL_MINUTES).await?,
        );
        // The live tables may have counted events that the event store no longer has.
        if verified.n_undecided > 0 || replayed.n_deletions > 0 {
            minutes.retain(|minute| minute.expected.exceeds(minute.found));
        }
        // The snapshot ends here: while it is open, a database keeps every old row.
        drop(live);
        // Wrong rows make the counts wrong too.
        if verified.n_differing == verified.n_mended {
            self.verify_statistics(&minutes, &mut verified, observer.found).await?;
        }
        // Undecodable events are reported before the projector reaches them.
        let rest = Replay { phase: Phase::CatchUp, ..replay };
        let replaying = rest.run(&mut replayed, observer.progress).await;
        replaying.map_err(|error| self.scratch_error(error))?;
        replayed.poison.into_iter().map(Finding::Poison).for_each(&mut *observer.found);
        Ok(Verified { n_events: replayed.n_events, n_poison: replayed.n_poison, ..verified })
    }

    /// Verifies `n_orders` orders that have rows, spread over all of them.
    pub async fn verify_sample(
        &self,
        n_orders: u64,
        progress: &mut (dyn FnMut(Progress) + Send),
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Verified, ReplayError> {
        self.store.check_projection().await?;
        let live = self.store.snapshot().await?;
        let checkpoint = live.checkpoint().await?;
        check_origin::<ReplayError>(self.log, self.store, &checkpoint).await?;
        let n_all = live.count_rows().await?;
        let stride = (n_all / n_orders.max(1)).clamp(1, MAX_STRIDE);
        let stride = u32::try_from(stride).unwrap_or(u32::MAX);
        let mut sampled = Vec::new();
        while (sampled.len() as u64) < n_orders {
            // Only ids are read: the sample is spread without reading all rows.
            let passed = live.ids_after(sampled.last().copied(), stride).await?;
            let Some(&order_id) = passed.last() else { break };
            sampled.push(order_id);
        }
        let mut verified = Verified { n_orders: sampled.len() as u64, ..Verified::default() };
        let (log, position) = (self.log, checkpoint.position);
        let judge = Judge {
            log,
            expected: None,
            found: Side { store: &live, position },
            mended: self.tables_to_mend(),
        };
        judge.judge_all(&sampled, &mut verified, &mut Observer { progress, found }).await?;
        Ok(verified)
    }

    /// Returns the tables to repair, if differences are repaired.
    fn tables_to_mend(&self) -> Option<&ReadModel> {
        match self.repair {
            Repair::Never => None,
            Repair::Always => Some(self.store),
        }
    }

    /// Adds the folder of the temporary tables to their failure.
    fn scratch_error(&self, error: ReplayError) -> ReplayError {
        match error {
            ReplayError::Store(source) => {
                ReplayError::Scratch { folder: self.scratch.display().to_string(), source }
            }
            error @ (ReplayError::Log(_)
            | ReplayError::Origin(_)
            | ReplayError::Scratch { .. }
            | ReplayError::Misfolded(_)) => error,
        }
    }

    async fn verify_statistics(
        &self,
        minutes: &[MinuteDifference],
        verified: &mut Verified,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<(), StoreError> {
        let miscounted = self.store.find_miscounted().await?;
        verified.n_miscounted = (miscounted.len() + minutes.len()) as u64;
        if self.repair == Repair::Always && verified.n_miscounted > 0 {
            self.store.mend_statistics(minutes).await?;
        }
        let minutes = minutes.iter().copied().map(Finding::Minute);
        miscounted.into_iter().map(Finding::Miscounted).chain(minutes).for_each(found);
        Ok(())
    }
}

/// Returns the minutes that differ. A missing minute has no events.
fn differing_minutes(
    expected: &BTreeMap<i64, Minute>,
    found: &BTreeMap<i64, Minute>,
) -> Vec<MinuteDifference> {
    let minutes: BTreeSet<_> = expected.keys().chain(found.keys()).copied().collect();
    let of = |side: &BTreeMap<i64, Minute>, minute| side.get(&minute).copied().unwrap_or_default();
    let between =
        |minute| MinuteDifference::between(minute, of(expected, minute), of(found, minute));
    minutes.into_iter().filter_map(between).collect()
}
