//! The projector: follows the log, batch by batch, and keeps the tables.

mod batch;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use event_log::EventLog;
use serde::Deserialize;
use service_kit::clock::Clock;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::orders::apply::apply;
use crate::orders::row::Changes;
use crate::store::{Checkpoint, ReadModel, StoreError};
use batch::{Batch, Batches};

/// Between two tries to reach the database, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long one call to the database may take before it counts as failed: a connection that
/// nobody answers on would hold the projector for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How the projector works (`[projector]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorConfig {
    /// The most events in one transaction.
    pub batch_size: usize,
    /// The least time between two transactions, in milliseconds, unless a batch is full.
    pub batch_ms: u64,
}

/// Why the projector ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    #[error("the read model cannot be projected into")]
    Schema(#[source] StoreError),
}

/// Keeps the read model up to date until `stop`. A database or an event store that fails is
/// waited for.
///
/// # Errors
/// [`ProjectorError::Schema`] if the schema is not the one that this release knows.
pub async fn run(
    log: EventLog,
    store: Arc<dyn ReadModel>,
    config: ProjectorConfig,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), ProjectorError> {
    let projector = Projector { log, store, config, clock, stop };
    let mut outage = Outage::default();
    loop {
        match projector.follow(&mut outage).await {
            Ok(()) => return Ok(()),
            Err(error @ (StoreError::SchemaOlder { .. } | StoreError::SchemaNewer { .. })) => {
                return Err(ProjectorError::Schema(error));
            }
            Err(error) => {
                let delay = outage.failed(&error);
                if projector.stop.run_until_cancelled(sleep(delay)).await.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

struct Projector {
    log: EventLog,
    store: Arc<dyn ReadModel>,
    config: ProjectorConfig,
    clock: Clock,
    stop: CancellationToken,
}

impl Projector {
    /// Projects from the read model's checkpoint on. `Ok`: told to stop.
    async fn follow(&self, outage: &mut Outage) -> Result<(), StoreError> {
        within(self.store.check_schema()).await?;
        let mut checkpoint = within(self.store.checkpoint()).await?;
        self.warn_if_beyond_the_log(&checkpoint).await;
        let subscription = self.log.subscribe(checkpoint.position);
        let mut batches = Batches::new(subscription, &self.config);
        while let Some(batch) = self.stop.run_until_cancelled(batches.next()).await {
            checkpoint = self.project(checkpoint, batch).await?;
            outage.over();
        }
        Ok(())
    }

    /// A checkpoint beyond the newest event means another store, or an older backup of this one:
    /// what comes next is passed over until the log is as long again. A warning only, because a
    /// cluster's follower may be behind, and a store keeps positions that it does not show.
    async fn warn_if_beyond_the_log(&self, checkpoint: &Checkpoint) {
        let Some(position) = checkpoint.position else { return };
        // A store that cannot be reached is told of by the subscription.
        let Ok(head) = self.log.head().await else { return };
        if head.is_none_or(|it| it < position) {
            tracing::warn!(
                checkpoint = position.commit,
                head = head.map(|it| it.commit),
                "Read model is ahead of the event store: was the store replaced or restored? Then \
                 give the read model an empty database and run `dofs migrate`"
            );
        }
    }

    /// Writes what the batch changes, and returns the checkpoint behind it.
    async fn project(&self, from: Checkpoint, batch: Batch) -> Result<Checkpoint, StoreError> {
        let order_ids: BTreeSet<_> = batch.events.iter().map(|it| it.event.order_id()).collect();
        let order_ids: Vec<_> = order_ids.into_iter().collect();
        let rows = if order_ids.is_empty() {
            BTreeMap::new()
        } else {
            within(self.store.rows(&order_ids)).await?
        };
        let changes = Changes { tenants: batch.tenants, ..apply(rows, &batch.events) };
        let to = Checkpoint {
            position: batch.position.or(from.position),
            events_applied: from.events_applied + batch.events.len() as u64,
            events_skipped: from.events_skipped + batch.n_skipped,
            last_event_at: batch.events.last().map(|it| it.recorded_at).or(from.last_event_at),
            moved_at: Some(self.clock.now()),
            ..from
        };
        within(self.store.write(&changes, &from, &to)).await?;
        Ok(to)
    }
}

/// A time of failures: reported once when it begins and once when it is over.
#[derive(Default)]
struct Outage {
    delays: Option<<ExponentialBuilder as BackoffBuilder>::Backoff>,
}

impl Outage {
    /// Notes a failure, and returns how long to wait before the next try.
    fn failed(&mut self, error: &StoreError) -> Duration {
        let delays = self.delays.get_or_insert_with(|| {
            let error = error as &dyn Error;
            tracing::warn!(error, "Projection interrupted, trying again until it works");
            ExponentialBuilder::default()
                .with_min_delay(BACKOFF.0)
                .with_max_delay(BACKOFF.1)
                .without_max_times()
                .build()
        });
        tracing::debug!(error = error as &dyn Error, "Projection failed");
        delays.next().unwrap_or(BACKOFF.1)
    }

    /// Notes a success.
    fn over(&mut self) {
        if self.delays.take().is_some() {
            tracing::info!("Projection resumed");
        }
    }
}

async fn within<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(StoreError::Timeout))
}
