//! The lease, in the live set's checkpoint.

use async_trait::async_trait;

use super::Postgres;
use crate::store::lease::{Lease, Leased};
use crate::store::{LIVE, StoreError};

#[async_trait]
impl Leased for Postgres {
    async fn lease(&self) -> Result<Lease, StoreError> {
        let (epoch, holder, beat): (i64, Option<String>, i64) = sqlx::query_as(
            "/* lease.get */ select epoch, holder, beat from projection_checkpoints \
             where name = $1",
        )
        .bind(LIVE)
        .fetch_one(&self.pool)
        .await?;
        Ok(Lease { epoch: epoch.cast_unsigned(), holder, beat: beat.cast_unsigned() })
    }

    async fn take_lease(&self, seen: &Lease, holder: &str) -> Result<Option<u64>, StoreError> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "/* lease.take */ update projection_checkpoints \
             set epoch = epoch + 1, holder = $5, beat = beat + 1 \
             where name = $1 and epoch = $2 and beat = $3 and holder is not distinct from $4 \
             returning epoch",
        )
        .bind(LIVE)
        .bind(seen.epoch.cast_signed())
        .bind(seen.beat.cast_signed())
        .bind(&seen.holder)
        .bind(holder)
        .fetch_optional(&self.pool)
        .await?;
        Ok(epoch.map(i64::cast_unsigned))
    }

    async fn beat(&self, epoch: u64) -> Result<bool, StoreError> {
        let beaten = sqlx::query(
            "/* lease.beat */ update projection_checkpoints set beat = beat + 1 \
             where name = $1 and epoch = $2",
        )
        .bind(LIVE)
        .bind(epoch.cast_signed())
        .execute(&self.pool)
        .await?;
        Ok(beaten.rows_affected() == 1)
    }

    async fn give_back_lease(&self, epoch: u64) -> Result<(), StoreError> {
        sqlx::query(
            "/* lease.give_back */ update projection_checkpoints set holder = null \
             where name = $1 and epoch = $2",
        )
        .bind(LIVE)
        .bind(epoch.cast_signed())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
