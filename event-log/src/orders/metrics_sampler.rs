//! Samples the state of the event store and of a group for the metrics.

use std::time::Duration;

use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::metrics::note_sample;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::event_log::EventLog;
use crate::metrics::{GroupSample, set_connection, set_group, set_head_position};
use crate::store::error::LogError;

/// Interval between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Source of the samples, as the metrics name it.
const SOURCE: &str = "event_store";

impl EventLog {
    /// Samples the connection, and `group` if there is one, until `stop`. Samples fail silently: the
    /// connection's own metrics show the outage.
    pub async fn sample_metrics(
        self,
        group: Option<&'static str>,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let sampling = async {
            loop {
                if self.sample_store(group, clock.now()).await.is_ok() {
                    note_sample(SOURCE, clock.now().as_second());
                }
                set_connection(self.store.is_reachable(), !self.store.has_append_failure());
                sleep(INTERVAL).await;
            }
        };
        let _: Option<()> = Box::pin(stop.run_until_cancelled(sampling)).await;
    }

    async fn sample_store(&self, group: Option<&str>, now: Timestamp) -> Result<(), LogError> {
        if let Some(head) = self.store.head().await? {
            set_head_position(head.commit);
        }
        let Some(group) = group else { return Ok(()) };
        let info = self.store.group_info(group).await?;
        let oldest = if info.stats.parked > 0 {
            self.read_parked(group, None, 1).await?.first().and_then(|parked| parked.parked_at)
        } else {
            None
        };
        let age = |parked_at: Timestamp| {
            Duration::try_from(now.duration_since(parked_at)).unwrap_or_default()
        };
        let sample = GroupSample {
            n_waiting: (info.stats.waiting + info.stats.retrying) as u64,
            n_in_flight: info.stats.in_flight as u64,
            n_connections: info.members.len() as u64,
            checkpoint: info.checkpoint.map(|position| position.commit),
            n_parked: info.stats.parked as u64,
            oldest_parked: oldest.map(age).unwrap_or_default(),
        };
        set_group(group, &sample);
        Ok(())
    }
}
