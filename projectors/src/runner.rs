//! The projector: follows the log, batch by batch, and writes the tables of one projection.

mod audit_feed;
pub(crate) mod batch;
mod count_check;
mod health;
mod origin;
pub(crate) mod turn;
mod verification;
mod violations;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use event_log::{EventLog, LogError};
use jiff::Timestamp;
use serde::Deserialize;
use service_kit::clock::Clock;
use service_kit::telemetry::traces;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::ahead::{Ahead, find_ahead};
use crate::metrics::{ErrorKind, ProjectorMetrics};
use crate::orders::ORDERS;
use crate::projection::{Events, RowChanges};
use crate::store::{Checkpoint, PREVIOUS_KEPT_FOR, ReadModel, StoreError};
use audit_feed::AuditFeed;
use batch::{Batch, Batches};
use violations::Violations;

pub use health::ProjectorHealth;
pub use origin::OtherEventStore;
pub(crate) use origin::check_origin;

/// First and longest delay between two attempts to reach the database. The first delay also comes
/// between two turns, so that a turn that ends at once is not begun thousands of times a second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long one call to the database may take before it counts as failed: a connection without an
/// answer would block the projector for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the return of the lease may take at the end.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the newest rows are compared with the event store.
const AHEAD_INTERVAL: Duration = Duration::from_secs(15);

/// How often tables that a rebuild replaced are checked for their age.
const RETIRE_INTERVAL: Duration = Duration::from_hours(1);

/// How the projector works (`[projector]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorConfig {
    /// Maximum number of events in one transaction.
    pub batch_size: usize,
    /// Minimum time between two transactions, in milliseconds, unless a batch is full.
    pub batch_ms: u64,
    /// Time between two verifications of all rows, in milliseconds. With 0, only `dofs projections
    /// verify` verifies rows.
    pub verify_interval_ms: u64,
}

/// Why the projector ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    #[error("the read model cannot be projected into")]
    Schema(#[source] StoreError),
    #[error("the read model cannot be projected into")]
    Origin(#[from] OtherEventStore),
}

/// Why a turn ended.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Origin(#[from] OtherEventStore),
    /// The turn of another projector has begun, or another process changed the tables.
    #[error("turn is over")]
    TurnOver,
}

/// Keeps the tables of one projection up to date.
pub struct Projector {
    log: EventLog,
    store: Arc<ReadModel>,
    config: ProjectorConfig,
    clock: Clock,
    /// The name of this projector in the lease.
    holder: String,
    health: ProjectorHealth,
    metrics: ProjectorMetrics,
    violations: Violations,
}

impl Projector {
    /// Creates a projector of the projection of `store`.
    pub fn new(
        log: EventLog,
        store: Arc<ReadModel>,
        config: ProjectorConfig,
        clock: Clock,
    ) -> Self {
        // The process id is for people; the other id makes the name unique.
        let holder = format!("{}-{}", std::process::id(), clock.new_id());
        let metrics = ProjectorMetrics::new(store.projection().name);
        let (health, violations) = (ProjectorHealth::default(), Violations::default());
        Self { log, store, config, clock, holder, health, metrics, violations }
    }

    /// Returns the health of this projector.
    pub fn health(&self) -> ProjectorHealth {
        self.health.clone()
    }

    /// Keeps the tables up to date until `stop`, or stands by while another projector does. Waits for a
    /// database or an event store that fails.
    ///
    /// # Errors
    /// [`ProjectorError::Schema`] if this release does not work with the schema;
    /// [`ProjectorError::Origin`] if the rows come from another event store.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ProjectorError> {
        let mut outage = Outage::new(self.health());
        // Each order has its events in one stream, so one of the projections is enough.
        let is_audited = self.store.projection().name == ORDERS.name;
        let mut audit =
            is_audited.then(|| AuditFeed::start(self.log.clone(), self.violations.clone()));
        loop {
            self.metrics.set_leader(false);
            let taking_turn = Box::pin(self.take_turn(audit.as_mut(), &mut outage));
            let interrupted = stop.run_until_cancelled(taking_turn).await;
            let delay = match interrupted {
                None => break,
                Some(Interruption::Store(
                    error @ (StoreError::SchemaOlder { .. } | StoreError::SchemaNewer { .. }),
                )) => {
                    self.metrics.count_error(ErrorKind::Schema);
                    return Err(ProjectorError::Schema(error));
                }
                Some(Interruption::Origin(error)) => {
                    self.metrics.count_error(ErrorKind::EventStore);
                    return Err(error.into());
                }
                Some(Interruption::TurnOver) => {
                    self.metrics.count_error(ErrorKind::LeaseLost);
                    BACKOFF.0
                }
                // Stands by: the tables may be rebuilt by this release while it runs.
                Some(Interruption::Store(error @ StoreError::ProjectionNewer { .. })) => {
                    self.metrics.count_error(ErrorKind::Schema);
                    outage.note_failure(&error, "tables were written by a newer release")
                }
                Some(Interruption::Store(error)) => {
                    self.metrics.count_error(ErrorKind::ReadModel);
                    outage.note_failure(&error, "read model cannot be used")
                }
                Some(Interruption::Log(error)) => {
                    self.metrics.count_error(ErrorKind::EventStore);
                    outage.note_failure(&error, "event store does not answer")
                }
            };
            if stop.run_until_cancelled(sleep(delay)).await.is_none() {
                break;
            }
        }
        self.give_back_lease().await;
        Ok(())
    }

    /// Waits for the lease and projects until the lease is lost.
    async fn take_turn(&self, audit: Option<&mut AuditFeed>, outage: &mut Outage) -> Interruption {
        let epoch = match self.begin_turn().await {
            Ok(epoch) => epoch,
            Err(error) => return error.into(),
        };
        self.metrics.set_leader(true);
        // When one branch ends, the others are dropped, even in the middle of a write. A transaction that
        // is dropped closes its connection, and the database rolls it back.
        tokio::select! {
            () = turn::keep_turn(&self.store, epoch) => {
                tracing::warn!(epoch, "Another projector has taken over, or the tables changed");
                Interruption::TurnOver
            }
            never = self.drop_retired_tables() => match never {},
            never = self.watch_ahead() => match never {},
            never = self.verify_periodically() => match never {},
            never = self.check_counts_periodically() => match never {},
            ended = self.follow_log(epoch, audit, outage) => match ended {
                Ok(never) => match never {},
                Err(Interruption::Store(StoreError::CheckpointMoved)) => {
                    tracing::warn!(epoch, "Checkpoint was moved by another process, nothing was written");
                    Interruption::TurnOver
                }
                Err(error) => error,
            }
        }
    }

    async fn begin_turn(&self) -> Result<u64, StoreError> {
        limit_call(self.store.check_schema()).await?;
        self.warn_of_old_version().await?;
        turn::wait_for_turn(&self.store, &self.holder, &self.health).await
    }

    /// Warns if an older version of the fold has built the tables: their older rows may differ.
    async fn warn_of_old_version(&self) -> Result<(), StoreError> {
        let projection = self.store.projection();
        let sets = limit_call(self.store.sets()).await?;
        let live = sets.iter().find(|set| set.name == "live");
        if let Some(live) = live.filter(|set| set.projection_version < projection.version) {
            tracing::warn!(
                projection = projection.name,
                found = live.projection_version,
                needed = projection.version,
                "Tables were built by an older version of the projection: run `dofs projections \
                 rebuild --projection NAME`"
            );
        }
        Ok(())
    }

    /// Drops the tables that a rebuild replaced, once they are old. Without the right to drop tables,
    /// this is left to the next rebuild.
    async fn drop_retired_tables(&self) -> Infallible {
        loop {
            if let Ok(retired_before) = self.clock.now().checked_sub(PREVIOUS_KEPT_FOR) {
                match limit_call(self.store.drop_previous(retired_before)).await {
                    Ok(true) => tracing::info!("Tables that a rebuild replaced were dropped"),
                    Ok(false) => {}
                    Err(error) => {
                        let error = &error as &dyn Error;
                        tracing::debug!(error, "Tables that a rebuild replaced cannot be dropped");
                    }
                }
            }
            sleep(RETIRE_INTERVAL).await;
        }
    }

    /// Gives the lease back if this projector holds it, so that a standby need not wait.
    async fn give_back_lease(&self) {
        let given_back = timeout(GIVE_BACK_TIMEOUT, async {
            let lease = self.store.lease().await?;
            // The lease of a standby that has taken over must stay.
            if lease.holder.as_ref() == Some(&self.holder) {
                self.store.give_back_lease(lease.epoch).await?;
            }
            Ok::<_, StoreError>(())
        });
        if !matches!(given_back.await, Ok(Ok(()))) {
            tracing::debug!("Lease not returned: a standby takes it over after its timeout");
        }
    }

    /// Projects from the checkpoint of the tables on.
    async fn follow_log(
        &self,
        epoch: u64,
        mut audit: Option<&mut AuditFeed>,
        outage: &mut Outage,
    ) -> Result<Infallible, Interruption> {
        let mut checkpoint = limit_call(self.store.checkpoint()).await?;
        // Another projector has taken the lease since.
        if checkpoint.epoch != epoch {
            return Err(Interruption::TurnOver);
        }
        // The last batch of the previous turn was written if only the answer to the commit was lost.
        if let Some(audit) = &mut audit {
            audit.release(&checkpoint);
        }
        checkpoint.first_event_id =
            check_origin::<Interruption>(&self.log, &self.store, &checkpoint).await?;
        let subscription = self.log.store().subscribe(checkpoint.position);
        let mut batches = Batches::new(subscription, &self.config, audit.is_some());
        loop {
            let mut batch = batches.next().await;
            // Without this, an idle projector would write a checkpoint every second.
            if batch.is_empty() && batch.position <= checkpoint.position {
                outage.note_success();
                self.metrics.note_success(self.clock.now().as_second());
                continue;
            }
            // The first event of the log comes in the first batch.
            checkpoint.first_event_id = checkpoint.first_event_id.or(batch.first_event_id);
            let now = self.clock.now();
            if let Some(audit) = &mut audit {
                audit.keep(&mut batch);
            }
            let (n_applied, n_skipped) = (batch.events.len() as u64, batch.skipped.len() as u64);
            let began = Instant::now();
            let span = batch.begin_span(self.store.projection().name);
            let projecting = project_batch(&self.store, checkpoint, batch, now);
            let projected = projecting.instrument(span.clone()).await;
            checkpoint = projected.inspect_err(|_| traces::mark_failed(&span, "read_model"))?;
            if let Some(audit) = &mut audit {
                audit.release(&checkpoint);
            }
            self.metrics.record_batch(n_applied, n_skipped, began.elapsed());
            self.metrics.note_success(now.as_second());
            outage.note_success();
        }
    }

    /// Warns if rows reflect events that the log does not have, as after the restore of an older backup:
    /// events that follow may then be missing in the tables. It is only a warning, because a stream
    /// may have been deleted, and a follower of a cluster may be behind. The event store may be
    /// replaced at any time, so the check is repeated.
    async fn watch_ahead(&self) -> Infallible {
        let mut known = None;
        loop {
            // The projection itself reports an event store or a database that cannot be reached.
            if let Ok(ahead) = find_ahead::<Interruption>(&self.log, &self.store).await {
                if let Some(ahead) = ahead.filter(|_| known.is_none()) {
                    let Ahead { order_id, n_events } = ahead;
                    tracing::warn!(
                        %order_id,
                        n_events,
                        "Read model is ahead of the event store: if the store was restored from an \
                         older backup or replaced, run `dofs projections rebuild`"
                    );
                }
                known = ahead;
            }
            sleep(AHEAD_INTERVAL).await;
        }
    }
}

/// Writes the changes of a batch, and returns the checkpoint after it.
pub(crate) async fn project_batch(
    store: &ReadModel,
    from: Checkpoint,
    batch: Batch,
    now: Timestamp,
) -> Result<Checkpoint, StoreError> {
    // The rows are read before the transaction that writes. No other process can change them in between
    // unnoticed: it would first move the epoch, and then `write` fails.
    let order_ids = batch.orders_with_rows();
    let rows = if order_ids.is_empty() {
        BTreeMap::new()
    } else {
        limit_call(store.rows_to_fold(&order_ids)).await?
    };
    let events = Events {
        recorded: &batch.events,
        deletions: &batch.deletions,
        tenants: &batch.tenants,
        operator_commands: &batch.operator_commands,
    };
    let changes = (store.projection().apply)(rows, &events)?;
    let changes = RowChanges { begun: batch.begun, ..changes };
    let to = Checkpoint {
        position: batch.position.or(from.position),
        events_applied: from.events_applied + batch.events.len() as u64,
        events_skipped: from.events_skipped + batch.skipped.len() as u64,
        last_event_at: batch.events.last().map(|event| event.recorded_at).or(from.last_event_at),
        moved_at: Some(now),
        ..from
    };
    // If the answer to the commit is lost, the turn ends, and the next one reads the checkpoint.
    limit_call(store.write(&changes, &from, &to)).await?;
    Ok(to)
}

/// An outage: logged once when it begins and once when it is over.
struct Outage {
    current: Option<Retries>,
    health: ProjectorHealth,
}

/// The retries of an outage.
struct Retries {
    begun: Instant,
    delays: <ExponentialBuilder as BackoffBuilder>::Backoff,
}

impl Outage {
    /// No outage yet.
    fn new(health: ProjectorHealth) -> Self {
        Self { current: None, health }
    }

    /// Notes a failure, and returns how long to wait before the next attempt.
    fn note_failure(&mut self, error: &(dyn Error + 'static), cause: &'static str) -> Duration {
        self.health.note_interruption(cause);
        let retries = self.current.get_or_insert_with(|| {
            tracing::warn!(error, "Projection interrupted, trying again until it works");
            let delays = ExponentialBuilder::default()
                .with_min_delay(BACKOFF.0)
                .with_max_delay(BACKOFF.1)
                .without_max_times()
                .build();
            Retries { begun: Instant::now(), delays }
        });
        tracing::debug!(error, "Projection failed");
        retries.delays.next().unwrap_or(BACKOFF.1)
    }

    /// Notes a success.
    fn note_success(&mut self) {
        self.health.note_work();
        if let Some(retries) = self.current.take() {
            let duration_ms = retries.begun.elapsed().as_millis();
            tracing::info!(duration_ms, "Projection resumed");
        }
    }
}

/// Limits the time of one call to the database.
pub(crate) async fn limit_call<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(StoreError::Timeout))
}
