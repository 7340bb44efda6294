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
        self.watched(async {
            // A statement of its own would return the epoch before it commits, and the failure of
            // the commit would be lost.
            let mut transaction = self.begin().await?;
            let epoch: Option<i64> = sqlx::query_scalar(
                "/* lease.take */ update projection_checkpoints \
                 set epoch = epoch + 1, holder = $5, beat = beat + 2 - beat % 2 \
                 where name = $1 and epoch = $2 and beat = $3 and holder is not distinct from $4 \
                 returning epoch",
            )
            .bind(LIVE)
            .bind(seen.epoch.cast_signed())
            .bind(seen.beat.cast_signed())
            .bind(&seen.holder)
            .bind(holder)
            .fetch_optional(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(epoch.map(i64::cast_unsigned))
        })
        .await
    }

    async fn challenge(&self, seen: &Lease) -> Result<bool, StoreError> {
        self.watched(async {
            let mut transaction = self.begin().await?;
            let challenged = sqlx::query(
                "/* lease.challenge */ update projection_checkpoints set beat = beat + 1 \
                 where name = $1 and epoch = $2 and beat = $3 and beat % 2 = 0",
            )
            .bind(LIVE)
            .bind(seen.epoch.cast_signed())
            .bind(seen.beat.cast_signed())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(challenged.rows_affected() == 1)
        })
        .await
    }

    async fn beat(&self, epoch: u64) -> Result<bool, StoreError> {
        self.watched(async {
            let mut transaction = self.begin().await?;
            let beaten = sqlx::query(
                "/* lease.beat */ update projection_checkpoints set beat = beat + 2 - beat % 2 \
                 where name = $1 and epoch = $2",
            )
            .bind(LIVE)
            .bind(epoch.cast_signed())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(beaten.rows_affected() == 1)
        })
        .await
    }

    async fn give_back_lease(&self, epoch: u64) -> Result<(), StoreError> {
        self.watched(async {
            let mut transaction = self.begin().await?;
            sqlx::query(
                "/* lease.give_back */ update projection_checkpoints set holder = null \
                 where name = $1 and epoch = $2",
            )
            .bind(LIVE)
            .bind(epoch.cast_signed())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }
}
