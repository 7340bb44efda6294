//! Sessions that a failover has made useless.
//!
//! A session may outlive the server's role: after a failover, or where
//! `default_transaction_read_only` was set while the session began, the session answers pings and
//! reads, and refuses every write for as long as it lives. So the first write that fails for such a
//! reason ends all sessions that were open by then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// Failures that say that the session, and those beside it, have no future: the transaction is
/// read-only or the server in recovery, the server shuts down, has crashed or does not take
/// connections yet, or has too many. All of class 08, the connection's own failures, are others.
const FAILOVER_CODES: [&str; 5] = ["25006", "57P01", "57P02", "57P03", "53300"];
/// Failures of the connection itself.
const CONNECTION_CLASS: &str = "08";

/// When the last failover was noticed. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Failover(Arc<Mutex<Option<Instant>>>);

impl Failover {
    /// Notes a failure, if it is of a failover.
    pub(super) fn note(&self, error: &StoreError) {
        if is_of_failover(error) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Whether a session of this age was open when the last failover was noticed.
    pub(super) fn ends_session(&self, age: Duration) -> bool {
        let noticed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.is_some_and(|at| age >= at.elapsed())
    }
}

fn is_of_failover(error: &StoreError) -> bool {
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
    fn failover_ends_sessions_that_were_open_by_then() {
        let failover = Failover::default();
        assert!(!failover.ends_session(Duration::MAX));

        failover.note(&StoreError::CheckpointMoved);
        failover.note(&StoreError::Database(sqlx::Error::PoolTimedOut));
        assert!(!failover.ends_session(Duration::MAX));

        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        failover.clone().note(&StoreError::Database(sqlx::Error::Io(lost)));
        assert!(failover.ends_session(Duration::from_mins(1)));
        assert!(!failover.ends_session(Duration::ZERO));
    }
}
