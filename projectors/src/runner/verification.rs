//! The projector's own verification of its rows: slow, now and then, and for as long as it keeps them.
//!
//! Rows carry no checksum: what a disk or another program has changed in them is found by nothing
//! else.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::{Projector, within};
use crate::pace::Pace;
use crate::replay::ReplayError;
use crate::store::{LastVerification, StoreError};
use crate::verify::{Difference, Finding, Repair, Verification};

/// How long a projector works before the first verification of rows, and between two tries.
const DELAY: Duration = Duration::from_mins(10);
/// How many findings are logged one by one; beyond it they are counted.
const MAX_LOGGED: u64 = 10;

/// Why rows could not be verified.
#[derive(Debug, thiserror::Error)]
enum VerificationFailure {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("what a verification found cannot be written")]
    Store(#[from] StoreError),
    #[error("no temporary folder can be made")]
    Folder(#[from] io::Error),
}

impl Projector {
    /// Verifies the rows each time the interval has passed since they were verified last.
    pub(super) async fn verify_now_and_then(&self) -> Infallible {
        let interval = Duration::from_millis(self.config.verify_interval_ms);
        if interval.is_zero() {
            return std::future::pending().await;
        }
        loop {
            sleep(self.until_due(interval).await).await;
            let Err(failure) = Box::pin(self.verify()).await else { continue };
            tracing::warn!(
                error = &failure as &dyn Error,
                "Read model could not be verified: it is tried again"
            );
            sleep(interval.min(DELAY)).await;
        }
    }

    /// How long it is until the next verification.
    async fn until_due(&self, interval: Duration) -> Duration {
        let Ok(Some(last)) = within(self.store.last_verification()).await else {
            return interval.min(DELAY);
        };
        let elapsed = self.clock.now().duration_since(last.verified_at);
        interval.saturating_sub(Duration::try_from(elapsed).unwrap_or_default())
    }

    async fn verify(&self) -> Result<(), VerificationFailure> {
        let folder = tempfile::tempdir()?;
        let verification = Verification {
            log: &self.log,
            store: &*self.store,
            clock: &self.clock,
            scratch: folder.path(),
            repair: Repair::Never,
            pace: Pace::Background,
        };
        let mut n_found = 0;
        let mut found = |finding: Finding| {
            n_found += 1;
            if n_found <= MAX_LOGGED {
                warn_of(&finding);
            }
        };
        let verified = verification.all(&mut |_| {}, &mut found).await?;
        let n_findings = verified.n_differing + verified.n_poison + verified.n_miscounted;
        let last = LastVerification {
            verified_at: self.clock.now(),
            n_orders: verified.n_orders,
            n_findings,
        };
        within(self.store.note_verification(&last)).await?;
        let n_orders = verified.n_orders;
        if n_findings == 0 {
            tracing::info!(n_orders, "Read model verified: rows are as the events say");
        } else {
            tracing::warn!(
                n_orders,
                n_findings,
                "Read model verified: rows are not as the events say; run `dofs projections verify`, \
                 then `dofs projections verify --repair` or `dofs projections rebuild`"
            );
        }
        Ok(())
    }
}

/// Names what is wrong, and no value of a row: those are about customers.
fn warn_of(finding: &Finding) {
    match finding {
        Finding::Difference(Difference { order_id, table, field, .. }) => {
            tracing::warn!(order.id = %order_id, table, field, "Row is not as the events say");
        }
        Finding::Poison(poison) => {
            let stream = &poison.stream;
            tracing::warn!(stream, revision = poison.revision, "Event cannot be projected");
        }
        Finding::Miscounted(_) | Finding::Minute(_) => {
            tracing::warn!("Statistics are not as the events say");
        }
    }
}
