//! The statistics: written with the rows that they count, read without scanning any row.

use std::collections::BTreeMap;

use super::StoreError;
use super::query::{Dialect, Query};
use crate::projection::{CountChange, Minute, Statistics, row};

/// Number of minutes before the newest for which events are counted.
const KEPT_MINUTES: i64 = 24 * 60;

/// Counts the rows of `orders` and returns the changes that the statistics of set `$1` need.
const MISCOUNTED: &str = "/* projection_counts.check */ select status, nullif(stage, '') as stage, \
    cast(sum(n_orders) as bigint) as n_orders from ( \
    select status, coalesce(stage, '') as stage, count(*) as n_orders from orders group by 1, 2 \
    union all \
    select status, stage, -n_orders from projection_counts where name = $1) as counted \
    group by status, stage having sum(n_orders) <> 0";

row! {
    struct MinuteRow {
        minute: i64,
        n_events: u64,
        n_received: u64,
        n_fulfilled: u64,
        n_failed: u64,
        n_refused: u64,
    }
}

/// Adds a batch's part to the statistics of a set.
pub(super) async fn add_statistics<D: Dialect>(
    connection: &mut D::Connection,
    set: &str,
    statistics: &Statistics,
) -> Result<(), StoreError> {
    for change in &statistics.counts {
        let add = Query::new(
            "/* projection_counts.add */ insert into projection_counts \
             (name, status, stage, n_orders) values ($1, $2, $3, $4) \
             on conflict (name, status, stage) do update \
             set n_orders = projection_counts.n_orders + excluded.n_orders",
        )
        .bind(set.to_owned())
        .bind(change.status)
        .bind(change.stage.map_or("", |stage| stage.as_str()).to_owned())
        .bind(change.n_orders);
        add.execute::<D>(connection).await?;
    }
    let Some((&newest, _)) = statistics.minutes.last_key_value() else { return Ok(()) };
    for (minute, counted) in statistics.minutes.range(newest.saturating_sub(KEPT_MINUTES)..) {
        let add = Query::new(
            "/* projection_minutes.add */ insert into projection_minutes \
             (name, minute, n_events, n_received, n_fulfilled, n_failed, n_refused) \
             values ($1, $2, $3, $4, $5, $6, $7) \
             on conflict (name, minute) do update set \
             n_events = projection_minutes.n_events + excluded.n_events, \
             n_received = projection_minutes.n_received + excluded.n_received, \
             n_fulfilled = projection_minutes.n_fulfilled + excluded.n_fulfilled, \
             n_failed = projection_minutes.n_failed + excluded.n_failed, \
             n_refused = projection_minutes.n_refused + excluded.n_refused",
        )
        .bind(set.to_owned())
        .bind(*minute)
        .bind(counted.n_events)
        .bind(counted.n_received)
        .bind(counted.n_fulfilled)
        .bind(counted.n_failed)
        .bind(counted.n_refused);
        add.execute::<D>(connection).await?;
    }
    let forget = Query::new(
        "/* projection_minutes.forget */ delete from projection_minutes where name = $1 \
         and minute < (select max(minute) from projection_minutes where name = $1) - $2",
    )
    .bind(set.to_owned())
    .bind(KEPT_MINUTES);
    forget.execute::<D>(connection).await?;
    Ok(())
}

/// Counts the rows of the live tables and returns the changes that the statistics need.
pub(super) async fn find_miscounted<D: Dialect>(
    connection: &mut D::Connection,
    set: &str,
) -> Result<Vec<CountChange>, StoreError> {
    Query::new(MISCOUNTED).bind(set.to_owned()).fetch::<D, _>(connection).await
}

/// Reads the counted minutes from `from` on.
pub(super) async fn read_minutes<D: Dialect>(
    connection: &mut D::Connection,
    set: &str,
    from: i64,
) -> Result<BTreeMap<i64, Minute>, StoreError> {
    let minutes = Query::new(
        "/* projection_minutes.get */ select minute, n_events, n_received, n_fulfilled, n_failed, \
         n_refused from projection_minutes where name = $1 and minute >= $2",
    )
    .bind(set.to_owned())
    .bind(from);
    let minutes: Vec<MinuteRow> = minutes.fetch::<D, _>(connection).await?;
    let counted = |row: MinuteRow| {
        let MinuteRow { minute, n_events, n_received, n_fulfilled, n_failed, n_refused } = row;
        (minute, Minute { n_events, n_received, n_fulfilled, n_failed, n_refused })
    };
    Ok(minutes.into_iter().map(counted).collect())
}
