//! Whether the tables say what the events say, and mending them where they do not.
//!
//! The log is folded into tables of its own, in a file that is thrown away, and both are read side
//! by side in the order of ids. Where they differ, the order's stream decides: the live tables may
//! merely have moved on meanwhile.

mod judge;
mod side_by_side;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use domain::ids::OrderId;
use event_log::{EventLog, Position};
use serde_json::Value;
use service_kit::clock::Clock;

use crate::orders::statistics::{CountChange, Minute};
use crate::replay::{Progress, Replay, ReplayError, Replayed};
use crate::runner::batch::Poison;
use crate::store::{ReadModel, StoreError, open_scratch};
use judge::Judge;

/// Events in one transaction of the tables that are thrown away.
const BATCH_SIZE: u64 = 20_000;
/// From the first minute on, however early.
const ALL_MINUTES: i64 = i64::MIN;
/// The most orders that are passed over at once in search of the next of a sample.
const MAX_STRIDE: u64 = 10_000;

/// What is verified, against what.
pub struct Verification<'a> {
    pub log: &'a EventLog,
    pub store: &'a dyn ReadModel,
    pub clock: &'a Clock,
    /// An empty folder, with room for the tables.
    pub scratch: &'a Path,
    /// Whether to mend what is wrong.
    pub repair: Repair,
}

/// Whether what is wrong is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    Never,
    Always,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A field of a row is not what the order's events say.
    Difference(Difference),
    /// An event cannot be projected. No repair helps.
    Poison(Poison),
    /// The statistics are off by so many orders.
    Miscounted(CountChange),
    /// The statistics have a minute wrong.
    Minute(MinuteDifference),
}

/// A field that is not what the order's events say.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub order_id: OrderId,
    pub table: &'static str,
    /// `row` if there should be none, or should be one.
    pub field: String,
    pub expected: Value,
    pub found: Value,
}

/// A minute in which there was more or less than the statistics say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteDifference {
    /// Counted from 1970.
    pub minute: i64,
    pub expected: Minute,
    pub found: Minute,
}

/// What a verification came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    pub n_events: u64,
    pub n_orders: u64,
    /// Orders of which a row differs.
    pub n_differing: u64,
    /// Orders whose rows were mended.
    pub n_mended: u64,
    /// Events that cannot be projected, more perhaps than were named.
    pub n_poison: u64,
    /// Kinds of orders, and minutes, that the statistics had wrong.
    pub n_miscounted: u64,
}

impl Verified {
    /// Whether nothing was found, not even something that was mended.
    pub fn is_sound(&self) -> bool {
        self.n_differing == 0 && self.n_poison == 0 && self.n_miscounted == 0
    }
}

impl Verification<'_> {
    /// Verifies every row of every order.
    pub async fn all(
        &self,
        progress: &mut (dyn FnMut(Progress) + Send),
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Verified, ReplayError> {
        let scratch = open_scratch(&self.scratch.join("verify.sqlite")).await?;
        let replay =
            Replay { log: self.log, store: &*scratch, clock: self.clock, batch_size: BATCH_SIZE };
        let mut replayed = Replayed::default();
        // The minutes can be compared at one position only, and the live tables move on.
        let (position, found_minutes) = self.live_minutes().await?;
        if let Some(position) = position {
            replay.run_to(position, &mut replayed, progress).await?;
        }
        let expected_minutes = scratch.minutes(ALL_MINUTES).await?;
        replay.run(&mut replayed, progress).await?;
        for it in replayed.poison {
            found(Finding::Poison(it));
        }
        let mut verified = Verified {
            n_events: replayed.n_events,
            n_poison: replayed.n_poison,
            ..Verified::default()
        };
        self.side_by_side(&*scratch, &mut verified, found).await?;
        // Rows that are wrong make the count wrong too.
        if verified.n_differing == verified.n_mended {
            let minutes = differing(&expected_minutes, &found_minutes);
            self.statistics(&minutes, &mut verified, found).await?;
        }
        Ok(verified)
    }

    /// The live tables' minutes, and at which position they are so.
    async fn live_minutes(&self) -> Result<(Option<Position>, BTreeMap<i64, Minute>), StoreError> {
        loop {
            let before = self.store.checkpoint().await?;
            let minutes = self.store.minutes(ALL_MINUTES).await?;
            if self.store.checkpoint().await?.position == before.position {
                return Ok((before.position, minutes));
            }
        }
    }

    /// Verifies some orders that have rows, spread over all of them.
    pub async fn sample(
        &self,
        n_orders: u64,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<Verified, ReplayError> {
        let counts = self.store.count_orders().await?;
        let n_all = counts.n_processing + counts.n_fulfilled + counts.n_failed;
        let stride = (n_all / n_orders.max(1)).clamp(1, MAX_STRIDE);
        let stride = u32::try_from(stride).unwrap_or(u32::MAX);
        let mut verified = Verified::default();
        let mut after = None;
        while verified.n_orders < n_orders {
            let passed = self.store.ids_after(after, stride).await?;
            let Some(&order_id) = passed.last() else { break };
            after = Some(order_id);
            verified.n_orders += 1;
            self.judge(order_id, &mut verified, found).await?;
        }
        Ok(verified)
    }

    /// Lets an order's stream decide, and mends its rows.
    async fn judge(
        &self,
        order_id: OrderId,
        verified: &mut Verified,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<(), ReplayError> {
        let judge = Judge { log: self.log, store: self.store, order_id };
        let differences = match self.repair {
            Repair::Never => judge.differences().await?,
            Repair::Always => judge.mend().await?,
        };
        let differs = u64::from(!differences.is_empty());
        verified.n_differing += differs;
        verified.n_mended += if self.repair == Repair::Always { differs } else { 0 };
        for it in differences {
            found(Finding::Difference(it));
        }
        Ok(())
    }

    async fn statistics(
        &self,
        minutes: &[MinuteDifference],
        verified: &mut Verified,
        found: &mut (dyn FnMut(Finding) + Send),
    ) -> Result<(), StoreError> {
        let miscounted = self.store.miscounted().await?;
        verified.n_miscounted = (miscounted.len() + minutes.len()) as u64;
        if self.repair == Repair::Always && verified.n_miscounted > 0 {
            let lacking = minutes.iter().map(|it| (it.minute, it.expected.since(it.found)));
            self.store.mend_statistics(&lacking.collect()).await?;
        }
        for it in miscounted {
            found(Finding::Miscounted(it));
        }
        for it in minutes {
            found(Finding::Minute(*it));
        }
        Ok(())
    }
}

/// The minutes that are not the same on both sides. One that is missing is one in which nothing
/// happened.
fn differing(
    expected: &BTreeMap<i64, Minute>,
    found: &BTreeMap<i64, Minute>,
) -> Vec<MinuteDifference> {
    let minutes: BTreeSet<_> = expected.keys().chain(found.keys()).copied().collect();
    let of = |side: &BTreeMap<i64, Minute>, minute| side.get(&minute).copied().unwrap_or_default();
    let both = |minute| MinuteDifference {
        minute,
        expected: of(expected, minute),
        found: of(found, minute),
    };
    minutes.into_iter().map(both).filter(|it| it.expected != it.found).collect()
}
