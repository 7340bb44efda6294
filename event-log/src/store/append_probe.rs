//! Probes of the store while no append shows whether it accepts them.

use std::time::Duration;

use eventstore::{Error as ClientError, EventData, StreamPosition, StreamState};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::client::StoreClient;
use super::error::LogError;
use super::logged_event::created_at;

/// Time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum duration of a probe's read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The stream that probes append to: one event per outage that a probe saw the end of, and one per
/// inspection by an operator.
const PROBE_STREAM: &str = "append-probes";
const PROBE_TYPE: &str = "AppendProbed";
/// As large as the events of an order with many items: a disk with less room is full.
const PROBE_BYTES: usize = 16 * 1024;

impl StoreClient {
    /// Returns why the store accepts no appends, without addresses; `None` while it accepts them.
    pub fn append_failure(&self) -> Option<String> {
        self.connection.append_health.failure_cause()
    }

    /// Returns whether the store is known to accept no appends.
    pub(crate) fn has_append_failure(&self) -> bool {
        self.connection.append_health.has_failed()
    }

    /// Probes the store until `stop`: reads it while nothing is appended, and appends while it is
    /// known to have failed. A store that denies appends to the stream `append-probes` counts as
    /// recovered when it sends that refusal.
    pub async fn watch_appends(&self, new_id: impl Fn() -> Uuid, stop: CancellationToken) {
        // The probes must reach a store that is known to have failed.
        let client = self.with_fail_fast(false);
        let probing = async {
            loop {
                Box::pin(client.probe_once(&new_id)).await;
                sleep(PROBE_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(probing).await;
    }

    /// Appends a probe with this id, and returns when the store wrote it, in whole seconds.
    ///
    /// # Errors
    /// [`LogError::Refused`] if the store denies appends to the stream `append-probes`.
    pub async fn probe_append(&self, id: Uuid) -> Result<Option<Timestamp>, LogError> {
        let revision = StreamPosition::Position(self.append_probe(id).await?);
        let probe = self.read_last_event(PROBE_STREAM, revision).await?;
        Ok(probe.and_then(|probe| created_at(probe.get_original_event())))
    }

    /// Appends a probe and returns its revision.
    async fn append_probe(&self, id: Uuid) -> Result<u64, LogError> {
        let probe = EventData::binary(PROBE_TYPE, vec![0; PROBE_BYTES].into()).id(id);
        // Any: the probes of all processes share the stream.
        self.append_alone(PROBE_STREAM, StreamState::Any, vec![probe]).await
    }

    async fn probe_once(&self, new_id: &impl Fn() -> Uuid) {
        let health = &self.connection.append_health;
        if health.has_failed() {
            // A read would prove nothing: a store with a full disk can be read.
            let appended = self.append_probe(new_id()).await;
            if let Err(LogError::Refused(refused)) = appended
                && matches!(*refused, ClientError::AccessDenied)
            {
                health.note_success();
            }
            return;
        }
        if !health.is_quiet() {
            return;
        }
        let began = Instant::now();
        match timeout(READ_TIMEOUT, self.head()).await {
            Ok(Ok(_)) => health.note_response(),
            Ok(Err(LogError::Unavailable(error))) => health.note_failure(began, &error),
            Ok(Err(error)) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "Event store cannot be read"
            ),
            Err(_) => health.note_failure(began, &ClientError::DeadlineExceeded),
        }
    }
}
