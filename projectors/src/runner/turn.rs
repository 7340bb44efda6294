//! Whose turn it is to keep the read model: one projector works, the others stand by.
//!
//! The lease has no times in it. The holder makes it change, and whoever sees it unchanged for
//! long enough by its own clock takes over and raises the epoch. A holder that was only slow, or
//! frozen, finds the epoch changed when it writes: then nothing is written.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::within;
use crate::store::{Lease, ReadModel, StoreError};

/// How often the holder shows that it lives.
const BEAT: Duration = Duration::from_millis(500);
/// How often who stands by looks at the lease.
const LOOK: Duration = Duration::from_millis(250);
/// How long the lease must be unchanged before somebody else takes it.
const TAKE_OVER_AFTER: Duration = Duration::from_millis(2_500);

/// Waits until nobody else keeps the read model, and returns the epoch of our turn.
pub(super) async fn begin(store: &dyn ReadModel, holder: &str) -> Result<u64, StoreError> {
    let mut watched: Option<(Lease, Instant)> = None;
    loop {
        let seen = within(store.lease()).await?;
        let since = match watched {
            Some((before, since)) if before == seen => since,
            first_look => {
                let other = seen.holder.as_deref().filter(|it| *it != holder);
                if let (None, Some(other)) = (first_look, other) {
                    tracing::info!(holder = other, "Another projector keeps the read model");
                }
                Instant::now()
            }
        };
        let is_free = seen.holder.as_deref().is_none_or(|it| it == holder);
        if (is_free || since.elapsed() >= TAKE_OVER_AFTER)
            && let Some(epoch) = within(store.take_lease(&seen, holder)).await?
        {
            tracing::info!(epoch, "This projector keeps the read model");
            return Ok(epoch);
        }
        watched = Some((seen, since));
        sleep(LOOK).await;
    }
}

/// Shows that we live, until our turn is over. A database that does not answer is no end: whether
/// it is our turn is for the writes to find out.
pub(crate) async fn keep(store: &dyn ReadModel, epoch: u64) {
    while !matches!(within(store.beat(epoch)).await, Ok(false)) {
        sleep(BEAT).await;
    }
}
