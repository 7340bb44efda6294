//! The statistics: written with the rows that they count, read without scanning any row.

use std::collections::BTreeMap;

use domain::order::{Stage, Status};

use super::database::Connection;
use super::query::query;
use super::{ReadModel, Result};
use crate::projection::{Completions, CountChange, Minute, MinuteDifference, Statistics, row};

/// Number of minutes before the newest for which events are counted.
const KEPT_MINUTES: i64 = 24 * 60;

/// Numbers of orders by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderCounts {
    pub n_processing: u64,
    pub n_fulfilled: u64,
    pub n_failed: u64,
    /// Failed orders by stage.
    pub n_failed_validation: u64,
    pub n_failed_fulfillment: u64,
    pub n_failed_dead_letter: u64,
}

impl OrderCounts {
    /// Returns the number of all orders.
    pub fn total(&self) -> u64 {
        self.n_processing + self.n_fulfilled + self.n_failed
    }

    /// Adds orders of one state.
    fn add(&mut self, status: Status, stage: Option<Stage>, n_orders: u64) {
        match status {
            Status::Processing => self.n_processing += n_orders,
            Status::Fulfilled => self.n_fulfilled += n_orders,
            Status::Failed => self.n_failed += n_orders,
        }
        match stage {
            Some(Stage::Validation) => self.n_failed_validation += n_orders,
            Some(Stage::Fulfillment) => self.n_failed_fulfillment += n_orders,
            Some(Stage::DeadLetter) => self.n_failed_dead_letter += n_orders,
            None => {}
        }
    }
}

row! {
    struct MinuteRow {
        minute: i64,
        n_events: u64,
        n_received: u64,
        n_fulfilled: u64,
        n_failed: u64,
        n_refused: u64,
        n_completed: Option<u64>,
        total_completion_us: Option<u64>,
        max_completion_us: Option<u64>,
    }
}

impl MinuteRow {
    fn completions(&self) -> Option<Completions> {
        Some(Completions {
            n_orders: self.n_completed?,
            total_micros: self.total_completion_us?,
            max_micros: self.max_completion_us?,
        })
    }
}

impl ReadModel {
    /// Returns the number of orders in each state.
    pub async fn count_orders(&self) -> Result<OrderCounts> {
        let counts = "/* projection_counts.get */ select status, nullif(stage, '') as stage, \
            n_orders from projection_counts where name = $1";
        let mut total = OrderCounts::default();
        for count in self.fetch_rows(query!(counts, self.set.clone())).await? {
            let CountChange { status, stage, n_orders } = count;
            total.add(status, stage, u64::try_from(n_orders).unwrap_or_default());
        }
        Ok(total)
    }

    /// Returns the events of each minute from this one on, counted from 1970, as far back as is kept.
    pub async fn minutes(&self, from: i64) -> Result<BTreeMap<i64, Minute>> {
        let minutes = "/* projection_minutes.get */ select minute, n_events, n_received, \
            n_fulfilled, n_failed, n_refused, n_completed, total_completion_us, max_completion_us \
            from projection_minutes where name = $1 and minute >= $2";
        let minutes = self.fetch_rows(query!(minutes, self.set.clone(), from)).await?;
        let counted = |row: MinuteRow| {
            let completions = row.completions();
            let MinuteRow {
                minute, n_events, n_received, n_fulfilled, n_failed, n_refused, ..
            } = row;
            let counted =
                Minute { n_events, n_received, n_fulfilled, n_failed, n_refused, completions };
            (minute, counted)
        };
        Ok(minutes.into_iter().map(counted).collect())
    }

    /// Counts the rows and returns the changes that the statistics need.
    pub async fn find_miscounted(&self) -> Result<Vec<CountChange>> {
        if !self.projection.has_statistics {
            return Ok(Vec::new());
        }
        find_miscounted(&mut self.database.acquire_reader().await?, &self.set).await
    }

    /// Makes the counts agree with the rows, and adds to the minutes what they lack.
    pub async fn mend_statistics(&self, minutes: &[MinuteDifference]) -> Result<()> {
        let mut transaction = self.database.begin().await?;
        // No projector may write until the statistics agree with the rows that were counted.
        let interrupt = "/* projection_checkpoints.interrupt */ update projection_checkpoints \
            set epoch = epoch + 1 where name = $1";
        transaction.execute(query!(interrupt, self.set.clone())).await?;
        let counts = find_miscounted(&mut transaction, &self.set).await?;
        for MinuteDifference { minute, expected, found } in minutes {
            lower_maximum(&mut transaction, &self.set, *minute, [*expected, *found]).await?;
        }
        let lacking = minutes.iter().map(|minute| (minute.minute, minute.lacking())).collect();
        let statistics = Statistics { counts, minutes: lacking };
        add_statistics(&mut transaction, &self.set, &statistics).await?;
        transaction.commit().await
    }
}

/// Adds a batch's part to the statistics of a set.
pub(super) async fn add_statistics(
    connection: &mut Connection,
    set: &str,
    statistics: &Statistics,
) -> Result<()> {
    for &CountChange { status, stage, n_orders } in &statistics.counts {
        let add = "/* projection_counts.add */ insert into projection_counts \
            (name, status, stage, n_orders) values ($1, $2, $3, $4) \
            on conflict (name, status, stage) do update \
            set n_orders = projection_counts.n_orders + excluded.n_orders";
        let stage = stage.map_or("", |stage| stage.as_str()).to_owned();
        connection.execute(query!(add, set.to_owned(), status, stage, n_orders)).await?;
    }
    let Some((&newest, _)) = statistics.minutes.last_key_value() else { return Ok(()) };
    for (&minute, counted) in statistics.minutes.range(newest.saturating_sub(KEPT_MINUTES)..) {
        let add = "/* projection_minutes.add */ insert into projection_minutes \
            (name, minute, n_events, n_received, n_fulfilled, n_failed, n_refused, n_completed, \
            total_completion_us, max_completion_us) \
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
            on conflict (name, minute) do update set \
            n_events = projection_minutes.n_events + excluded.n_events, \
            n_received = projection_minutes.n_received + excluded.n_received, \
            n_fulfilled = projection_minutes.n_fulfilled + excluded.n_fulfilled, \
            n_failed = projection_minutes.n_failed + excluded.n_failed, \
            n_refused = projection_minutes.n_refused + excluded.n_refused, \
            n_completed = projection_minutes.n_completed + excluded.n_completed, \
            total_completion_us = \
            projection_minutes.total_completion_us + excluded.total_completion_us, \
            max_completion_us = case \
            when excluded.max_completion_us > projection_minutes.max_completion_us \
            then excluded.max_completion_us else projection_minutes.max_completion_us end";
        let &Minute { n_events, n_received, n_fulfilled, n_failed, n_refused, completions } =
            counted;
        let set = set.to_owned();
        let add = query!(add, set, minute, n_events, n_received, n_fulfilled, n_failed, n_refused)
            .bind(completions.map(|completions| completions.n_orders))
            .bind(completions.map(|completions| completions.total_micros))
            .bind(completions.map(|completions| completions.max_micros));
        connection.execute(add).await?;
    }
    let forget = "/* projection_minutes.forget */ delete from projection_minutes where name = $1 \
        and minute < (select max(minute) from projection_minutes where name = $1) - $2";
    connection.execute(query!(forget, set.to_owned(), KEPT_MINUTES)).await?;
    Ok(())
}

/// Replaces the longest completion time of a minute if it is too long and has not changed since it was
/// found. Unlike the other numbers, a maximum cannot be lowered by addition.
async fn lower_maximum(
    connection: &mut Connection,
    set: &str,
    minute: i64,
    [expected, found]: [Minute; 2],
) -> Result<()> {
    let [expected, found] = [expected, found]
        .map(|minute| minute.completions.map_or(0, |completions| completions.max_micros));
    if found <= expected {
        return Ok(());
    }
    let lower = "/* projection_minutes.lower */ update projection_minutes \
        set max_completion_us = $3 where name = $1 and minute = $2 and max_completion_us = $4";
    connection.execute(query!(lower, set.to_owned(), minute, expected, found)).await?;
    Ok(())
}

/// Counts the rows of `orders` and returns the changes that the statistics of a set need.
async fn find_miscounted(connection: &mut Connection, set: &str) -> Result<Vec<CountChange>> {
    let miscounted = "/* projection_counts.check */ select status, nullif(stage, '') as stage, \
        cast(sum(n_orders) as bigint) as n_orders from ( \
        select status, coalesce(stage, '') as stage, count(*) as n_orders from orders group by 1, 2 \
        union all \
        select status, stage, -n_orders from projection_counts where name = $1) as counted \
        group by status, stage having sum(n_orders) <> 0";
    connection.fetch_rows(query!(miscounted, set.to_owned())).await
}
