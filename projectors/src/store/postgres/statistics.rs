//! The statistics: written with the rows that they count, read without scanning any.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};

use super::value::PgTime;
use crate::orders::statistics::{Minute, Statistics};
use crate::store::record::{CountRecord, MinuteRecord, Time, minute_of, order_counts};
use crate::store::{KEPT_MINUTES, OrderCounts, StoreError};

/// Adds a batch's part to the statistics of a set.
pub(super) async fn add(
    connection: &mut PgConnection,
    set: &str,
    statistics: &Statistics,
) -> Result<(), StoreError> {
    for change in &statistics.counts {
        sqlx::query(
            "/* projection_counts.add */ insert into projection_counts \
             (name, status, stage, n_orders) values ($1, $2, $3, $4) \
             on conflict (name, status, stage) do update \
             set n_orders = projection_counts.n_orders + excluded.n_orders",
        )
        .bind(set)
        .bind(change.status.as_str())
        .bind(change.stage.map_or("", |it| it.as_str()))
        .bind(change.n_orders)
        .execute(&mut *connection)
        .await?;
    }
    let Some((&newest, _)) = statistics.minutes.last_key_value() else { return Ok(()) };
    for (minute, happened) in statistics.minutes.range(newest.saturating_sub(KEPT_MINUTES)..) {
        sqlx::query(
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
        .bind(set)
        .bind(minute)
        .bind(happened.n_events.cast_signed())
        .bind(happened.n_received.cast_signed())
        .bind(happened.n_fulfilled.cast_signed())
        .bind(happened.n_failed.cast_signed())
        .bind(happened.n_refused.cast_signed())
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "/* projection_minutes.forget */ delete from projection_minutes where name = $1 \
         and minute < (select max(minute) from projection_minutes where name = $1) - $2",
    )
    .bind(set)
    .bind(KEPT_MINUTES)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn counts(pool: &PgPool, set: &str) -> Result<OrderCounts, StoreError> {
    let counts: Vec<CountRecord> = sqlx::query_as(
        "/* projection_counts.get */ select status, nullif(stage, '') as stage, n_orders \
         from projection_counts where name = $1",
    )
    .bind(set)
    .fetch_all(pool)
    .await?;
    order_counts(counts)
}

/// See [`ReadModel::oldest_processing`](crate::store::ReadModel::oldest_processing).
pub(super) async fn oldest_processing(pool: &PgPool) -> Result<Option<Timestamp>, StoreError> {
    let oldest: Option<PgTime> = sqlx::query_scalar(
        "/* orders.oldest_processing */ select updated_at from orders \
         where status = 'PROCESSING' order by updated_at limit 1",
    )
    .fetch_optional(pool)
    .await?;
    Ok(oldest.and_then(<PgTime as Time>::timestamp))
}

pub(super) async fn minutes(
    pool: &PgPool,
    set: &str,
    from: i64,
) -> Result<BTreeMap<i64, Minute>, StoreError> {
    let minutes: Vec<MinuteRecord> = sqlx::query_as(
        "/* projection_minutes.get */ select minute, n_events, n_received, n_fulfilled, n_failed, \
         n_refused from projection_minutes where name = $1 and minute >= $2",
    )
    .bind(set)
    .bind(from)
    .fetch_all(pool)
    .await?;
    Ok(minutes.into_iter().map(minute_of).collect())
}
