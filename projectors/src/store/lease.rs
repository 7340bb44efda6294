//! The lease of a projection: one projector writes its tables at a time.
//!
//! The lease contains no time, so no clock has to be right: a projector that stands by watches whether the
//! lease changes. It is written only while a projector stands by: on an idle system, nothing is written
//! to disk.
//!
//! A projector takes the lease only if no newer version of its projection has written the tables. So
//! during an upgrade and on the way back, an older projector never writes over a newer one.

use super::query::query;
use super::{ReadModel, Result, StoreError};
use crate::projection::{Projection, row};

/// The newest version of the projection that has written or built the tables of a set.
const WRITTEN_BY: &str = "coalesce(writer_version, projection_version)";

row! {
    /// The lease of a projection, as its database has it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Lease {
        /// Goes up with each new holder. Only writes under the current epoch take effect.
        pub epoch: u64,
        pub holder: Option<String>,
        /// Odd from a challenge to the holder's answer, even otherwise. Goes up with each of them.
        pub beat: u64,
        /// The newest version of the projection that has written or built the tables.
        pub written_by: u32,
    }
}

impl Lease {
    /// Returns whether the holder was challenged and has not answered.
    pub fn is_challenged(&self) -> bool {
        self.beat % 2 == 1
    }

    /// Checks that the tables may be written by this version of the projection.
    pub(crate) fn check_writer(&self, projection: &Projection) -> Result<()> {
        let Projection { name, version, .. } = *projection;
        if self.written_by > version {
            let (projection, found, known) = (name, self.written_by, version);
            return Err(StoreError::ProjectionNewer { projection, found, known });
        }
        Ok(())
    }
}

impl ReadModel {
    /// Returns the lease of the projection.
    pub async fn lease(&self) -> Result<Lease> {
        let lease = format!(
            "/* lease.get */ select epoch, holder, beat, {WRITTEN_BY} as written_by \
             from projection_checkpoints where name = $1"
        );
        let lease = self.fetch_row(query!(lease, self.live_key())).await?;
        lease.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    /// Checks that no newer version of the projection has written the tables: this release could not
    /// keep what that version has written.
    ///
    /// # Errors
    /// [`StoreError::ProjectionNewer`] names both versions.
    pub async fn check_projection(&self) -> Result<()> {
        self.lease().await?.check_writer(self.projection)
    }

    /// Takes the lease if it is still as it was `seen` and no newer version of the projection has written
    /// the tables, and returns the new epoch once that is committed; `None` if the lease has changed.
    pub async fn take_lease(&self, seen: &Lease, holder: &str) -> Result<Option<u64>> {
        // The condition on the version is part of the update: a newer projector, or a rebuild by a newer
        // release, may come between a check and the update.
        let take = format!(
            "/* lease.take */ update projection_checkpoints \
             set epoch = epoch + 1, holder = $5, beat = beat + 2 - beat % 2, writer_version = $6 \
             where name = $1 and epoch = $2 and beat = $3 and holder is not distinct from $4 \
             and {WRITTEN_BY} <= $6 returning epoch"
        );
        let (seen_holder, holder) = (seen.holder.clone(), holder.to_owned());
        let take = query!(take, self.live_key(), seen.epoch, seen.beat, seen_holder, holder)
            .bind(self.projection.version);
        self.watch(async {
            // Outside of a transaction, the statement would return the epoch before its commit, and
            // the failure of the commit would be lost.
            let mut transaction = self.database.begin().await?;
            let epoch = transaction.fetch_value(take).await?;
            transaction.commit().await?;
            Ok(epoch)
        })
        .await
    }

    /// Asks the holder to show that it is alive. Returns `false` if the lease has changed since it was
    /// `seen`, or the holder was challenged already.
    pub async fn challenge(&self, seen: &Lease) -> Result<bool> {
        let challenge = "/* lease.challenge */ update projection_checkpoints set beat = beat + 1 \
            where name = $1 and epoch = $2 and beat = $3 and beat % 2 = 0";
        let challenge = query!(challenge, self.live_key(), seen.epoch, seen.beat);
        Ok(self.execute_committed(challenge).await? == 1)
    }

    /// Shows that the holder is alive. Returns `false` if another process is the holder.
    pub async fn beat(&self, epoch: u64) -> Result<bool> {
        let beat = "/* lease.beat */ update projection_checkpoints \
            set beat = beat + 2 - beat % 2 where name = $1 and epoch = $2";
        Ok(self.execute_committed(query!(beat, self.live_key(), epoch)).await? == 1)
    }

    /// Gives the lease back, so that no projector has to wait for it.
    pub async fn give_back_lease(&self, epoch: u64) -> Result<()> {
        let give_back = "/* lease.give_back */ update projection_checkpoints set holder = null \
            where name = $1 and epoch = $2";
        self.execute_committed(query!(give_back, self.live_key(), epoch)).await.map(drop)
    }
}
