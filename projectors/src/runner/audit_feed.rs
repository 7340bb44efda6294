//! The audit of the events that the projector receives, in a task of its own.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_log::{ContinuousAudit, EventLog, Position, SubscriptionItem};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::Instrument;

use super::batch::{Batch, wait_until};
use super::violations::Violations;
use crate::store::Checkpoint;

/// Number of batches that may wait for the audit, of 16 MiB each at most. Further batches are not audited.
const MAX_BATCHES: usize = 8;
/// Time between two reads of orders, so that a redrive of many old orders does not load the event store:
/// at most 200 orders per second are read.
const READ_INTERVAL: Duration = Duration::from_millis(5);
/// Delay before the next read after the event store could not be reached.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often unchecked events are logged.
const UNCHECKED_INTERVAL: Duration = Duration::from_mins(1);

/// Passes the events of written batches to the audit. The audit ends when this is dropped.
pub(super) struct AuditFeed {
    arrivals: mpsc::Sender<Vec<SubscriptionItem>>,
    /// The batch that is being written, and its position.
    written: Option<(Position, Vec<SubscriptionItem>)>,
    n_dropped: Arc<AtomicU64>,
    _auditing: JoinSet<()>,
}

/// The task that audits.
struct Auditor {
    log: EventLog,
    audit: ContinuousAudit,
    violations: Violations,
    n_dropped: Arc<AtomicU64>,
}

impl AuditFeed {
    /// Starts an audit.
    pub(super) fn start(log: EventLog, violations: Violations) -> Self {
        let (arrivals, received) = mpsc::channel(MAX_BATCHES);
        let n_dropped = Arc::<AtomicU64>::default();
        let auditor = Auditor {
            log,
            audit: ContinuousAudit::default(),
            violations,
            n_dropped: Arc::clone(&n_dropped),
        };
        let mut auditing = JoinSet::new();
        auditing.spawn(auditor.run(received).in_current_span());
        Self { arrivals, written: None, n_dropped, _auditing: auditing }
    }

    /// Keeps the events and deletions of a batch until it is known whether the batch was written.
    pub(super) fn keep(&mut self, batch: &mut Batch) {
        self.written = batch.position.zip(batch.arrived.take());
    }

    /// Passes the kept batch on if the checkpoint has reached it. Otherwise its events will arrive
    /// again. Never waits: if the audit is too far behind, the batch is not audited.
    pub(super) fn release(&mut self, checkpoint: &Checkpoint) {
        let Some((position, arrived)) = self.written.take() else { return };
        let n_arrived = arrived.len() as u64;
        if n_arrived > 0
            && checkpoint.position >= Some(position)
            && self.arrivals.try_send(arrived).is_err()
        {
            self.n_dropped.fetch_add(n_arrived, Ordering::Relaxed);
        }
    }
}

impl Auditor {
    async fn run(mut self, mut received: mpsc::Receiver<Vec<SubscriptionItem>>) {
        if let Err(error) = self.audit.learn_chain_start(&self.log).await {
            let error = &error as &dyn Error;
            tracing::debug!(error, "Audit does not know where the hash chain begins");
        }
        let mut unchecked = interval(UNCHECKED_INTERVAL);
        unchecked.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_read = Instant::now();
        loop {
            let due = self.audit.next_check_at(next_read).map(|due| due.max(next_read));
            tokio::select! {
                arrived = received.recv() => match arrived {
                    Some(arrived) => self.observe(arrived),
                    None => return,
                },
                () = wait_until(due) => {
                    let delay = self.check_waiting().await;
                    next_read = Instant::now() + delay;
                }
                _ = unchecked.tick() => self.warn_of_unchecked(),
            }
        }
    }

    fn observe(&mut self, arrived: Vec<SubscriptionItem>) {
        let now = Instant::now();
        for item in arrived {
            match item {
                SubscriptionItem::Event(event) => {
                    for finding in self.audit.observe(&event, now) {
                        self.violations.report(&finding);
                    }
                }
                SubscriptionItem::Deleted { order_id, .. } => self.audit.forget(order_id),
                SubscriptionItem::Checkpoint(_) | SubscriptionItem::CaughtUp => {}
            }
        }
    }

    /// Checks one waiting order, and returns the delay before the next one.
    async fn check_waiting(&mut self) -> Duration {
        match self.audit.check_waiting(&self.log, Instant::now()).await {
            Ok(findings) => {
                for finding in &findings {
                    self.violations.report(finding);
                }
                READ_INTERVAL
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::debug!(error, "Orders could not be read for their audit");
                RETRY_DELAY
            }
        }
    }

    fn warn_of_unchecked(&mut self) {
        let n_events = self.audit.take_unchecked() + self.n_dropped.swap(0, Ordering::Relaxed);
        if n_events > 0 {
            tracing::warn!(
                n_events,
                "Events were not audited on arrival, because there were too many or the event store \
                 no longer has them; run `dofs audit verify`"
            );
        }
    }
}
