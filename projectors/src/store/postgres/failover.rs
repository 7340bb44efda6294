//! Sessions that a failover has made useless.
//!
//! A session may outlive the server's role: after a failover, or where
//! `default_transaction_read_only` was set while the session began, the session answers pings and
//! reads, and refuses every write for as long as it lives. So the first write that fails for such a
//! reason ends all sessions that were open by then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// Codes after which no session of the pool is useful: the transaction is read-only, or the server is in
/// recovery, shuts down, has crashed, does not take connections yet, or has too many.
const FAILOVER_CODES: [&str; 5] = ["25006", "57P01", "57P02", "57P03", "53300"];
/// The class of failures of the connection itself, after which no session is useful either.
const CONNECTION_CLASS: &str = "08";

/// The time of the last failover that was noticed. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Failover(Arc<Mutex<Option<Instant>>>);

impl Failover {
    /// Notes the failure of a call, if it is that of a failover.
    pub(super) fn note_failure(&self, error: &StoreError) {
        if is_failover(error) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Returns whether a session of this age was open when the last failover was noticed.
    pub(super) fn ends_session(&self, age: Duration) -> bool {
        let noticed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.is_some_and(|at| age >= at.elapsed())
    }
}

fn is_failover(error: &StoreError) -> bool {
    if matches!(error, StoreError::Database(sqlx::Error::Io(_))) {
        return true;
    }
    error
        .code()
        .is_some_and(|code| FAILOVER_CODES.contains(&&*code) || code.starts_with(CONNECTION_CLASS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failover_ends_sessions_that_were_open() {
        let failover = Failover::default();
        assert!(!failover.ends_session(Duration::MAX));

        failover.note_failure(&StoreError::CheckpointMoved);
        failover.note_failure(&StoreError::Database(sqlx::Error::PoolTimedOut));
        assert!(!failover.ends_session(Duration::MAX));

        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        failover.clone().note_failure(&StoreError::Database(sqlx::Error::Io(lost)));
        assert!(failover.ends_session(Duration::from_mins(1)));
        assert!(!failover.ends_session(Duration::ZERO));
    }
}
