//! The lease of a projection: one projector writes its tables at a time.

use async_trait::async_trait;

use super::StoreError;
use super::database::{Backend, Store};
use super::query::Query;
use super::sets::SetName;
use crate::projection::row;

row! {
    /// The lease of a projection, as its database has it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Lease {
        /// Goes up with each new holder. Only writes under the current epoch take effect.
        pub epoch: u64,
        pub holder: Option<String>,
        /// Odd from a challenge to the holder's answer, even otherwise. Goes up with each of them.
        pub beat: u64,
    }
}

impl Lease {
    /// Returns whether the holder was challenged and has not answered.
    pub fn is_challenged(&self) -> bool {
        self.beat % 2 == 1
    }
}

/// The lease of a projection. It contains no time, so no clock has to be right: a projector that
/// stands by watches whether the lease changes. It is written only while a projector stands by: on an
/// idle system, nothing is written to disk.
#[async_trait]
pub trait Leased {
    async fn lease(&self) -> Result<Lease, StoreError>;

    /// Takes the lease if it is still as it was `seen`, and returns the new epoch once that is
    /// committed; `None` if the lease has changed.
    async fn take_lease(&self, seen: &Lease, holder: &str) -> Result<Option<u64>, StoreError>;

    /// Asks the holder to show that it is alive. Returns `false` if the lease has changed since it was
    /// `seen`, or the holder was challenged already.
    async fn challenge(&self, seen: &Lease) -> Result<bool, StoreError>;

    /// Shows that the holder is alive. Returns `false` if another process is the holder.
    async fn beat(&self, epoch: u64) -> Result<bool, StoreError>;

    /// Gives the lease back, so that no projector has to wait for it.
    async fn give_back_lease(&self, epoch: u64) -> Result<(), StoreError>;
}

impl<D: Backend> Store<D> {
    /// Returns the key of the live set, whose row holds the lease.
    fn lease_key(&self) -> String {
        SetName::Live.key(self.projection)
    }
}

#[async_trait]
impl<D: Backend> Leased for Store<D> {
    async fn lease(&self) -> Result<Lease, StoreError> {
        let lease = Query::new(
            "/* lease.get */ select epoch, holder, beat from projection_checkpoints where name = $1",
        )
        .bind(self.lease_key());
        self.fetch_row(lease).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    async fn take_lease(&self, seen: &Lease, holder: &str) -> Result<Option<u64>, StoreError> {
        let take = Query::new(
            "/* lease.take */ update projection_checkpoints \
             set epoch = epoch + 1, holder = $5, beat = beat + 2 - beat % 2 \
             where name = $1 and epoch = $2 and beat = $3 and holder is not distinct from $4 \
             returning epoch",
        )
        .bind(self.lease_key())
        .bind(seen.epoch)
        .bind(seen.beat)
        .bind(seen.holder.clone())
        .bind(holder.to_owned());
        self.watch(async {
            // Outside of a transaction, the statement would return the epoch before its commit, and
            // the failure of the commit would be lost.
            let mut transaction = self.begin().await?;
            let epoch = take.fetch_value::<D, u64>(&mut transaction).await?;
            transaction.commit().await?;
            Ok(epoch)
        })
        .await
    }

    async fn challenge(&self, seen: &Lease) -> Result<bool, StoreError> {
        let challenge = Query::new(
            "/* lease.challenge */ update projection_checkpoints set beat = beat + 1 \
             where name = $1 and epoch = $2 and beat = $3 and beat % 2 = 0",
        )
        .bind(self.lease_key())
        .bind(seen.epoch)
        .bind(seen.beat);
        Ok(self.execute_committed(challenge).await? == 1)
    }

    async fn beat(&self, epoch: u64) -> Result<bool, StoreError> {
        let beat = Query::new(
            "/* lease.beat */ update projection_checkpoints set beat = beat + 2 - beat % 2 \
             where name = $1 and epoch = $2",
        )
        .bind(self.lease_key())
        .bind(epoch);
        Ok(self.execute_committed(beat).await? == 1)
    }

    async fn give_back_lease(&self, epoch: u64) -> Result<(), StoreError> {
        let give_back = Query::new(
            "/* lease.give_back */ update projection_checkpoints set holder = null \
             where name = $1 and epoch = $2",
        )
        .bind(self.lease_key())
        .bind(epoch);
        self.execute_committed(give_back).await.map(drop)
    }
}
