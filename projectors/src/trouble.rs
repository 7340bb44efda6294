//! Problems of a read model, for readiness checks.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use event_log::EventLog;
use jiff::Timestamp;
use tokio::time::timeout;

use crate::ahead::{Ahead, find_ahead};
use crate::lag::compute_lag;
use crate::status::StatusError;
use crate::store::ReadModel;

/// How long the database and the event store may each take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
/// The read model lags if the oldest event that it does not reflect is older than this.
const LAGGING_AFTER_SECS: f64 = 10.0;

/// Why rows cannot be relied on. The text is for clients: it contains no addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadModelTrouble {
    /// The database does not answer.
    Away,
    /// The rows reflect events that the event store does not have.
    Ahead(Ahead),
    /// Events have waited for this time, and none is applied.
    Stuck { seconds: f64 },
    /// The age of the oldest event that the rows do not reflect.
    Lagging { seconds: f64 },
}

impl Display for ReadModelTrouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str("read model does not answer"),
            Self::Ahead(ahead) => ahead.fmt(f),
            Self::Stuck { seconds } => write!(
                f,
                "projection is stuck: events have waited for {seconds:.0} s, and none is applied"
            ),
            Self::Lagging { seconds } => write!(f, "read model is {seconds:.0} s behind"),
        }
    }
}

/// Returns the problem of the read model; `None` if there is none, or the event store does not answer.
pub async fn find_trouble(
    log: Option<&EventLog>,
    store: &ReadModel,
    now: Timestamp,
) -> Option<ReadModelTrouble> {
    if !matches!(timeout(ANSWER_TIMEOUT, store.ping()).await, Ok(Ok(()))) {
        return Some(ReadModelTrouble::Away);
    }
    match timeout(ANSWER_TIMEOUT, compare_with_log(log?, store, now)).await {
        Ok(Ok(trouble)) => trouble,
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn Error, "Read model cannot be compared");
            None
        }
        Err(_) => None,
    }
}

/// Compares the rows with the log.
async fn compare_with_log(
    log: &EventLog,
    store: &ReadModel,
    now: Timestamp,
) -> Result<Option<ReadModelTrouble>, StatusError> {
    if let Some(ahead) = find_ahead::<StatusError>(log, store).await? {
        return Ok(Some(ReadModelTrouble::Ahead(ahead)));
    }
    let checkpoint = store.checkpoint().await?;
    let lag =
        compute_lag(&checkpoint, log.store().count_backlog(checkpoint.position, 1).await?, now);
    let seconds = lag.lag_seconds;
    if lag.stuck {
        return Ok(Some(ReadModelTrouble::Stuck { seconds }));
    }
    Ok((seconds > LAGGING_AFTER_SECS).then_some(ReadModelTrouble::Lagging { seconds }))
}
