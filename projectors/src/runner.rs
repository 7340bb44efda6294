//! The projector: follows the log, batch by batch, and keeps the tables.

pub(crate) mod batch;
mod health;
mod origin;
pub(crate) mod turn;
mod verification;

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
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ahead::{Ahead, find_ahead};
use crate::orders::apply::apply;
use crate::orders::row::Changes;
use crate::rebuild::KEPT_FOR;
use crate::store::{Checkpoint, ReadModel, StoreError};
use batch::{Batch, Batches};

pub use health::ProjectorHealth;
pub use origin::OtherEventStore;
pub(crate) use origin::check_origin;

/// Between two tries to reach the database, at first and at most. At first also between two turns,
/// so that one which ends at once is not begun again thousands of times a second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long one call to the database may take before it counts as failed: a connection that
/// nobody answers on would hold the projector for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long giving the lease back may take at the end.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the newest rows are compared with the event store.
const AHEAD_INTERVAL: Duration = Duration::from_secs(15);

/// How often a look is taken at tables that a rebuild replaced.
const RETIRE_INTERVAL: Duration = Duration::from_hours(1);

/// How the projector works (`[projector]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorConfig {
    /// The most events in one transaction.
    pub batch_size: usize,
    /// The least time between two transactions, in milliseconds, unless a batch is full.
    pub batch_ms: u64,
    /// The time between two verifications of all rows, in milliseconds. 0: rows are verified by
    /// `dofs projections verify` only.
    pub verify_interval_ms: u64,
}

/// Why the projector ended without being told to.
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
    /// Somebody else's turn has begun, or the tables were changed under us.
    #[error("turn is over")]
    TurnOver,
}

/// Keeps a read model up to date.
pub struct Projector {
    log: EventLog,
    store: Arc<dyn ReadModel>,
    config: ProjectorConfig,
    clock: Clock,
    /// Our name in the lease.
    holder: String,
    health: ProjectorHealth,
}

impl Projector {
    /// A projector that does nothing yet.
    pub fn new(
        log: EventLog,
        store: Arc<dyn ReadModel>,
        config: ProjectorConfig,
        clock: Clock,
    ) -> Self {
        // The process's id is for people, the other one for certainty.
        let holder = format!("{}-{}", std::process::id(), clock.new_id());
        Self { log, store, config, clock, holder, health: ProjectorHealth::default() }
    }

    /// Whether it works or stands by.
    pub fn health(&self) -> ProjectorHealth {
        self.health.clone()
    }

    /// Keeps the read model up to date until `stop`, or stands by while another projector does. A
    /// database or an event store that fails is waited for.
    ///
    /// # Errors
    /// [`ProjectorError::Schema`] if the schema is not the one that this release knows;
    /// [`ProjectorError::Origin`] if the rows come from another event store.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ProjectorError> {
        let mut outage = Outage::of(self.health());
        loop {
            let interrupted = stop.run_until_cancelled(self.take_turn(&mut outage)).await;
            let delay = match interrupted {
                None => break,
                Some(Interruption::Store(
                    error @ (StoreError::SchemaOlder { .. } | StoreError::SchemaNewer { .. }),
                )) => return Err(ProjectorError::Schema(error)),
                Some(Interruption::Origin(error)) => return Err(error.into()),
                Some(Interruption::TurnOver) => BACKOFF.0,
                Some(Interruption::Store(error)) => {
                    outage.failed(&error, "read model cannot be used")
                }
                Some(Interruption::Log(error)) => {
                    outage.failed(&error, "event store does not answer")
                }
            };
            if stop.run_until_cancelled(sleep(delay)).await.is_none() {
                break;
            }
        }
        self.give_back().await;
        Ok(())
    }

    /// Waits for our turn and projects until it is over.
    async fn take_turn(&self, outage: &mut Outage) -> Interruption {
        let epoch = match self.begin().await {
            Ok(epoch) => epoch,
            Err(error) => return error.into(),
        };
        tokio::select! {
            () = turn::keep(&*self.store, epoch) => {
                tracing::warn!(epoch, "Another projector has taken over, or the tables changed");
                Interruption::TurnOver
            }
            never = self.retire() => match never {},
            never = self.watch_ahead() => match never {},
            never = self.verify_now_and_then() => match never {},
            ended = self.follow(epoch, outage) => match ended {
                Ok(never) => match never {},
                Err(Interruption::Store(StoreError::CheckpointMoved)) => {
                    tracing::warn!(epoch, "Checkpoint moved under us, nothing was written");
                    Interruption::TurnOver
                }
                Err(error) => error,
            }
        }
    }

    async fn begin(&self) -> Result<u64, StoreError> {
        within(self.store.check_schema()).await?;
        turn::begin(&*self.store, &self.holder, &self.health).await
    }

    /// Drops the tables that a rebuild replaced, once they are old. A projector that may not drop
    /// tables leaves it to the next rebuild.
    async fn retire(&self) -> Infallible {
        loop {
            if let Ok(retired_before) = self.clock.now().checked_sub(KEPT_FOR) {
                match within(self.store.drop_previous(retired_before)).await {
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

    /// Ends our turn, if it is ours, so that a projector that stands by need not wait.
    async fn give_back(&self) {
        let given_back = timeout(GIVE_BACK_TIMEOUT, async {
            let lease = self.store.lease().await?;
            if lease.holder.as_ref() == Some(&self.holder) {
                self.store.give_back_lease(lease.epoch).await?;
            }
            Ok::<_, StoreError>(())
        });
        if !matches!(given_back.await, Ok(Ok(()))) {
            tracing::debug!("The lease stays: it is taken over once it is seen to be unchanged");
        }
    }

    /// Projects from the read model's checkpoint on.
    async fn follow(&self, epoch: u64, outage: &mut Outage) -> Result<Infallible, Interruption> {
        let mut checkpoint = within(self.store.checkpoint()).await?;
        if checkpoint.epoch != epoch {
            return Err(Interruption::TurnOver);
        }
        checkpoint.first_event_id =
            check_origin::<Interruption>(&self.log, &*self.store, &checkpoint).await?;
        let subscription = self.log.subscribe(checkpoint.position);
        let mut batches = Batches::new(subscription, &self.config);
        loop {
            let batch = batches.next().await;
            // Nothing has happened: a write would only keep the disk busy.
            if batch.is_empty() && batch.position <= checkpoint.position {
                outage.over();
                continue;
            }
            // Before it, there was none.
            checkpoint.first_event_id = checkpoint.first_event_id.or(batch.first_event_id);
            let now = self.clock.now();
            checkpoint = project(&*self.store, checkpoint, batch, now).await?;
            outage.over();
        }
    }

    /// Warns of rows that know more than the log, which mean an older backup of it: what comes next
    /// may be passed over, and is not in the tables then. A warning only, because a stream may have
    /// been deleted, and a cluster's follower may be behind. The store may be replaced at any time.
    async fn watch_ahead(&self) -> Infallible {
        let mut known = None;
        loop {
            // A store or a database that cannot be reached is told of by the projection itself.
            if let Ok(ahead) = find_ahead::<Interruption>(&self.log, &*self.store).await {
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

/// Writes what the batch changes, and returns the checkpoint behind it.
pub(crate) async fn project(
    store: &dyn ReadModel,
    from: Checkpoint,
    batch: Batch,
    now: Timestamp,
) -> Result<Checkpoint, StoreError> {
    let order_ids = batch.orders_with_rows();
    let rows =
        if order_ids.is_empty() { BTreeMap::new() } else { within(store.rows(&order_ids)).await? };
    let folded = apply(rows, &batch.events, &batch.deletions);
    let changes = Changes { tenants: batch.tenants, begun: batch.begun, ..folded };
    let to = Checkpoint {
        position: batch.position.or(from.position),
        events_applied: from.events_applied + batch.events.len() as u64,
        events_skipped: from.events_skipped + batch.skipped.len() as u64,
        last_event_at: batch.events.last().map(|it| it.recorded_at).or(from.last_event_at),
        moved_at: Some(now),
        ..from
    };
    within(store.write(&changes, &from, &to)).await?;
    Ok(to)
}

/// A time of failures: reported once when it begins and once when it is over.
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
    /// None yet.
    fn of(health: ProjectorHealth) -> Self {
        Self { current: None, health }
    }

    /// Notes a failure, and returns how long to wait before the next try.
    fn failed(&mut self, error: &(dyn Error + 'static), cause: &'static str) -> Duration {
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
    fn over(&mut self) {
        self.health.note_work();
        if let Some(retries) = self.current.take() {
            let duration_ms = retries.begun.elapsed().as_millis();
            tracing::info!(duration_ms, "Projection resumed");
        }
    }
}

pub(crate) async fn within<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(StoreError::Timeout))
}
