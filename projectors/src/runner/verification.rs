//! The projector's own verification of its rows, in the background, at an interval.
//!
//! Rows carry no checksum: no other check finds rows that a disk or another program has changed.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::violations::Violations;
use super::{Projector, limit_call};
use crate::pace::Pace;
use crate::replay::ReplayError;
use crate::store::{LastVerification, StoreError};
use crate::verify::{Difference, Finding, Repair, Verification};

/// Delay before the first verification of rows, and between two attempts.
const DELAY: Duration = Duration::from_mins(10);
/// Maximum number of findings that are logged one by one. Further findings are only counted.
const MAX_LOGGED: u64 = 10;

/// Why a verification failed.
#[derive(Debug, thiserror::Error)]
enum VerificationFailure {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("the outcome of the verification cannot be written")]
    Store(#[from] StoreError),
    #[error("a temporary folder cannot be made")]
    Folder(#[from] io::Error),
}

impl Projector {
    /// Verifies the rows whenever the interval has passed since their last verification.
    pub(super) async fn verify_periodically(&self) -> Infallible {
        let interval = Duration::from_millis(self.config.verify_interval_ms);
        if interval.is_zero() {
            return std::future::pending().await;
        }
        loop {
            sleep(self.until_due(interval).await).await;
            let Err(failure) = Box::pin(self.verify_rows()).await else { continue };
            tracing::warn!(
                error = &failure as &dyn Error,
                "Read model could not be verified; the verification is retried"
            );
            sleep(interval.min(DELAY)).await;
        }
    }

    /// Returns the time until the next verification.
    async fn until_due(&self, interval: Duration) -> Duration {
        let Ok(Some(last)) = limit_call(self.store.last_verification()).await else {
            return interval.min(DELAY);
        };
        let elapsed = self.clock.now().duration_since(last.verified_at);
        // A time in the future, of a clock that was set back since, counts as now.
        interval.saturating_sub(Duration::try_from(elapsed).unwrap_or_default())
    }

    async fn verify_rows(&self) -> Result<(), VerificationFailure> {
        let folder = tempfile::tempdir()?;
        let verification = Verification {
            log: &self.log,
            store: &self.store,
            clock: &self.clock,
            scratch: folder.path(),
            // A repair is an operator's decision: the fault may be in this release.
            repair: Repair::Never,
            pace: Pace::Background,
        };
        let mut n_found = 0;
        let mut found = |finding: Finding| {
            n_found += 1;
            count_violation(&finding, &self.violations);
            if n_found <= MAX_LOGGED {
                log_finding(&finding);
            }
        };
        let verified = verification.verify_all(&mut |_| {}, &mut found).await?;
        let n_findings = verified.n_findings();
        let last = LastVerification {
            verified_at: self.clock.now(),
            n_orders: verified.n_orders,
            n_findings,
        };
        limit_call(self.store.note_verification(&last)).await?;
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

/// Counts a finding that violates an invariant of the rows.
fn count_violation(finding: &Finding, violations: &Violations) {
    match finding {
        Finding::Difference(difference) => violations.count_differing(difference.order_id),
        Finding::Minute(minute) => violations.count_differing_minute(minute.minute),
        Finding::Miscounted(change) => {
            violations.count_miscounted(change);
        }
        // The audit of arriving events counts it.
        Finding::Poison(_) => {}
    }
}

/// Logs a finding without the values of rows, which are personal data of customers.
fn log_finding(finding: &Finding) {
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
