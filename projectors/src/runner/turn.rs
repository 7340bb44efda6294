//! Whose turn it is to keep the read model: one projector works, the others stand by.
//!
//! The lease has no times in it. A projector that stands by challenges the holder: it makes the
//! lease odd, and the holder makes it even again. If no answer comes for long enough by the clock of
//! the one that stands by, it takes over and raises the epoch. A holder that was only slow, or
//! frozen, finds the epoch changed when it writes: then nothing is written. While nobody stands by,
//! the holder only reads the lease.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{ProjectorHealth, within};
use crate::store::{Lease, ReadModel, StoreError};

/// How often the holder looks whether it was challenged.
const LOOK_FOR_CHALLENGE: Duration = Duration::from_millis(500);
/// How often who stands by looks at the lease.
const LOOK: Duration = Duration::from_millis(250);
/// Between the holder's answer and the next challenge.
const CHALLENGE_AFTER: Duration = Duration::from_secs(1);
/// How long the holder may leave a challenge unanswered before somebody else takes the lease: four
/// of its looks.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);

/// Waits until nobody else keeps the read model, and returns the epoch of our turn.
pub(super) async fn begin(
    store: &dyn ReadModel,
    holder: &str,
    health: &ProjectorHealth,
) -> Result<u64, StoreError> {
    let mut watched: Option<(Lease, Instant)> = None;
    loop {
        let seen = within(store.lease()).await?;
        let is_first_look = watched.is_none();
        let since = match watched {
            Some((before, since)) if before == seen => since,
            Some(_) => Instant::now(),
            None => {
                if let Some(other) = seen.holder.as_deref().filter(|it| *it != holder) {
                    tracing::info!(holder = other, "Another projector keeps the read model");
                }
                Instant::now()
            }
        };
        let is_free = seen.holder.as_deref().is_none_or(|it| it == holder);
        let is_silent = seen.is_challenged() && since.elapsed() >= TAKE_OVER_AFTER;
        if is_free || is_silent {
            if let Some(epoch) = within(store.take_lease(&seen, holder)).await? {
                tracing::info!(epoch, "This projector keeps the read model");
                return Ok(epoch);
            }
        } else {
            // To stand by is to work.
            health.note_work();
        }
        if !is_free
            && !seen.is_challenged()
            && (is_first_look || since.elapsed() >= CHALLENGE_AFTER)
        {
            // It does not matter which of several that stand by has made the challenge.
            within(store.challenge(&seen)).await?;
        }
        watched = Some((seen, since));
        sleep(LOOK).await;
    }
}

/// Answers challenges, until our turn is over. A database that does not answer is no end: whether it
/// is our turn is for the writes to find out.
pub(crate) async fn keep(store: &dyn ReadModel, epoch: u64) {
    while !matches!(within(is_over(store, epoch)).await, Ok(true)) {
        sleep(LOOK_FOR_CHALLENGE).await;
    }
}

async fn is_over(store: &dyn ReadModel, epoch: u64) -> Result<bool, StoreError> {
    let lease = store.lease().await?;
    if lease.epoch != epoch {
        return Ok(true);
    }
    Ok(lease.is_challenged() && !store.beat(epoch).await?)
}
