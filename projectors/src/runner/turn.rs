//! The lease: one projector writes the tables of a projection, the others stand by.
//!
//! The lease has no times in it. A projector that stands by challenges the holder: it makes the counter
//! `beat` odd, and the holder makes it even again. If the holder does not answer in time, by the clock of
//! the standby, the standby takes the lease and raises the epoch. A holder that was only slow, or
//! frozen, finds the epoch changed when it writes: then nothing is written. Without a standby, the
//! holder only reads the lease.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{ProjectorHealth, limit_call};
use crate::store::{Lease, ReadModel, StoreError};

/// How often the holder checks for a challenge.
const CHALLENGE_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a standby reads the lease.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Between the holder's answer and the next challenge.
const CHALLENGE_AFTER: Duration = Duration::from_secs(1);
/// How long a challenge may stay unanswered before a standby takes the lease: four checks of the
/// holder.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);

/// Waits until no other projector holds the lease, takes it, and returns the new epoch.
pub(super) async fn wait_for_turn(
    store: &ReadModel,
    holder: &str,
    health: &ProjectorHealth,
) -> Result<u64, StoreError> {
    let mut watched: Option<(Lease, Instant)> = None;
    loop {
        let seen = limit_call(store.lease()).await?;
        seen.check_writer(store.projection())?;
        let is_first_read = watched.is_none();
        let since = match watched {
            Some((before, since)) if before == seen => since,
            Some(_) => Instant::now(),
            None => {
                if let Some(other) = seen.holder.as_deref().filter(|other| *other != holder) {
                    tracing::info!(holder = other, "Another projector keeps the read model");
                }
                Instant::now()
            }
        };
        let is_free = seen.holder.as_deref().is_none_or(|seen| seen == holder);
        let is_silent = seen.is_challenged() && since.elapsed() >= TAKE_OVER_AFTER;
        if is_free || is_silent {
            if let Some(epoch) = limit_call(store.take_lease(&seen, holder)).await? {
                tracing::info!(epoch, "This projector keeps the read model");
                return Ok(epoch);
            }
        } else {
            // A standby is healthy.
            health.note_work();
        }
        // A holder that has died cannot say so: it is challenged at the first read, and the standby
        // does not lose another interval.
        if !is_free
            && !seen.is_challenged()
            && (is_first_read || since.elapsed() >= CHALLENGE_AFTER)
        {
            // Of several standbys, any may have made the challenge.
            limit_call(store.challenge(&seen)).await?;
        }
        watched = Some((seen, since));
        sleep(POLL_INTERVAL).await;
    }
}

/// Answers challenges until the lease is lost. A database that does not answer does not end the turn:
/// the next write finds out whether the epoch is still valid.
pub(crate) async fn keep_turn(store: &ReadModel, epoch: u64) {
    while !matches!(limit_call(is_over(store, epoch)).await, Ok(true)) {
        sleep(CHALLENGE_CHECK_INTERVAL).await;
    }
}

async fn is_over(store: &ReadModel, epoch: u64) -> Result<bool, StoreError> {
    let lease = store.lease().await?;
    if lease.epoch != epoch {
        return Ok(true);
    }
    // A beat fails only if the epoch has changed meanwhile.
    Ok(lease.is_challenged() && !store.beat(epoch).await?)
}
