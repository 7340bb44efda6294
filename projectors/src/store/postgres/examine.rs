//! Examining and mending the tables.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use domain::ids::OrderId;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::value::PgTime;
use super::{Postgres, read, statistics, write};
use crate::orders::row::Rows;
use crate::orders::statistics::{CountChange, Minute, Statistics};
use crate::store::examine::{Examined, IDS, LAST_ID, PAGE_END, first_behind, owner};
use crate::store::record::{CountRecord, Time, count_changes};
use crate::store::rows_text::{self, Holds, RowsText};
use crate::store::{Checkpoint, IdRange, LastVerification, ReadModel, RowsPage, StoreError};

/// What would have to be added to the statistics of the set in the first parameter.
const MISCOUNTED: &str = "/* projection_counts.check */ select status, nullif(stage, '') as stage, \
    sum(n_orders)::bigint as n_orders from ( \
    select status, coalesce(stage, '') as stage, count(*) as n_orders from orders group by 1, 2 \
    union all \
    select status, stage, -n_orders from projection_counts where name = $1) as counted \
    group by status, stage having sum(n_orders) <> 0";

static ROWS_TEXT: LazyLock<String> = LazyLock::new(|| {
    rows_text::statement(|column, holds| match holds {
        Holds::Id => format!("upper(encode(uuid_send({column}), 'hex'))"),
        Holds::Text | Holds::Number => column.to_owned(),
        Holds::Document => format!("{column}::text"),
        // Microseconds, as the other database has them.
        Holds::Time => format!("(extract(epoch from {column}) * 1000000)::bigint"),
    })
});

#[async_trait]
impl Examined for Postgres {
    async fn snapshot(&self) -> Result<Arc<dyn ReadModel>, StoreError> {
        Ok(Arc::new(self.at_one_moment().await?))
    }

    async fn rows_after(&self, after: Option<OrderId>, limit: u32) -> Result<RowsPage, StoreError> {
        read::rows_after(&self.pool, after, limit).await
    }

    async fn ids_after(
        &self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, StoreError> {
        let ids: Vec<Uuid> = sqlx::query_scalar(IDS)
            .bind(first_behind(after))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(ids.into_iter().map(OrderId).collect())
    }

    async fn page_end(
        &self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Option<OrderId>, StoreError> {
        let end: Option<Uuid> = sqlx::query_scalar(PAGE_END)
            .bind(first_behind(after))
            .bind(i64::from(limit) - 1)
            .fetch_optional(&self.pool)
            .await?;
        Ok(end.map(OrderId))
    }

    async fn rows_text(&self, range: IdRange) -> Result<RowsText, StoreError> {
        let text = sqlx::query_as(AssertSqlSafe(ROWS_TEXT.as_str()))
            .bind(first_behind(range.after))
            .bind(range.until.0)
            .fetch_one(&self.pool)
            .await?;
        Ok(RowsText::new(text))
    }

    async fn last_id(&self) -> Result<Option<OrderId>, StoreError> {
        let last: Option<Uuid> = sqlx::query_scalar(LAST_ID).fetch_optional(&self.pool).await?;
        Ok(last.map(OrderId))
    }

    async fn mend(
        &self,
        rows: &BTreeMap<OrderId, Rows>,
        at: &Checkpoint,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let interrupted = sqlx::query(
            "/* projection_checkpoints.interrupt_at */ update projection_checkpoints \
             set epoch = epoch + 1 where name = $1 and commit_position is not distinct from $2 \
             and prepare_position is not distinct from $3 and epoch = $4",
        )
        .bind(self.set)
        .bind(at.position.map(|it| it.commit.cast_signed()))
        .bind(at.position.map(|it| it.prepare.cast_signed()))
        .bind(at.epoch.cast_signed())
        .execute(&mut *transaction)
        .await?;
        if interrupted.rows_affected() == 0 {
            return Err(StoreError::CheckpointMoved);
        }
        write::delete(&mut transaction, rows.keys()).await?;
        let orders: Vec<_> = rows.values().filter_map(|it| it.order.as_ref()).collect();
        let failed_orders: Vec<_> = rows.values().filter_map(|it| it.failed.as_ref()).collect();
        let tenants: Vec<_> = rows.iter().filter_map(owner).collect();
        write::upsert_orders(&mut transaction, &orders).await?;
        write::upsert_failed_orders(&mut transaction, &failed_orders).await?;
        write::insert_tenants(&mut transaction, &tenants).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn last_verification(&self) -> Result<Option<LastVerification>, StoreError> {
        let last: Option<(PgTime, i64, i64)> = sqlx::query_as(
            "/* verification.get */ select verified_at, verified_orders, verify_findings \
             from projection_checkpoints where name = $1 and verified_at is not null",
        )
        .bind(self.set)
        .fetch_optional(&self.pool)
        .await?;
        Ok(last.and_then(|(at, n_orders, n_findings)| {
            Some(LastVerification {
                verified_at: <PgTime as Time>::timestamp(at)?,
                n_orders: n_orders.cast_unsigned(),
                n_findings: n_findings.cast_unsigned(),
            })
        }))
    }

    async fn note_verification(&self, last: &LastVerification) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "/* verification.note */ update projection_checkpoints \
             set verified_at = $2, verified_orders = $3, verify_findings = $4 where name = $1",
        )
        .bind(self.set)
        .bind(PgTime::of(last.verified_at))
        .bind(last.n_orders.cast_signed())
        .bind(last.n_findings.cast_signed())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn miscounted(&self) -> Result<Vec<CountChange>, StoreError> {
        let records: Vec<CountRecord> =
            sqlx::query_as(MISCOUNTED).bind(self.set).fetch_all(&self.pool).await?;
        count_changes(records)
    }

    async fn mend_statistics(&self, lacking: &BTreeMap<i64, Minute>) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // Nobody may write until the statistics agree with what was counted.
        sqlx::query(
            "/* projection_checkpoints.interrupt */ update projection_checkpoints \
             set epoch = epoch + 1 where name = $1",
        )
        .bind(self.set)
        .execute(&mut *transaction)
        .await?;
        let records: Vec<CountRecord> =
            sqlx::query_as(MISCOUNTED).bind(self.set).fetch_all(&mut *transaction).await?;
        let statistics = Statistics { counts: count_changes(records)?, minutes: lacking.clone() };
        statistics::add(&mut transaction, self.set, &statistics).await?;
        transaction.commit().await?;
        Ok(())
    }
}
