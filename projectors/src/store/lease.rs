//! Who keeps a read model: one projector at a time.

use async_trait::async_trait;

use super::StoreError;

/// Who keeps the read model, as its database says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Goes up whenever somebody takes over. Only writes under the current one take effect.
    pub epoch: u64,
    /// `None` if nobody does.
    pub holder: Option<String>,
    /// Odd from a challenge to the holder's answer, even otherwise. Goes up with each of them.
    pub beat: u64,
}

impl Lease {
    /// Whether somebody has asked the holder to show that it lives, and it has not done so.
    pub fn is_challenged(&self) -> bool {
        self.beat % 2 == 1
    }
}

/// The lease of a read model. It has no time in it, so nobody's clock has to be right: whoever
/// waits for it watches whether it changes. It is written only when somebody waits for it: on a
/// system that does nothing, the disk does nothing.
#[async_trait]
pub trait Leased {
    /// Who keeps the read model.
    async fn lease(&self) -> Result<Lease, StoreError>;

    /// Takes it from whoever `seen` names, if that is still how it is, and returns the new epoch
    /// once that is committed. `None`: it has changed since.
    async fn take_lease(&self, seen: &Lease, holder: &str) -> Result<Option<u64>, StoreError>;

    /// Asks the holder to show that it lives. `false`: the lease has changed since it was `seen`,
    /// or the holder has been asked already.
    async fn challenge(&self, seen: &Lease) -> Result<bool, StoreError>;

    /// Shows that the holder lives. `false`: it is no longer the holder.
    async fn beat(&self, epoch: u64) -> Result<bool, StoreError>;

    /// Gives it back, so that nobody has to wait for it.
    async fn give_back_lease(&self, epoch: u64) -> Result<(), StoreError>;
}
